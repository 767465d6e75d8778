// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/confined_image.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "common/base/aligned_buffer.h"
#include "common/base/units.h"
#include "gtest/gtest.h"
#include "tests/testing/random.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/common/qcow2/running_qemu.h"

namespace snapsync::qcow2 {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kDisk = 4 * kMiB;

class ConfinedImageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    MustRun({"qemu-img", "create", "-q", "-f", "qcow2", image_, "4M"});
    MustRun({"qemu-io", "-c", "write -P 17 100k 300k", "-c",
             "write -P 34 1M 1M", image_});
  }

  std::string PathBesideUs(const std::string& name) const {
    return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
  }

  // Options with a reader that an image has taken over.
  ReaderOptions Hostile(const std::string& how) const {
    const std::string script = folder_ / how;
    WriteContents(script, "#!/bin/sh\nexec " +
                              PathBesideUs("hostile_qcow2_reader") + " " + how +
                              "\n");
    ::chmod(script.c_str(), 0700);
    return {script, std::chrono::seconds(2)};
  }

  TemporaryFolder folder_;
  const std::string image_ = folder_ / "disk.qcow2";
};

std::string Contents(BlockReader& reader) {
  AlignedBuffer buffer(reader.size());
  const ReadOperation read{0, buffer.span()};
  EXPECT_THAT(reader.Read({&read, 1}), IsOk());
  return {reinterpret_cast<const char*>(buffer.data()), buffer.size()};
}

TEST_F(ConfinedImageTest, ReadsWhatTheLocalReaderReads) {
  const auto local = OpenImage(image_, {});
  const auto confined = OpenConfinedImage(image_, {});
  ASSERT_THAT(local, IsOk());
  ASSERT_THAT(confined, IsOk());
  EXPECT_EQ((*confined)->size(), kDisk);
  EXPECT_EQ((*confined)->name(), image_);
  EXPECT_EQ((*confined)->facts().cluster_size, 65536U);
  EXPECT_EQ((*confined)->facts().version, 3U);
  EXPECT_EQ((*confined)->facts().files, 1U);
  EXPECT_TRUE(Contents(**confined) == Contents(**local));
  const auto extents = (*confined)->DataExtents();
  ASSERT_THAT(extents, IsOk());
  EXPECT_EQ(*extents, *(*local)->DataExtents());
  ExtentList expected;
  expected.Append({65536, 384 * kKiB});
  expected.Append({kMiB, kMiB});
  EXPECT_EQ(*extents, expected);
}

