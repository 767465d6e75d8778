#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""Power cuts of a whole NAS while syncs come in: dm-log-writes records what the agent,
LVM, dm-thin and ext4 write to its only disk, with the agent's state and the thin pool on
it. Disks as a cut could have left them are then booted: the replica is a whole
generation, old or new; what was committed is there; the agent starts by itself, says the
generation that the volume holds, and the next sync ends equal. Where LVM asks for a repair
of the pool, that is done as docs/operating.md says, and all of this holds then.

  SNAPSYNC_STATES=N  how many (10; 2000 with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

import lab
import power
from lab import BLOCK, MIB, expect, run

STATES = int(os.environ.get('SNAPSYNC_STATES') or
             (2000 if os.environ.get('SNAPSYNC_LONG') else 10))
SYNCS = 4
SIZE = 8 * MIB
STATE_SECTORS = 64 * MIB // 512
SRC, TARGET = '/dev/nas1/vol', '/dev/nas2/replica'
AGENT = '/var/lib/snapsync-agent'
HERE = os.path.dirname(os.path.realpath(__file__))


def split(disk):
    """Of the NAS's only disk: the agent's state, and the physical volume."""
    sectors = lab.device_size(disk) // 512
    run('dmsetup', 'create', 'state', '--table', '0 %d linear %s 0' % (STATE_SECTORS, disk))
    run('dmsetup', 'create', 'pv', '--table', '0 %d linear %s %d' % (
        sectors - STATE_SECTORS, disk, STATE_SECTORS))


def start_agent(directory):
    return lab.Agent([('replica', TARGET, 'thin')], directory=directory).start()


# --- In a guest: syncs, recorded -------------------------------------------------

def record(share):
    rng = random.Random(lab.seed_from_environment())
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    run('cp', '-a', lab.PKI, share + '/pki')
    power.record('/dev/ubdb', '/dev/ubdc')
    split('/dev/mapper/logged')
    run('mkfs.ext4', '-q', '-E', 'nodiscard,lazy_itable_init=0,lazy_journal_init=0',
        '/dev/mapper/state')
    os.makedirs(AGENT)
    run('mount', '/dev/mapper/state', AGENT)
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/mapper/pv', 'nas2')
    for group in ('nas1', 'nas2'):
        lab.make_pool(group, 'pool', 100 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    wanted = [['%s' % d.hex() for d in lab.contents(TARGET)]]
    agent = start_agent(AGENT + '/state')
    for number in range(SYNCS):
        lab.write_randomly(rng, SRC, 12)
        lab.discard_randomly(rng, SRC, 3)
        power.mark('sync.%d.begins' % number)
        result = lab.sync(SRC, 'replica', 'u')
        power.mark('sync.%d.ended' % number)
        if result.code != 0:
            raise RuntimeError(str(result))
        wanted.append([d.hex() for d in lab.contents(SRC)])
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

def bring_up():
    """Activates what there is; '' or, by the runbook of docs/operating.md, 'repaired'.

    A snapshot whose making was cut may not come up: the agent removes it. And Linux'
    dm-thin has a window in its metadata snapshots that leaves reference counts behind.
    """
    said = run('vgchange', '-qq', '-ay', 'nas2', check=False)
    if os.path.exists(TARGET):
        return ''
    if 'Manual repair required' not in said:
        raise RuntimeError(said)
    print(said.strip())
    run('vgchange', '-qq', '-an', 'nas2')
    run('lvconvert', '-qq', '-y', '--repair', 'nas2/pool')
    run('vgchange', '-qq', '-ay', 'nas2', check=False)
    return 'repaired'


def judge(number, ended, wanted):
    """'old' or 'new', and whether LVM had to repair; raises for anything else."""
    repaired = bring_up()
    found = [d.hex() for d in lab.contents(TARGET)]
    # LVM itself may not have finished the merge yet: that is the agent's to do.
    agent = start_agent(AGENT + '/state')
    try:
        recovered = [d.hex() for d in lab.contents(TARGET)]
        old, new = wanted[number], wanted[number + 1]
        if found not in (old, new) or recovered not in (old, new):
            raise RuntimeError('the replica is neither the old nor the new generation')
        if ended and recovered != new:
            raise RuntimeError('the sync had ended, and the replica is not the new generation')
        if found == new and recovered != new:
            raise RuntimeError('the replica was the new generation, and is not any more')
        result = lab.sync(SRC, 'replica', 'u')
        if result.code != 0:
            raise RuntimeError('the next sync: %s\n%s' % (result, agent.log()[-2000:]))
        if lab.contents(TARGET) != lab.contents(SRC):
            raise RuntimeError('after the next sync the replica is not equal')
        return ('new ' if recovered == new else 'old ') + repaired
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
    for line in lab.in_time(lines):
        number, ended, path = line.split()
        shutil.rmtree(lab.LAB + '/sender', ignore_errors=True)
        run('cp', '-a', share + '/sender', lab.LAB + '/sender')
        loop = run('losetup', '-f', '--show', path).strip()
        split(loop)
        found = 'wrong'
        try:
            run('mount', '/dev/mapper/state', AGENT)
            found = judge(int(number), ended == 'True', wanted)
        except RuntimeError as error:
            print('%s, sync %s%s: %s' % (path, number, ', ended' if ended == 'True' else '',
                                         error))
        print('FOUND ' + found, flush=True)
        run('vgchange', '-qq', '-an', 'nas2', check=False)
        run('umount', AGENT, check=False)
        run('dmsetup', 'remove', '--retry', 'state', 'pv', check=False)
        run('losetup', '-d', loop, check=False)


# --- On the host -----------------------------------------------------------------

def boot(folder, *arguments, disks, **options):
    command = [HERE + '/uml-run', '--mem', '512M', '--timeout', str(300 + 30 * STATES)]
    for disk in disks:
        command += ['--disk', disk]
    command += ['--share', folder, '--scratch', lab.LAB + ':128M', '--',
                os.path.realpath(__file__), *arguments]
    return subprocess.Popen(command, text=True, **options)


def main():
    if sys.argv[1:2] == ['--record']:
        record(sys.argv[2])
        return
    if sys.argv[1:2] == ['--judge']:
        judge_all(*sys.argv[2:])
        return
    folder = tempfile.mkdtemp(prefix='snapsync-power-')
    try:
        seed = lab.seed_from_environment()
        os.environ['SNAPSYNC_SEED'] = str(seed)
        rng = random.Random(seed)
        recorded = boot(folder, '--record', folder, disks=[
            folder + '/nas1:256M', folder + '/nas2:256M', folder + '/log:512M'])
        expect('recorded', recorded.wait() == 0)
        entries = list(power.read_log(folder + '/log'))
        spans = list(power.intervals(entries))
        # Most of the flushes are LVM's: the commit's. One for certain at the end.
        chosen = sorted(rng.choices(spans, k=STATES - 1) + spans[-1:], key=lambda s: s[3])
        states = ['%d %s %s' % (span[1], span[2], path) for span, path in power.make_states(
            folder + '/log', folder + '/nas2', folder, chosen, rng, entries)]
        states = states[-1:] + rng.sample(states[:-1], len(states) - 1)
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
        whole = counts['old'] + counts['new']
        played = whole + counts['wrong']
        expect('nothing wrong in %d states' % played, whole == played > 0, dict(counts))
        expect('all states were judged, or the time was over', played == STATES or
               os.environ.get('SNAPSYNC_SECONDS'), played)
        expect('the guests ended well', not any(p.returncode for p in processes))
        expect('both sides of the commit were met', played < 10 or
               (counts['old'] and counts['new']), counts)
        print('%d flushes apart in %d syncs: %s' % (len(spans), SYNCS, dict(counts)))
        lab.report('power cuts of a NAS with its pool, during syncs', played,
                   counts['wrong'])
    finally:
        shutil.rmtree(folder)
    lab.finish()


main()
