// SPDX-License-Identifier: Apache-2.0
//
// Field numbers are the wire's format: what two versions of the program agree
// on. They may be added, never changed. To accept an addition, write the text
// that this test prints into tests/golden/fields.txt.
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "snapsync/v1/agent.pb.h"
#include "snapsync/v1/errors.pb.h"
#include "snapsync/v1/replication.pb.h"
#include "snapsync/v1/types.pb.h"

namespace snapsync {
namespace {

void Describe(const google::protobuf::Descriptor& message, std::string& text) {
  for (int i = 0; i < message.field_count(); ++i) {
    const google::protobuf::FieldDescriptor& field = *message.field(i);
    text += message.full_name() + " " + std::to_string(field.number()) + " " +
            field.name() + " " + field.type_name() +
            (field.is_repeated() ? " repeated" : "") + "\n";
  }
  for (int i = 0; i < message.nested_type_count(); ++i) {
    Describe(*message.nested_type(i), text);
  }
}

TEST(FieldNumbersTest, AreThoseOfTheGoldenFile) {
  std::string text;
  for (const google::protobuf::FileDescriptor* file :
       {v1::Volume::descriptor()->file(), v1::ErrorDetail::descriptor()->file(),
        v1::PushRequest::descriptor()->file(),
        v1::GetInfoRequest::descriptor()->file()}) {
    for (int i = 0; i < file->message_type_count(); ++i) {
      Describe(*file->message_type(i), text);
    }
    for (int i = 0; i < file->service_count(); ++i) {
      for (int j = 0; j < file->service(i)->method_count(); ++j) {
        text += file->service(i)->method(j)->full_name() + "\n";
      }
    }
  }
  std::ifstream golden(SNAPSYNC_SOURCE_DIR "/tests/golden/fields.txt");
  std::stringstream expected;
  expected << golden.rdbuf();
  EXPECT_EQ(text, expected.str()) << "the fields are now:\n" << text;
}

}  // namespace
}  // namespace snapsync
