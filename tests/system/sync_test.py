#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 768M --timeout 1500 --disk :3G --disk :3G --scratch /var/lib/snapsync-lab:1G
"""Syncs on real LVM thin pools, each compared byte by byte: first and further
ones, with nothing changed, of the operator's snapshots, to each kind of target,
with the flags that change how; and the memory that they take.
"""
import os
import random
import re

import lab
from lab import BLOCK, MIB, expect, run

SIZE = 64 * MIB
MEMORY_SIZE = (4096 if 'SNAPSYNC_LONG' in os.environ else 1024) * MIB


def check(what, result, src, target, /, **fields):
    """An accepted sync: exit code 0, the target equal, the JSON as given."""
    good = expect('%s: exit code 0' % what, result.code == 0, result)
    different = lab.first_difference(target, lab.contents(src),
                                     lab.device_size(src))
    good &= expect('%s: the target is equal' % what, different is None,
                   different)
    for key, wanted in fields.items():
        good &= expect('%s: %s is %r' % (what, key, wanted),
                       result[key] == wanted, result)
    if result.code == 0 and result['plan']:
        sent, data = result['sent_bytes'], result['plan']['data_bytes']
        good &= expect('%s: no more is sent than data' % what,
                       sent <= 1.02 * data, result)
    return good


def set_up():
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/ubdb', 'nas2')
    lab.make_pool('nas1', 'pool', 2600 * MIB)
    lab.make_pool('nas2', 'pool', 2000 * MIB)
    for name in ('vol', 'second'):
        lab.make_thin('nas1', 'pool', name, SIZE)
        lab.write_randomly(random.Random(name), '/dev/nas1/' + name, 40)
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    lab.make_thin('nas2', 'pool', 'large', SIZE + 32 * MIB)
    for name in ('plain', 'used'):
        run('lvcreate', '-qq', '-Wn', '-L', '%db' % SIZE, '-n', name, 'nas2')
    os.makedirs(lab.LAB + '/files')


def thin_target(rng):
    src, target = '/dev/nas1/vol', '/dev/nas2/replica'

    def sync(*arguments):
        return lab.sync(src, 'replica', 'thin', *arguments)

    before = lab.contents(target)
    result = sync('--dry-run')
    expect('dry run: says what it would do',
           result.code == 0 and result['result'] == 'dry-run' and
           result['plan']['data_bytes'] > 0, result)
    expect('dry run: writes nothing', lab.contents(target) == before)
    expect('dry run: leaves no snapshot', lab.volumes('nas1') == ['second', 'vol'],
           lab.volumes('nas1'))

    check('first sync', sync(), src, target, result='ok', method='full')
    expect('first sync: a generation snapshot',
           lab.generation_snapshots('nas2', 'replica') == ['replica.g1'],
           lab.volumes('nas2'))
    expect('first sync: no stage is left', 'replica.stage' not in lab.volumes('nas2'))
    expect('first sync: one base is kept', len(lab.volumes('nas1')) == 3,
           lab.volumes('nas1'))

    expect('first sync: the base is not active',
           os.listdir('/dev/nas1').count('vol') == 1 and
           not [name for name in os.listdir('/dev/nas1') if name.startswith('vol.')],
           os.listdir('/dev/nas1'))

    result = sync()
    check('nothing changed', result, src, target, result='unchanged', sent_bytes=0)

    content = lab.contents(src)
    lab.write_device(src, 8 * MIB, rng.randbytes(lab.BLOCK))
    result = sync()
    check('one block written', result, src, target, result='ok', method='metadata',
          sent_bytes=lab.BLOCK)
    run('lvchange', '-qq', '-ay', '-K', 'nas2/replica.g1')
    expect('the generation before is as it was',
           lab.contents('/dev/nas2/replica.g1') == content)
    run('lvchange', '-qq', '-an', 'nas2/replica.g1')

    lab.discard(src, 8 * MIB, 4 * MIB)
    result = sync()
    check('blocks discarded', result, src, target, method='metadata', sent_bytes=0)
    expect('blocks discarded: gone, not zeroes', result['plan']['gone_bytes'] > 0, result)

    lab.write_device(src, 20 * MIB, bytes(2 * MIB))
    check('zeroes written', sync(), src, target, method='metadata', sent_bytes=0)

    # Flags of the tool before, which change nothing of this.
    for flag in (['--encrypt'], ['--speed-limit', '50M'], ['--yes']):
        lab.write_randomly(rng, src, 10)
        lab.discard_randomly(rng, src, 5)
        check('writes and discards, ' + ' '.join(flag), sync(*flag), src, target,
              result='ok', method='metadata')
    expect('no stage is left', 'replica.stage' not in lab.volumes('nas2'))
    expect('old generations are pruned, the newest is there',
           0 < len(lab.generation_snapshots('nas2', 'replica')) < 7 and
           'replica.g7' in lab.volumes('nas2'), lab.volumes('nas2'))
    expect('one base is kept', len(lab.volumes('nas1')) == 3, lab.volumes('nas1'))


def given_metadata(rng):
    src, target = '/dev/nas1/vol', '/dev/nas2/replica'
    lab.write_randomly(rng, src, 5)
    snapshot = lab.make_snapshot('nas1', 'vol', 'given')
    thin_id = run('lvs', '--noheadings', '-o', 'thin_id', 'nas1/given').strip()
    result = lab.sync(snapshot, 'replica', 'thin', '--meta',
                      '/dev/mapper/nas1-pool_tmeta', '--id', thin_id)
    check('--meta and --id given', result, snapshot, target, method='metadata')


