#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 900 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""Verify and scrub on real thin pools: a byte that changed below the pool, where no
metadata tells, is found by both, and a foreign write by verify; verify heals them, the
sync after it is incremental, and what the agent knows of its disk goes along.
"""
import json
import mmap
import os
import random
import subprocess
import time

import lab
from lab import BLOCK, MIB, expect

SIZE = 32 * MIB
SRC, REPLICA, DISK = '/dev/nas1/vol', '/dev/nas2/replica', '/dev/ubdb'


def verify(*arguments, src=SRC):
    return lab.run_send(
        'verify', '--src', src, '--dst', 'localhost:replica', '--uuid', 'u', '--port',
        '7780', '--state-directory', lab.LAB + '/sender', '--tls-ca', lab.PKI + '/ca.crt',
        '--tls-cert', lab.PKI + '/nas1.crt', '--tls-key', lab.PKI + '/nas1.key', '--json',
        *arguments)


def scrub(*arguments):
    """(exit code, result) of the agent's own look at its disk."""
    done = subprocess.run(
        [lab.PROGRAMS + '/snapsync-agent', 'scrub', 'replica', '--json', '--config',
         lab.LAB + '/agent.toml', *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def expect_clean(what, compared=SIZE):
    code, found = scrub()
    expect(what, code == 0 and found['damaged'] == [] and
           found['compared_bytes'] == compared and
           found['recorded_bytes'] == SIZE - compared, found)


def flip_below_the_pool(offset):
    """One bit of the replica's data at `offset`, on the disk."""
    fd = os.open(REPLICA, os.O_RDONLY | os.O_DIRECT)
    page = mmap.mmap(-1, 4096)
    os.preadv(fd, [page], offset)
    os.close(fd)
    wanted = page[:]
    disk = os.open(DISK, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, MIB)
    for at in range(0, lab.device_size(DISK), MIB):
        os.preadv(disk, [buffer], at)
        found = buffer.find(wanted)
        if found >= 0:
            page[:] = bytes([wanted[0] ^ 1]) + wanted[1:]
            os.pwritev(disk, [page], at + found)
            os.fsync(disk)
            os.close(disk)
            return
    raise RuntimeError('the data are not on the disk')


def main():
    rng = random.Random(lab.seed_from_environment())
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_nas_pair(400 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    agent = lab.Agent([('replica', REPLICA, 'thin')]).start()
    lab.write_device(SRC, 4 * MIB, rng.randbytes(2 * MIB))
    result = verify()
    expect('before the first sync there is nothing to compare',
           result.code == lab.BASE_MISMATCH, result)
    code, found = scrub()
    expect('nor to scrub', code == lab.TARGET_UNSUITABLE, found)
    result = lab.sync(SRC, 'replica', 'u')
    expect('synced', result.code == 0, result)
    expect_clean('scrub knows all of it')
    # The origin goes on; what was sent is compared.
    lab.write_device(SRC, 0, rng.randbytes(MIB))
    volumes = lab.volumes('nas1') + lab.volumes('nas2')
    result = verify()
    expect('equal', result.code == 0 and result['result'] == 'equal', result)
    expect('all of it was compared', result['compared_bytes'] == SIZE, result)
    expect('no snapshot was made', lab.volumes('nas1') + lab.volumes('nas2') == volumes)

    sent = lab.contents(REPLICA)
    flip_below_the_pool(5 * MIB)
    expect('a bit flipped', lab.contents(REPLICA) != sent)
    result = verify()
    expect('it is found, and named',
           result.code == lab.VERIFICATION and
           result['different'] == [[5 * MIB, BLOCK]], result)
    expect('nothing was written', lab.volumes('nas1') + lab.volumes('nas2') == volumes)
    code, found = scrub()
    expect('scrub finds it, too', code == lab.VERIFICATION and
           found['damaged'] == [{'offset': 5 * MIB, 'length': 64 << 10}], found)
    result = verify('--repair')
    expect('repaired', result.code == 0 and result['result'] == 'repaired' and
           result['sent_bytes'] == BLOCK, result)
    expect('the replica is what was sent', lab.contents(REPLICA) == sent)
    expect_clean('for scrub as well')

    lab.write_device(REPLICA, 20 * MIB, rng.randbytes(4096))
    lab.discard(REPLICA, 4 * MIB, BLOCK)
    result = verify()
    expect('foreign writes are found', result['different'] == [
        [4 * MIB, BLOCK], [20 * MIB, BLOCK]], result)
    expect_clean('the generation itself is what it was')
    base = [v for v in lab.volumes('nas1') if '.snapsync-' in v]
    result = lab.sync('/dev/nas1/' + base[0], 'replica', 'u')
    expect('the base itself, refused', result.code == lab.BASE_MISMATCH, result)
    expect('the base is kept', base[0] in lab.volumes('nas1'), lab.volumes('nas1'))
    result = verify('--repair')
    expect('and repaired', result.code == 0 and lab.contents(REPLICA) == sent, result)
    expect_clean('what became a generation by comparing is recorded', 0)
    result = lab.sync(SRC, 'replica', 'u')
    expect('the next sync is incremental', result.code == 0 and
           result['method'] == 'metadata' and result['sent_bytes'] == MIB, result)
    expect('and right', lab.contents(REPLICA) == lab.contents(SRC))
    expect_clean('scrub knows what changed')
    own = [v for v in lab.volumes('nas1') if '.snapsync-' in v]
    expect('one base is kept', len(own) == 1, own)
    lab.write_device(SRC, 24 * MIB, rng.randbytes(2 * MIB))
    sync = lab.Sync(SRC, 'replica', 'u', '--speed-limit', '64K')
    time.sleep(8)
    expect('another one is under way', sync.running())
    result = verify()
    expect('meanwhile nothing is compared', result.code == lab.BUSY, result)
    expect_clean('but what was committed')
    sync.kill()
    result = verify('--repair')
    expect('an interrupted sync is not repaired over', result.code == lab.BUSY and
           'run it again' in result.text, result)
    result = lab.sync(SRC, 'replica', 'u')
    expect('it goes on', result.code == 0 and
           lab.contents(REPLICA) == lab.contents(SRC), result)
    snapshot = lab.make_snapshot('nas1', 'vol', 'mine')
    result = verify(src=snapshot)
    expect('a snapshot of the operator', result.code == 0 and result['warnings'], result)
    expect('the agent ends well', agent.stop() == 0)
    expect_clean('without an agent')
    code, found = scrub('--renew')
    expect('all anew', code == 0 and found['recorded_bytes'] == SIZE, found)
    lab.finish()


main()
