// SPDX-License-Identifier: Apache-2.0
//
// ptrace() for Debian's User Mode Linux (6.1), preloaded by uml-run. It is
// about the extended register state (PTRACE_GETREGSET and PTRACE_SETREGSET,
// NT_X86_XSTATE):
//
// Its size. UML hands over the 2696 bytes that sufficed up to AVX-512; a host
// with AMX takes the whole state or nothing (EFAULT), and the guest dies at
// boot with "ptrace set fp regs failed". The state is filled up with zeroes,
// the initial state of the registers that UML does not know.
//
// Speed. For each page fault UML reads the state twice and sets it twice, for
// each system call once, though it hardly ever changes; and each time the
// host's kernel makes a mapping for what is set, which costs a tenth of all
// that a guest does. It is set only where it differs, and only before the
// guest's own program goes on.
//
// UML runs that with a PTRACE_SYSEMU or the like. A PTRACE_CONT runs UML's own
// few instructions in the same process (its "stub"), which touch no such
// register, but may follow a signal, by which the host resets them. UML calls
// ptrace from one thread only.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

// What the process that UML turned to last has, or has to have when it goes on.
static struct {
  pid_t pid;   // 0: of none
  bool known;  // its registers hold this
  bool due;    // its registers have to be set to this
  size_t size;
  unsigned char bytes[65536];
} last;

// Of the whole state on this host, which its kernel asks for; 0: not known.
static size_t host_size;

static long host(long request, pid_t pid, void* address, void* data) {
  return syscall(SYS_ptrace, request, (long)pid, address, data);
}

static long set_due(void) {
  if (!last.due) return 0;
  static unsigned char whole_bytes[sizeof(last.bytes)];
  struct iovec whole = {whole_bytes, sizeof(whole_bytes)};
  if (host_size == 0 && host((long)PTRACE_GETREGSET, last.pid,
                             (void*)NT_X86_XSTATE, &whole) == 0) {
    host_size = whole.iov_len;
  }
  memcpy(whole_bytes, last.bytes, last.size);
  whole.iov_len = last.size;
  if (last.size < host_size) {
    memset(whole_bytes + last.size, 0, host_size - last.size);
    whole.iov_len = host_size;
  }
  const long result =
      host((long)PTRACE_SETREGSET, last.pid, (void*)NT_X86_XSTATE, &whole);
  last.due = false;
  last.known = result == 0;
  // One that is gone needs no state.
  return result < 0 && errno == ESRCH ? 0 : result;
}

static long set_state(pid_t pid, const struct iovec* given) {
  if (given->iov_len > sizeof(last.bytes)) {
    errno = EINVAL;
    return -1;
  }
  // What is beyond the state of this host's processor is nobody's.
  const size_t size =
      host_size != 0 && host_size < given->iov_len ? host_size : given->iov_len;
  const bool holds = last.pid == pid && (last.known || last.due);
  if (holds && last.size == size &&
      memcmp(last.bytes, given->iov_base, size) == 0) {
    return 0;
  }
  if (last.pid != pid && set_due() != 0) return -1;
  last.pid = pid;
  last.known = false;
  last.due = true;
  last.size = size;
  memcpy(last.bytes, given->iov_base, size);
  return 0;
}

static long get_state(pid_t pid, struct iovec* wanted) {
  const bool holds = last.pid == pid && (last.known || last.due);
  if (holds && (last.size == wanted->iov_len ||
                (last.size == host_size && last.size < wanted->iov_len))) {
    memcpy(wanted->iov_base, last.bytes, last.size);
    wanted->iov_len = last.size;
    return 0;
  }
  if (set_due() != 0) return -1;
  const size_t room = wanted->iov_len;
  const long result =
      host((long)PTRACE_GETREGSET, pid, (void*)NT_X86_XSTATE, wanted);
  if (result == 0 && wanted->iov_len < room) host_size = wanted->iov_len;
  last.known = result == 0 && wanted->iov_len <= sizeof(last.bytes);
  if (last.known) {
    last.pid = pid;
    last.size = wanted->iov_len;
    memcpy(last.bytes, wanted->iov_base, last.size);
  }
  return result;
}

long ptrace(enum __ptrace_request request, ...) {
  va_list arguments;
  va_start(arguments, request);
  const pid_t pid = va_arg(arguments, pid_t);
  void* address = va_arg(arguments, void*);
  void* data = va_arg(arguments, void*);
  va_end(arguments);

  const bool state = address == (void*)NT_X86_XSTATE;
  if (request == PTRACE_SETREGSET && state) return set_state(pid, data);
  if (request == PTRACE_GETREGSET && state) return get_state(pid, data);
  if (pid == last.pid) {
    switch ((int)request) {
      case PTRACE_SYSEMU:
      case PTRACE_SYSEMU_SINGLESTEP:
      case PTRACE_SYSCALL:
      case PTRACE_SINGLESTEP:
      case PTRACE_DETACH:
        if (set_due() != 0) return -1;
        last.known = false;
        break;
      case PTRACE_CONT:
        last.known = false;
        break;
      // A new process, perhaps with the number of an old one.
      case PTRACE_SETOPTIONS:
      case PTRACE_KILL:
        last.known = last.due = false;
        break;
      default:  // does not let it run
        break;
    }
  }
  long word;  // what glibc's ptrace does for its caller
  if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) data = &word;
  const long result = host(request, pid, address, data);
  return result >= 0 && data == &word ? word : result;
}
