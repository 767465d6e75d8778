#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --plain-lvm --mem 512M --timeout 900 --disk :2G --disk :2G --disk :512M --scratch /var/lib/snapsync-lab:1G
"""Syncs to targets of the same host, and the old tool's command lines word for
word, on real LVM thin pools; the bytes compared after each.
"""
import glob
import os
import random
import time

import lab
from lab import MIB, expect, run

SIZE = 64 * MIB
SRC = '/dev/nas1/vol'
TARGETS = {'thin': '/dev/nas2/replica', 'block': '/dev/nas2/plain',
           'file': lab.LAB + '/vol.raw'}


def equal(what, src, target):
    different = lab.first_difference(target, lab.contents(src), lab.device_size(src))
    expect('%s: the target is equal' % what, different is None, different)


def local_sync(target, uuid, *arguments):
    return lab.sync(SRC, target, uuid, *arguments, host=None)


def each_kind_of_target(rng):
    for kind, target in TARGETS.items():
        what = 'local, %s' % kind
        result = local_sync(target, kind)
        expect('%s: a first sync' % what, result.code == 0 and
               result['method'] == 'full', result)
        equal(what, SRC, target)
        lab.write_randomly(rng, SRC, 6)
        lab.discard_randomly(rng, SRC, 3)
        result = local_sync(target, kind)
        expect('%s: the next one sends what changed' % what, result.code == 0 and
               result['method'] == 'metadata' and 0 < result['sent_bytes'] < 8 * MIB,
               result)
        equal(what, SRC, target)
        result = local_sync(target, kind)
        expect('%s: with nothing changed nothing is sent' % what,
               result['result'] == 'unchanged' and result['sent_bytes'] == 0, result)
    expect('the thin target has its generations',
           lab.generation_snapshots('nas2', 'replica') == ['replica.g1', 'replica.g2'],
           lab.volumes('nas2'))


def every_name_of_a_target_is_the_same():
    result = local_sync('/dev/mapper/nas2-replica', 'thin')
    expect('another path of the same target', result.code == 0 and
           result['method'] == 'metadata', result)
    equal('another path of the same target', SRC, TARGETS['thin'])


def wait_for_a_watermark(begin):
    """One that was recorded since then, by the only sync under way."""
    for _ in range(600):
        if any(os.stat(path).st_mtime > begin
               for path in glob.glob(lab.LAB + '/sender/local/*/targets/*.journal')):
            return
        time.sleep(0.1)
    raise RuntimeError('no watermark for a minute')


def killed_and_resumed(rng):
    for kind, target in TARGETS.items():
        old = lab.contents(target)
        for offset in range(0, SIZE, 8 * MIB):
            lab.write_device(SRC, offset, rng.randbytes(4 * MIB))
        new = lab.contents(SRC)
        begin = time.time()
        sync = lab.Sync(SRC, target, kind, '--speed-limit', '4M', host=None)
        wait_for_a_watermark(begin)
        busy = local_sync(target, 'other') if kind == 'thin' else None
        sync.kill()
        if busy:
            expect('a second sync to the same target is told so',
                   busy.code == lab.BUSY, busy)
        if kind != 'block':
            expect('killed, %s: the target is old still' % kind,
                   lab.contents(target) == old)
        result = local_sync(target, kind)
        expect('killed, %s: the same command goes on' % kind, result.code == 0 and
               result['resumed_from_bytes'] > 0, result)
        expect('killed, %s: the target is equal' % kind,
               lab.first_difference(target, new, SIZE) is None)


def refusals():
    result = local_sync(SRC, 'self')
    expect('the source itself is no target', result.code == lab.USAGE, result)
    run('mkfs.ext4', '-q', '/dev/nas2/other')
    os.makedirs(lab.LAB + '/mnt', exist_ok=True)
    before = lab.contents('/dev/nas2/other')
    result = local_sync('/dev/nas2/other', 'other')
    expect('a target that is not empty is refused',
           result.code == lab.TARGET_UNSUITABLE, result)
    run('mount', '-o', 'ro,noload', '/dev/nas2/other', lab.LAB + '/mnt')
    result = local_sync('/dev/nas2/other', 'other', '--yes')
    run('umount', lab.LAB + '/mnt')
    expect('a mounted target is refused',
           result.code in (lab.BUSY, lab.TARGET_UNSUITABLE), result)
    expect('a refused target is as it was',
           lab.contents('/dev/nas2/other') == before)
    result = local_sync('/dev/nas2/missing', 'missing')
    expect('a device that is not there is refused',
           result.code == lab.TARGET_UNSUITABLE, result)


# --- The old tool's lines -----------------------------------------------------

