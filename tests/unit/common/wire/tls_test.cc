// SPDX-License-Identifier: Apache-2.0
#include "common/wire/tls.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "common/base/error.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync {
namespace {

// Certificates by certs/make-certs, as an operator makes them: two nodes of one
// CA, and one of another.
class TlsFilesTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    // Each test may be a process of its own, beside the others.
    folder_ = std::make_unique<TemporaryFolder>();
    Make("ours nas1 nas2");
    Make("theirs nas3");
  }
  static void TearDownTestSuite() { folder_.reset(); }
  static void Make(const std::string& arguments) {
    const size_t space = arguments.find(' ');
    const std::string command =
        std::string(SNAPSYNC_SOURCE_DIR "/certs/make-certs ") +
        *folder_ / arguments.substr(0, space) + arguments.substr(space) +
        " >/dev/null 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  static std::string Path(const std::string& name) { return *folder_ / name; }
  static wire::TlsFiles Good() {
    return {Path("ours/ca.crt"), Path("ours/nas1.crt"), Path("ours/nas1.key")};
  }
  static void ExpectRefusal(const wire::TlsFiles& files,
                            const std::string& file, const std::string& why) {
    const absl::Status status = wire::CheckTlsFiles(files).status();
    ASSERT_FALSE(status.ok()) << why;
    EXPECT_EQ(ReasonOf(status), Reason::kPermission) << status;
    EXPECT_NE(MessageOf(status).find(file), std::string_view::npos) << status;
    EXPECT_NE(MessageOf(status).find(why), std::string_view::npos) << status;
  }

  inline static std::unique_ptr<TemporaryFolder> folder_;
};

TEST_F(TlsFilesTest, GoodFilesTellTheNodesName) {
  const auto name = wire::CheckTlsFiles(Good());
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_EQ(*name, "nas1");
}

TEST_F(TlsFilesTest, MissingFilesAndOptionsAreNamed) {
  wire::TlsFiles files = Good();
  files.certificate = Path("ours/nobody.crt");
  ExpectRefusal(files, "nobody.crt", "No such file");
  files = Good();
  files.key = "";
  ExpectRefusal(files, "--tls-key", "no certificate");
}

TEST_F(TlsFilesTest, ACertificateOfAnotherCaIsRefused) {
  wire::TlsFiles files = Good();
  files.ca = Path("theirs/ca.crt");
  ExpectRefusal(files, "nas1.crt", "was not issued by the CA in");
}

TEST_F(TlsFilesTest, AKeyOfAnotherCertificateIsRefused) {
  wire::TlsFiles files = Good();
  files.key = Path("ours/nas2.key");
  ExpectRefusal(files, "nas2.key", "is not the key of the certificate");
}

TEST_F(TlsFilesTest, AKeyThatOthersCanReadIsRefused) {
  wire::TlsFiles files = Good();
  files.key = Path("open.key");
  std::filesystem::copy_file(Path("ours/nas1.key"), files.key,
                             std::filesystem::copy_options::overwrite_existing);
  ::chmod(files.key.c_str(), 0644);
  ExpectRefusal(files, "open.key", "chmod 600");
}

TEST_F(TlsFilesTest, GarbageIsRefused) {
  wire::TlsFiles files = Good();
  files.certificate = Path("garbage");
  std::ofstream(files.certificate) << "not PEM at all";
  ExpectRefusal(files, "garbage", "holds no PEM certificate");
}

TEST_F(TlsFilesTest, TheCaItselfIsNoNode) {
  wire::TlsFiles files = Good();
  files.certificate = Path("ours/ca.crt");
  files.key = Path("ours/ca.key");
  ExpectRefusal(files, "ca.crt", "exactly one URI");
}

TEST_F(TlsFilesTest, NobodyListeningIsAConnectionNotAPermission) {
  const absl::Status status = wire::DiagnoseConnection(Good(), "127.0.0.1", 1);
  EXPECT_EQ(ReasonOf(status), Reason::kConnection) << status;
}

}  // namespace
}  // namespace snapsync
