// SPDX-License-Identifier: Apache-2.0
//
// snapsync-qcow2-reader: started by the programs that read QCOW2 images, of no
// use by hand.
#include <fcntl.h>

#include <iostream>

#include "common/qcow2/reader_protocol.h"
#include "common/qcow2/reader_server.h"

int main() {
  if (::fcntl(snapsync::qcow2::kMemoryFd, F_GETFD) < 0) {
    std::cerr << "snapsync-qcow2-reader is a part of snapsync-send and "
                 "snapsync-agent; it is not for use by hand\n";
    return 2;
  }
  snapsync::qcow2::RunReaderServer();
}
