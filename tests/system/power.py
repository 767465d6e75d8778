# SPDX-License-Identifier: Apache-2.0
"""Power cuts, by dm-log-writes: it records every write and flush of a device, and from
that the device is made as a cut could have left it. Of what was not flushed any part
may be lost, and writes may be torn.
"""
import collections
import os
import struct

import lab
from lab import run

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


def apply(log, disk, entry, rng=None):
    """With rng: torn, each sector there or not."""
    data = os.pread(log, entry.size, entry.at)
    for start in range(0, len(data), SECTOR if rng else max(len(data), 1)):
        if rng is None or rng.random() < 0.5:
            os.pwrite(disk, data[start:start + SECTOR] if rng else data,
                      entry.sector * SECTOR + start)


def cut(log, disk, entries, rng):
    """Of writes that no flush followed: all, some, or parts of some."""
    how = rng.choice(('all', 'some', 'torn'))
    for entry in entries:
        if entry.flags & FUA or how == 'all':
            apply(log, disk, entry)
        elif rng.random() < 0.5:
            apply(log, disk, entry, rng if how == 'torn' and rng.random() < 0.5 else None)


def intervals(entries):
    """(shape, generation, ended, first, last): from one flush to the next each.

    dm-log-writes logs a write when the flush behind it comes, and a mark at once: what
    was not flushed at a mark stands behind it.
    """
    shape, number, ended, first = None, 0, False, 0
    for i, entry in enumerate(entries):
        if entry.flags & MARK or entry.flags & FLUSH:
            if shape and i > first:
                yield shape, number, ended, first, i
            first = i
        if entry.flags & MARK and '.' in entry.mark:  # its last one is its own
            shape, number, what = entry.mark.split('.')
            number, ended = int(number), what == 'ended'


def make_states(log_path, device_path, folder, spans, rng, entries):
    """Yields (span, path) for each of `spans`, sorted by their beginning: the device as a
    cut somewhere in the span could have left it. `device_path` gives the size."""
    log = os.open(log_path, os.O_RDONLY)
    base_path = folder + '/base'
    base = os.open(base_path, os.O_RDWR | os.O_CREAT)
    os.truncate(base, os.path.getsize(device_path))
    done = 0
    for number, span in enumerate(spans):
        first, last = span[-2:]
        while done < first:
            apply(log, base, entries[done])
            done += 1
        path = '%s/state%d' % (folder, number)
        run('cp', '--sparse=always', base_path, path)
        disk = os.open(path, os.O_RDWR)
        cut(log, disk, entries[first:rng.randint(first, last)], rng)
        os.close(disk)
        yield span, path
    os.close(base)
    os.close(log)
