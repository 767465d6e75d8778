// SPDX-License-Identifier: Apache-2.0
//
// Disks of a User Mode Linux guest on which a write fails, preloaded into the
// kernel by `uml-run --faults`: what the guest writes to a disk is a pwrite64
// here, of a page at most. They are counted, and one of them fails, or all from
// one on. (Flushes of such a disk do nothing in Linux 6.1, so they can't fail.)
//
// The guest is told, and says what it wants, by the first page of a disk of its
// own
// (`struct control`), behind which the place of each write stands (bytes,
// uint64_t). disk_writes.py is the other side.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { kPage = 4096, kDisksMax = 16, kShort = -1 };

struct control {
  uint64_t disk;      // whose writes count: 0 is /dev/ubda
  uint64_t count;     // so far
  uint64_t at;        // which one fails; 0: none
  int64_t action;     // an errno, or kShort: half of it is written
  uint64_t for_good;  // so does each later one
  uint64_t fired;     // how many have failed
  uint64_t place;     // of the first that has (bytes)
  // `at` is counted from behind so many writes to bytes [first, end).
  uint64_t first;
  uint64_t end;
  uint64_t after;
  uint64_t behind;  // how many `at` has counted
};

static struct control* control;
static uint64_t* places;
static size_t places_max;
static struct stat disks[kDisksMax];
static ssize_t (*real_pwrite64)(int, const void*, size_t, off64_t);

__attribute__((constructor)) static void Start(void) {
  real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
  const char* path = getenv("UML_DISK_FAULTS");
  const char* folder = getenv("HOME");  // of uml-run: d0, d1, ... are the disks
  if (path == NULL || folder == NULL) return;
  for (int i = 0; i < kDisksMax; ++i) {
    char name[4096];
    snprintf(name, sizeof name, "%s/d%d", folder, i);
    if (stat(name, &disks[i]) != 0) break;
  }
  struct stat facts;
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &facts) != 0) abort();
  char* memory =
      mmap(NULL, facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory == MAP_FAILED) abort();
  control = (struct control*)memory;
  places = (uint64_t*)(memory + kPage);
  places_max = (facts.st_size - kPage) / sizeof(uint64_t);
}

// Counts a write; what is to happen to it: 0, an errno, or kShort. One thread
// of UML makes all of them.
static int64_t Fate(int fd, uint64_t offset) {
  struct stat facts;
  if (control == NULL || control->disk >= kDisksMax || fstat(fd, &facts) != 0 ||
      facts.st_ino != disks[control->disk].st_ino ||
      facts.st_dev != disks[control->disk].st_dev) {
    return 0;
  }
  if (control->count < places_max) places[control->count] = offset;
  ++control->count;
  if (control->after > 0) {
    if (offset >= control->first && offset < control->end) --control->after;
    return 0;
  }
  ++control->behind;
  if (control->at == 0 || control->behind < control->at) return 0;
  if (control->behind > control->at && !control->for_good) return 0;
  if (control->fired++ == 0) control->place = offset;
  return control->action;
}

ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  const int64_t fate = Fate(fd, offset);
  if (fate == kShort) size /= 2;
  if (fate <= 0) return real_pwrite64(fd, data, size, offset);
  errno = (int)fate;
  return -1;
}
