# SPDX-License-Identifier: Apache-2.0
"""Power cuts, by dm-log-writes: it records every write and flush of a device, and from
that the device is made as a cut could have left it. Of what was not flushed any part
may be lost, and writes may be torn.
"""
import collections
import contextlib
import hashlib
import mmap
import os
import struct

import lab
from lab import BLOCK, run

SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8  # flags of dm-log-writes' entries
Entry = collections.namedtuple('Entry', 'sector size flags at mark')


def record(device, log):
    """/dev/mapper/logged: what is written to it is written to `device`, and logged."""
    run('modprobe', 'dm-log-writes')
    run('dmsetup', 'create', 'logged', '--table', '0 %d log-writes %s %s' %
        (lab.device_size(device) // SECTOR, device, log))


def mark(name):
    run('dmsetup', 'message', 'logged', '0', 'mark', name)


def read_log(path):
    """All entries, by the format of Linux' drivers/md/dm-log-writes.c."""
    with open(path, 'rb') as f:
        magic, version, count, sector_size = struct.unpack('<QQQI', f.read(28))
        if magic != 0x6a736677736872 or version != 1 or sector_size != SECTOR:
            raise RuntimeError('%s is no log of dm-log-writes' % path)
        at = SECTOR
        for _ in range(count):
            f.seek(at)
            head = f.read(SECTOR)
            sector, sectors, flags, length = struct.unpack('<4Q', head[:32])
            at += SECTOR
            name = head[32:32 + length].decode() if flags & MARK else None
            written = 0 if flags & (MARK | DISCARD) else sectors * SECTOR
            yield Entry(sector, written, flags, at, name)
            at += written


def marks(entries):
    """(entry's number, (shape, number, ended)) of the marks SHAPE.NUMBER.begins and
    SHAPE.NUMBER.ended.

    dm-log-writes logs a write when the flush behind it comes, and a mark at once: what
    was not flushed at a mark stands behind it.
    """
    for i, entry in enumerate(entries):
        if entry.flags & MARK and '.' in entry.mark:  # its last one is its own
            shape, number, what = entry.mark.split('.')
            yield i, (shape, int(number), what == 'ended')


def spans(entries):
    """(shape, number, ended, first, last): from one flush or mark to the next each."""
    label, first, labels = None, 0, dict(marks(entries))
    for i, entry in enumerate(entries):
        if entry.flags & MARK or entry.flags & FLUSH:
            if label and i > first:
                yield (*label, first, i)
            first = i
        label = labels.get(i, label)


# What becomes of a write that was not flushed.
KEPT, LOST, TORN = 'kept', 'lost', 'torn'


def random_fates(rng, parts=1):
    """A function (entry, its part) that says what becomes of a write: the same for all,
    or for all of a part, or another one for each."""
    how = rng.choice(['parts', 'parts', 'some', 'torn'])
    if how == 'parts':
        fates = [rng.choice((KEPT, LOST)) for _ in range(parts)]
        return lambda entry, part: fates[part]
    fates = (KEPT, LOST) if how == 'some' else (KEPT, LOST, TORN)
    return lambda entry, part: rng.choice(fates)


class Replay:
    """A device from one moment of a recording to the next, and how a power cut leaves it.

    parts: the first sectors of what counts as a disk with a cache of its own, so that a
    flush of one leaves the others as they are. without: numbers of entries that are
    taken away.
    """

    def __init__(self, log, size, entries, parts=(0,), without=frozenset()):
        self.log = os.open(log, os.O_RDONLY)
        self.disk = mmap.mmap(-1, size)  # what was flushed
        self.entries, self.parts, self.without = entries, parts, without
        self.digests = {}  # of the blocks that were asked for and not written since
        self.at = 0        # entries before this one were made
        self.pending = []  # those of them that were not flushed

    def part(self, entry):
        return sum(first <= entry.sector for first in self.parts) - 1

    def go_to(self, end):
        for number in range(self.at, end):
            entry = self.entries[number]
            if number in self.without:
                continue
            if entry.flags & FLUSH:
                part = self.part(entry)
                for flushed in self.pending:
                    if self.part(flushed) == part:
                        self.write(flushed)
                self.pending = [e for e in self.pending if self.part(e) != part]
            if entry.size:
                self.pending.append(entry)
        self.at = max(self.at, end)

    def write(self, entry):
        """Returns what was there."""
        where = slice(entry.sector * SECTOR, entry.sector * SECTOR + entry.size)
        before = self.disk[where]
        self.put(where, os.pread(self.log, entry.size, entry.at))
        return where, before

    def put(self, where, data):
        self.disk[where] = data
        for block in range(where.start // BLOCK, -(-where.stop // BLOCK)):
            self.digests.pop(block, None)

    def digest(self, at):
        """Of the block at byte `at`."""
        block = at // BLOCK
        if at % BLOCK:
            raise ValueError('byte %d is not the first of a block' % at)
        if block not in self.digests:
            self.digests[block] = hashlib.sha256(memoryview(self.disk)[at:at + BLOCK]).digest()
        return self.digests[block]

    @contextlib.contextmanager
    def cut(self, fate, rng=None):
        """The device (self: `disk`, an mmap, and digest()) as long as this lasts, after a
        power cut at this moment; fate(entry, part) says what becomes of what was not
        flushed, rng which sectors of a torn write are there."""
        written = []
        for entry in self.pending:
            found = KEPT if entry.flags & FUA else fate(entry, self.part(entry))
            if found == KEPT:
                written.append(self.write(entry))
            elif found == TORN:
                written += [self.write(sector) for sector in sectors(entry)
                            if rng.random() < 0.5]
        try:
            yield self
        finally:
            for where, before in reversed(written):
                self.put(where, before)


def sectors(entry):
    return [entry._replace(sector=entry.sector + i, size=SECTOR, at=entry.at + i * SECTOR)
            for i in range(entry.size // SECTOR)]


def save(disk, path):
    """A file of a disk that was cut."""
    piece = 1 << 16
    zeroes = bytes(piece)
    with open(path, 'wb') as f:
        f.truncate(len(disk))
        for at in range(0, len(disk), piece):
            data = bytes(disk[at:at + piece])
            if data != zeroes[:len(data)]:
                os.pwrite(f.fileno(), data, at)


def draw(rng, chosen):
    """(span, moment) of each span, a moment within it; in their order."""
    return sorted(((span, rng.randint(span[3], span[4])) for span in chosen),
                  key=lambda drawn: drawn[1])
