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

    COUNT, FIRED = 1, 5  # in struct control

    def __init__(self, control, number):
        self.fd = os.open(control, os.O_RDWR | os.O_DIRECT)
        self.page = mmap.mmap(-1, PAGE)
        self.number = number

    def begin(self, at=0, fault='EIO'):
        """Counts from here on; the `at`th write fails, if it is not 0."""
        self.page[:48] = struct.pack('<QQQqQQ', self.number, 0, at, ACTIONS[fault],
                                     fault == FOR_GOOD, 0)
        os.pwritev(self.fd, [self.page], 0)

    def end(self):
        """What is written from here on succeeds. Returns the places of all writes since
        begin() (bytes), as far as there is room for them, and how many failed."""
        os.preadv(self.fd, [self.page], 0)
        control = struct.unpack_from('<6Q', self.page)
        self.begin()
        count, places = control[self.COUNT], []
        while len(places) < count:
            if os.preadv(self.fd, [self.page], PAGE + 8 * len(places)) < PAGE:
                break
            places += struct.unpack('<512Q', self.page)
        return places[:count], control[self.FIRED]
