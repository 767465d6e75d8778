#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 768M --timeout 2400 --scratch /var/lib/snapsync-lab:512M
"""A bad network: packets are lost (up to 20 %; with SNAPSYNC_LONG 30 %), late (up to
2 s, with jitter), out of order, doubled, at 1 Mbit/s, or several of these, both ways, by
netem. A sync over it ends by itself with exit code 0, and the replica is equal byte for
byte; the next plain sync, over a good network, is right, too. Whatever happens, the
replica is the old or the new generation.

Each worker has a network namespace of its own with netem on its loopback, on which
sender and agent meet. The seed repeats contents and settings, but not which packets
are lost: Linux 6.1 has no seed for that.

  SNAPSYNC_CASES=N  how many (6), each kind in turn
  SNAPSYNC_SEED=S   case number i has the seed S + i
"""
import collections
import ctypes
import hashlib
import json
import os
import random
import time

import lab
import side_by_side
from lab import BLOCK, MIB, expect, run

CASES = int(os.environ.get('SNAPSYNC_CASES') or 6)
WORKERS = 6  # most of the time they wait
LIMIT = 900  # seconds, of a sync; --retry-for is longer
SIZE = 2 * MIB
CLONE_NEWNET = 0x40000000
MOST_LOSS = 30 if os.environ.get('SNAPSYNC_LONG') else 20  # each way
PACKET = 1500  # bytes; loopback has 64 KiB otherwise, and loses as much at once

# kind: the most of it alone, and together with others.
PARTS = {
    'loss': lambda rng, most: 'loss %d%%' % (
        rng.randint(10, MOST_LOSS) if most else rng.randint(3, 20)),
    'delay': lambda rng, most: delay(rng, rng.randint(200, 2000 if most else 1000)),
    'reordering': lambda rng, most: 'reorder %d%% 50%%' % rng.randint(20, 70),
    'duplication': lambda rng, most: 'duplicate %d%%' % rng.randint(10, 50),
    'rate': lambda rng, most: 'rate 1mbit',
}
# Of 30 % on both ways a connection dies every minute or so, and 192 KiB took up to
# 15 minutes.
BLOCKS = {'loss': 2, 'duplication': 16, 'rate': 16}  # that change; else 4
MIX = 'mix'
KINDS = list(PARTS) + [MIX]

Case = collections.namedtuple('Case', 'number seed kind')


def delay(rng, milliseconds):
    return 'delay %dms %dms' % (milliseconds, rng.randint(10, milliseconds // 2))


def settings(rng, kind):
    """What netem is told."""
    kinds = [kind] if kind != MIX else rng.sample(list(PARTS), rng.randint(2, 4))
    found = [PARTS[part](rng, kind != MIX) for part in kinds]
    if 'reordering' in kinds and 'delay' not in kinds:
        found.append(delay(rng, rng.randint(20, 100)))  # some go without it: these overtake
    return ' '.join(found)


def contents(path):
    """Not those of lab, whose buffer all workers share."""
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').digest()


def change(rng, path, blocks):
    """New contents in so many blocks, one of them zeroes."""
    with open(path, 'r+b') as f:
        for at, number in enumerate(rng.sample(range(SIZE // BLOCK), blocks)):
            f.seek(number * BLOCK)
            f.write(rng.randbytes(BLOCK) if at else bytes(BLOCK))


class Worker(side_by_side.Worker):
    """An agent with a volume, and a sender, with a network of their own."""

    def __init__(self, number):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), 'no network namespace')
        run('ip', 'link', 'set', 'lo', 'mtu', str(PACKET), 'gso_max_segs', '1', 'up')
        super().__init__(number, ['vol'])
        self.source = self.folder + '/source'
        self.volume = 'vol'

    def prepare(self):
        with open(self.source, 'wb') as f:
            f.write(random.Random().randbytes(SIZE))
        result = self.sync()
        if result.code != 0 or self.held() != contents(self.source):
            raise RuntimeError('a sync over a good network: %s' % result)

    def sync(self, *arguments):
        return lab.Sync(self.source, self.volume, 'netem', '--retry-for', str(2 * LIMIT),
                        *arguments, port=self.port).wait(LIMIT)

    def held(self):
        with self.standing_still():
            return contents(self.target(self.volume))

    def play(self, case):
        rng = random.Random(case.seed)
        netem = settings(rng, case.kind)
        change(rng, self.source, BLOCKS.get(case.kind, 4))
        old, new = self.held(), contents(self.source)
        log_begin = os.path.getsize(self.agent.log_path)
        run('tc', 'qdisc', 'replace', 'dev', 'lo', 'root', 'netem', 'limit', '10000',
            *netem.split())
        begin = time.monotonic()
        result = self.sync()
        seconds = time.monotonic() - begin
        passed = json.loads(run('tc', '-s', '-j', 'qdisc', 'show', 'dev', 'lo'))[0]
        run('tc', 'qdisc', 'del', 'dev', 'lo', 'root')
        opened = self.agent.log(log_begin).count(' goes on at chunk ')
        violations = judge(result, 'over it', self.held(), old, new)
        change(rng, self.source, 4)
        old, new = self.held(), contents(self.source)
        after = self.sync()
        violations += judge(after, 'after it', self.held(), old, new)
        outcome = {
            'name': 'case %d (seed %d): %s (%s), %d s, %d packets, %d lost, opened %d times' % (
                case.number, case.seed, case.kind, netem, seconds, passed['packets'],
                passed['drops'], opened),
            'violations': violations,
            'bad': passed['packets'] > 0 and (passed['drops'] > 0) == ('loss' in netem)}
        if violations:
            outcome['detail'] = '%s\n%s\nand after it: %s\nthe agent:\n%s' % (
                '; '.join(violations), result, after, self.agent.log(log_begin)[-4000:])
            self.sync('--allow-full')  # for the cases that follow
        return outcome


def judge(result, when, held, old, new):
    violations = []
    if result.code != 0:
        violations.append('%s: %s' % (when, 'no end after %d s' % LIMIT if result.code == -1
                                      else 'exit code %d' % result.code))
    if held not in (old, new):
        violations.append(when + ': the replica is neither old nor new')
    elif result.code == 0 and held != new:
        violations.append(when + ': the replica is not what the source is')
    return violations


def main():
    seed = lab.seed_from_environment()
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    run('modprobe', 'sch_netem')
    cases = [Case(number, seed + number, KINDS[number % len(KINDS)])
             for number in range(CASES)]
    played, violations = side_by_side.play_all(Worker, min(WORKERS, CASES), cases)
    bad = [outcome for outcome in played if outcome.get('bad')]
    expect('all cases were played, over a bad network', len(bad) == CASES > 0, len(bad))
    lab.report('packets lost, late, reordered, doubled, slow', len(bad), violations)
    lab.finish()


main()