TEST_F(ConfinedImageTest, TakesAnyReadsFromManyThreads) {
  const std::string packed = folder_ / "packed.qcow2";
  MustRun({"qemu-img", "convert", "-c", "-O", "qcow2", "-o", "cluster_size=4k",
           image_, packed});
  MustRun({"qemu-io", "-c", "write -P 5 1500k 20k", packed});
  const auto image = OpenConfinedImage(packed, {});
  ASSERT_THAT(image, IsOk());
  const std::string expected = Contents(**image);
  EXPECT_EQ(expected[150 * kKiB], 17);
  EXPECT_EQ(expected[1510 * kKiB], 5);
  const auto read_some = [&](uint64_t seed) {
    Random random(seed);
    for (int round = 0; round < 50; ++round) {
      std::vector<AlignedBuffer> buffers;
      std::vector<ReadOperation> reads;
      uint64_t at = random.Below(kDisk / 512) * 512;
      for (uint64_t count = random.Between(1, 8); count > 0; --count) {
        // Some go on where the one before ended.
        if (random.Percent(50)) at = random.Below(kDisk / 512) * 512;
        const uint64_t length =
            std::min(kDisk - at, random.Below(1 + kMiB / 512) * 512);
        buffers.emplace_back(length);
        reads.push_back({at, buffers.back().span()});
        at += length;
      }
      ASSERT_THAT((*image)->Read(reads), IsOk());
      for (const ReadOperation& read : reads) {
        ASSERT_TRUE(std::memcmp(read.data.data(), expected.data() + read.offset,
                                read.data.size()) == 0)
            << read.offset << " " << read.data.size();
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back(read_some, seed);
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ConfinedImageTest, RefusesReadsThatAreNotWithinTheDisk) {
  const auto image = OpenConfinedImage(image_, {});
  ASSERT_THAT(image, IsOk());
  AlignedBuffer buffer(1024);
  for (const ReadOperation& read :
       {ReadOperation{kDisk, buffer.span()},
        ReadOperation{kDisk - 512, buffer.span()},
        ReadOperation{100, buffer.span()},
        ReadOperation{0, buffer.span().first(100)},
        ReadOperation{UINT64_MAX - 511, buffer.span()}}) {
    EXPECT_THAT((*image)->Read({&read, 1}),
                FailsWith(Reason::kIo, "not within the disk"));
  }
  // And is none the worse for it.
  EXPECT_EQ(Contents(**image)[kMiB], 34);
}

TEST_F(ConfinedImageTest, TheProcessHasNoRights) {
  const auto image = OpenConfinedImage(image_, {});
  ASSERT_THAT(image, IsOk());
  std::string statuses;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string status = ContentsOf(entry.path() / "status");
    if (status.find("\nPPid:\t" + std::to_string(::getpid()) + "\n") !=
        std::string::npos) {
      statuses += status;
    }
  }
  EXPECT_THAT(statuses, HasSubstr("Name:\tsnapsync-qcow2"));
  EXPECT_THAT(statuses, HasSubstr("\nSeccomp:\t2\n"));
  EXPECT_THAT(statuses, HasSubstr("\nNoNewPrivs:\t1\n"));
  EXPECT_THAT(statuses, HasSubstr("\nCapEff:\t0000000000000000\n"));
  EXPECT_THAT(statuses, HasSubstr("\nCapPrm:\t0000000000000000\n"));
  if (::geteuid() == 0) {
    EXPECT_THAT(statuses, HasSubstr("\nUid:\t65534\t65534\t65534\t65534\n"));
    EXPECT_THAT(statuses, HasSubstr("\nGid:\t65534\t65534\t65534\t65534\n"));
  }
}

TEST_F(ConfinedImageTest, EndsItsProcess) {
  pid_t process = 0;
  {
    const auto image = OpenConfinedImage(image_, {});
    ASSERT_THAT(image, IsOk());
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string status = ContentsOf(entry.path() / "status");
      if (status.find("\nPPid:\t" + std::to_string(::getpid()) + "\n") !=
          std::string::npos) {
        process = std::atoi(entry.path().filename().c_str());
      }
    }
    ASSERT_GT(process, 0);
  }
  EXPECT_EQ(::kill(process, 0), -1);
}

TEST_F(ConfinedImageTest, AnImageThatAMachineWritesToIsBusy) {
  {
    const OpenInQemu machine(image_, OpenInQemu::Mode::kReadWrite);
    EXPECT_THAT(OpenConfinedImage(image_, {}),
                FailsWith(Reason::kBusy, image_));
    ImageOptions options;
    options.files.ignore_locks = true;
    EXPECT_THAT(OpenConfinedImage(image_, options), IsOk());
  }
  const auto image = OpenConfinedImage(image_, {});
  ASSERT_THAT(image, IsOk());
  // While it is read nobody writes to it.
  EXPECT_FALSE(Succeeds({"qemu-io", "-c", "write 0 512", image_}));
}

TEST_F(ConfinedImageTest, AMissingProgramIsNamed) {
  EXPECT_THAT(OpenConfinedImage(image_, {}, {folder_ / "nothing", {}}),
              FailsWith(Reason::kConfiguration, "nothing can't be started"));
}

struct HostileCase {
  const char* how;
  Reason reason;
  const char* text;
};

TEST_F(ConfinedImageTest, AReaderThatIsTakenOverCantOpenWhatItLikes) {
  constexpr char kNonsense[] = "answered with nonsense";
  for (const HostileCase& hostile : {
           HostileCase{"exit", Reason::kOther, "ended with status 3"},
           {"out_of_memory", Reason::kOther, "512 MiB of memory"},
           {"crash", Reason::kOther, "was killed by signal 9"},
           {"silence", Reason::kOther, "silent for 2 s"},
           {"silence_later", Reason::kOther, "silent for 2 s"},
           {"garbage", Reason::kOther, kNonsense},
           {"empty_packet", Reason::kOther, "is gone"},
           {"failure", Reason::kIo, "\\x1b[2Jxxx"},
           {"passwd", Reason::kPermission, "/etc/passwd"},
           {"named_before_the_image", Reason::kOther, kNonsense},
           {"the_image_twice", Reason::kOther, kNonsense},
           {"another_role", Reason::kOther, kNonsense},
           {"no_files", Reason::kOther, kNonsense},
           {"odd_size", Reason::kOther, kNonsense},
           {"huge_size", Reason::kOther, kNonsense},
       }) {
    SCOPED_TRACE(hostile.how);
    EXPECT_THAT(OpenConfinedImage(image_, {}, Hostile(hostile.how)),
                FailsWith(hostile.reason, hostile.text));
  }
}

TEST_F(ConfinedImageTest, AReaderThatIsTakenOverCantMisleadReads) {
  constexpr char kNonsense[] = "answered with nonsense";
  for (const HostileCase& hostile : {
           HostileCase{"no_runs", Reason::kOther, kNonsense},
           {"too_many_runs", Reason::kOther, kNonsense},
           {"runs_cut", Reason::kOther, kNonsense},
           {"run_of_nothing", Reason::kOther, kNonsense},
           {"run_too_long", Reason::kOther, kNonsense},
           {"run_endless", Reason::kOther, kNonsense},
           {"run_odd", Reason::kOther, kNonsense},
           {"another_source", Reason::kOther, kNonsense},
           {"another_file", Reason::kOther, kNonsense},
           {"odd_offset", Reason::kOther, kNonsense},
           {"beyond_the_file", Reason::kOther, kNonsense},
           {"around_the_end", Reason::kOther, kNonsense},
           {"bytes_left_over", Reason::kOther, kNonsense},
           {"another_message", Reason::kOther, kNonsense},
           {"long_packet", Reason::kIo, "too long"},
           {"crash_when_read", Reason::kOther, "was killed by signal 9"},
           {"silence_when_read", Reason::kOther, "silent for 2 s"},
       }) {
    SCOPED_TRACE(hostile.how);
    const auto image = OpenConfinedImage(image_, {}, Hostile(hostile.how));
    ASSERT_THAT(image, IsOk());
    EXPECT_EQ((*image)->facts().identity, std::nullopt);
    AlignedBuffer buffer(1024);
    const ReadOperation read{1024, buffer.span()};
    EXPECT_THAT((*image)->Read({&read, 1}),
                FailsWith(hostile.reason, hostile.text));
    // Nothing that it says is believed any more, and nobody waits for it.
    EXPECT_THAT((*image)->DataExtents(),
                FailsWith(hostile.reason, hostile.text));
  }
}

TEST_F(ConfinedImageTest, AReaderThatIsTakenOverCantMisleadExtents) {
  for (const char* how :
       {"extents_stand_still", "extents_beyond_the_end", "extents_past_next",
        "extents_endless", "extents_odd", "extents_cut", "extents_flood",
        "extents_backwards"}) {
    SCOPED_TRACE(how);
    const auto image = OpenConfinedImage(image_, {}, Hostile(how));
    ASSERT_THAT(image, IsOk());
    EXPECT_THAT((*image)->DataExtents(),
                FailsWith(Reason::kOther, "answered with nonsense"));
  }
}

}  // namespace
}  // namespace snapsync::qcow2
