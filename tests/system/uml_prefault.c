// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into each program in a guest of uml-run (/etc/ld.so.preload), whose
// page faults take 0.2 ms each: most of what it costs to start one there. Maps
// all pages of the program and its libraries at once instead, before the loader
// relocates them; those that are written get their own copy, as they would when
// relocated.
//
// The loader calls what chooses an indirect function while it relocates the
// library that has it, and it begins with the library that was found last,
// level by level. So uml-run has this one needed by one that is needed by one
// that is preloaded. Nothing here may need a relocation that was not done: no
// library, and no memory of its own but on the stack.
#include <fcntl.h>
#include <stdint.h>

#include "uml_pages.h"

static const char* hexadecimal(const char* at, uintptr_t* number) {
  for (*number = 0;; ++at) {
    if (*at >= '0' && *at <= '9') {
      *number = *number * 16 + (uintptr_t)(*at - '0');
    } else if (*at >= 'a' && *at <= 'f') {
      *number = *number * 16 + (uintptr_t)(*at - 'a') + 10;
    } else {
      return at;
    }
  }
}

// proc(5): "begin-end rwxp offset device inode  path"; no file: inode 0.
static void map_if_of_a_file(const char* line) {
  uintptr_t begin, end;
  line = hexadecimal(line, &begin) + 1;
  line = hexadecimal(line, &end) + 1;
  const long rights = (line[0] == 'r' ? PROT_READ : 0) |
                      (line[1] == 'w' ? PROT_WRITE : 0) |
                      (line[2] == 'x' ? PROT_EXEC : 0);
  for (int spaces = 0; spaces < 3; ++line) spaces += *line == ' ';
  if (*line != '0' && (rights & PROT_READ)) uml_map(begin, end, rights);
}

static void map_all(void) {
  const long file = uml_call(SYS_open, (uintptr_t) "/proc/self/maps",
                             O_RDONLY | O_CLOEXEC, 0);
  char text[1 << 16];
  long size = 0, got = 1;
  while (got > 0) {
    got = uml_call(SYS_read, (uintptr_t)file, (uintptr_t)text + (uintptr_t)size,
                   (long)sizeof(text) - size);
    if (got > 0) size += got;
  }
  uml_call(SYS_close, (uintptr_t)file, 0, 0);
  for (long line = 0, at = 0; at < size; ++at) {
    if (text[at] != '\n') continue;
    map_if_of_a_file(text + line);
    line = at + 1;
  }
}

static void nothing(void) {}

__attribute__((used)) static void (*choose(void))(void) {
  map_all();
  return nothing;
}

void uml_prefault(void) __attribute__((ifunc("choose")));
// Referred to, so that it is chosen at the start.
void (*const uml_prefault_called)(void) = uml_prefault;
