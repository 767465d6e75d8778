#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 1500 --disk :1G --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""Disks that lie, fail, hang and vanish below a replica, by device-mapper: below a thin
pool's data and below a plain device, in the middle of a sync. Nothing that was not read
back is acknowledged or committed: each sync ends with the documented code, a thin volume
is what it was, and with a good disk the same command ends equal.

Each second the kernel commits a pool, and flushes its data before. Where that fails it
gives the pool up: the next sync says so, and the operator has it checked.

  SNAPSYNC_CASES=N  how many (8; 100 with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S   case number i has the seed S + i
"""
import os
import random
import time

import lab
import runbook
from lab import BLOCK, MIB, expect, run

CASES = int(os.environ.get('SNAPSYNC_CASES') or
            (100 if os.environ.get('SNAPSYNC_LONG') else 8))
SEED = int(os.environ.get('SNAPSYNC_SEED') or random.SystemRandom().randrange(1 << 31))
SIZE = 32 * MIB
SRC, REPLICA = '/dev/nas1/vol', '/dev/nas2/replica'
GROUP = 'nas2'

# What the disk does to writes, the exit codes that may come of it, and whether the
# sync notices by reading back.
ALWAYS = '0 100000'  # of flakey: no second up, then down for ever
FAULTS = {
    'drops writes': ('flakey %%s 0 %s 1 drop_writes' % ALWAYS, [lab.VERIFICATION]),
    'changes a byte': ('flakey %%s 0 %s 5 corrupt_bio_byte 40 w 85 0' % ALWAYS,
                       [lab.VERIFICATION]),
    'fails writes': ('flakey %%s 0 %s 1 error_writes' % ALWAYS, [lab.IO]),
    'vanishes': ('error', [lab.IO]),
    'is slow': ('delay %s 0 30', [lab.DONE]),
}
FAILING = ['fails writes', 'vanishes']
ON = ['thin', 'block']


class Disk:
    """A device of ours over a real one, of which the table can be changed."""

    def __init__(self, name, real):
        self.name, self.real = name, real
        self.sectors = lab.device_size(real) // 512
        self.path = '/dev/mapper/' + name
        run('dmsetup', 'create', name, '--table', self.table('linear %s 0'))

    def table(self, target):
        return '0 %d %s' % (self.sectors, target % self.real if '%s' in target else target)

    def become(self, target):
        # Not flushed: what is on its way meets the fault, too.
        run('dmsetup', 'suspend', '--noflush', '--nolockfs', self.name)
        run('dmsetup', 'reload', self.name, '--table', self.table(target))
        run('dmsetup', 'resume', self.name)


def change(rng):
    """Writes and discards at the source."""
    for number in rng.sample(range(SIZE // BLOCK), 260):
        if rng.random() < 0.1:
            lab.discard(SRC, number * BLOCK, BLOCK)
        else:
            lab.write_device(SRC, number * BLOCK, rng.randbytes(BLOCK))


def have_pool_checked(name, agent, disk, target, before):
    """What docs/operating.md tells to do with a pool that the kernel has given up."""
    again = lab.sync(SRC, 'thin', 'thin')
    expect('%s: the pool has to be checked, the next sync says' % name,
           again.code == lab.TARGET_UNSUITABLE and 'needs_check' in again.text, again)
    agent.stop()
    run('vgchange', '-qq', '-an', GROUP)
    taken = runbook.bring_up(GROUP, disk.path, target)
    expect('%s: that takes a check' % name, 'checked' in taken, taken)
    agent.start()
    expect('%s: the volume is still what it was' % name, lab.contents(target) == before)


def play(number, kind, fault, disk, target, agent):
    rng = random.Random(SEED + number)
    name = 'case %d (seed %d): a disk that %s, below %s' % (
        number, SEED + number, fault, kind)
    table, codes = FAULTS[fault]
    change(rng)
    before = lab.contents(target)
    process = lab.Sync(SRC, kind, kind, '--speed-limit', '8M')
    time.sleep(rng.uniform(0.4, 1.5))
    disk.become(table)
    result = process.wait()
    time.sleep(rng.uniform(0, 2))  # the kernel commits a pool each second
    disk.become('linear %s 0')
    given_up = fault in FAILING and not runbook.pool_is_well(GROUP)
    if given_up:
        codes = [*codes, lab.TARGET_UNSUITABLE]
    expect('%s: exit code %s' % (name, codes), result.code in codes, result)
    if result.code == lab.VERIFICATION:
        expect('%s: the message says where' % name, 'offset' in result.text, result.text)
    if result.code != 0 and kind == 'thin':
        expect('%s: the volume is what it was' % name, lab.contents(target) == before)
    if given_up:
        have_pool_checked(name, agent, disk, target, before)
    again = lab.sync(SRC, kind, kind)
    expect('%s: with a good disk the same command ends with 0' % name, again.code == 0, again)
    expect('%s: equal' % name, lab.contents(SRC) == lab.contents(target, SIZE))


def main():
    print('SNAPSYNC_SEED=%d SNAPSYNC_CASES=%d' % (SEED, CASES), flush=True)
    for module in ('dm-flakey', 'dm-delay', 'loop'):
        run('modprobe', module)
    # The same physical volume is seen through our devices and below them.
    with open('/etc/lvm/lvm.conf', 'a') as f:
        f.write('\ndevices/global_filter=["r|/dev/ubd[bc]|", "a|.*|"]\n')
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_pool('nas1', 'pool', 200 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    # The pool's data lie on the disk with faults, LVM's and the pool's metadata do not.
    thin_disk = Disk('faulty', '/dev/ubdb')
    run('losetup', '/dev/loop0', '/dev/ubdc', '--sizelimit', str(512 * MIB))
    run('losetup', '/dev/loop1', '/dev/ubdc', '--offset', str(512 * MIB))
    run('pvcreate', '-qq', '--metadatacopies', '0', thin_disk.path)
    run('pvcreate', '-qq', '/dev/loop0')
    run('vgcreate', '-qq', 'nas2', '/dev/loop0', thin_disk.path)
    run('lvcreate', '-qq', '-n', 'meta', '-L', '4m', 'nas2', '/dev/loop0')
    run('lvcreate', '-qq', '-n', 'pool', '-L', '400m', 'nas2', thin_disk.path)
    run('lvconvert', '-qq', '-y', '--type', 'thin-pool', '-c', '64k', '--poolmetadata', 'nas2/meta',
        '--poolmetadataspare', 'n', 'nas2/pool')
    run('lvchange', '-qq', '--errorwhenfull', 'y', 'nas2/pool')
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    block_disk = Disk('plain', '/dev/loop1')
    agent = lab.Agent([('thin', REPLICA, 'thin'),
                       ('block', block_disk.path, 'block')]).start()
    rng = random.Random(SEED)
    change(rng)
    for kind in ON:
        result = lab.sync(SRC, kind, kind)
        expect('%s: the first sync' % kind, result.code == 0, result)
    # Each fault once, then each where it was not yet.
    cases = [(ON[(number + turn) % 2], fault) for turn in range(2)
             for number, fault in enumerate(FAULTS)]
    for number in rng.sample(range(CASES), CASES):
        kind, fault = cases[number % len(cases)]
        disk = thin_disk if kind == 'thin' else block_disk
        target = REPLICA if kind == 'thin' else block_disk.path
        play(number, kind, fault, disk, target, agent)
    agent.stop()
    lab.report('disks that lie, fail, vanish or are slow', CASES, lab.failures)
    lab.finish()


if __name__ == '__main__':
    main()
