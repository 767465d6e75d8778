// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/sandbox.h"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/units.h"

namespace snapsync::qcow2 {
namespace {

constexpr uid_t kNobody = 65534;
constexpr rlim_t kMemoryBytes = 512 * kMiB;

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
// Calls above this are those of x32, with other arguments.
constexpr uint32_t kMaxCall = 0x3fffffff;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
constexpr uint32_t kMaxCall = UINT32_MAX;
#else
#error "which architecture's system calls are these?"
#endif

constexpr uint32_t kAllowed[] = {
    // What was opened for us, and the sockets.
    SYS_pread64,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_close,
    // Memory; mmap and mprotect see below.
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    // Threads, time, the end.
    SYS_futex,
    SYS_sched_yield,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_restart_syscall,
    SYS_rt_sigreturn,
    SYS_rt_sigprocmask,
    SYS_exit,
    SYS_exit_group,
    // What a thread begins with: one that was started just before this may not
    // have come so far yet.
    SYS_rseq,
    SYS_set_robust_list,
#if SNAPSYNC_SANITIZED
    // For the sanitizer's own work and its report.
    SYS_write,
    SYS_read,
    SYS_openat,
    SYS_newfstatat,
    SYS_lseek,
    SYS_getpid,
    SYS_gettid,
    SYS_sigaltstack,
    SYS_rt_sigaction,
    SYS_readlinkat,
    SYS_prctl,
    SYS_pipe2,
    SYS_sched_getaffinity,
    SYS_sysinfo,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_getrlimit,
    SYS_prlimit64,
#if defined(__x86_64__)
    SYS_open,
    SYS_readlink,
    SYS_stat,
    SYS_fstat,
#endif
#endif
};

// Memory, but none that can be run.
constexpr uint32_t kAllowedWithoutExec[] = {SYS_mmap, SYS_mprotect};

sock_filter Load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}
// Skips the next `otherwise` steps if the loaded value is another one.
sock_filter IfEqual(uint32_t value, uint8_t otherwise) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, otherwise);
}
sock_filter Return(uint32_t action) {
  return BPF_STMT(BPF_RET | BPF_K, action);
}

std::vector<sock_filter> MakeFilter() {
  constexpr size_t kCallAt = offsetof(seccomp_data, nr);
  // Of the third argument, the lower half of a little-endian word.
  constexpr size_t kProtectionAt = offsetof(seccomp_data, args) + 2 * 8;
  std::vector<sock_filter> filter = {
      Load(offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
      Return(SECCOMP_RET_KILL_PROCESS),
      Load(kCallAt),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, kMaxCall, 0, 1),
      Return(SECCOMP_RET_KILL_PROCESS),
  };
  for (const uint32_t call : kAllowed) {
    filter.push_back(IfEqual(call, 1));
    filter.push_back(Return(SECCOMP_RET_ALLOW));
  }
  for (const uint32_t call : kAllowedWithoutExec) {
    filter.push_back(IfEqual(call, 4));
    filter.push_back(Load(kProtectionAt));
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0));
    filter.push_back(Return(SECCOMP_RET_ALLOW));
    filter.push_back(Return(SECCOMP_RET_KILL_PROCESS));
  }
  filter.push_back(Return(SECCOMP_RET_KILL_PROCESS));
  return filter;
}

absl::Status Limit(__rlimit_resource resource, rlim_t most) {
  rlimit limit = {};
  // Who is no root can't raise a limit that is lower already.
  if (::getrlimit(resource, &limit) == 0) most = std::min(most, limit.rlim_max);
  limit = {most, most};
  if (::setrlimit(resource, &limit) == 0) return absl::OkStatus();
  return PosixError(errno, "can't limit the reader of an image");
}

absl::Status Failed(const char* what) {
  return PosixError(
      errno, std::string("the reader of an image can't give up ") + what);
}

}  // namespace

absl::Status GiveUpRights() {
  SNAPSYNC_RETURN_IF_ERROR(Limit(RLIMIT_CORE, 0));
  if (!kSanitized) {
    SNAPSYNC_RETURN_IF_ERROR(Limit(RLIMIT_AS, kMemoryBytes));
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return Failed("new rights");
  }
  if (::geteuid() == 0) {
    // The calls themselves: there is one thread, and what the library does for
    // others does not go together with those of a sanitizer.
    if (::syscall(SYS_setgroups, 0, nullptr) != 0 ||
        ::syscall(SYS_setresgid, kNobody, kNobody, kNobody) != 0 ||
        ::syscall(SYS_setresuid, kNobody, kNobody, kNobody) != 0) {
      return Failed("root's rights");
    }
  }
  // A service may have been given capabilities without being root.
  __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  if (::syscall(SYS_capset, &head, none.data()) != 0) {
    return Failed("its capabilities");
  }
  // Nobody looks into it, either: what it reads is somebody's disk.
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return Failed("being looked at");
  }
  return absl::OkStatus();
}

absl::Status GiveUpSystemCalls() {
  std::vector<sock_filter> filter = MakeFilter();
  const sock_fprog program = {static_cast<unsigned short>(filter.size()),
                              filter.data()};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
                &program) != 0) {
    return Failed("system calls (seccomp)");
  }
  return absl::OkStatus();
}

}  // namespace snapsync::qcow2
