// SPDX-License-Identifier: Apache-2.0
//
// Keeps what a power cut would leave, at worst, of the files and folders that a
// program changes which this is preloaded into: each file as it was at its last
// flush, and names as they were at the last flush of their folder. unflushed.py
// puts it back after the program was killed. All is kept in the folder that
// SNAPSYNC_UNFLUSHED names:
//
//   files/INODE  the file when it was last flushed (its time of modification is
//                the file's change time then)
//   kept/INODE   a file whose name was removed or taken by another one
//   names        a line for each change of a name, and each flush
//   told         "INODE TIME OTHER": a file that was put back, its change time,
//                and the one that it had before, which statx() tells instead
//
// What is there before anything is changed counts as flushed, and a flush of
// what has not changed is none. One flush can be taken away: it is carried out,
// and keeps nothing. SNAPSYNC_FLUSHES names the file that has `struct control`.
// A file is renamed within its folder; its owner and mode are not kept.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct control {
  atomic_ullong flushes;  // so far
  atomic_ullong without;  // the one that is taken away; 0: none
  atomic_ullong forgets;  // how often all that is there was said to be flushed
};

static struct control* control;
static const char* kept_in;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static struct { unsigned long long inode, time, other; } told[1000];
static size_t told_count;
// Inodes of what this program has changed and not flushed.
static unsigned long long changed_inodes[1000];
static size_t changed_count;
static unsigned long long forgets;

#define REAL(name)                                            \
  static __typeof__(&name) real_##name;                       \
  if (real_##name == NULL) {                                  \
    real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
  }

static void Broken(const char* what) {
  fprintf(stderr, "unflushed: %s: %m\n", what);
  _exit(98);
}

// Other functions of libc call none of those that are replaced here.
static FILE* Open(const char* name, const char* how) {
  char path[5000];
  snprintf(path, sizeof path, "%s/%s", kept_in, name);
  return fopen(path, how);
}

__attribute__((constructor)) static void Start(void) {
  kept_in = getenv("SNAPSYNC_UNFLUSHED");
  const char* flushes = getenv("SNAPSYNC_FLUSHES");
  if (kept_in == NULL || flushes == NULL) return;
  kept_in = strdup(kept_in);
  FILE* shared = fopen(flushes, "r+");
  if (shared == NULL) Broken(flushes);
  void* memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED,
                      fileno(shared), 0);
  if (memory == MAP_FAILED) Broken(flushes);
  fclose(shared);
  FILE* list = Open("told", "r");
  while (list != NULL &&
         fscanf(list, "%llu %llu %llu", &told[told_count].inode,
                &told[told_count].time, &told[told_count].other) == 3) {
    if (++told_count == 1000) Broken("too many files were put back");
  }
  if (list != NULL) fclose(list);
  control = memory;
}

static unsigned long long Changed(const struct stat* facts) {
  return (unsigned long long)facts->st_ctim.tv_sec * 1000000000 +
         (unsigned long long)facts->st_ctim.tv_nsec;
}

// Where it is among those that have changed, or changed_count.
static size_t Find(unsigned long long inode) {
  size_t at = 0;
  if (forgets != atomic_load(&control->forgets)) {
    forgets = atomic_load(&control->forgets);
    changed_count = 0;
  }
  while (at < changed_count && changed_inodes[at] != inode) ++at;
  return at;
}

static void HasChanged(unsigned long long inode) {
  if (Find(inode) < changed_count) return;
  if (changed_count == 1000) Broken("too many files");
  changed_inodes[changed_count++] = inode;
}

static void Note(const char* what, const char* path, const char* more) {
  FILE* names = Open("names", "a");
  if (names == NULL) Broken("names");
  fprintf(names, "%s\t%s\t%s\n", what, path, more);
  fclose(names);
}

