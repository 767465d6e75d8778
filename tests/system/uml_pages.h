// SPDX-License-Identifier: Apache-2.0
//
// Pages of a program in a guest of uml-run: mapping them all at once, where
// each page fault takes 0.2 ms. For libraries that may use no other.
#ifndef SNAPSYNC_TESTS_SYSTEM_UML_PAGES_H_
#define SNAPSYNC_TESTS_SYSTEM_UML_PAGES_H_

#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static inline long uml_call(long number, uintptr_t first, uintptr_t second,
                            long third) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "0"(number), "D"(first), "S"(second), "d"(third)
                   : "rcx", "r11", "memory");
  return result;
}

// Maps what is from `begin` to `end`, bounds of pages that have these `rights`
// (PROT_*). Those that can be written get memory of their own. Errors are left
// to the page faults that come then.
//
// Where a page is mapped by the guest's kernel without a fault, UML learns of
// it when protections change: so a right is changed, and changed back.
static inline void uml_map(uintptr_t begin, uintptr_t end, long rights) {
  const int written = (rights & PROT_WRITE) != 0;
  uml_call(SYS_madvise, begin, end - begin,
           written ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
  uml_call(SYS_mprotect, begin, end - begin,
           rights | (written ? PROT_EXEC : PROT_WRITE));
  uml_call(SYS_mprotect, begin, end - begin, rights);
}

#endif  // SNAPSYNC_TESTS_SYSTEM_UML_PAGES_H_
