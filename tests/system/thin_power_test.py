#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""Power cuts of a whole NAS while syncs come in: dm-log-writes records what the agent,
LVM, dm-thin and ext4 write to its only disk, with the agent's state, and a thin pool
and a plain volume in a group. A power cut leaves of what was not flushed any part; the
state and the group count as two disks, of which a flush of one says nothing of the
other.

Many such disks are judged as they lie there (nas_disk.py): the record tells the truth
of the volume, a thin volume is a whole generation, old or new, a plain one may be torn
if the record says so; what was acknowledged or committed is there.

Some are booted: the agent starts by itself, all of this holds, and the next sync ends
equal. Where LVM asks for a repair of the pool, that is done as docs/operating.md says.

Then the flushes are taken away from the recording, one at a time: of the disks that a
power cut leaves then, one must be wrong. NOT_NEEDED has those that may go, and why.

  SNAPSYNC_STATES=N  how many are judged (2000; 100000 with SNAPSYNC_LONG)
  SNAPSYNC_BOOTS=N   how many are booted (20; 500 with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import bisect
import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

import lab
import nas_disk
import nas_judge
import power
import runbook
from lab import BLOCK, MIB, expect, run
from nas_judge import PLAIN, STATE_SIZE, THIN

LONG = os.environ.get('SNAPSYNC_LONG')
STATES = int(os.environ.get('SNAPSYNC_STATES') or (100000 if LONG else 2000))
BOOTS = int(os.environ.get('SNAPSYNC_BOOTS') or (500 if LONG else 20))
SYNCS = [THIN, PLAIN, THIN, PLAIN, THIN]
SIZE = 8 * MIB
STATE_SECTORS = STATE_SIZE // power.SECTOR
SRC = '/dev/nas1/vol'
TARGETS = {THIN: '/dev/nas2/replica', PLAIN: '/dev/nas2/plain'}
ARGUMENTS = {THIN: ['replica', 'u'], PLAIN: ['plain', 'v', '--allow-full']}
# Flushes of the group that nothing rests on here, and what makes up for each. (That is
# so since the group has one disk, which LVM and dm-thin flush, too.)
NOT_NEEDED = {
    '+replica.stage': 'the stage is flushed before anything is acknowledged',
    'thin id of replica.gN': 'the merge flushes it, before the record says so',
    '+replica.gN': 'as before',
    '-replica.stage thin id of replica': 'LVM removes the old thin device, which flushes',
    'nothing': 'an old generation is removed once more',
    '-replica.gN': 'an old generation is removed once more',
}
AGENT = '/var/lib/snapsync-agent'
HERE = os.path.dirname(os.path.realpath(__file__))


def split(disk):
    """Of the NAS's only disk: the agent's state, and the physical volume."""
    sectors = lab.device_size(disk) // power.SECTOR
    run('dmsetup', 'create', 'state', '--table', '0 %d linear %s 0' % (STATE_SECTORS, disk))
    run('dmsetup', 'create', 'pv', '--table', '0 %d linear %s %d' % (
        sectors - STATE_SECTORS, disk, STATE_SECTORS))


def start_agent(directory):
    return lab.Agent([('replica', TARGETS[THIN], 'thin'),
                      ('plain', TARGETS[PLAIN], 'block')], directory=directory).start()


def hexadecimal(path):
    return [digest.hex() for digest in lab.contents(path)]


# --- In a guest: syncs, recorded -------------------------------------------------

def record(share):
    rng = random.Random(lab.seed_from_environment())
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    run('cp', '-a', lab.PKI, share + '/pki')
    power.record('/dev/ubdb', '/dev/ubdc')
    split('/dev/mapper/logged')
    run('mkfs.ext4', '-q', '-J', 'size=1', '-E',
        'nodiscard,lazy_itable_init=0,lazy_journal_init=0', '/dev/mapper/state')
    os.makedirs(AGENT)
    run('mount', '/dev/mapper/state', AGENT)
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/mapper/pv', 'nas2')
    for group in ('nas1', 'nas2'):
        lab.make_pool(group, 'pool', 100 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    run('lvcreate', '-qq', '-y', '-Zn', '-L', '%db' % SIZE, '-n', 'plain', 'nas2')
    lab.write_device(TARGETS[PLAIN], 0, rng.randbytes(SIZE))  # no block of it will stay
    wanted = {shape: [hexadecimal(path)] for shape, path in TARGETS.items()}
    agent = start_agent(AGENT + '/state')
    for shape in SYNCS:
        number = len(wanted[shape]) - 1
        lab.write_randomly(rng, SRC, 12)
        lab.discard_randomly(rng, SRC, 3)
        power.mark('%s.%d.begins' % (shape, number))
        # Slowly: several segments in a sync.
        result = lab.sync(SRC, *ARGUMENTS[shape], '--speed-limit', '1M')
        power.mark('%s.%d.ended' % (shape, number))
        if result.code != 0 or result['number'] != number + 1:
            raise RuntimeError(str(result))
        wanted[shape].append(hexadecimal(SRC))
    agent.stop()
    run('vgchange', '-qq', '-an', 'nas2')
    run('umount', AGENT)
    run('dmsetup', 'remove', 'state', 'pv')
    run('dmsetup', 'remove', 'logged')
    run('vgchange', '-qq', '-an', 'nas1')
    run('cp', '-a', lab.LAB + '/sender', share + '/sender')
    with open(share + '/wanted', 'w') as f:
        json.dump(wanted, f)


# --- In guests: what a power cut could have left ---------------------------------

def judge(shape, number, ended, wanted):
    """'old', 'new' or 'torn', and whether LVM had to repair; raises for anything else."""
    repaired = runbook.bring_up('nas2', '/dev/mapper/pv', TARGETS[THIN])
    target = TARGETS[shape]
    found = hexadecimal(target)
    # LVM itself may not have finished the merge yet: that is the agent's to do.
    agent = start_agent(AGENT + '/state')
    try:
        recovered = hexadecimal(target)
        old, new = wanted[shape][number], wanted[shape][number + 1]
        if shape == THIN and (found not in (old, new) or recovered not in (old, new)):
            raise RuntimeError('the replica is neither the old nor the new generation')
        if ended and recovered != new:
            raise RuntimeError('the sync had ended, and the replica is not the new generation')
        if found == new and recovered != new:
            raise RuntimeError('the replica was the new generation, and is not any more')
        result = lab.sync(SRC, *ARGUMENTS[shape])
        if result.code != 0:
            raise RuntimeError('the next sync: %s\n%s' % (result, agent.log()[-2000:]))
        if lab.contents(target) != lab.contents(SRC):
            raise RuntimeError('after the next sync the replica is not equal')
        whole = 'new' if recovered == new else 'old' if recovered == old else 'torn'
        return whole + ' ' + repaired
    finally:
        agent.stop()


def judge_all(share, inputs):
    with open(share + '/wanted') as f:
        wanted = json.load(f)
    run('cp', '-a', share + '/pki', lab.PKI)
    os.makedirs(AGENT)
    run('vgchange', '-qq', '-ay', 'nas1')
    run('modprobe', 'loop')
    with open(inputs) as f:
        lines = f.read().splitlines()
    for line in lines:
        shape, number, ended, path = line.split()
        shutil.rmtree(lab.LAB + '/sender', ignore_errors=True)
        run('cp', '-a', share + '/sender', lab.LAB + '/sender')
        loop = run('losetup', '-f', '--show', path).strip()
        split(loop)
        found = 'wrong'
        try:
            run('mount', '/dev/mapper/state', AGENT)
            found = judge(shape, int(number), ended == 'True', wanted)
        except RuntimeError as error:
            print('%s, %s sync %s%s: %s' % (
                path, shape, number, ', ended' if ended == 'True' else '', error))
        print('FOUND ' + found, flush=True)
        run('vgchange', '-qq', '-an', 'nas2', check=False)
        run('umount', AGENT, check=False)
        run('dmsetup', 'remove', '--retry', 'state', 'pv', check=False)
        run('losetup', '-d', loop, check=False)


# --- On the host -----------------------------------------------------------------

def boot(folder, *arguments, disks, **options):
    command = [HERE + '/uml-run', '--mem', '512M', '--timeout', str(300 + 60 * BOOTS)]
    for disk in disks:
        command += ['--disk', disk]
    command += ['--share', folder, '--scratch', lab.LAB + ':128M', '--',
                os.path.realpath(__file__), *arguments]
    return subprocess.Popen(command, text=True, **options)


class Recording:
    def __init__(self, folder, memory, rng):
        self.folder, self.rng = folder, rng
        self.entries = list(power.read_log(folder + '/log'))
        self.spans = list(power.spans(self.entries))
        self.marks = list(power.marks(self.entries))
        with open(folder + '/wanted') as f:
            self.wanted = json.load(f)
        self.judge = nas_judge.Judge(self.wanted, memory)
        self.to_boot = []  # lines for judge_all()

    def replay(self, without=frozenset()):
        return power.Replay(self.folder + '/log', os.path.getsize(self.folder + '/nas2'),
                            self.entries, (0, STATE_SECTORS), without)

    def label(self, number):
        """(THIN or PLAIN, generation, whether the sync had ended) at an entry, or None."""
        at = bisect.bisect(self.marks, number, key=lambda mark: mark[0])
        return self.marks[at - 1][1] if at else None

    def next_flush(self, number):
        """Of the group."""
        return next((i for i in range(number + 1, len(self.entries))
                     if self.entries[i].flags & power.FLUSH and
                     self.entries[i].sector >= STATE_SECTORS), len(self.entries))

    def save(self, cut, *label):
        path = '%s/state%d' % (self.folder, len(self.to_boot))
        power.save(cut.disk, path)
        self.to_boot.append('%s %d %s ' % label + path)

    def cuts(self, chosen):
        """(span, what power.Replay.cut() gives) of each, in the order of the recording."""
        replay = self.replay()
        for span, moment in power.draw(self.rng, chosen):
            replay.go_to(moment)
            with replay.cut(power.random_fates(self.rng, 2), self.rng) as cut:
                yield span, cut


def judge_states(recording):
    """As the disks lie there; a few at once, so that there is an end at any time."""
    counts = collections.Counter()
    # Of each kind of volume: the plain one has few flushes.
    at_once = min(25 if os.environ.get('SNAPSYNC_SECONDS') else 500, STATES // 2)
    spans = {shape: [span for span in recording.spans if span[0] == shape]
             for shape in (THIN, PLAIN)}
    for _ in lab.in_time(range(STATES // (2 * at_once)), share=1.5):
        for (shape, number, ended, first, last), cut in recording.cuts(
                [span for of in spans.values()
                 for span in recording.rng.choices(of, k=at_once)]):
            found, bad = recording.judge.look(cut, shape, number, ended)
            counts[shape, 'wrong' if bad else found] += 1
            if 'restored' in found and not recording.to_boot:
                recording.save(cut, shape, number, ended)
            if bad:
                print('%s sync %d%s, entries %d to %d: %s' % (
                    shape, number, ', ended' if ended else '', first, last,
                    '; '.join(bad)))
    print({' '.join(key): count for key, count in counts.items()})
    for shape in (THIN, PLAIN):
        of = {found: n for (one, found), n in counts.items() if one == shape}
        played = sum(of.values())
        expect('%s volume: nothing wrong in %d states' % (shape, played),
               played and not of.get('wrong'), of)
        expect('%s volume: states before and after the commit' % shape,
               played < 50 or of.get('old') and of.get('new'), of)
        lab.report('power cuts of a NAS, disks judged as they lie, %s volume' % shape,
                   played, of.get('wrong', 0))


# name: what it makes durable; entries: of its call, which are taken away; until: the
# number of the entry that makes up for it.
Flush = collections.namedtuple('Flush', 'name entries until')


def flushes(recording):
    """Those that the agent makes of the group: after a command of LVM, and of a stage or
    a plain volume before a watermark. (Those that LVM and dm-thin make are not ours, and
    flush_test.py has those of files.)"""
    entries, found = recording.entries, []
    since = []  # entries of the group since the last flush of the state
    replay = recording.replay()
    replay.go_to(recording.marks[0][0])
    before = volumes_of(replay)
    for number, entry in enumerate(entries):
        if entry.flags & power.MARK or not entry.flags & power.FLUSH:
            if entry.sector >= STATE_SECTORS and entry.size:
                since.append(number)
            continue
        if entry.sector >= STATE_SECTORS:
            since.append(number)
            if entry.sector == STATE_SECTORS and recording.label(number):
                replay.go_to(number + 1)
                after = volumes_of(replay)
                found.append(Flush(changes(before, after), {number},
                                   recording.next_flush(number)))
                before = after
            continue
        of_lvm = any(entries[i].sector == STATE_SECTORS for i in since)
        first = next((i for i in since if entries[i].flags & power.FLUSH), None)
        if recording.label(number) and not of_lvm and first is not None and first != since[0]:
            found.append(Flush('data of the %s volume' % recording.label(number)[0],
                               {i for i in since if i >= first},
                               recording.next_flush(since[-1])))
        since = []
    return found


def volumes_of(replay):
    """{name: thin id} in the group, of what is durable."""
    with replay.cut(lambda *_: power.LOST) as cut:
        volumes = nas_disk.Group(cut, STATE_SIZE, 'nas2').volumes
        return {re.sub(r'\d+$', 'N', name): volume['segment1'].get('device_id')
                for name, volume in volumes.items()}


def changes(before, after):
    return ' '.join(['+' + name for name in after if name not in before] +
                    ['-' + name for name in before if name not in after] +
                    ['thin id of ' + name for name in after
                     if name in before and before[name] != after[name]]) or 'nothing'


def is_needed(recording, flush):
    """What was wrong without it, or None."""
    replay = recording.replay(without=flush.entries)
    for moment in range(max(flush.entries) + 1, flush.until + 1):
        replay.go_to(moment)
        worst = lambda entry, part: power.LOST if part == 1 else power.KEPT
        for fate in [worst] + [power.random_fates(recording.rng, 2) for _ in range(2)]:
            with replay.cut(fate, recording.rng) as cut:
                _, bad = recording.judge.look(cut, *recording.label(moment - 1))
                if bad:
                    return 'entry %d: %s' % (moment, '; '.join(bad))
    return None


def take_flushes_away(recording):
    found, played = 0, 0
    everything = flushes(recording)
    needed = [flush for flush in everything if flush.name not in NOT_NEEDED]
    expect('flushes of the data of both volumes', len({f.name for f in needed}) == 2,
           [flush.name for flush in everything])
    for flush in recording.rng.sample(needed, len(needed)):
        wrong = is_needed(recording, flush)
        played += 1
        found += wrong is not None
        expect('without the flush of "%s" (entry %d) a promise is broken' % (
            flush.name, min(flush.entries)), wrong is not None)
        print('         ' + str(wrong)[:200])
    lab.report('flushes of a pool and its disk taken away, and not missed', played,
               played - found)


def boot_some(recording):
    folder, rng = recording.folder, recording.rng
    # First, if there was one, a disk on which LVM's metadata have to be restored.
    chosen = rng.choices(recording.spans, k=BOOTS - len(recording.to_boot))
    for (shape, number, ended, _, _), cut in recording.cuts(chosen):
        recording.save(cut, shape, number, ended)
    states = recording.to_boot[:1] + rng.sample(recording.to_boot[1:],
                                                len(recording.to_boot) - 1)
    guests = lab.guests(2)
    processes = []
    for guest in range(guests):
        run('cp', '--sparse=always', folder + '/nas1', folder + '/nas1.%d' % guest)
        inputs = folder + '/input%d' % guest
        with open(inputs, 'w') as f:
            f.write('\n'.join(states[guest::guests]) + '\n')
        processes.append(boot(folder, '--judge', folder, inputs, disks=[
            folder + '/nas1.%d' % guest], stdout=subprocess.PIPE))
    counts = collections.Counter()
    for process in processes:
        for line in process.communicate()[0].splitlines():
            if line.startswith('FOUND '):
                counts.update(line.split()[1:])
            else:
                print(line)
    whole = counts['old'] + counts['new'] + counts['torn']
    played = whole + counts['wrong']
    expect('nothing wrong in %d disks that were booted' % played, whole == played > 0,
           dict(counts))
    expect('all were booted', played == BOOTS, played)
    expect('the guests ended well', not any(p.returncode for p in processes))
    print('booted: %s' % dict(counts))
    lab.report('power cuts of a NAS, booted', played, counts['wrong'])


def main():
    if sys.argv[1:2] == ['--record']:
        record(sys.argv[2])
        return
    if sys.argv[1:2] == ['--judge']:
        judge_all(*sys.argv[2:])
        return
    folder = tempfile.mkdtemp(prefix='snapsync-power-')
    memory = tempfile.mkdtemp(prefix='snapsync-power-',
                              dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None)
    try:
        seed = lab.seed_from_environment()
        os.environ['SNAPSYNC_SEED'] = str(seed)
        recorded = boot(folder, '--record', folder, disks=[
            folder + '/nas1:256M', folder + '/nas2:256M', folder + '/log:512M'])
        expect('recorded', recorded.wait() == 0)
        recording = Recording(folder, memory, random.Random(seed))
        print('%d flushes apart in %d syncs' % (len(recording.spans), len(SYNCS)))
        judge_states(recording)
        take_flushes_away(recording)
        boot_some(recording)
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(memory)
    lab.finish()


main()
