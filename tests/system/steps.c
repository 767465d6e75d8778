// SPDX-License-Identifier: Apache-2.0
//
// Counts the durable steps of a program that it is preloaded into (all that it
// changes outside of its memory: files, folders, devices, other programs), and
// at one of them kills the program or lets the step fail. The test and the
// program share `struct control` in the file that SNAPSYNC_STEPS names; each
// step is written to that file's name with ".log". steps.py is the other side.
//
// A step begins before the call: who is killed at step K has done K - 1 of
// them.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct control {
  atomic_ullong count;     // steps so far
  atomic_ullong at;        // where something happens; 0: nowhere
  atomic_llong action;     // what: kKill, kShort, kFalse, or an errno
  atomic_ullong also;      // a process to be killed with this one; 0: none
  atomic_ullong fired;     // whether it has happened
  atomic_ullong for_good;  // so does each later step of the same name
};

enum { kKill = -1, kShort = -2, kFalse = -3 };

static struct control* control;
static int log_file = -1;

#define REAL(name)                                            \
  static __typeof__(&name) real_##name;                       \
  if (real_##name == NULL) {                                  \
    real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
  }

__attribute__((constructor)) static void Start(void) {
  const char* path = getenv("SNAPSYNC_STEPS");
  if (path == NULL) return;
  REAL(open)
  char log_path[4096];
  snprintf(log_path, sizeof log_path, "%s.log", path);
  const int file = real_open(path, O_RDWR | O_CLOEXEC);
  log_file =
      real_open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  void* shared =
      mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (file < 0 || log_file < 0 || shared == MAP_FAILED) {
    fprintf(stderr, "%s: no steps can be counted there: %m\n", path);
    _exit(99);
  }
  close(file);
  // Programs that this one starts are not counted.
  unsetenv("LD_PRELOAD");
  unsetenv("SNAPSYNC_STEPS");
  control = shared;
}

