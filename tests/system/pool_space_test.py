#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 1500 --disk :2G --disk :8G --scratch /var/lib/snapsync-lab:256M
"""Pools without room, on real LVM: what would not fit is refused before a byte is
written; what others take meanwhile stops the sync at the reserve, with the other
volumes writable, in a pool that fails writes when it is full and in one that queues
them; the same for the pool's metadata. Enlarged, the same command goes on where it
was, and ends equal.

  SNAPSYNC_CASES=N  how many (12; 200 with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S   case number i has the seed S + i
"""
import itertools
import os
import random
import subprocess
import time

import lab
from lab import BLOCK, MIB, expect, run

CASES = int(os.environ.get('SNAPSYNC_CASES') or
            (200 if os.environ.get('SNAPSYNC_LONG') else 12))
SEED = int(os.environ.get('SNAPSYNC_SEED') or random.SystemRandom().randrange(1 << 31))
SIZE = 48 * MIB
POOL_BLOCKS = 1280  # 80 MiB
RESERVE = POOL_BLOCKS // 20
SRC = '/dev/nas1/vol'


def status(pool):
    """(free data blocks, free metadata blocks, mode)"""
    words = run('dmsetup', 'status', '--noflush', 'nas2-%s-tpool' % pool).split()
    used, total = [[int(n) for n in words[i].split('/')] for i in (5, 4)], words[7]
    return used[0][1] - used[0][0], used[1][1] - used[1][0], total