// The contents of an open file, beside what was kept of it, for Replace().
static void Copy(int fd, const struct stat* facts) {
  char path[64];
  char buffer[65536];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  FILE* from = fopen(path, "r");  // it may be open for writing only
  snprintf(path, sizeof path, "files/%llu.new",
           (unsigned long long)facts->st_ino);
  FILE* to = Open(path, "w");
  if (from == NULL || to == NULL) Broken(path);
  size_t length;
  while ((length = fread(buffer, 1, sizeof buffer, from)) > 0) {
    if (fwrite(buffer, 1, length, to) != length) Broken(path);
  }
  const struct timespec times[] = {facts->st_ctim, facts->st_ctim};
  if (ferror(from) || fflush(to) != 0 || futimens(fileno(to), times) != 0) {
    Broken(path);
  }
  fclose(from);
  fclose(to);
}

static void Path(char* path, size_t size, unsigned long long inode,
                 const char* folder, const char* suffix) {
  snprintf(path, size, "%s/%s/%llu%s", kept_in, folder, inode, suffix);
}

static void Replace(unsigned long long inode) {
  REAL(rename)
  char from[5000], to[5000];
  Path(from, sizeof from, inode, "files", ".new");
  Path(to, sizeof to, inode, "files", "");
  if (real_rename(from, to) != 0) Broken(to);
}

static int IsFile(int fd, struct stat* facts) {
  return control != NULL && fd > 2 && fstat(fd, facts) == 0 &&
         S_ISREG(facts->st_mode);
}

// Before the contents of a file change.
static void Before(int fd) {
  struct stat facts;
  char path[5000];
  const int saved = errno;
  if (IsFile(fd, &facts)) {
    HasChanged(facts.st_ino);
    Path(path, sizeof path, facts.st_ino, "files", "");
    if (access(path, F_OK) != 0) {
      Copy(fd, &facts);
      Replace(facts.st_ino);
    }
  }
  errno = saved;
}

// `name` in a folder that may be AT_FDCWD, without links, as far as there are
// any in the folders of a lab.
static void Absolute(int folder, const char* name, char* path, size_t size) {
  char link[64];
  ssize_t length = 0;
  if (name[0] != '/') {
    if (folder == AT_FDCWD) {
      snprintf(link, sizeof link, "/proc/self/cwd");
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    }
    length = readlink(link, path, size - 2);
    if (length < 0) Broken(link);
    path[length++] = '/';
  }
  snprintf(path + length, size - (size_t)length, "%s", name);
}

// A name in a folder changes.
static void NoteName(const char* what, const char* path, const char* more) {
  char folder[5000];
  struct stat facts;
  snprintf(folder, sizeof folder, "%s", path);
  *strrchr(folder, '/') = '\0';
  if (stat(folder, &facts) != 0) return;  // the call will fail
  HasChanged(facts.st_ino);
  Note(what, path, more);
}

// Keeps the file that is about to lose this name. Its inode, or 0.
static unsigned long long Keep(const char* path, unsigned long long* changed) {
  struct stat facts;
  char kept[5000];
  if (lstat(path, &facts) != 0 || !S_ISREG(facts.st_mode)) return 0;
  *changed = Changed(&facts);
  Path(kept, sizeof kept, facts.st_ino, "kept", "");
  if (link(path, kept) != 0 && errno != EEXIST) Broken(kept);
  return facts.st_ino;
}

// Names.

static int OpenFile(int folder, const char* name, int flags, mode_t mode) {
  REAL(openat)
  char path[5000], file[5000];
  struct stat facts;
  if (control == NULL || (flags & (O_CREAT | O_TRUNC)) == 0) {
    return real_openat(folder, name, flags, mode);
  }
  pthread_mutex_lock(&one_at_a_time);
  Absolute(folder, name, path, sizeof path);
  const int is_new = lstat(path, &facts) != 0;
  if (!is_new && S_ISREG(facts.st_mode) && (flags & O_TRUNC) != 0) {
    const int old = real_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (old < 0) Broken(path);
    Before(old);
    close(old);
  }
  if (is_new) NoteName("create", path, "");
  const int fd = real_openat(folder, name, flags, mode);
  const int saved = errno;
  if (is_new && fd >= 0 && fstat(fd, &facts) == 0) {
    // What was kept may be of an earlier file of this number.
    Path(file, sizeof file, facts.st_ino, "files", "");
    REAL(unlinkat)
    real_unlinkat(AT_FDCWD, file, 0);
    Before(fd);
  }
  errno = saved;
  pthread_mutex_unlock(&one_at_a_time);
  return fd;
}

