// SPDX-License-Identifier: Apache-2.0
//
// What LVM's commands find in a guest of uml-run in place of libsystemd, which
// they link for the journal and the bus that no guest has. A guest's page fault
// takes 0.1 ms, an "lvs" 1800 of them. This spares 1000:
//
// - Less is loaded: libsystemd needs five libraries that nothing else of LVM
//   does.
// - The pages of LVM and its libraries that are only read are mapped at once.
//   Where a page is mapped by the guest's kernel without a fault, UML learns of
//   it when protections change.
// - LVM starts by zeroing 3 MB that are zero (its table of commands), page by
//   page. This memset(), found before that of the C library, gives the pages
//   back instead.
//
// The versions of the symbols are in uml_libsystemd.map. uml-run tries on the
// host whether LVM starts with it; a later LVM may need more of libsystemd.
#define _GNU_SOURCE
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static const uintptr_t PAGE = ~(uintptr_t)4095;

#define NOTHING(name) \
  long name(void) { return 0; }
NOTHING(sd_journal_send_with_location)
NOTHING(sd_journal_printv_with_location)
NOTHING(sd_bus_open_system)
NOTHING(sd_bus_call_method)
NOTHING(sd_bus_error_free)
NOTHING(sd_bus_error_has_name)
NOTHING(sd_bus_message_read)
NOTHING(sd_bus_message_unref)
NOTHING(sd_bus_flush_close_unref)
NOTHING(sd_id128_get_machine_app_specific)

static void fill(uintptr_t at, int byte, size_t size) {
  __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(byte) : "memory");
}

static long call(long number, uintptr_t at, size_t size, long how) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "0"(number), "D"(at), "S"(size), "d"(how)
                   : "rcx", "r11", "memory");
  return result;
}

static int map_what_is_read(struct dl_phdr_info* object, size_t size,
                            void* data) {
  for (int number = 0; number < object->dlpi_phnum; ++number) {
    const ElfW(Phdr)* part = &object->dlpi_phdr[number];
    if (part->p_type != PT_LOAD || (part->p_flags & PF_W)) continue;
    const uintptr_t begin = (object->dlpi_addr + part->p_vaddr) & PAGE,
                    end = (object->dlpi_addr + part->p_vaddr + part->p_filesz +
                           ~PAGE) &
                          PAGE;
    const long right = PROT_READ | ((part->p_flags & PF_X) ? PROT_EXEC : 0);
    call(SYS_madvise, begin, end - begin, MADV_POPULATE_READ);
    call(SYS_mprotect, begin, end - begin, right | PROT_WRITE);
    call(SYS_mprotect, begin, end - begin, right);
  }
  return 0;
}

__attribute__((constructor)) static void map_all_that_is_read(void) {
  dl_iterate_phdr(map_what_is_read, NULL);
}

void* memset(void* memory, int byte, size_t size) {
  const uintptr_t at = (uintptr_t)memory, end = at + size;
  const uintptr_t first = (at + ~PAGE) & PAGE, last = end & PAGE;
  // LVM's memory of a megabyte and more is all private and anonymous, where it
  // zeroes.
  if (byte == 0 && size >= 1 << 20 &&
      call(SYS_madvise, first, last - first, MADV_DONTNEED) == 0) {
    fill(at, 0, first - at);
    fill(last, 0, end - last);
  } else {
    fill(at, byte, size);
  }
  return memory;
}