class Case:
    def __init__(self, number):
        self.rng = random.Random(SEED + number)
        self.name = 'case %d (seed %d)' % (number, SEED + number)
        self.pool = 'p%d' % number
        self.queue = number // 4 % 2 == 1
        self.kind = ('refused', 'taken', 'metadata', 'unknown')[number % 4]
        self.replica = 'r%d' % number
        self.target = '/dev/nas2/' + self.replica
        self.uuid = 'u%d' % number
        self.neighbour = None
        self.taken_blocks = 0  # by the neighbour, from its beginning

    def expect(self, what, condition, detail=''):
        return expect('%s, %s%s: %s' % (self.name, self.kind,
                                        ', queueing' if self.queue else '', what),
                      condition, detail)

    def make(self, blocks, *arguments):
        lab.make_pool('nas2', self.pool, blocks * BLOCK, *arguments)
        if self.queue:  # lab's pools fail at once
            run('lvchange', '-qq', '--errorwhenfull', 'n', 'nas2/' + self.pool)
        lab.make_thin('nas2', self.pool, self.replica, SIZE)
        self.neighbour = lab.make_thin('nas2', self.pool, 'n' + self.pool, 1024 * MIB)

    def take(self, free):
        """The neighbour takes all blocks but `free`, whoever takes some meanwhile."""
        while True:
            left = status(self.pool)[0] - free
            if left <= 0:
                return
            length = min(max(16, left // 2), left)  # half: others may take some, too
            lab.write_device(self.neighbour, self.taken_blocks * BLOCK,
                             self.rng.randbytes(4096) * (16 * length))
            self.taken_blocks += length

    @staticmethod
    def needed():
        return int(run('dmsetup', 'status', 'nas1-vol').split()[3]) // 128

    def staged(self):
        """Bytes of the stage that have blocks; 0: there is none."""
        words = run('dmsetup', 'status', 'nas2-%s.stage' % self.replica, check=False).split()
        return int(words[3]) * 512 if words[2:3] == ['thin'] else 0

    def sync(self, *arguments, src=SRC, **options):
        return lab.Sync(src, self.replica, self.uuid, *arguments, **options)

    def neighbour_writes(self, what):
        process = subprocess.run(
            ['dd', 'if=/dev/zero', 'of=' + self.neighbour, 'bs=64k', 'count=8', 'seek=12000',
             'oflag=direct', 'conv=notrunc,fsync'], stderr=subprocess.DEVNULL, timeout=30)
        self.expect('%s, its neighbour can write' % what, process.returncode == 0)

    def enlarge(self, *arguments):
        if arguments:
            run('lvextend', '-qq', *arguments, 'nas2/' + self.pool)
        else:
            lab.enlarge_pool('nas2', self.pool)

    def goes_on(self, resumed=False, src=SRC):
        result = self.sync(src=src).wait()
        self.expect('with room, the same command ends with 0', result.code == 0, result)
        self.expect('equal', lab.contents(src) == lab.contents(self.target, SIZE))
        if resumed:
            self.expect('what was sent is not sent again',
                        result['resumed_from_bytes'] > 0, result)

    def stopped(self, result, word):
        self.expect('stopped with 11', result.code == lab.NO_SPACE, result)
        self.expect('the message has the pool and what helps',
                    'nas2/' + self.pool in result.text and word in result.text and
                    'lvextend' in result.text, result.text)
        self.expect('the target is what it was', lab.contents(self.target, SIZE) ==
                    [lab.ZEROES] * (SIZE // BLOCK))

    def refused(self):
        """Too little from the beginning, by 1 to all blocks."""
        needed = self.needed()
        self.make(POOL_BLOCKS)
        missing = self.rng.choice([1, 2, needed // 2, needed, needed + RESERVE // 2])
        self.take(RESERVE + needed - missing)
        before = status(self.pool)[:2], lab.volumes('nas2')
        result = self.sync().wait()
        self.stopped(result, 'too little')
        self.expect('nothing was made or written',
                    (status(self.pool)[:2], lab.volumes('nas2')) == before)
        # Exactly as much as is needed is enough: the estimate is no guess.
        lab.discard(self.neighbour, 0, missing * BLOCK)
        self.goes_on()

    def taken(self):
        """Others take the room while the sync is under way."""
        self.make(POOL_BLOCKS)
        self.take(RESERVE + self.needed() + 20)
        process = self.sync('--speed-limit', '3M')
        # The third segment begins when the first one is durable; none is larger than 5 MiB.
        while process.running() and self.staged() < 15 * MIB:
            time.sleep(0.1)
        if self.queue and self.rng.random() < 0.5:
            # More than there is: the neighbour's own writes wait for room.
            eager = subprocess.Popen(
                ['dd', 'if=/dev/zero', 'of=' + self.neighbour, 'bs=1M', 'count=100',
                 'oflag=direct'], stderr=subprocess.DEVNULL)
        else:
            eager = None
            self.take(self.rng.randrange(16, RESERVE))
        self.stopped(process.wait(), 'lvextend')
        # Tried again too early, nothing gets lost.
        self.stopped(self.sync().wait(), 'lvextend')
        if not eager and status(self.pool)[0] >= 8:
            self.neighbour_writes('stopped')
        self.expect('its stage is kept', self.staged() > 0)
        self.enlarge('-L', '+128m')
        if eager:
            self.expect('what waited for room goes on', eager.wait(timeout=60) == 0)
        self.goes_on(resumed=True)

    def metadata(self):
        """No room for mappings."""
        self.make(24000, '--poolmetadatasize', '2m')
        # Leaves, and then copies of them: a snapshot shares all that is not
        # written to.
        fd = os.open(self.neighbour, os.O_WRONLY)
        for at in range(0, 12000):
            os.pwrite(fd, b'x' * 4096, at * BLOCK)
        os.fsync(fd)
        os.close(fd)
        # All at once: LVM makes none where three quarters are taken.
        snapshots = [lab.make_snapshot('nas2', 'n' + self.pool, 's%s.%d' % (self.pool, i), 'rw')
                     for i in range(16)]
        # From nearly nothing to what is enough for us, but not for LVM.
        wanted = self.rng.randrange(27, 100)
        leaves = ((snapshot, at) for snapshot in snapshots for at in range(0, 12000, 110))
        while (free := status(self.pool)[1]) > wanted:
            # One takes up to four blocks.
            chosen = list(itertools.islice(leaves, max(1, (free - wanted) // 4)))
            if not chosen:
                raise RuntimeError('%s: %d blocks are free still' % (self.pool, free))
            for snapshot, of in itertools.groupby(chosen, key=lambda leaf: leaf[0]):
                fd = os.open(snapshot, os.O_WRONLY)
                for _, at in of:
                    os.pwrite(fd, b'y' * 4096, at * BLOCK)
                os.fsync(fd)
                os.close(fd)
        result = self.sync().wait()
        self.stopped(result, 'metadata')
        self.expect('the pool takes writes still', status(self.pool)[2] == 'rw')
        self.enlarge('--poolmetadatasize', '+4m')
        self.goes_on()

    def unknown(self):
        """Of a source without metadata nobody knows how much it takes."""
        self.make(POOL_BLOCKS)
        left = self.rng.randrange(RESERVE, RESERVE + 400)
        self.take(left)
        result = self.sync(src='/dev/nas1/thick').wait()
        self.stopped(result, 'too little')
        self.expect('the reserve is left', status(self.pool)[0] >= RESERVE,
                    status(self.pool))
        self.neighbour_writes('stopped')
        self.enlarge()
        self.goes_on(src='/dev/nas1/thick')

    def play(self):
        getattr(self, self.kind)()

    def tear_down(self):
        lab.remove('nas2', *[v for v in lab.volumes('nas2')])
        run('lvremove', '-qq', '-f', 'nas2/' + self.pool)


def main():
    print('SNAPSYNC_SEED=%d SNAPSYNC_CASES=%d' % (SEED, CASES), flush=True)
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/ubdb', 'nas2')
    lab.make_pool('nas1', 'pool', 200 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    run('lvcreate', '-qq', '-Wn', '-L', '%db' % SIZE, '-n', 'thick', 'nas1')
    rng = random.Random(SEED)
    for number in range(0, SIZE // BLOCK - 32, 2):
        lab.write_device(SRC, number * BLOCK, rng.randbytes(BLOCK))
    for at in range(0, SIZE, MIB):
        lab.write_device('/dev/nas1/thick', at, rng.randbytes(MIB))
    agent = lab.Agent([('r%d' % i, '/dev/nas2/r%d' % i, 'thin') for i in range(CASES)]).start()
    for number in rng.sample(range(CASES), CASES):
        case = Case(number)
        case.play()
        case.tear_down()
    agent.stop()
    lab.report('pools that run out of room', CASES, lab.failures)
    lab.finish()


if __name__ == '__main__':
    main()
