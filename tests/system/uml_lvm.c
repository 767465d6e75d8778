// SPDX-License-Identifier: Apache-2.0
//
// The client of uml_lvm.h, under the name of one of LVM's commands. It becomes
// LVM's own program instead while another command is under way, since one that
// hangs must not hold up others, and where the environment tells LVM something.
// Linked statically: 25 ms less a command.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "uml_lvm.h"

static const char kLvm[] = "/usr/sbin/lvm";

// Bytes, or 0 if it can't be said so.
static size_t join(char* const* argv, char* line) {
  size_t size = 0;
  for (; *argv != NULL; ++argv) {
    const size_t length = strlen(*argv);
    if (strchr(*argv, '\'') != NULL || size + length + 4 > kLineBytes) return 0;
    size += (size_t)sprintf(line + size, "'%s' ", *argv);
  }
  return size + 1;
}

static int deactivates(char* const* argv) {
  while (*argv != NULL && strcmp(*argv, "-an") != 0) ++argv;
  return *argv != NULL;
}

// The exit status, or -1: nothing was handed over.
static int hand_over(char* const* argv) {
  char line[kLineBytes];
  const struct uml_lvm_server* chosen = &uml_lvm_servers[deactivates(argv)];
  const size_t size = getenv("LVM_SYSTEM_DIR") == NULL ? join(argv, line) : 0;
  const int lock = open(chosen->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (size == 0 || flock(lock, LOCK_EX | LOCK_NB) != 0) return -1;
  const int descriptors[kDescriptors] = {STDOUT_FILENO, STDERR_FILENO, lock};
  struct request request;
  uml_lvm_prepare(&request, line, size);
  request.control.header.cmsg_level = SOL_SOCKET;
  request.control.header.cmsg_type = SCM_RIGHTS;
  request.control.header.cmsg_len = CMSG_LEN(sizeof(descriptors));
  memcpy(CMSG_DATA(&request.control.header), descriptors, sizeof(descriptors));
  const int server = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (connect(server, (const struct sockaddr*)&chosen->socket,
              sizeof(chosen->socket)) != 0 ||
      sendmsg(server, &request.message, 0) < 0) {
    return -1;
  }
  int status = 0;
  const ssize_t got = recv(server, &status, sizeof(status), 0);
  return got == sizeof(status) ? status : 5;
}

int main(int argc, char** argv) {
  (void)argc;
  char* slash = strrchr(argv[0], '/');
  if (slash != NULL) argv[0] = slash + 1;
  const int status = hand_over(argv);
  if (status >= 0) return status;
  execv(kLvm, argv);
  perror(kLvm);
  return 127;
}
