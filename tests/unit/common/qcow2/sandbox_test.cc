// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/sandbox.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace snapsync::qcow2 {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

void Confine() {
  if (!GiveUpRights().ok() || !GiveUpSystemCalls().ok()) ::_exit(9);
}

TEST(Sandbox, ReadsWhatIsOpen) {
  const int fd = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  EXPECT_EXIT(
      {
        Confine();
        char byte = 0;
        void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ::_exit(::pread(fd, &byte, 1, 0) == 1 && memory != MAP_FAILED ? 0 : 1);
      },
      ExitedWithCode(0), "");
  ::close(fd);
}

// The C library makes these calls at the beginning of each thread.
TEST(Sandbox, LetsAThreadBegin) {
  EXPECT_EXIT(
      {
        Confine();
        ::syscall(SYS_rseq, nullptr, 0, 0, 0);
        ::syscall(SYS_set_robust_list, nullptr, 0);
        ::_exit(0);
      },
      ExitedWithCode(0), "");
}

TEST(Sandbox, DiesOfAnythingElse) {
  EXPECT_EXIT(
      {
        Confine();
        ::_exit(::socket(AF_INET, SOCK_STREAM, 0));
      },
      KilledBySignal(SIGSYS), "");
  EXPECT_EXIT(
      {
        Confine();
        ::_exit(::fork());
      },
      KilledBySignal(SIGSYS), "");
  EXPECT_EXIT(
      {
        Confine();
        ::_exit(::execl("/bin/true", "true", nullptr));
      },
      KilledBySignal(SIGSYS), "");
  EXPECT_EXIT(
      {
        Confine();
        ::_exit(::kill(::getppid(), SIGTERM));
      },
      KilledBySignal(SIGSYS), "");
  EXPECT_EXIT(
      {
        Confine();
        ::_exit(::unlink("/nothing"));
      },
      KilledBySignal(SIGSYS), "");
}

TEST(Sandbox, RunsNoMemoryThatItWrote) {
  for (const bool protect : {false, true}) {
    EXPECT_EXIT(
        {
          Confine();
          const int protection = PROT_READ | PROT_WRITE;
          void* memory = ::mmap(nullptr, 4096, protect ? protection : PROT_EXEC,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          ::_exit(::mprotect(memory, 4096, PROT_READ | PROT_EXEC));
        },
        KilledBySignal(SIGSYS), "");
  }
}

TEST(Sandbox, HasNoRightsOfRootAndNoCores) {
  EXPECT_EXIT(
      {
        if (!GiveUpRights().ok()) ::_exit(9);
        rlimit core{};
        ::getrlimit(RLIMIT_CORE, &core);
        const bool powerless =
            ::geteuid() != 0 && ::getuid() != 0 && ::getegid() != 0 &&
            ::syscall(SYS_setuid, 0) != 0 && core.rlim_max == 0;
        ::_exit(powerless ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

}  // namespace
}  // namespace snapsync::qcow2
