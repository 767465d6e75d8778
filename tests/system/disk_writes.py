# SPDX-License-Identifier: Apache-2.0
"""Writes to a guest's disk that are counted and fail: in a guest of `uml-run --faults`,
the other side of uml_disk.c. Imported after lab is.
"""
import errno
import mmap
import os
import struct

PAGE = 4096
SHORT = -1
FOR_GOOD = 'EIO for good'  # this write and all later ones
ACTIONS = {'EIO': errno.EIO, 'ENOSPC': errno.ENOSPC, 'short': SHORT, FOR_GOOD: errno.EIO}


class Disk:
    """control: the disk of `uml-run --faults`; number: of the disk whose writes count
    (0 is /dev/ubda)."""

    COUNT, FIRED, PLACE = 1, 5, 6  # in struct control
    FIELDS = 11

    def __init__(self, control, number):
        self.fd = os.open(control, os.O_RDWR | os.O_DIRECT)
        self.page = mmap.mmap(-1, PAGE)
        self.number = number

    def begin(self, at=0, fault='EIO', after=0, area=(0, 0)):
        """Counts from here on; the `at`th write fails, if it is not 0, or the `at`th
        behind so many (`after`) to an area of the disk (bytes)."""
        self.page[:8 * self.FIELDS] = struct.pack(
            '<3Qq7Q', self.number, 0, at, ACTIONS[fault], fault == FOR_GOOD, 0, 0, *area,
            after, 0)
        os.pwritev(self.fd, [self.page], 0)

    def end(self):
        """What is written from here on succeeds. Returns the places of all writes since
        begin() (bytes), as far as there is room for them, and that of the first which
        failed (None: none did)."""
        os.preadv(self.fd, [self.page], 0)
        control = struct.unpack_from('<%dQ' % self.FIELDS, self.page)
        self.begin()
        count, places = control[self.COUNT], []
        while len(places) < count:
            if os.preadv(self.fd, [self.page], PAGE + 8 * len(places)) < PAGE:
                break
            places += struct.unpack('<512Q', self.page)
        return places[:count], control[self.PLACE] if control[self.FIRED] else None