def operator_snapshots(rng):
    """Another volume whose snapshots the operator makes, to a larger target."""
    src = '/dev/nas1/second'
    for number in range(4):
        lab.write_randomly(rng, src, 8)
        lab.discard_randomly(rng, src, 3)
        snapshot = lab.make_snapshot('nas1', 'second', 'manual%d' % number)
        lab.write_randomly(rng, src, 2)  # later writes are not in it
        check('operator\'s snapshot %d' % number,
              lab.sync(snapshot, 'large', 'second'), snapshot, '/dev/nas2/large',
              method='metadata' if number else 'full')
        # The one before the last serves nobody any more.
        if number >= 2:
            lab.remove('nas1', 'manual%d' % (number - 2))
    expect('the operator\'s snapshots are left alone',
           {'manual2', 'manual3'} <= set(lab.volumes('nas1')), lab.volumes('nas1'))


def used_disk():
    """Zeroes wherever one looks, and something old where the source maps nothing:
    a first sync, which needs no consent here, must not leave it."""
    src, target = '/dev/nas1/second', '/dev/nas2/used'
    old = 10 * MIB + 7 * BLOCK
    lab.discard(src, old, BLOCK)
    lab.write_device(target, old, b'old!' * (BLOCK // 4))
    check('used disk', lab.sync(src, 'used', 'to-used'), src, target, method='full')


def other_targets(rng):
    src = '/dev/nas1/vol'
    for volume, target in (('plain', '/dev/nas2/plain'),
                           ('file', lab.LAB + '/files/vol.raw')):
        def sync():
            return lab.sync(src, volume, 'to-' + volume, '--yes')
        check(volume + ': first', sync(), src, target, method='full')
        lab.write_randomly(rng, src, 8)
        lab.discard_randomly(rng, src, 4)
        check(volume + ': incremental', sync(), src, target, method='metadata')
        check(volume + ': nothing changed', sync(), src, target,
              result='unchanged', sent_bytes=0)


def sizes(rng):
    src, target = '/dev/nas1/vol', '/dev/nas2/replica'

    def sync():
        return lab.sync(src, 'replica', 'thin')
    run('lvextend', '-qq', '-L', '+%db' % (16 * MIB), 'nas1/vol')
    run('lvextend', '-qq', '-L', '+%db' % (16 * MIB), 'nas2/replica')
    lab.write_device(src, SIZE + MIB, rng.randbytes(MIB))
    check('source and target grown', sync(), src, target, method='metadata')
    run('lvreduce', '-qq', '-f', '-L', '%db' % (SIZE - 16 * MIB), 'nas1/vol')
    lab.write_device(src, 0, rng.randbytes(lab.BLOCK))
    check('source shrunk', sync(), src, target)
    run('lvextend', '-qq', '-L', '%db' % SIZE, 'nas1/vol')
    check('source grown again over its old blocks', sync(), src, target)


def peak_of(sync):
    peak = 0
    while sync.running():
        try:
            peak = max(peak, lab.peak_memory(sync.process.pid))
        except (OSError, AttributeError):
            break
    return peak


def delta_command():
    lab.make_snapshot('nas1', 'second', 'lookat')
    before, after = (run('lvs', '--noheadings', '-o', 'thin_id', 'nas1/' + name).strip()
                     for name in ('manual3', 'lookat'))
    output = run(lab.PROGRAMS + '/snapsync-send', 'delta', '--meta',
                 '/dev/mapper/nas1-pool_tmeta', '--base-id', before, '--id', after,
                 '--json')
    expect('delta of a live pool prints JSON',
           re.match(r'\{"block_size":65536,"changed":\[\[', output), output)
    lab.remove('nas1', 'lookat')


def memory(agent):
    """A volume of which more is mapped than may be in memory."""
    src = lab.make_thin('nas1', 'pool', 'big', MEMORY_SIZE)
    target = lab.make_thin('nas2', 'pool', 'bigreplica', MEMORY_SIZE)
    noise = random.Random(1).randbytes(MIB)
    for number in range(MEMORY_SIZE // (8 * MIB)):
        lab.write_device(src, number * 8 * MIB, noise[number:] + noise[:number])
    sync = lab.Sync(src, 'bigreplica', 'big')
    peak = peak_of(sync)
    result = sync.wait()
    good = expect('large volume: exit code 0', result.code == 0, result)
    expect('large volume: the target is equal',
           good and lab.contents(src) == lab.contents(target))
    expect('peak memory of the sender is at most 96 MiB', 0 < peak <= 96 * MIB, peak)
    expect('peak memory of the agent is at most 96 MiB',
           agent.peak_memory() <= 96 * MIB, agent.peak_memory())
    print('sender %.1f MiB, agent %.1f MiB' % (peak / MIB, agent.peak_memory() / MIB))


def main():
    rng = random.Random(lab.seed_from_environment())
    set_up()
    agent = lab.Agent([
        ('replica', '/dev/nas2/replica', 'thin'),
        ('large', '/dev/nas2/large', 'thin'),
        ('plain', '/dev/nas2/plain', 'block'),
        ('used', '/dev/nas2/used', 'block'),
        ('file', lab.LAB + '/files/vol.raw', 'file'),
        ('bigreplica', '/dev/nas2/bigreplica', 'thin'),
    ]).start()
    thin_target(rng)
    given_metadata(rng)
    operator_snapshots(rng)
    delta_command()
    other_targets(rng)
    used_disk()
    sizes(rng)
    memory(agent)
    expect('the agent ends when told to', agent.stop() == 0)
    print(agent.log()[-2000:] if lab.failures else '', end='')
    lab.finish()


main()
