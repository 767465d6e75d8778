// SPDX-License-Identifier: Apache-2.0
//
// The confined process that reads an image (reader_protocol.h): it parses,
// checks and decompresses, has no rights and no files but those that it is
// given, and says where the plain data are instead of passing them on.
//
// It starts with nothing in its memory but its own program: no keys, no data
// of other images, no threads that hold locks. That is why it is a program of
// its own and no fork of the one that wants the image.
#ifndef SNAPSYNC_COMMON_QCOW2_READER_SERVER_H_
#define SNAPSYNC_COMMON_QCOW2_READER_SERVER_H_

namespace snapsync::qcow2 {

// Serves one image on the descriptors that the protocol names, until the other
// end is gone; then the process ends.
[[noreturn]] void RunReaderServer();

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_READER_SERVER_H_
