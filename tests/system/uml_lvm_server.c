// SPDX-License-Identifier: Apache-2.0
//
// A server of uml_lvm.h; its argument is its number there. It never ends. LVM's
// library is loaded for the first command. After one that failed all begins
// anew, since nobody asks of LVM that it goes on in one process after any
// failure.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "uml_lvm.h"

enum { kListening = 3 };  // the descriptor, also after all began anew

static void open_nothing(int descriptor) {
  const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(nothing, descriptor);
  close(nothing);
}

// The answer; by the functions and values of <lvm2cmd.h>.
static int run(const char* line) {
  static void* lvm;
  static int (*lvm2_run)(void*, const char*);
  if (lvm == NULL) {
    // What is freed will be wanted again.
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
    mallopt(M_MMAP_THRESHOLD, 1 << 25);
    void* library = dlopen("liblvm2cmd.so.2.03", RTLD_NOW);
    if (library == NULL) return -1;
    void* (*lvm2_init)(void) = (void* (*)(void))dlsym(library, "lvm2_init");
    lvm2_run = (int (*)(void*, const char*))dlsym(library, "lvm2_run");
    lvm = lvm2_init();
    if (lvm == NULL) return -1;
  }
  const int status = lvm2_run(lvm, line);
  return status == 1 ? 0 : status;
}

static void serve(int client, char* const* argv) {
  char line[kLineBytes];
  struct request request;
  uml_lvm_prepare(&request, line, sizeof(line));
  if (recvmsg(client, &request.message, MSG_CMSG_CLOEXEC) <= 0 ||
      request.message.msg_controllen < sizeof(request.control.bytes)) {
    return;
  }
  int descriptors[kDescriptors];
  memcpy(descriptors, CMSG_DATA(&request.control.header), sizeof(descriptors));
  for (int i = kOut; i <= kError; ++i) {
    dup2(descriptors[i], STDOUT_FILENO + i);
    close(descriptors[i]);
  }
  const int status = run(line);
  fflush(stdout);
  for (int i = kOut; i <= kError; ++i) open_nothing(STDOUT_FILENO + i);
  close(descriptors[kLock]);
  send(client, &status, sizeof(status), MSG_NOSIGNAL);
  if (status == 0) return;
  fcntl(kListening, F_SETFD, 0);
  execv("/proc/self/exe", argv);
}

static int listen_at(const struct sockaddr_un* address) {
  const int listening = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  if (bind(listening, (const struct sockaddr*)address, sizeof(*address)) != 0 ||
      listen(listening, 16) != 0 || dup2(listening, kListening) < 0) {
    perror("uml_lvm_server");
    return 0;
  }
  if (listening != kListening) close(listening);
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  if (fcntl(kListening, F_GETFD) < 0 &&
      !listen_at(&uml_lvm_servers[*argv[1] == '1'].socket)) {
    return 1;
  }
  fcntl(kListening, F_SETFD, FD_CLOEXEC);  // not for what LVM starts
  for (int i = 0; i < kListening; ++i) open_nothing(i);
  signal(SIGPIPE, SIG_IGN);
  while (1) {
    const int client = accept4(kListening, NULL, NULL, SOCK_CLOEXEC);
    serve(client, argv);
    close(client);
  }
}
