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
import subprocess
import sys
import tempfile

import lab
import power
from lab import MIB, expect, run
from power import mark

STATES = int(os.environ.get('SNAPSYNC_STATES',
                            500 if os.environ.get('SNAPSYNC_LONG') else 60))
SIZE = 8 * MIB
SHAPES = {'plain': [], 'small': ['--cluster-size', '4K'], 'packed': ['--compress', 'zstd']}
UPDATES = 3
# --- In the guest: the exports, recorded -----------------------------------------

def record(share):
    power.record('/dev/ubda', '/dev/ubdb')
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


def judge_all(folder, rng):
    entries = list(power.read_log(folder + '/log'))
    wanted = {shape: [digest('%s/%s.%d' % (folder, shape, number))
                      for number in range(UPDATES + 1)] for shape in SHAPES}
    spans = list(power.spans(entries))
    kinds = {'new image': [s for s in spans if s[1] == 0],
             'update': [s for s in spans if s[1] != 0]}
    # With one for certain after the commit.
    chosen = [span for of in kinds.values()
              for span in rng.choices(of, k=STATES - 1) + of[-1:]]
    counts = {kind: collections.Counter() for kind in kinds}
    replay = power.Replay(folder + '/log', os.path.getsize(folder + '/disk'), entries)
    state = folder + '/state'
    for (shape, number, ended, first, last), moment in power.draw(rng, chosen):
        replay.go_to(moment)
        with replay.cut(power.random_fates(rng), rng) as cut:
            power.save(cut.disk, state)
        found = judge(state, shape, number, ended, wanted[shape], folder)
        os.unlink(state)
        if found.startswith('wrong'):
            print('%s.%d, entries %d to %d: %s' % (shape, number, first, last, found))
            found = 'wrong'
        counts['update' if number else 'new image'][found] += 1
    for kind, count in counts.items():
        expect('%s: nothing wrong in %d states' % (kind, STATES), not count['wrong'] and
               sum(count.values()) == STATES, dict(count))
        print('%s: %d flushes apart, %s' % (kind, len(kinds[kind]), dict(count)))
        lab.report('power cuts during exports, ' + kind, STATES, count['wrong'])
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
