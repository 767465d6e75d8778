#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""Power cuts while snapsync-send exports: dm-log-writes records every write and flush
of an ext4 below the images; then file systems are made as a cut could have left them,
and judged. Of what was not flushed any part may be lost, and writes may be torn. A new
image is not there or whole (so is its .part, where QEMU would open it); one that is
updated is the generation before or the new one; what an export that ended made is there.

By hand: SNAPSYNC_STATES=N (of each kind; 60, or 500 with SNAPSYNC_LONG)
SNAPSYNC_SEED=S.
"""
import collections
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

import lab
from lab import MIB, expect, run

STATES = int(os.environ.get('SNAPSYNC_STATES',
                            500 if os.environ.get('SNAPSYNC_LONG') else 60))
SIZE = 8 * MIB
SHAPES = {'plain': [], 'small': ['--cluster-size', '4K'], 'packed': ['--compress', 'zstd']}
UPDATES = 3
SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8  # flags of dm-log-writes' entries
Entry = collections.namedtuple('Entry', 'sector size flags at mark')


# --- In the guest: the exports, recorded -----------------------------------------

def mark(name):
    run('dmsetup', 'message', 'logged', '0', 'mark', name)


def record(share):
    run('modprobe', 'dm-log-writes')
    run('dmsetup', 'create', 'logged', '--table', '0 %d log-writes /dev/ubda /dev/ubdb' %
        (lab.device_size('/dev/ubda') // SECTOR))
    run('mkfs.ext4', '-q', '-E', 'nodiscard,lazy_itable_init=0,lazy_journal_init=0',
        '/dev/mapper/logged')
    os.mkdir('/images')
    run('mount', '/dev/mapper/logged', '/images')
    rng = random.Random(lab.seed_from_environment())
    for shape, options in SHAPES.items():
        raw = lab.LAB + '/' + shape
        with open(raw, 'wb') as f:
            f.truncate(SIZE)
        for generation in range(UPDATES + 1):
            with open(raw, 'r+b') as f:
                for _ in range(4 if generation else 24):
                    f.seek(rng.randrange(SIZE // 4096 - 32) * 4096)
                    f.write(rng.randbytes(rng.randrange(1, 32) * 4096))
            run('cp', raw, '%s/%s.%d' % (share, shape, generation))
            run('sync')
            mark('%s.%d.begins' % (shape, generation))
            run(lab.PROGRAMS + '/snapsync-send', 'export', '--src', raw, '--qcow',
                '/images/%s.qcow2' % shape, '--state-directory', lab.LAB + '/state',
                *options)
            mark('%s.%d.ended' % (shape, generation))
    run('umount', '/images')
    run('dmsetup', 'remove', 'logged')


# --- On the host: what a power cut could have left -------------------------------

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


def contents(image, name, folder):
    """None: not there; '': QEMU refuses it; else the digest of what a guest reads."""
    copy, raw = folder + '/copy', folder + '/raw'
    for path in (copy, raw):
        if os.path.exists(path):
            os.unlink(path)
    subprocess.run(['debugfs', '-R', 'dump /%s %s' % (name, copy), image],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    if not os.path.exists(copy):
        return None
    for command in (['check', '-q', '-f', 'qcow2', copy],
                    ['convert', '-f', 'qcow2', '-O', 'raw', copy, raw]):
        if subprocess.run(['qemu-img'] + command, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode:
            return ''
    return digest(raw)


def digest(path):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()


def judge(image, shape, number, ended, wanted, folder):
    """What is there: 'absent', 'old' or 'new', or why it is wrong."""
    check = subprocess.run(['e2fsck', '-fy', image], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
    if check.returncode > 1:
        return 'wrong: the file system: ' + check.stdout
    found = contents(image, shape + '.qcow2', folder)
    part = contents(image, shape + '.qcow2.part', folder)
    if part and part != wanted[number]:
        return 'wrong: the .part opens and is not what was exported'
    if found == wanted[number]:
        return 'new'
    if ended:
        return 'wrong: the export had ended'
    if number == 0:
        return 'absent' if found is None else 'wrong: neither absent nor whole'
    return 'old' if found == wanted[number - 1] else 'wrong: neither old nor new'


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


def judge_all(folder, rng):
    entries = list(read_log(folder + '/log'))
    wanted = {shape: [digest('%s/%s.%d' % (folder, shape, number))
                      for number in range(UPDATES + 1)] for shape in SHAPES}
    spans = list(intervals(entries))
    kinds = {'new image': [s for s in spans if s[1] == 0],
             'update': [s for s in spans if s[1] != 0]}
    # With one for certain after the commit.
    chosen = sorted(((span, kind) for kind, of in kinds.items()
                     for span in rng.choices(of, k=STATES - 1) + of[-1:]),
                    key=lambda choice: choice[0][3])
    counts = {kind: collections.Counter() for kind in kinds}
    log = os.open(folder + '/log', os.O_RDONLY)
    base = os.open(folder + '/base', os.O_RDWR | os.O_CREAT)
    os.truncate(base, os.path.getsize(folder + '/disk'))
    done = 0
    for (shape, number, ended, first, last), kind in chosen:
        while done < first:
            apply(log, base, entries[done])
            done += 1
        state = folder + '/state'
        run('cp', '--sparse=always', folder + '/base', state)
        disk = os.open(state, os.O_RDWR)
        cut(log, disk, entries[first:rng.randint(first, last)], rng)
        os.close(disk)
        found = judge(state, shape, number, ended, wanted[shape], folder)
        if found.startswith('wrong'):
            print('%s.%d, entries %d to %d: %s' % (shape, number, first, last, found))
            found = 'wrong'
        counts[kind][found] += 1
    for kind, count in counts.items():
        expect('%s: nothing wrong in %d states' % (kind, STATES), not count['wrong'] and
               sum(count.values()) == STATES, dict(count))
        print('%s: %d flushes apart, %s' % (kind, len(kinds[kind]), dict(count)))
    expect('both sides of each commit were met', all(
        counts['new image'][what] for what in ('absent', 'new')) and all(
            counts['update'][what] for what in ('old', 'new')), counts)


def main():
    if sys.argv[1:2] == ['--record']:
        record(sys.argv[2])
        return
    folder = tempfile.mkdtemp(prefix='snapsync-power-')
    try:
        seed = lab.seed_from_environment()
        run(os.path.dirname(os.path.realpath(__file__)) + '/uml-run', '--mem', '512M',
            '--disk', folder + '/disk:64M', '--disk', folder + '/log:512M', '--share',
            folder, '--scratch', lab.LAB + ':128M', '--env', 'SNAPSYNC_SEED=%d' % seed,
            '--', os.path.realpath(__file__), '--record', folder)
        judge_all(folder, random.Random(seed))
    finally:
        shutil.rmtree(folder)
    lab.finish()


main()
