#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --disk :400M --disk :64M --mem 1G
"""`snapsync-send delta` on live pools: while they are written to, while somebody
else holds the metadata snapshot, after a crash of ours that left one behind, on
read-only pools and on metadata at rest."""
import json
import os
import random
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PROGRAMS = os.environ.get('SNAPSYNC_PROGRAMS', ROOT + '/build/release/bin')
STATE = '/run/snapsync-state'
BLOCK = 65536
failures = 0


def expect(what, got, wanted):
    global failures
    if got == wanted:
        print('ok      ' + what)
    else:
        failures += 1
        print(f'FAILED  {what}: got {str(got)[:600]}, expected {str(wanted)[:600]}')
    sys.stdout.flush()


def run(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    if done.returncode:
        raise RuntimeError(f'{words}: {done.stdout}{done.stderr}')
    return done.stdout


def command(meta, base, snapshot, *options):
    return [PROGRAMS + '/snapsync-send', 'delta', '--meta', meta, '--base-id',
            str(base), '--id', str(snapshot), '--state-directory', STATE, '--json',
            *options]


def delta(meta, base, snapshot, *options):
    """(changed, gone), or the error."""
    done = subprocess.run(command(meta, base, snapshot, *options),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        return done.returncode, done.stderr
    answer = json.loads(done.stdout)
    return answer['changed'], answer['gone']


def truth(base, snapshot):
    """What differs between two devices, read block by block."""
    changed, gone = [], []
    with open(base, 'rb') as left, open(snapshot, 'rb') as right:
        at = 0
        while now := right.read(BLOCK):
            if now != left.read(BLOCK):
                kind = changed if now.strip(b'\0') else gone
                if kind and sum(kind[-1]) == at:
                    kind[-1][1] += BLOCK
                else:
                    kind.append([at, BLOCK])
            at += BLOCK
    return changed, gone


def held(pool):
    """The block of the pool's metadata snapshot, '-' for none."""
    return run('dmsetup', 'status', pool).split()[6]


def write(device, blocks, sync=True):
    with open(device, 'r+b', buffering=0) as file:
        for block in blocks:
            file.seek(block * BLOCK)
            file.write(os.urandom(256) * (BLOCK // 256))
        if sync:
            os.fsync(file.fileno())


class Writer:
    """Writes to random blocks of a device, each write flushed, until stopped:
    every flush commits the pool's metadata."""

    def __init__(self, device, blocks):
        self.process = os.fork()
        if self.process == 0:
            chance = random.Random()
            data = os.urandom(256) * (BLOCK // 256)
            with open(device, 'r+b', buffering=0) as file:
                while True:
                    for _ in range(3):
                        file.seek(chance.randrange(blocks) * BLOCK)
                        file.write(data)
                    os.fsync(file.fileno())
                    if chance.random() < 0.1:
                        time.sleep(0.01)

    def stop(self):
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


def thin_id(name):
    return run('lvs', '--noheadings', '-o', 'thin_id', name).strip()


def check_lvm():
    run('vgcreate', '-qq', 'vg-1', '/dev/ubda')
    run('lvcreate', '-qq', '-L', '300M', '-T', 'vg-1/tp', '-c', '64k', '-Zy',
        '--poolmetadatasize', '4M')
    run('lvcreate', '-qq', '-V', '64M', '-T', 'vg-1/tp', '-n', 'vol')
    volume = '/dev/mapper/vg--1-vol'
    meta, pool = '/dev/mapper/vg--1-tp_tmeta', 'vg--1-tp-tpool'
    write(volume, range(0, 600))
    run('lvcreate', '-qq', '-s', '-kn', '-pr', '-n', 'one', 'vg-1/vol')
    write(volume, random.sample(range(1000), 100))
    run('blkdiscard', '-o', str(200 * BLOCK), '-l', str(50 * BLOCK), volume)
    run('lvcreate', '-qq', '-s', '-kn', '-pr', '-n', 'two', 'vg-1/vol')
    one, two = thin_id('vg-1/one'), thin_id('vg-1/two')
    right = truth('/dev/mapper/vg--1-one', '/dev/mapper/vg--1-two')

    writer = Writer(volume, 1000)
    expect('delta of a pool that is written to, 20 times',
           [got for got in (delta(meta, one, two) for _ in range(20)) if got != right],
           [])
    expect('the metadata snapshot is released', held(pool), '-')
    minor = run('dmsetup', 'info', '-c', '--noheadings', '-o', 'minor', meta).strip()
    expect('delta by another name of the metadata device',
           delta('/dev/dm-' + minor, one, two), right)

    run('dmsetup', 'message', pool, '0', 'reserve_metadata_snap')
    before = held(pool)
    expect("delta while somebody else holds the metadata snapshot, 20 times",
           [got for got in (delta(meta, one, two) for _ in range(20)) if got != right],
           [])
    expect("somebody else's metadata snapshot stays", held(pool), before)
    expect("delta of the metadata snapshot that somebody else took",
           delta(meta, one, two, '--metadata-snapshot'), right)
    expect("it stays after that too", held(pool), before)
    run('dmsetup', 'message', pool, '0', 'release_metadata_snap')
    writer.stop()

    run('vgchange', '-qq', '-an', 'vg-1')
    run('lvchange', '-qq', '-y', '-ay', 'vg-1/tp_tmeta')
    expect('delta of a metadata device at rest', delta(meta, one, two), right)
    run('lvchange', '-qq', '-an', 'vg-1/tp_tmeta')


def check_crash():
    """A plain pool whose metadata is slow to read, so that a kill comes while its
    metadata snapshot is held."""
    run('modprobe', 'dm-delay')
    sectors = int(run('blockdev', '--getsz', '/dev/ubdb'))
    run('dmsetup', 'create', 'meta0', '--table', '0 16384 linear /dev/ubdb 0')
    run('dmsetup', 'create', 'data', '--table',
        f'0 {sectors - 16384} linear /dev/ubdb 16384')
    run('dmsetup', 'create', 'meta', '--table',
        '0 16384 delay /dev/mapper/meta0 0 80 /dev/mapper/meta0 0 0')
    with open('/dev/mapper/meta', 'r+b') as file:
        file.write(bytes(4096))
    table = f'0 {sectors - 16384} thin-pool /dev/mapper/meta /dev/mapper/data 128 0'
    run('dmsetup', 'create', 'pool', '--table', table)
    run('dmsetup', 'message', 'pool', '0', 'create_thin 0')
    run('dmsetup', 'create', 'thin', '--table', '0 32768 thin /dev/mapper/pool 0')
    write('/dev/mapper/thin', range(0, 200))
    for snapshot in 1, 2:
        run('dmsetup', 'suspend', 'thin')
        run('dmsetup', 'message', 'pool', '0', f'create_snap {snapshot} 0')
        run('dmsetup', 'resume', 'thin')
        run('dmsetup', 'create', f'snap{snapshot}', '--table',
            f'0 32768 thin /dev/mapper/pool {snapshot}')
        write('/dev/mapper/thin', random.sample(range(256), 20))
    right = truth('/dev/mapper/snap1', '/dev/mapper/snap2')

    def killed():
        process = subprocess.Popen(command('/dev/mapper/meta', 1, 2),
                                   stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        while process.poll() is None and held('pool') == '-':
            pass
        process.kill()
        process.wait()
        return held('pool')

    left = killed()
    expect('a killed run leaves its metadata snapshot behind', left != '-', True)
    done = subprocess.run(command('/dev/mapper/meta', 1, 2), capture_output=True,
                          text=True)
    answer = json.loads(done.stdout) if done.returncode == 0 else {}
    expect('the next run gives the delta', (answer.get('changed'),
                                            answer.get('gone')), right)
    expect('and says that it released it', 'interrupted run' in done.stderr, True)
    expect('and releases it', held('pool'), '-')

    left = killed()
    run('dmsetup', 'message', 'pool', '0', 'release_metadata_snap')
    write('/dev/mapper/thin', [1, 2, 3])
    run('dmsetup', 'suspend', 'thin')
    run('dmsetup', 'message', 'pool', '0', 'create_snap 3 0')
    run('dmsetup', 'resume', 'thin')
    run('dmsetup', 'message', 'pool', '0', 'reserve_metadata_snap')
    other = held('pool')
    expect("delta with our old note and somebody else's metadata snapshot",
           delta('/dev/mapper/meta', 1, 2), right)
    expect("it is not taken for ours", held('pool'), other)
    run('dmsetup', 'message', 'pool', '0', 'release_metadata_snap')

    first = subprocess.Popen(command('/dev/mapper/meta', 1, 2), text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    expect('two runs at a time: the second', delta('/dev/mapper/meta', 1, 2), right)
    answer = json.loads(first.communicate()[0])
    expect('two runs at a time: the first', (answer['changed'], answer['gone']), right)
    expect('two runs at a time: the metadata snapshot', held('pool'), '-')

    run('dmsetup', 'suspend', 'pool')
    run('dmsetup', 'reload', 'pool', '--table', table.replace('128 0', '128 0 1 read_only'))
    run('dmsetup', 'resume', 'pool')
    status, message = delta('/dev/mapper/meta', 1, 2)
    expect('a read-only pool is refused by G1', (status, 'G1: ' in str(message)),
           (6, True))


def main():
    random.seed(int(os.environ.get('SNAPSYNC_SEED', '1')))
    os.makedirs(STATE, exist_ok=True)
    check_lvm()
    check_crash()
    print('pool_test:', 'all passed' if failures == 0 else f'{failures} failed')
    sys.exit(failures != 0)


if __name__ == '__main__':
    main()
