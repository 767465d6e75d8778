// SPDX-License-Identifier: Apache-2.0
//
// What LVM's commands find in a guest of uml-run in place of libsystemd, which
// they link for the journal and the bus that no guest has. A guest's page fault
// takes 0.2 ms, and an "lvs" has 1800 of them. This spares a half:
//
// - Less is loaded: libsystemd needs five libraries that nothing else of LVM
//   does.
// - LVM starts by zeroing 3 MB that are zero (its table of commands), page by
//   page, of which it uses a part. This memset(), found before that of the C
//   library, has them mapped anew, all at once (uml_pages.h).
//
// The versions of the symbols are in uml_libsystemd.map. uml-run tries on the
// host whether LVM starts with it; a later LVM may need more of libsystemd.
#include <stddef.h>
#include <stdint.h>

#include "uml_pages.h"

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

void* memset(void* memory, int byte, size_t size) {
  const uintptr_t at = (uintptr_t)memory, end = at + size;
  const uintptr_t first = (at + ~PAGE) & PAGE, last = end & PAGE;
  // LVM's memory of a megabyte and more is all private and anonymous, where it
  // zeroes.
  if (byte == 0 && size >= 1 << 20 &&
      uml_call(SYS_madvise, first, last - first, MADV_DONTNEED) == 0) {
    uml_map(first, last, PROT_READ | PROT_WRITE);
    fill(at, 0, first - at);
    fill(last, 0, end - last);
  } else {
    fill(at, byte, size);
  }
  return memory;
}
