// SPDX-License-Identifier: Apache-2.0
#include "common/lvm/physical_volumes.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace snapsync {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kGroup[] = "ocjkdl-Gxap-TAg3-Fe5r-ih1m-lp2G-pyVwiK";
constexpr char kPrefix[] = "LVM-ocjkdlGxapTAg3Fe5rih1mlp2GpyVwiK";

class PhysicalVolumes : public ::testing::Test {
 protected:
  ~PhysicalVolumes() override { std::filesystem::remove_all(sysfs_); }

  void Add(const std::string& device, const std::string& uuid,
           const std::vector<std::string>& below) {
    const std::string folder = sysfs_ + "/class/block/" + device;
    std::filesystem::create_directories(folder + "/slaves");
    for (const std::string& name : below) {
      std::filesystem::create_directories(folder + "/slaves/" + name);
    }
    if (uuid.empty()) return;
    std::filesystem::create_directories(folder + "/dm");
    std::ofstream(folder + "/dm/uuid") << uuid << "\n";
  }

  const std::string sysfs_ =
      ::testing::TempDir() + "/snapsync-sysfs-" + std::to_string(::getpid());
};

TEST_F(PhysicalVolumes, AreWhatLiesBelowTheGroupsLowestLayer) {
  Add("sda", "", {});
  Add("sdb", "", {});
  Add("dm-9", "CRYPT-LUKS2-x", {"sdb"});
  Add("dm-0", std::string(kPrefix) + "tmeta", {"sda"});
  Add("dm-1", std::string(kPrefix) + "tdata", {"sda", "dm-9"});
  Add("dm-2", std::string(kPrefix) + "tpool", {"dm-0", "dm-1"});
  Add("dm-3", std::string(kPrefix) + "volume", {"dm-2"});
  const auto found = FindPhysicalVolumes(kGroup, sysfs_);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(*found, ElementsAre("dm-9", "sda"));
}

TEST_F(PhysicalVolumes, OfAnotherGroupAreLeftAlone) {
  Add("sda", "", {});
  Add("dm-0", "LVM-anotherGroup", {"sda"});
  const auto found = FindPhysicalVolumes(kGroup, sysfs_);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(*found, IsEmpty());
}

}  // namespace
}  // namespace snapsync
