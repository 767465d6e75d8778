// SPDX-License-Identifier: Apache-2.0
//
// LVM's commands in a guest of uml-run, where to start LVM takes several times
// as long as what a command does then: `uml_lvm_server` stays, with LVM's own
// library in it, as dmeventd has it; `uml_lvm`, under the name of a command,
// hands it over. Deactivations (-an) have a server of their own: after one LVM
// treats hidden volumes as others in all that it does in that process.
//
// A request is the command as one line of text, each word in quotes ('), and
// three descriptors: stdout, stderr and the locked file, which holds the lock
// as long as the server has it, also when the client was killed. The answer is
// an int, LVM's exit status, or -1: there is no such library.
#ifndef SNAPSYNC_TESTS_SYSTEM_UML_LVM_H_
#define SNAPSYNC_TESTS_SYSTEM_UML_LVM_H_

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static const struct uml_lvm_server {
  struct sockaddr_un socket;
  const char* lock;
} uml_lvm_servers[] = {
    {{AF_UNIX, "/run/uml/lvm"}, "/run/uml/lvm.lock"},
    {{AF_UNIX, "/run/uml/deactivate"}, "/run/uml/deactivate.lock"}};

enum { kOut, kError, kLock, kDescriptors };
enum { kLineBytes = 4096 };

struct request {
  struct iovec line;
  struct msghdr message;
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(kDescriptors * sizeof(int))];
  } control;
};

static inline void uml_lvm_prepare(struct request* request, char* line,
                                   size_t size) {
  request->line.iov_base = line;
  request->line.iov_len = size;
  request->message.msg_name = 0;
  request->message.msg_namelen = 0;
  request->message.msg_iov = &request->line;
  request->message.msg_iovlen = 1;
  request->message.msg_control = request->control.bytes;
  request->message.msg_controllen = sizeof(request->control.bytes);
  request->message.msg_flags = 0;
}

#endif  // SNAPSYNC_TESTS_SYSTEM_UML_LVM_H_
