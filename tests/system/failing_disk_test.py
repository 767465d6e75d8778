#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 20000 --scratch /var/lib/snapsync-lab:3G
"""The k-th write, read or flush of the disk below the sending or the receiving pool fails
(nbd_disk.py), whether the program, LVM or dm-thin asked for it: once, or that and all
later ones of its kind; of a write half may be there, and a flush may lose what was
written. The source is what it was, the target the old or the new generation, and what
succeeded is there; the next sync ends equal, and leaves nothing behind. A pool whose
metadata could not be written, and any after a disk has lost what it had said was written,
has to be activated again before, by the operator.

  SNAPSYNC_CASES=N    how many (40; each operation in each way with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import collections
import os
import random
import time

import kills
import lab
import nbd_disk
import runbook
import volumes_place
from lab import MIB, expect, run
from nbd_disk import FLUSH, LOST, READ, WRITE
from place import HIDDEN

CASES = 40
SOURCE, TARGET = 'nas1', 'nas2'
DISKS = {SOURCE: '/dev/nbd0', TARGET: '/dev/nbd1'}
# The end of where LVM writes where its newest metadata lie, and of that write: it does so
# twice each time that it changes them.
LVM_HEADER = 4096 + 512
# Of the pool's superblock (docs/formats.md): the block of the metadata snapshot, 0 if none.
HELD_ROOT = slice(56, 64)
# The `nth` operation of that kind in that area of the group, behind so many writes of LVM's
# header; release: of those that say that the metadata snapshot is released.
Case = collections.namedtuple('Case', 'group kind area nth fault behind release',
                              defaults=[0, False])


class Areas:
    """What of the group an operation is about."""

    def __init__(self, group):
        self.areas = []
        for name in ('pool_tmeta', 'pool_tdata'):
            _, size, _, _, first = run('dmsetup', 'table', '%s-%s' % (group, name)).split()
            self.areas.append((name, int(first) * 512, (int(first) + int(size)) * 512))

    def name(self, operation):
        if operation.kind == FLUSH:
            return 'disk'
        if operation.place < MIB:
            return 'LVM'
        return next((name for name, first, end in self.areas
                     if first <= operation.place < end), 'rest')

    def count(self, operations):
        return collections.Counter((operation.kind, self.name(operation))
                                   for operation in operations)

    def reached(self, case):
        """What says of each operation in turn whether it is the one of a case."""
        left, behind, held = case.nth, case.behind, False

        def reached(operation):
            nonlocal left, behind, held
            held, before = self.is_held(operation, held), held
            if behind > 0:
                behind -= is_header(operation)
            elif (operation.kind, self.name(operation)) == (case.kind, case.area):
                left -= not case.release or before and not held
                return left == 0
            return False
        return reached

    def is_held(self, operation, before):
        """Whether there is a metadata snapshot behind it."""
        if operation.kind != WRITE or operation.place != self.areas[0][1]:
            return before
        return any(operation.data[HELD_ROOT])


def is_header(operation):
    return operation.kind == WRITE and operation.place + operation.size == LVM_HEADER


def seen_at_last(place):
    """What a commit could not activate again, since LVM could not read the disk, the agent
    ends by itself within a minute."""
    for _ in range(12):
        seen = place.seen()
        if seen != HIDDEN:
            break
        print('         hidden', flush=True)
        time.sleep(5)
    return seen


def run_case(place, disks, case):
    """Violations, how many operations there were of that kind in that area, whether the
    one was reached, and what it took to go on."""
    bad = kills.Violations()
    place.prepare(volumes_place.UPDATE)
    with open(place.src, 'rb') as f:
        os.fsync(f.fileno())  # a discard, which a pool that is given up would take back
    old, new, number = place.old(), place.new(), place.number
    group, disk = case.group, disks[case.group]
    areas = Areas(group)  # they move when a pool is repaired
    logged = len(place.agent.log())
    disk.begin(areas.reached(case), case.fault)
    result = place.start().wait()
    operations, failed = disk.end()
    if failed is None:
        bad.unless(result.code == 0, 'nothing failed but the sync', result)
    if result.code != 0:
        known = (lab.IO, lab.TARGET_UNSUITABLE)
        if group == SOURCE and 'G1: state of the pool' in (result['error'] or ''):
            known = (lab.BASE_MISMATCH,)
        bad.unless(result.code in known and result['error'], 'the error', result)
    if case.behind and failed:
        bad.unless(result.code == lab.TARGET_UNSUITABLE,
                   'the kernel gave the pool up in the commit', result)
    bad.unless(place.agent.process.poll() is None, 'the agent has ended')
    taken = ''
    if not runbook.pool_is_well(group) or (failed and case.fault == LOST):
        place.agent.stop()
        run('vgchange', '-qq', '-an', group)
        volume = place.src if group == SOURCE else place.target
        taken = ('activated ' + runbook.bring_up(group, DISKS[group], volume)).strip()
        bad.unless(runbook.pool_is_well(group), 'the pool is not well by that')
        place.agent.start()
    bad.unless(place.new() == new, 'the source has changed')
    seen = seen_at_last(place)
    bad.unless(seen in (old, new), 'neither old nor new')
    bad.unless(result.code != 0 or seen == new, 'a success, but the target is not new')
    after = place.sync()
    bad.unless(after.code == 0 and after['number'] == number + 1,
               'the next sync should make number %d' % (number + 1), after)
    bad.unless(place.old() == new, 'after the next sync the target is not equal')
    if case.release and failed:
        bad.unless('that an interrupted run left behind' in place.agent.log()[logged:],
                   'it was released by the next sync')
    bad.extend('left over: ' + text for text in place.leftovers())
    place.number = number + 1
    return bad, areas.count(operations)[case.kind, case.area], failed is not None, taken


def went_wrong(operations, areas):
    """Of the receiving pool. A commit was acknowledged though the kernel had given the
    pool up in the merge: LVM is not told when what it asked for can't be written. It is
    the last run but one of writes to the pool's metadata; behind it an old generation is
    removed. How many writes come before differs from sync to sync, how often LVM changes
    its metadata does not in one that is like the sync that was counted: so this case
    comes first.

    Metadata that could not be read were said to be somebody else's doing.

    And the kernel doesn't tell either when it can't commit that a metadata snapshot was
    released, which then was somebody else's for ever."""
    writes = [operation for operation in operations if operation.kind == WRITE]
    written = list(map(areas.name, writes))
    runs = [i for i in range(1, len(written))
            if written[i] == 'pool_tmeta' and written[i - 1] == 'LVM']
    headers = sum(map(is_header, writes[:runs[-2]]))
    if not headers:
        raise RuntimeError('no write of the header of LVM: %s' % written)
    return [Case(TARGET, WRITE, 'pool_tmeta', 2, nbd_disk.EIO, headers),
            Case(TARGET, READ, 'pool_tmeta', 10, nbd_disk.FOR_GOOD),
            Case(TARGET, WRITE, 'pool_tmeta', 1, nbd_disk.EIO, release=True)]


