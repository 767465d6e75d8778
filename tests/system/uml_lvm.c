// SPDX-License-Identifier: Apache-2.0
//
// The client of uml_lvm.h, under the name of one of LVM's commands. It becomes
// LVM's own program instead while another command is under way, since one that
// hangs must not hold up others, where the environment tells LVM something, and
// where the server can't do it.
//
// Without a C library, of whose start a guest's page faults take 20 ms.
#include <asm/unistd.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/file.h>

#include "uml_lvm.h"
#include "uml_pages.h"

static long call(long number, long first, const void* second, long third) {
  return uml_call(number, (uintptr_t)first, (uintptr_t)second, third);
}

static char* copy(char* to, const char* from) {
  while (*from != '\0') *to++ = *from++;
  return to;
}

static size_t length(const char* text) {
  size_t size = 0;
  while (text[size] != '\0') ++size;
  return size;
}

static int begins(const char* text, const char* with) {
  while (*with != '\0' && *text == *with) ++text, ++with;
  return *with == '\0';
}

static int any_begins(char* const* words, const char* with) {
  while (*words != 0 && !begins(*words, with)) ++words;
  return *words != 0;
}

static int has_quote(const char* word) {
  while (*word != '\0' && *word != '\'') ++word;
  return *word != '\0';
}

// Bytes, or 0 if it can't be said so.
static size_t join(char* const* words, char* line) {
  char* end = line;
  for (; *words != 0; ++words) {
    const size_t left = (size_t)(line + kLineBytes - end);
    if (has_quote(*words) || length(*words) + 4 > left) return 0;
    end = copy(copy(copy(end, "'"), *words), "' ");
  }
  *end++ = '\0';
  return (size_t)(end - line);
}

// The exit status, or -1: nothing was done.
static int hand_over(char* const* words) {
  char line[kLineBytes];
  const size_t size = join(words, line);
  const struct uml_lvm_server* chosen =
      &uml_lvm_servers[any_begins(words, "-an")];
  const long lock = call(SYS_open, (long)chosen->lock,
                         (void*)(O_RDWR | O_CREAT | O_CLOEXEC), 0600);
  if (size == 0 || call(SYS_flock, lock, (void*)(LOCK_EX | LOCK_NB), 0) != 0) {
    return -1;
  }
  struct request request;
  uml_lvm_prepare(&request, line, size);
  request.control.header.cmsg_level = SOL_SOCKET;
  request.control.header.cmsg_type = SCM_RIGHTS;
  request.control.header.cmsg_len = CMSG_LEN(kDescriptors * sizeof(int));
  int* descriptors = (int*)CMSG_DATA(&request.control.header);
  descriptors[kOut] = 1;
  descriptors[kError] = 2;
  descriptors[kLock] = (int)lock;
  const long server =
      call(SYS_socket, AF_UNIX, (void*)(SOCK_SEQPACKET | SOCK_CLOEXEC), 0);
  if (call(SYS_connect, server, &chosen->socket, sizeof(chosen->socket)) != 0 ||
      call(SYS_sendmsg, server, &request.message, 0) < 0) {
    return -1;
  }
  int status = 0;
  const long got = call(SYS_read, server, &status, sizeof(status));
  return got == sizeof(status) ? status : 5;
}

// `stack`: the number of words, they and a null, the environment and a null.
__attribute__((noreturn, used)) static void begin(long* stack) {
  char** words = (char**)(stack + 1);
  char** environment = words + stack[0] + 1;
  for (char* at = words[0]; *at != '\0'; ++at) {
    if (*at == '/') words[0] = at + 1;
  }
  int status =
      any_begins(environment, "LVM_SYSTEM_DIR=") ? -1 : hand_over(words);
  if (status < 0) {
    call(SYS_execve, (long)"/usr/sbin/lvm", words, (long)environment);
    status = 127;
  }
  while (1) call(SYS_exit_group, status, 0, 0);
}

__asm__(
    ".globl _start\n"
    "_start: mov %rsp, %rdi\n"
    "and $-16, %rsp\n"
    "call begin\n");