#define MODE(flags)                             \
  mode_t mode = 0;                              \
  if ((flags & (O_CREAT | __O_TMPFILE)) != 0) { \
    va_list arguments;                          \
    va_start(arguments, flags);                 \
    mode = va_arg(arguments, mode_t);           \
    va_end(arguments);                          \
  }

int open(const char* path, int flags, ...) {
  MODE(flags)
  return OpenFile(AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  MODE(flags)
  return OpenFile(folder, path, flags, mode);
}

int mkdir(const char* path, mode_t mode) {
  REAL(mkdir)
  char whole[5000];
  struct stat facts;
  if (control != NULL && lstat(path, &facts) != 0) {
    pthread_mutex_lock(&one_at_a_time);
    Absolute(AT_FDCWD, path, whole, sizeof whole);
    NoteName("mkdir", whole, "");
    pthread_mutex_unlock(&one_at_a_time);
  }
  return real_mkdir(path, mode);
}

static int Unlink(int folder, const char* name, int flags) {
  REAL(unlinkat)
  if (control == NULL) return real_unlinkat(folder, name, flags);
  char path[5000], more[100];
  unsigned long long changed = 0;
  pthread_mutex_lock(&one_at_a_time);
  Absolute(folder, name, path, sizeof path);
  const unsigned long long inode = Keep(path, &changed);
  snprintf(more, sizeof more, "%llu\t%llu", inode, changed);
  if (inode != 0) NoteName("remove", path, more);
  const int result = real_unlinkat(folder, name, flags);
  pthread_mutex_unlock(&one_at_a_time);
  return result;
}
int unlinkat(int folder, const char* path, int flags) {
  return Unlink(folder, path, flags);
}
int unlink(const char* path) { return Unlink(AT_FDCWD, path, 0); }

static int Rename(int from_folder, const char* from, int to_folder,
                  const char* to, unsigned flags) {
  REAL(renameat2)
  if (control == NULL) {
    return real_renameat2(from_folder, from, to_folder, to, flags);
  }
  char old[5000], path[5000], more[5200];
  struct stat facts = {0};
  unsigned long long changed = 0;
  pthread_mutex_lock(&one_at_a_time);
  Absolute(from_folder, from, old, sizeof old);
  Absolute(to_folder, to, path, sizeof path);
  const unsigned long long inode =
      (flags & RENAME_NOREPLACE) != 0 ? 0 : Keep(path, &changed);
  if (inode != 0) {
    snprintf(more, sizeof more, "%llu\t%llu", inode, changed);
    NoteName("remove", path, more);
  }
  if (lstat(old, &facts) == 0) {
    snprintf(more, sizeof more, "%llu\t%llu\t%s",
             (unsigned long long)facts.st_ino, Changed(&facts), old);
    NoteName("rename", path, more);
  }
  const int result = real_renameat2(from_folder, from, to_folder, to, flags);
  pthread_mutex_unlock(&one_at_a_time);
  return result;
}
int renameat2(int a, const char* from, int b, const char* to, unsigned flags) {
  return Rename(a, from, b, to, flags);
}
int renameat(int a, const char* from, int b, const char* to) {
  return Rename(a, from, b, to, 0);
}
int rename(const char* from, const char* to) {
  return Rename(AT_FDCWD, from, AT_FDCWD, to, 0);
}

// Contents.

#define CHANGE(type, name, parameters, arguments, file)      \
  type name parameters {                                     \
    REAL(name)                                               \
    struct stat facts;                                       \
    if (!IsFile(file, &facts)) return real_##name arguments; \
    pthread_mutex_lock(&one_at_a_time);                      \
    Before(file);                                            \
    const type result = real_##name arguments;               \
    pthread_mutex_unlock(&one_at_a_time);                    \
    return result;                                           \
  }
CHANGE(int, ftruncate, (int fd, off_t length), (fd, length), fd)
CHANGE(int, fallocate, (int fd, int mode, off_t from, off_t length),
       (fd, mode, from, length), fd)
CHANGE(ssize_t, write, (int fd, const void* data, size_t length),
       (fd, data, length), fd)
CHANGE(ssize_t, pwrite, (int fd, const void* data, size_t length, off_t at),
       (fd, data, length, at), fd)
CHANGE(ssize_t, copy_file_range,
       (int from, off64_t* at, int to, off64_t* to_at, size_t length,
        unsigned flags),
       (from, at, to, to_at, length, flags), to)

int ioctl(int fd, unsigned long request, ...) {
  REAL(ioctl)
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (control != NULL && request == FICLONE) {
    pthread_mutex_lock(&one_at_a_time);
    Before(fd);
    pthread_mutex_unlock(&one_at_a_time);
  }
  return real_ioctl(fd, request, argument);
}

int io_uring_submit_and_wait(struct io_uring* ring, unsigned wait) {
  REAL(io_uring_submit_and_wait)
  pthread_mutex_lock(&one_at_a_time);
  for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail; ++at) {
    const struct io_uring_sqe* entry =
        &ring->sq.sqes[at & *ring->sq.kring_mask];
    if (entry->opcode == IORING_OP_WRITE) Before(entry->fd);
  }
  pthread_mutex_unlock(&one_at_a_time);
  return real_io_uring_submit_and_wait(ring, wait);
}