// 0: go on. Else kShort or an errno: what is to come of it.
static int Step(const char* name, const char* what) {
  if (control == NULL) return 0;
  const int saved = errno;
  const unsigned long long number = atomic_fetch_add(&control->count, 1) + 1;
  char line[1024];
  const int length =
      snprintf(line, sizeof line, "%llu %s %.900s\n", number, name, what);
  // Past whatever else is preloaded.
  if (syscall(SYS_write, log_file, line, length) < 0) _exit(99);
  errno = saved;
  static char broken[1000];
  const int for_good = atomic_load(&control->for_good) != 0;
  if (!for_good) broken[0] = '\0';
  snprintf(line, sizeof line, "%s %.900s", name, what);
  if (atomic_load(&control->at) == number) {
    if (for_good) strcpy(broken, line);
    atomic_store(&control->fired, 1);
  } else if (!for_good || strcmp(line, broken) != 0) {
    return 0;
  }
  const long long action = atomic_load(&control->action);
  if (action != kKill) return (int)action;
  const pid_t also = (pid_t)atomic_load(&control->also);
  if (also > 0) kill(also, SIGKILL);
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

// The same for a descriptor; what is no file, device or folder is no step. Nor
// are messages on stdout and stderr.
static int StepAt(const char* name, int fd) {
  struct stat facts;
  if (control == NULL || fd <= 2 || fstat(fd, &facts) != 0 ||
      !(S_ISREG(facts.st_mode) || S_ISBLK(facts.st_mode) ||
        S_ISDIR(facts.st_mode))) {
    return 0;
  }
  char link[64];
  char path[900];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  path[length < 0 ? 0 : length] = '\0';
  return Step(name, path);
}

static int Fail(int error) {
  errno = error == kShort ? EIO : error;
  return -1;
}

// Half of it, in whole sectors where there are some.
static size_t Half(size_t length) {
  return length >= 1024 ? length / 1024 * 512 : (length + 1) / 2;
}

// Names.

// Only what may make or empty a file.
#define OPEN(name, parameters, ...)                                          \
  int name parameters {                                                      \
    REAL(name)                                                               \
    va_list arguments;                                                       \
    va_start(arguments, flags);                                              \
    const mode_t mode =                                                      \
        (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;              \
    va_end(arguments);                                                       \
    const int fault =                                                        \
        (flags & (O_CREAT | O_TRUNC)) != 0 ? Step("open", path) : 0;         \
    return fault != 0 ? Fail(fault) : real_##name(__VA_ARGS__, flags, mode); \
  }
OPEN(open, (const char* path, int flags, ...), path)
OPEN(openat, (int folder, const char* path, int flags, ...), folder, path)

// One call: its parameters, its arguments, and the step that it is.
#define CALL(type, name, parameters, arguments, step)        \
  type name parameters {                                     \
    REAL(name)                                               \
    const int fault = step;                                  \
    return fault != 0 ? Fail(fault) : real_##name arguments; \
  }
CALL(int, mkdir, (const char* path, mode_t mode), (path, mode),
     Step("mkdir", path))
CALL(int, unlink, (const char* path), (path), Step("unlink", path))
CALL(int, unlinkat, (int folder, const char* path, int flags),
     (folder, path, flags), Step("unlink", path))
CALL(int, rename, (const char* from, const char* to), (from, to),
     Step("rename", to))
CALL(int, renameat, (int a, const char* from, int b, const char* to),
     (a, from, b, to), Step("rename", to))
CALL(int, renameat2,
     (int a, const char* from, int b, const char* to, unsigned flags),
     (a, from, b, to, flags), Step("rename", to))

// Contents.

CALL(int, fsync, (int fd), (fd), StepAt("fsync", fd))
CALL(int, fdatasync, (int fd), (fd), StepAt("fdatasync", fd))
CALL(int, ftruncate, (int fd, off_t length), (fd, length),
     StepAt("ftruncate", fd))
CALL(int, fallocate, (int fd, int mode, off_t from, off_t length),
     (fd, mode, from, length), StepAt("fallocate", fd))
CALL(int, fchown, (int fd, uid_t user, gid_t group), (fd, user, group),
     StepAt("fchown", fd))
CALL(int, fchmod, (int fd, mode_t mode), (fd, mode), StepAt("fchmod", fd))

#define WRITE(name, parameters, arguments, step) \
  ssize_t name parameters {                      \
    REAL(name)                                   \
    const int fault = step;                      \
    if (fault == kShort) {                       \
      length = Half(length);                     \
    } else if (fault != 0) {                     \
      return Fail(fault);                        \
    }                                            \
    return real_##name arguments;                \
  }
WRITE(write, (int fd, const void* data, size_t length), (fd, data, length),
      StepAt("write", fd))
WRITE(pwrite, (int fd, const void* data, size_t length, off_t at),
      (fd, data, length, at), StepAt("pwrite", fd))
WRITE(copy_file_range,
      (int from, off64_t* at, int to, off64_t* to_at, size_t length,
       unsigned flags),
      (from, at, to, to_at, length, flags), StepAt("copy_file_range", to))

// What the ring is handed in one go is one step. A failed write becomes a call
// that does nothing, which has ended when this returns; its result is changed.
int io_uring_submit_and_wait(struct io_uring* ring, unsigned wait) {
  REAL(io_uring_submit_and_wait)
  struct io_uring_sqe* write = NULL;
  for (unsigned at = ring->sq.sqe_head;
       at != ring->sq.sqe_tail && write == NULL; ++at) {
    struct io_uring_sqe* entry = &ring->sq.sqes[at & *ring->sq.kring_mask];
    if (entry->opcode == IORING_OP_WRITE) write = entry;
  }
  const int fault = write == NULL ? 0 : StepAt("uring-write", write->fd);
  if (fault == 0) return real_io_uring_submit_and_wait(ring, wait);
  if (fault == kShort) {
    write->len = (unsigned)Half(write->len);
    return real_io_uring_submit_and_wait(ring, wait);
  }
  const uint64_t mark = write->user_data;
  memset(write, 0, sizeof *write);
  write->opcode = IORING_OP_NOP;
  write->user_data = mark;
  const int result = real_io_uring_submit_and_wait(ring, wait);
  unsigned head;
  struct io_uring_cqe* completion;
  io_uring_for_each_cqe(ring, head, completion) {
    if (completion->user_data == mark) completion->res = -fault;
  }
  return result;
}

// Devices and programs.

static const char* NameOfRequest(unsigned long request) {
  switch (request) {
    case FICLONE:
      return "ioctl-clone";
    case BLKDISCARD:
      return "ioctl-discard";
    case BLKZEROOUT:
      return "ioctl-zeroes";
    case BLKFLSBUF:
      return "ioctl-flush";
    case DM_TARGET_MSG:
      return "ioctl-dm-message";
    case DM_DEV_CREATE:
    case DM_DEV_REMOVE:
    case DM_DEV_SUSPEND:
    case DM_TABLE_LOAD:
      return "ioctl-dm-device";
    default:
      return NULL;
  }
}

int ioctl(int fd, unsigned long request, ...) {
  REAL(ioctl)
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  const char* name = NameOfRequest(request);
  const int fault = name == NULL ? 0 : Step(name, "");
  return fault != 0 ? Fail(fault) : real_ioctl(fd, request, argument);
}

// Two steps: before a program is started, and when it runs. kFalse: another one
// runs instead, that does nothing and fails; kShort: it does all that it is to
// do, and then fails.
static char* const kDoesNothing[] = {"/bin/false", NULL};

int posix_spawn(pid_t* pid, const char* path,
                const posix_spawn_file_actions_t* actions,
                const posix_spawnattr_t* attributes, char* const argv[],
                char* const envp[]) {
  REAL(posix_spawn)
  char line[400] = "";
  for (size_t at = 0;
       argv[at] != NULL && strlen(line) + strlen(argv[at]) + 2 < sizeof line;
       ++at) {
    strcat(strcat(line, argv[at]), " ");
  }
  const int fault = Step("spawn", line);
  if (fault > 0) return fault;
  char* fails_at_its_end[64] = {"/bin/sh", "-c", "\"$@\"; exit 5", "sh"};
  if (fault == kFalse) {
    argv = kDoesNothing;
    path = argv[0];
  } else if (fault == kShort) {
    size_t at = 4;
    fails_at_its_end[at++] = (char*)path;
    for (size_t from = 1; argv[from] != NULL && at < 63; ++from) {
      fails_at_its_end[at++] = argv[from];
    }
    argv = fails_at_its_end;
    path = argv[0];
  }
  const int result =
      real_posix_spawn(pid, path, actions, attributes, argv, envp);
  Step("spawned", line);
  return result;
}