def choose(rng, counted, first):
    """What once went wrong, and the others in turn by what is asked for."""
    alike = [[Case(group, kind, area, nth, fault) for nth in range(1, count + 1)]
             for group in DISKS for (kind, area), count in counted[group].items()
             for fault in nbd_disk.FAULTS[kind]]
    turns = [kills.shuffled(rng, cases) for cases in kills.shuffled(rng, alike)]
    everything = [cases[turn] for turn in range(max(map(len, turns))) for cases in turns
                  if turn < len(cases)]
    return kills.limit(rng, everything) or [*first, *everything][:CASES]


def count(place, disks):
    """What each disk of a sync was asked for, and what once went wrong in one like it."""
    place.prepare(volumes_place.UPDATE)
    areas = {group: Areas(group) for group in disks}
    for disk in disks.values():
        disk.begin()
    place.number = place.sync()['number']
    operations = {group: disk.end()[0] for group, disk in disks.items()}
    counted = {group: areas[group].count(operations[group]) for group in disks}
    for group in disks:
        print('a sync: %s: %s' % (group, ', '.join(
            '%d %ss of %s' % (times, kind, area)
            for (kind, area), times in sorted(counted[group].items()))))
    return counted, went_wrong(operations[TARGET], areas[TARGET])


def main():
    seed = lab.seed_from_environment()
    rng = random.Random(seed)
    volumes_place.steps.build()
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    disks = {group: nbd_disk.Disk(device, '%s/%s' % (lab.LAB, group), 1024 * MIB)
             for group, device in DISKS.items()}
    place = volumes_place.Volumes(rng, disks=DISKS.values())
    counted, first = count(place, disks)
    needed, missed, wrong, played = collections.Counter(), 0, 0, 0
    for case in lab.in_time(choose(rng, counted, first), least=len(first), share=1.125):
        for _ in range(kills.TRIES):
            bad, times, reached, taken = run_case(place, disks, case)
            if bad or reached:
                break
            # How many there are differs a little: the kernel merges some.
            case = case._replace(nth=max(1, min(case.nth, times)))
        played += 1
        missed += not reached
        needed[taken or 'nothing'] += 1
        expect('%s: %s %d of %s%s: %s%s%s' % (
            case.group, case.kind, case.nth, case.area,
            ' behind %d headers of LVM' % case.behind if case.behind else
            ' for a release' if case.release else '', case.fault,
            '' if reached else ' (not reached)', ', then ' + taken if taken else ''),
               not bad, '; '.join(bad))
        if bad:
            wrong += 1
            kills.print_what_is_known(place)
            place.forget()
    print('needed: %s' % dict(needed))
    expect('nearly all operations were reached', missed <= played / 10, missed)
    lab.report('the k-th write, read or flush of the disk below a pool fails',
               played - missed, wrong)
    place.agent.stop()
    lab.finish()


main()
