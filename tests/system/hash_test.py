#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 768M --timeout 1500 --disk :4G --disk :4G --scratch /var/lib/snapsync-lab:512M
"""Comparing by hash on real LVM, thick and thin: equal volumes cost their hashes,
changes the blocks that they are in; a lost base, a foreign write and a target with
somebody's copy on it cost what differs; an interrupted comparison is gone on with.
"""
import os
import random
import signal

import lab
from lab import BLOCK, MIB, expect, run

SIZE = 64 * MIB
LARGE = (1024 if os.environ.get('SNAPSYNC_LONG') else 256) * MIB


def check(what, result, src, target, /, **fields):
    expect('%s: exit code 0' % what, result.code == 0, result)
    different = lab.first_difference(target, lab.contents(src), lab.device_size(src))
    expect('%s: the target is equal' % what, different is None, different)
    for key, wanted in fields.items():
        expect('%s: %s is %r' % (what, key, wanted), result[key] == wanted, result)


def received_bytes():
    """By the network's only device, both directions of each connection."""
    with open('/proc/net/dev') as f:
        for line in f:
            name, _, counters = line.partition(':')
            if name.strip() == 'lo':
                return int(counters.split()[0])
    raise RuntimeError('no lo')


def set_up(rng):
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/ubdb', 'nas2')
    for group in ('nas1', 'nas2'):
        lab.make_pool(group, 'pool', 1500 * MIB)
        run('lvcreate', '-qq', '-Wn', '-L', '%db' % SIZE, '-n', 'thick', group)
        run('lvcreate', '-qq', '-Wn', '-L', '%db' % LARGE, '-n', 'large', group)
        lab.make_thin(group, 'pool', 'thin', SIZE)
    for path in ('/dev/nas1/thick', '/dev/nas1/thin'):
        lab.write_randomly(rng, path, 40)


def change(rng, path, count):
    """Writes within `count` blocks that have no neighbours; their bytes."""
    blocks = rng.sample(range(0, lab.device_size(path) // BLOCK, 2), count)
    for number in blocks:
        lab.write_device(path, number * BLOCK + 4096, rng.randbytes(4096))
    return count * BLOCK


def thick(rng):
    src, target = '/dev/nas1/thick', '/dev/nas2/thick'

    def sync(*arguments):
        return lab.sync(src, 'thick', 'thick', *arguments)
    check('thick, first', sync(), src, target, method='full')
    check('thick, again', sync(), src, target, method='hash', result='unchanged',
          sent_bytes=0)
    for turn in range(2):
        sent = change(rng, src, 7)
        check('thick, changes %d' % turn, sync(), src, target, method='hash',
              sent_bytes=sent)
    lab.write_device(src, 0, bytes(MIB))
    check('thick, zeroes', sync(), src, target, method='hash', sent_bytes=0)
    # Where the seal of a plain device looks; and where it does not.
    lab.write_device(target, 0, rng.randbytes(4096))
    result = sync()
    expect('thick, written to: refused', result.code == lab.BASE_MISMATCH, result)
    check('thick, written to: healed', sync('--yes'), src, target, method='hash')
    change(rng, target, 3)
    check('thick, written to anywhere: healed', sync('--yes'), src, target,
          method='hash')


def thin(rng):
    src, target = '/dev/nas1/thin', '/dev/nas2/thin'

    def sync(*arguments):
        return lab.sync(src, 'thin', 'thin', *arguments)
    check('thin, first', sync(), src, target, method='full')
    sent = change(rng, src, 5)
    base = [v for v in lab.volumes('nas1') if v.startswith('thin.snapsync-')]
    lab.remove('nas1', *base)
    result = sync()
    check('thin, base removed', result, src, target, method='hash', sent_bytes=sent)
    expect('thin, base removed: the guard is named', 'G' in result['why'], result)
    change(rng, src, 1)
    check('thin, then by metadata again', sync(), src, target, method='metadata')
    lab.discard(src, 8 * MIB, 4 * MIB)
    check('thin, discarded, and forced', sync('--method', 'hash'), src, target,
          method='hash', sent_bytes=0)
    change(rng, target, 3)
    result = sync()
    expect('thin, written to: refused', result.code == lab.BASE_MISMATCH, result)
    before = lab.contents(target), lab.volumes('nas2')
    result = sync('--yes', '--method', 'hash', '--dry-run')
    expect('thin, dry run: tells what differs',
           result.code == 0 and 0 < result['plan']['data_bytes'] +
           result['plan']['gone_bytes'] <= 3 * BLOCK, result)
    expect('thin, dry run: makes nothing',
           (lab.contents(target), lab.volumes('nas2')) == before)
    check('thin, written to: healed', sync('--yes', '--method', 'hash'), src, target,
          method='hash')
    change(rng, src, 1)
    check('thin, and by metadata', sync(), src, target, method='metadata')
    expect('thin, no stage is left', 'thin.stage' not in lab.volumes('nas2'))


def interrupted(rng):
    """Another plan could not be made while the block device is torn."""
    src, target = '/dev/nas1/thin', '/dev/nas2/thick'

    def start(*arguments):
        return lab.Sync(src, 'thick', 'other', '--yes', *arguments)
    for number in range(4):
        lab.write_device(src, number * 16 * MIB, rng.randbytes(4 * MIB))
    before = lab.watermarks()
    sync = start('--speed-limit', '4M')
    lab.wait_for_watermark(before, sync.process)
    sync.kill(signal.SIGKILL)
    result = start().wait()
    check('a comparison that was interrupted', result, src, target, method='hash')
    expect('a comparison that was interrupted: goes on',
           result['resumed_from_bytes'] > 0, result)


def large(rng):
    """What comparing a large volume costs on the wire."""
    src, target = '/dev/nas1/large', '/dev/nas2/large'
    noise = rng.randbytes(MIB)
    for path in (src, target):
        for number in range(LARGE // MIB):
            lab.write_device(path, number * MIB, noise[number:] + noise[:number])
    begin = received_bytes()
    result = lab.sync(src, 'large', 'large', '--yes')
    wire = received_bytes() - begin
    expect('large, equal: nothing is sent',
           result.code == 0 and result['sent_bytes'] == 0, result)
    expect('large, equal: less than 1/256 on the wire', wire < LARGE // 256, wire)
    print('%d bytes on the wire, %.1f s' % (wire, result['seconds']))
    data = change(rng, src, LARGE // BLOCK // 100)
    result = lab.sync(src, 'large', 'large')
    expect('large, one percent changed: at most 1.1 times that is sent',
           result.code == 0 and 0 < result['sent_bytes'] <= 1.1 * data, result)
    expect('large: equal', lab.contents(src) == lab.contents(target))


def main():
    rng = random.Random(lab.seed_from_environment())
    set_up(rng)
    agent = lab.Agent([('thick', '/dev/nas2/thick', 'block'),
                       ('thin', '/dev/nas2/thin', 'thin'),
                       ('large', '/dev/nas2/large', 'block')]).start()
    thick(rng)
    thin(rng)
    interrupted(rng)
    large(rng)
    expect('memory of the agent is at most 96 MiB',
           agent.peak_memory() <= 96 * MIB, agent.peak_memory())
    expect('the agent ends when told to', agent.stop() == 0)
    print(agent.log()[-3000:] if lab.failures else '', end='')
    lab.finish()


main()
