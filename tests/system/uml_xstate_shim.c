// SPDX-License-Identifier: Apache-2.0
//
// Lets Debian's User Mode Linux (6.1) run on processors with a large register
// state. It hands PTRACE_SETREGSET(NT_X86_XSTATE) the 2696 bytes that sufficed
// up to AVX-512; a host with AMX takes the whole state or nothing (EFAULT), and
// the guest dies at boot with "ptrace set fp regs failed". Preloaded into
// linux.uml by uml-run, this ptrace() fills the state up with zeroes, which is
// the initial state of the registers that UML does not know.
//
// UML calls ptrace from one thread only.
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

long ptrace(enum __ptrace_request request, ...) {
  va_list arguments;
  va_start(arguments, request);
  const pid_t pid = va_arg(arguments, pid_t);
  void* address = va_arg(arguments, void*);
  void* data = va_arg(arguments, void*);
  va_end(arguments);

  static unsigned char state[65536];
  static size_t state_size;  // what this host's kernel asks for; 0: not known
  struct iovec whole = {state, sizeof(state)};
  if (request == PTRACE_SETREGSET && address == (void*)NT_X86_XSTATE) {
    if (state_size == 0 && syscall(SYS_ptrace, (long)PTRACE_GETREGSET,
                                   (long)pid, address, &whole) == 0) {
      state_size = whole.iov_len;
    }
    const struct iovec* given = data;
    if (given->iov_len < state_size) {
      memcpy(state, given->iov_base, given->iov_len);
      memset(state + given->iov_len, 0, state_size - given->iov_len);
      whole.iov_len = state_size;
      data = &whole;
    }
  }
  // The system call stores a peeked word where the library's function returns
  // it.
  if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA ||
      request == PTRACE_PEEKUSER) {
    long word = 0;
    const long status =
        syscall(SYS_ptrace, (long)request, (long)pid, address, &word);
    return status < 0 ? status : word;
  }
  return syscall(SYS_ptrace, (long)request, (long)pid, address, data);
}
