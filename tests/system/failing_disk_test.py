#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --faults --timeout 20000 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""The k-th write to the disk below the receiving pool fails (uml_disk.c), whether the
agent, LVM or dm-thin made it: once, with EIO or ENOSPC or half of it written; or that
one and all others from there on. The target is the old or the new generation, and what
succeeded is there; the next sync ends equal, and leaves nothing behind. A pool whose
metadata could not be written has to be activated again before, by the operator.

  SNAPSYNC_CASES=N    how many (40; each write in each way with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import collections
import random

import disk_writes
import kills
import lab
import runbook
import volumes_place
from lab import MIB, expect, run

CASES = 40
CONTROL, GROUP, PHYSICAL_VOLUME, NUMBER = '/dev/ubdc', 'nas2', '/dev/ubdb', 1
# Where LVM writes where its newest metadata lie: twice each time that it changes them.
LVM_HEADER = (4096, 4096 + 512)
# write: its number, or if `after` is not 0, that behind so many of LVM's header.
Case = collections.namedtuple('Case', 'write fault after', defaults=[0])


def pool_is_well():
    status = run('dmsetup', 'status', 'nas2-pool-tpool').split()
    return 'rw' in status and 'needs_check' not in status


class Places:
    """What of the group a byte of its disk is."""

    def __init__(self):
        self.areas = []
        for name in ('pool_tmeta', 'pool_tdata'):
            _, size, _, _, first = run('dmsetup', 'table', 'nas2-' + name).split()
            self.areas.append((name, int(first) * 512, (int(first) + int(size)) * 512))

    def name(self, at):
        if at < MIB:
            return 'LVM'
        return next((name for name, first, end in self.areas if first <= at < end), 'rest')


def run_case(place, disk, names, case):
    """Violations, what was written when it failed, and what it took to go on."""
    bad = kills.Violations()
    place.prepare(volumes_place.UPDATE)
    old, new, number = place.old(), place.new(), place.number
    disk.begin(case.write, case.fault, case.after, LVM_HEADER)
    result = place.start().wait()
    _, failed = disk.end()
    if failed is None:
        bad.unless(result.code == 0, 'nothing failed but the sync', result)
    if result.code != 0:
        codes = [lab.IO, lab.TARGET_UNSUITABLE]
        codes += [lab.NO_SPACE] if case.fault == 'ENOSPC' else []
        bad.unless(result.code in codes and result['error'], 'the error', result)
    written = None if failed is None else names.name(failed)
    if case.after and written == 'pool_tmeta':
        bad.unless(result.code == lab.TARGET_UNSUITABLE,
                   'the kernel gave the pool up in the commit', result)
    bad.unless(place.agent.process.poll() is None, 'the agent has ended')
    taken = ''
    if not pool_is_well():
        place.agent.stop()
        run('vgchange', '-qq', '-an', GROUP)
        taken = ('activated ' + runbook.bring_up(
            GROUP, PHYSICAL_VOLUME, place.target)).strip()
        bad.unless(pool_is_well(), 'the pool is not well by that')
        place.agent.start()
    seen = place.seen()
    bad.unless(seen in (old, new), 'neither old nor new')
    bad.unless(result.code != 0 or seen == new, 'a success, but the target is old')
    after = place.sync()
    bad.unless(after.code == 0 and after['number'] == number + 1,
               'the next sync should make number %d' % (number + 1), after)
    bad.unless(place.seen() == new, 'after the next sync the target is not equal')
    bad.extend('left over: ' + text for text in place.leftovers())
    place.number = number + 1
    return bad, written, taken


def went_wrong(places, names):
    """A commit was acknowledged though the kernel had given the pool up in the merge: LVM
    is not told when what it asked for can't be written. It is the last run but one of
    writes to the pool's metadata; behind it an old generation is removed. How many
    writes come before differs from sync to sync, how often LVM changes its metadata
    does not in one that is like the sync that was counted: so this case comes first."""
    written = [names.name(at) for at in places]
    runs = [i for i in range(1, len(written))
            if written[i] == 'pool_tmeta' and written[i - 1] == 'LVM']
    return Case(4, 'EIO', sum(LVM_HEADER[0] <= at < LVM_HEADER[1]
                              for at in places[:runs[-2]]))


def choose(rng, places, names):
    """What once went wrong, and the others in turn by what is written."""
    groups = {}
    for write, at in enumerate(places, 1):
        for fault in disk_writes.ACTIONS:
            groups.setdefault((names.name(at), fault), []).append(Case(write, fault))
    turns = [kills.shuffled(rng, cases) for cases in kills.shuffled(rng, groups.values())]
    everything = [cases[turn] for turn in range(max(map(len, turns))) for cases in turns
                  if turn < len(cases)]
    return kills.limit(rng, everything) or [
        went_wrong(places, names), *everything][:CASES]


def main():
    seed = lab.seed_from_environment()
    rng = random.Random(seed)
    volumes_place.steps.build()
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    place = volumes_place.Volumes(rng)
    disk, names = disk_writes.Disk(CONTROL, NUMBER), Places()
    place.prepare(volumes_place.UPDATE)
    disk.begin()
    place.number = place.sync()['number']
    places, _ = disk.end()
    print('%d writes in a sync: %s' % (len(places), dict(
        collections.Counter(map(names.name, places)))))
    counts, wrong, played = collections.Counter(), 0, 0
    for case in lab.in_time(choose(rng, places, names), share=0.5):
        bad, written, taken = run_case(place, disk, names, case)
        played += 1
        counts[written, taken] += 1
        expect('write %d%s (%s): %s%s' % (
            case.write, ' behind %d headers of LVM' % case.after if case.after else '',
            written or 'not reached', case.fault, ', then ' + taken if taken else ''),
               not bad, '; '.join(bad))
        if bad:
            wrong += 1
            kills.print_what_is_known(place)
            place.forget()
    print({' '.join(filter(None, key)): count for key, count in counts.items()
           if key[0]})
    expect('nearly all writes were reached', counts[None, ''] <= played / 10, counts)
    lab.report('the k-th write to the disk below a pool fails', played, wrong)
    place.agent.stop()
    lab.finish()


main()
