// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/image_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temporary_folder.h"

namespace snapsync::qcow2 {
namespace {

using Role = FileSource::Role;

class ImageFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_ / "images/sub");
    WriteContents(image_, "image");
    WriteContents(folder_ / "images/base", "base");
    WriteContents(folder_ / "images/sub/base", "the other base");
    WriteContents(folder_ / "outside", "outside");
  }

  // What comes of a name in the image.
  absl::StatusOr<NumberedFile> OpenNamed(const std::string& name,
                                         const FilePolicy& policy = {},
                                         Role role = Role::kBacking) {
    ImageFiles files(image_, policy);
    const auto image = files.OpenImage();
    EXPECT_THAT(image, IsOk());
    return files.OpenNamed(role, 0, name);
  }

  TemporaryFolder folder_;
  const std::string image_ = folder_ / "images/image";
  const FilePolicy anywhere_ = {.allow_anywhere = true};
};

TEST_F(ImageFilesTest, NumbersFilesInTheOrderOfOpening) {
  ImageFiles files(image_, {});
  const auto image = files.OpenImage();
  ASSERT_THAT(image, IsOk());
  EXPECT_EQ(image->number, 0U);
  EXPECT_EQ(image->file->size(), 5U);
  EXPECT_EQ(image->file->name(), image_);
  const auto base = files.OpenNamed(Role::kBacking, 0, "./sub/base");
  ASSERT_THAT(base, IsOk());
  EXPECT_EQ(base->number, 1U);
  EXPECT_EQ(base->file->size(), 14U);
  EXPECT_EQ(files.files().size(), 2U);
}

TEST_F(ImageFilesTest, ANameIsRelativeToTheFileThatHasIt) {
  std::filesystem::create_directories(folder_ / "images/sub/sub");
  WriteContents(folder_ / "images/sub/sub/last", "last");
  ImageFiles files(image_, {});
  ASSERT_THAT(files.OpenImage(), IsOk());
  ASSERT_THAT(files.OpenNamed(Role::kBacking, 0, "sub/base"), IsOk());
  EXPECT_THAT(files.OpenNamed(Role::kBacking, 1, "sub/last"), IsOk());
  EXPECT_THAT(files.OpenNamed(Role::kBacking, 1, "sub/base"),
              FailsWith(Reason::kIo, "can't be opened"));
}

TEST_F(ImageFilesTest, ARelativePathOfTheImageIsRelativeToOurFolder) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder_ / "images");
  ImageFiles files("image", {});
  EXPECT_THAT(files.OpenImage(), IsOk());
  EXPECT_THAT(files.OpenNamed(Role::kBacking, 0, "base"), IsOk());
  std::filesystem::current_path(before);
}

TEST_F(ImageFilesTest, NamesThatLeadOutAreRefusedUnlessAllowed) {
  for (const std::string& name :
       {folder_ / "outside", std::string("../outside"),
        std::string("sub/../../outside")}) {
    EXPECT_THAT(OpenNamed(name), FailsWith(Reason::kPermission, "anywhere"));
    EXPECT_THAT(OpenNamed(name, anywhere_), IsOk());
  }
  EXPECT_THAT(OpenNamed("sub/../base"),
              FailsWith(Reason::kPermission, "anywhere"));
  // Two dots alone lead out, not those within a name.
  WriteContents(folder_ / "images/a..b", "dots");
  EXPECT_THAT(OpenNamed("a..b"), IsOk());
}

TEST_F(ImageFilesTest, SymbolicLinksAreRefusedUnlessAllowed) {
  std::filesystem::create_symlink("../outside", folder_ / "images/link");
  std::filesystem::create_symlink("sub", folder_ / "images/linked");
  for (const char* name : {"link", "linked/base"}) {
    EXPECT_THAT(OpenNamed(name),
                FailsWith(Reason::kPermission, "symbolic link"));
    EXPECT_THAT(OpenNamed(name, anywhere_), IsOk());
  }
  const std::string link = folder_ / "images/link";
  EXPECT_THAT(ImageFiles(link, {}).OpenImage(),
              FailsWith(Reason::kPermission, "symbolic link"));
  EXPECT_THAT(ImageFiles(link, anywhere_).OpenImage(), IsOk());
}

TEST_F(ImageFilesTest, ProtocolsAreRefusedWhateverIsAllowed) {
  for (const char* name : {"json:{\"driver\":\"raw\"}", "nbd:host:1",
                           "nbd://host/", "file:base", ":", "fat:/etc"}) {
    EXPECT_THAT(OpenNamed(name, anywhere_),
                FailsWith(Reason::kPermission, "protocol"));
  }
  WriteContents(folder_ / "images/a:b", "colon");
  EXPECT_THAT(OpenNamed("./a:b"), IsOk());
}

TEST_F(ImageFilesTest, OnlyRegularFilesAreOpened) {
  ASSERT_EQ(::mkfifo((folder_ / "images/fifo").c_str(), 0600), 0);
  const FilePolicy all = {.allow_anywhere = true, .allow_devices = true};
  for (const char* name : {"fifo", "sub", "/dev/null", "/dev/tty"}) {
    EXPECT_THAT(OpenNamed(name, all),
                FailsWith(Reason::kPermission, "neither a regular file"));
  }
}

TEST_F(ImageFilesTest, ADataFileNeedsConsent) {
  EXPECT_THAT(OpenNamed("base", anywhere_, Role::kData),
              FailsWith(Reason::kPermission, "external data file base"));
  FilePolicy policy;
  policy.allow_data_file = true;
  EXPECT_THAT(OpenNamed("base", policy, Role::kData), IsOk());
  EXPECT_THAT(OpenNamed("../outside", policy, Role::kData),
              FailsWith(Reason::kPermission, "anywhere"));
}

TEST_F(ImageFilesTest, NoFileIsOpenedTwice) {
  EXPECT_THAT(OpenNamed("image"), FailsWith(Reason::kIo, "comes back"));
  std::filesystem::create_hard_link(image_, folder_ / "images/hard");
  EXPECT_THAT(OpenNamed("hard"), FailsWith(Reason::kIo, "comes back"));
}

TEST_F(ImageFilesTest, ErrorsShowNamesPrintably) {
  EXPECT_THAT(OpenNamed("a\x1b[2J\n"),
              FailsWith(Reason::kIo, "backing file a\\x1b[2J\\x0a"));
  EXPECT_THAT(OpenNamed(""), FailsWith(Reason::kIo, "without a name"));
  EXPECT_THAT(OpenNamed(std::string("a\0b", 3)),
              FailsWith(Reason::kIo, "without a name"));
}

TEST_F(ImageFilesTest, ThereIsAnEndOfFiles) {
  ImageFiles files(image_, {});
  ASSERT_THAT(files.OpenImage(), IsOk());
  absl::Status status;
  uint32_t opened = 0;
  for (; opened < 100 && status.ok(); ++opened) {
    const std::string name = std::to_string(opened);
    WriteContents(folder_ / "images/" + name, "x");
    status = files.OpenNamed(Role::kBacking, opened, name).status();
  }
  EXPECT_THAT(status,
              FailsWith(Reason::kTargetUnsuitable, "one file too many"));
  EXPECT_LE(opened, 2 * kMaxChainFiles);
}

}  // namespace
}  // namespace snapsync::qcow2
