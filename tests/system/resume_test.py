#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 1500 --disk :2G --disk :2G --scratch /var/lib/snapsync-lab:1G
"""Syncs that are cut at random moments: sender killed, agent killed, network gone.
The same command again goes on where the agent was and ends with the right bytes;
in between the replica holds the old generation or the new one, never a mixture.
"""
import itertools
import os
import random
import re
import signal
import time

import lab
from lab import MIB, expect, run

SIZE = 64 * MIB
SRC = '/dev/nas1/vol'
TARGETS = {'thin': '/dev/nas2/replica', 'block': '/dev/nas2/plain',
           'file': lab.LAB + '/vol.raw'}
LONG = 'SNAPSYNC_LONG' in os.environ
CUTS = 8  # of each kind at each target in the long run; else one of each kind


def change(rng):
    """About 12 MiB, so that a sync at 4 MiB a second takes long enough."""
    for _ in range(3):
        lab.write_device(SRC, rng.randrange(0, SIZE // MIB - 4) * MIB,
                         rng.randbytes(4 * MIB))
    lab.discard_randomly(rng, SRC, 3)


def start(kind):
    return lab.Sync(SRC, kind, 'to-' + kind, '--yes', '--speed-limit', '4M',
                    '--timeout', '30', '--retry-for', '30')


def kill_sender(agent, sync):
    sync.kill()


def interrupt_sender(agent, sync):
    result = sync.kill(signal.SIGINT)
    expect('  an interrupted sender says so', result.code in (0, 130), result)


def kill_agent(agent, sync):
    agent.kill()
    time.sleep(0.2)
    agent.start()
    finish_by_itself(sync)


def cut_network(agent, sync):
    run('tc', 'qdisc', 'replace', 'dev', 'lo', 'root', 'netem', 'loss', '100%')
    time.sleep(4)
    run('tc', 'qdisc', 'del', 'dev', 'lo', 'root')
    finish_by_itself(sync)


def cut_network_for_good(agent, sync):
    run('tc', 'qdisc', 'replace', 'dev', 'lo', 'root', 'netem', 'loss', '100%')
    result = sync.wait(timeout=150)
    run('tc', 'qdisc', 'del', 'dev', 'lo', 'root')
    expect('  a sender without a network ends with exit code 4',
           result.code in (0, lab.CONNECTION), result)


def finish_by_itself(sync):
    """The sender's own retry may succeed; else it says to try again."""
    result = sync.wait(timeout=150)
    expect('  the sender ends by itself with exit code 0 or 4',
           result.code in (0, lab.CONNECTION), result)


def contents_when_there(target, kind, old):
    """A thin volume's node is away while the agent has LVM merge the stage."""
    for _ in range(300 if kind == 'thin' and old else 1):
        try:
            return lab.contents(target)
        except FileNotFoundError:
            time.sleep(0.1)
    return []


def cut_and_resume(rng, agent, kind, how, counts):
    target = TARGETS[kind]
    old = lab.contents(target) if os.path.exists(target) else []
    change(rng)
    new = lab.contents(SRC)
    moment = rng.uniform(0.3, 3.0)
    what = '%s, %s after %.2f s' % (kind, how.__name__.replace('_', ' '), moment)
    opened = len(openings(agent))
    sync = start(kind)
    while sync.running() and len(openings(agent)) == opened:
        time.sleep(0.05)
    # The first is cut when some of it is durable for certain.
    if not counts['cuts']:
        lab.wait_for_watermark(set(), sync.process)
    time.sleep(moment)
    finished = not sync.running()
    how(agent, sync)
    # A plain device is written in place; it may be torn, and the agent knows.
    if kind != 'block':
        content = contents_when_there(target, kind, old)
        expect('%s: old or new' % what, content in (old, new))
    result = start(kind).wait()
    good = expect('%s: the same command ends it' % what, result.code == 0, result)
    expect('%s: equal' % what, lab.contents(target) == new)
    counts['cuts'] += 1
    counts['ended before'] += finished
    counts['resumed'] += any(openings(agent)[opened:])
    if good and result['resumed_from_bytes']:
        data = result['plan']['data_bytes']
        expect('%s: only the rest is sent' % what,
               result['sent_bytes'] + result['resumed_from_bytes'] <= 1.02 * data or
               result['sent_bytes'] < data, result)
    return good


def openings(agent):
    """Where the sessions opened so far went on, by chunk."""
    return [int(n) for n in re.findall(r'goes on at chunk (\d+)', agent.log())]


def superseded(rng, kinds):
    """A cut session whose snapshot is gone: a new plan covers what is torn."""
    for kind in kinds:
        change(rng)
        sync = start(kind)
        time.sleep(1.2)
        sync.kill()
        change(rng)  # the origin moves on; so may the sender's snapshot
        result = start(kind).wait()
        expect('%s, origin changed after the cut: exit code 0' % kind,
               result.code == 0, result)
        result = start(kind).wait()
        expect('%s, origin changed after the cut: then equal' % kind,
               result.code == 0 and
               lab.contents(TARGETS[kind]) == lab.contents(SRC), result)


def given_up(rng, kinds):
    """A cut session that is aborted leaves the target, and the source, as they were."""
    for kind in kinds:
        old = lab.contents(TARGETS[kind])
        volumes = lab.volumes('nas1')
        change(rng)
        sync = start(kind)
        time.sleep(1.2)
        sync.kill()
        result = lab.run_send(
            'abort', '--dst', 'localhost:' + kind, '--uuid', 'to-' + kind, '--tls-ca',
            lab.PKI + '/ca.crt', '--tls-cert', lab.PKI + '/nas1.crt', '--tls-key',
            lab.PKI + '/nas1.key', '--state-directory', lab.LAB + '/sender', '--json')
        expect('%s, given up' % kind, result.code == 0 and
               result['result'] in ('aborted', 'unchanged'), result)
        expect('%s, given up: no snapshot is left' % kind,
               lab.volumes('nas1') == volumes, lab.volumes('nas1'))
        if kind != 'block':  # written in place
            expect('%s, given up: the target is what it was' % kind,
                   contents_when_there(TARGETS[kind], kind, old) == old)
        result = start(kind).wait()
        expect('%s, given up: and the next sync is right' % kind, result.code == 0 and
               lab.contents(TARGETS[kind]) == lab.contents(SRC), result)


def set_up(rng):
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/ubdb', 'nas2')
    lab.make_pool('nas1', 'pool', 1500 * MIB)
    lab.make_pool('nas2', 'pool', 1500 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    lab.write_randomly(rng, SRC, 40)
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    run('lvcreate', '-qq', '-Wn', '-L', '%db' % SIZE, '-n', 'plain', 'nas2')


def main():
    rng = random.Random(lab.seed_from_environment())
    set_up(rng)
    agent = lab.Agent([(kind, path, kind) for kind, path in TARGETS.items()]).start()
    ways = [kill_sender, interrupt_sender, kill_agent, cut_network,
            cut_network_for_good]
    counts = {'cuts': 0, 'ended before': 0, 'resumed': 0}
    kinds = rng.sample(list(TARGETS), len(TARGETS))
    if LONG:
        cuts = [(kind, how) for kind in kinds for how in ways * CUTS]
    else:
        cuts = zip(itertools.cycle(kinds), rng.sample(ways, len(ways)))
    for kind, how in lab.in_time(cuts, len(TARGETS)):
        cut_and_resume(rng, agent, kind, how, counts)
    superseded(rng, kinds if LONG else kinds[:1])
    given_up(rng, kinds if LONG else kinds[1:2])
    # The first for certain, most others by chance.
    expect('some syncs went on where they were cut', counts['resumed'] > 0, counts)
    names = lab.volumes('nas2')
    expect('no stage is left', not [n for n in names if n.endswith('.stage')], names)
    expect('one base for each replication is left on the source',
           len(lab.volumes('nas1')) == 1 + len(TARGETS), lab.volumes('nas1'))
    expect('no metadata snapshot is left', held_roots() == ['-', '-'], held_roots())
    agent.stop()
    print(agent.log()[-3000:] if lab.failures else '', end='')
    print(counts)
    lab.finish()


def held_roots():
    """The pools' metadata snapshots, word 7 of a thin-pool's status."""
    status = run('dmsetup', 'status', '--target', 'thin-pool')
    return [line.split()[7] for line in status.splitlines()]


main()