def old_lines(rng):
    run('ip', 'addr', 'add', '192.168.80.88/32', 'dev', 'lo')
    lab.make_group('/dev/ubdc', 'vg1')
    lab.make_pool('vg1', 'tp1', 200 * MIB)
    for number in range(1, 4):  # so that the snapshot's thin id is 4
        lab.make_thin('vg1', 'tp1', 'v%d' % number, SIZE)
    lab.write_randomly(rng, '/dev/vg1/v1', 20)
    lab.make_snapshot('vg1', 'v1', 'snap30001')
    source = '/dev/mapper/vg1-snap30001'
    thin_id = run('lvs', '--noheadings', '-o', 'thin_id', 'vg1/snap30001').strip()
    expect('the snapshot has the thin id of the lines', thin_id == '4', thin_id)
    run('lvcreate', '-qq', '-Wn', '-L', '%db' % (2 * SIZE), '-n', 'old', 'nas2')
    configuration = lab.LAB + '/send.toml'
    with open(configuration, 'w') as f:
        f.write('[defaults]\nstate-directory = "%s/old"\n[tls]\nca = "%s/ca.crt"\n'
                'cert = "%s/nas1.crt"\nkey = "%s/nas1.key"\n' % (
                    lab.LAB, lab.PKI, lab.PKI, lab.PKI))

    def old(line):
        return lab.run_send(*line.split(), SNAPSYNC_CONFIG=configuration)

    name = '/dev/mapper/thin'
    run('dmsetup', 'create', 'thin', '--table',
        '0 %d linear /dev/nas2/old 0' % (SIZE // 512))
    agent = lab.Agent([('remote', name, 'block')], host='192.168.80.88',
                      clients=[('admin', ['receive'], ['remote'])],
                      directory=lab.LAB + '/old-agent').start()
    result = old('master --port 22 --meta /dev/mapper/vg1-tp1_tmeta --id 4 --src '
                 '/dev/mapper/vg1-snap30001 --dst admin@192.168.80.88:/dev/mapper/thin '
                 '--uuid 1 --encrypt')
    expect('the old remote line: exit code 0', result.code == 0, result)
    expect('the old remote line: a warning about the port', '--port 22' in result.text,
           result)
    equal('the old remote line', source, name)
    result = old('master --port 22 --meta /dev/mapper/vg1-tp1_tmeta --id 4 --src '
                 '/dev/mapper/vg1-snap30001 --dst admin@192.168.80.88:/dev/mapper/thin '
                 '--uuid 1 --encrypt --timeout 60 --speed-limit 10M')
    expect('the old remote line again: nothing to do', result.code == 0 and
           'Nothing changed' in result.stdout, result)
    agent.stop()

    run('dmsetup', 'remove', 'thin')
    run('dmsetup', 'create', 'thin', '--table',
        '0 %d linear /dev/nas2/old %d' % (SIZE // 512, SIZE // 512))
    result = old('master --port 22 --meta /dev/mapper/vg1-tp1_tmeta --id 4 '
                 '--src=/dev/mapper/vg1-snap30001 --dst /dev/mapper/thin --uuid 1 '
                 '--encrypt')
    expect('the old local line: exit code 0', result.code == 0, result)
    equal('the old local line', source, name)
    # The next snapshot, as scripts make it.
    lab.write_randomly(rng, '/dev/vg1/v1', 3)
    lab.make_snapshot('vg1', 'v1', 'snap30002')
    thin_id = run('lvs', '--noheadings', '-o', 'thin_id', 'vg1/snap30002').strip()
    result = old('master --port 22 --meta /dev/mapper/vg1-tp1_tmeta --id %s '
                 '--src /dev/mapper/vg1-snap30002 --dst /dev/mapper/thin --uuid 1' % thin_id)
    expect('the old local line, the next snapshot: sends what changed',
           result.code == 0 and 'by method metadata' in result.stdout, result)
    equal('the old local line, the next snapshot', '/dev/vg1/snap30002', name)
    run('dmsetup', 'remove', 'thin')


def main():
    rng = random.Random(7)
    lab.make_certificates(lab.PKI, 'nas1', 'nas2,192.168.80.88', 'admin')
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/ubdb', 'nas2')
    lab.make_pool('nas1', 'pool', 600 * MIB)
    lab.make_pool('nas2', 'pool', 600 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    lab.write_randomly(rng, SRC, 30)
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    run('lvcreate', '-qq', '-Wn', '-L', '%db' % SIZE, '-n', 'plain', 'nas2')
    run('lvcreate', '-qq', '-Wn', '-L', '%db' % SIZE, '-n', 'other', 'nas2')
    each_kind_of_target(rng)
    every_name_of_a_target_is_the_same()
    killed_and_resumed(rng)
    refusals()
    old_lines(rng)
    lab.finish()


main()