static int Flush(int fd, int (*real)(int)) {
  struct stat facts;
  char path[5000] = "", link[64];
  if (control == NULL || fd <= 2 || fstat(fd, &facts) != 0) return real(fd);
  pthread_mutex_lock(&one_at_a_time);
  const size_t at = Find(facts.st_ino);
  int taken_away = 0;
  if (at < changed_count) {
    taken_away = atomic_fetch_add(&control->flushes, 1) + 1 ==
                 atomic_load(&control->without);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0) Broken(link);
    if (S_ISREG(facts.st_mode) && !taken_away) Copy(fd, &facts);
  }
  const int result = real(fd);
  const int saved = errno;
  if (result == 0 && at < changed_count && !taken_away) {
    changed_inodes[at] = changed_inodes[--changed_count];
    if (S_ISREG(facts.st_mode)) Replace(facts.st_ino);
    Note("flush", path, "");
  }
  errno = saved;
  pthread_mutex_unlock(&one_at_a_time);
  return result;
}

int fsync(int fd) {
  REAL(fsync)
  return Flush(fd, real_fsync);
}
int fdatasync(int fd) {
  REAL(fdatasync)
  return Flush(fd, real_fdatasync);
}

// What was put back has not changed since.
int statx(int folder, const char* restrict path, int flags, unsigned mask,
          struct statx* restrict facts) {
  REAL(statx)
  const int result = real_statx(folder, path, flags, mask, facts);
  if (result != 0) return result;
  for (size_t at = 0; at < told_count; ++at) {
    const unsigned long long time =
        (unsigned long long)facts->stx_ctime.tv_sec * 1000000000 +
        facts->stx_ctime.tv_nsec;
    if (told[at].inode == facts->stx_ino && told[at].time == time) {
      facts->stx_ctime.tv_sec = (int64_t)(told[at].other / 1000000000);
      facts->stx_ctime.tv_nsec = (uint32_t)(told[at].other % 1000000000);
    }
  }
  return result;
}
