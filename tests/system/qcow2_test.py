#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 768M --timeout 1500 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:768M
"""QCOW2 images of real thin volumes: exported whole and brought up to date, here and by
an agent, as one file and as a chain; interrupted; changed by somebody else; brought back
to volumes. qemu-img is the judge of every image.
"""
import json
import os
import random
import signal
import subprocess
import time

import lab
from lab import BLOCK, KIB, MIB, expect, run

SIZE = 32 * MIB
SRC = '/dev/nas1/vol'
HERE = lab.LAB + '/images'      # of this host
THERE = lab.LAB + '/exports'    # of the agent
STATE = lab.LAB + '/sender'
INCREMENTS = 30 if os.environ.get('SNAPSYNC_LONG') else 4


def send(*arguments):
    tls = ['--tls-ca', lab.PKI + '/ca.crt', '--tls-cert', lab.PKI + '/nas1.crt',
           '--tls-key', lab.PKI + '/nas1.key']
    return lab.run_send(arguments[0], *arguments[1:], *tls, '--state-directory', STATE,
                        '--json')


def export(image, *arguments, src=SRC):
    return send('export', '--src', src, '--qcow', image, *arguments)


def qemu_img(*arguments):
    done = subprocess.run(['qemu-img', *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def judge(what, image, raw=SRC):
    code, text = qemu_img('check', '-f', 'qcow2', image)
    expect('%s: qemu-img finds nothing' % what,
           code == 0 and 'No errors' in text and 'leaked' not in text, text)
    code, text = qemu_img('compare', '-f', 'raw', '-F', 'qcow2', raw, image)
    expect('%s: identical' % what, code == 0 and 'identical' in text, text)


def judge_served(what, image, raw=SRC):
    """As those read it who serve an image over the network."""
    copy = HERE + '/served'
    run('nbdcopy', '--', '[', 'qemu-nbd', '-r', '-f', 'qcow2', image, ']', copy)
    expect('%s: qemu-nbd and nbdcopy read it' % what,
           run('cmp', '-n', str(lab.device_size(raw)), raw, copy, check=False) == '')
    os.unlink(copy)


def virtual_size(image):
    return json.loads(run('qemu-img', 'info', '--output=json', '-f', 'qcow2',
                          image))['virtual-size']


def change(rng, path=SRC):
    """A few whole blocks of random bytes, and a discard; the bytes that differ."""
    blocks = rng.sample(range(lab.device_size(path) // BLOCK), 6)
    for number in blocks[:4]:
        lab.write_device(path, number * BLOCK, rng.randbytes(BLOCK))
    for number in blocks[4:]:
        lab.discard(path, number * BLOCK, BLOCK)
    return 4 * BLOCK


def one_file(rng):
    image = HERE + '/one.qcow2'
    result = export(image, '--uuid', 'one', '--dry-run')
    expect('dry run', result.code == 0 and not os.path.exists(image), result)
    result = export(image, '--uuid', 'one')
    expect('first export', result.code == 0 and result['method'] == 'full', result)
    judge('first export', image)
    inode = os.stat(image).st_ino
    for turn in range(INCREMENTS):
        sent = change(rng)
        result = export(image, '--uuid', 'one')
        expect('increment %d' % turn, result.code == 0 and
               result['method'] == 'metadata' and result['sent_bytes'] <= sent, result)
        judge('increment %d' % turn, image)
    judge_served('after %d increments' % INCREMENTS, image)
    expect('the same file', os.stat(image).st_ino == inode)
    expect('nothing beside it', os.listdir(HERE) == ['one.qcow2'], os.listdir(HERE))
    result = export(image, '--uuid', 'one')
    expect('nothing changed', result.code == 0 and result['result'] == 'unchanged' and
           result['sent_bytes'] == 0, result)

    result = send('verify', '--src', SRC, '--qcow', image, '--uuid', 'one')
    expect('verified', result.code == 0 and result['result'] == 'equal', result)
    for number in range(120):
        lab.write_device(SRC, number * BLOCK, rng.randbytes(BLOCK))
    before = lab.volumes('nas1')
    process = subprocess.Popen([lab.PROGRAMS + '/snapsync-send', 'export', '--src', SRC,
                                '--qcow', image, '--uuid', 'one', '--state-directory',
                                STATE, '--speed-limit', '64K'],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(8)
    expect('an export is under way', process.poll() is None)
    process.kill()
    process.wait()
    result = send('abort', '--qcow', image, '--uuid', 'one')
    expect('given up', result.code == 0 and result['result'] == 'aborted' and
           lab.volumes('nas1') == before and os.listdir(HERE) == ['one.qcow2'], result)
    result = send('verify', '--src', SRC, '--qcow', image, '--uuid', 'one')
    expect('what it was before', result.code == 0 and result['result'] == 'equal', result)

    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 1M 64k', image)
    change(rng)
    result = export(image, '--uuid', 'one')
    expect('written to by somebody: refused', result.code == lab.BASE_MISMATCH and
           'changed since' in result.text, result)
    result = export(image, '--uuid', 'one', '--yes')
    expect('with consent: anew', result.code == 0 and result['method'] == 'full', result)
    judge('anew', image)
    holder = subprocess.Popen(['qemu-io', '-r', '-f', 'qcow2', image],
                              stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    time.sleep(2)
    change(rng)
    result = export(image, '--uuid', 'one')
    expect('open in QEMU: busy', result.code == lab.BUSY, result)
    holder.communicate(b'quit\n')
    result = export(image, '--uuid', 'one')
    expect('and then not', result.code == 0, result)
    judge('after QEMU', image)


SHAPES = [('--cluster-size', '4K'), ('--cluster-size', '1M'), ('--cluster-size', '2M'),
          ('--compress', 'zstd'), ('--compress', 'zlib', '--cluster-size', '1M')]


def shapes(rng):
    for arguments in lab.in_time(rng.sample(SHAPES, len(SHAPES)), 2):
        image = '%s/shape%d.qcow2' % (HERE, SHAPES.index(arguments))
        for turn in ('whole', 'increment'):
            change(rng)
            result = export(image, '--uuid', 'shape', *arguments)
            expect('%s, %s' % (' '.join(arguments), turn), result.code == 0, result)
            judge('%s, %s' % (' '.join(arguments), turn), image)
        judge_served(' '.join(arguments), image)
        os.unlink(image)
    image = HERE + '/size.qcow2'
    result = export(image, '--size', '16M')
    expect('a size below the source: refused', result.code != 0 and
           not os.path.exists(image), result)
    result = export(image, '--size', str(SIZE + 512))
    expect('a size above it', result.code == 0 and virtual_size(image) == SIZE + 512, result)
    change(rng)
    result = export(image)
    expect('which is kept', result.code == 0 and virtual_size(image) == SIZE + 512, result)
    judge('larger than the source', image)
    for src in ('/dev/nas1/thick', HERE + '/raw'):
        image = HERE + '/thick-%s.qcow2' % os.path.basename(src)
        for turn in range(2):
            lab.write_device('/dev/nas1/thick', turn * MIB, rng.randbytes(64 * KIB))
            run('dd', 'if=/dev/nas1/thick', 'of=' + HERE + '/raw', 'bs=1M')
            result = export(image, src=src)
            expect('%s, %d' % (src, turn), result.code == 0, result)
            judge('%s, %d' % (src, turn), image, raw=src)
        os.unlink(image)
    with open(HERE + '/foreign.qcow2', 'w') as f:
        f.write('not an image')
    result = export(HERE + '/foreign.qcow2')
    expect('what is no image: refused', result.code == lab.TARGET_UNSUITABLE and
           open(HERE + '/foreign.qcow2').read() == 'not an image', result)
    result = export(HERE + '/foreign.qcow2', '--yes')
    expect('or replaced', result.code == 0, result)
    judge('replaced', HERE + '/foreign.qcow2')


def chain(rng):
    path = HERE + '/chain.qcow2'

    def files():
        return sorted(f for f in os.listdir(HERE) if f.startswith('chain.'))
    for turn in range(1, 6):
        sent = change(rng)
        result = export(path, '--uuid', 'chain', '--chain', '--keep', '3')
        expect('chain, %d' % turn, result.code == 0 and
               (turn == 1 or result['sent_bytes'] <= sent), result)
        judge('chain, %d' % turn, '%s/chain.g%d.qcow2' % (HERE, turn))
    judge_served('a chain', HERE + '/chain.g5.qcow2')
    expect('three are kept', files() == ['chain.g%d.qcow2' % n for n in (3, 4, 5)], files())
    info = json.loads(run('qemu-img', 'info', '--output=json', HERE + '/chain.g5.qcow2'))
    expect('by a relative name, with its format',
           info.get('backing-filename') == 'chain.g4.qcow2' and
           info.get('backing-filename-format') == 'qcow2', info)


def by_agent(rng, agent):
    path = 'localhost:%s/remote.qcow2' % THERE
    image = THERE + '/remote.qcow2'
    result = export(path, '--uuid', 'far')
    expect('by an agent', result.code == 0, result)
    judge('by an agent', image)
    for victim in ('sender', 'agent'):
        for number in range(120):
            lab.write_device(SRC, number * BLOCK, rng.randbytes(BLOCK))
        command = [lab.PROGRAMS + '/snapsync-send', 'export', '--src', SRC, '--qcow', path,
                   '--uuid', 'far', '--tls-ca', lab.PKI + '/ca.crt', '--tls-cert',
                   lab.PKI + '/nas1.crt', '--tls-key', lab.PKI + '/nas1.key',
                   '--state-directory', STATE, '--json', '--speed-limit', '512K']
        before = lab.watermarks()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        lab.wait_for_watermark(before, process)
        expect('%s: under way' % victim, process.poll() is None)
        if victim == 'agent':
            agent.kill()
            code, text = qemu_img('check', '-f', 'qcow2', image)
            expect('agent killed: the image is whole', code == 0, text)
            agent.start()
        process.send_signal(signal.SIGKILL)
        process.wait()
        result = export(path, '--uuid', 'far')
        expect('%s killed: it goes on' % victim, result.code == 0 and
               result['resumed_from_bytes'] > 0, result)
        judge('%s killed' % victim, image)
    for bad in ('localhost:%s/../x.qcow2' % THERE, 'localhost:%s/x.img' % THERE,
                'localhost:/tmp/x.qcow2'):
        result = export(bad)
        expect('%s: refused' % bad, result.code in (lab.PERMISSION, lab.TARGET_UNSUITABLE),
               result)


def bring_back(rng):
    image = HERE + '/back.qcow2'
    change(rng)
    result = export(image, '--uuid', 'back')
    expect('to be brought back', result.code == 0, result)
    dst = '/dev/nas2/back'
    result = send('import', '--src', image, '--dst', dst, '--uuid', 'b')
    expect('import', result.code == 0, result)
    expect('import: equal', lab.contents(dst) == lab.contents(SRC))
    sent = change(rng)
    export(image, '--uuid', 'back')
    result = send('import', '--src', image, '--dst', dst, '--uuid', 'b')
    expect('import of a newer export: what changed alone', result.code == 0 and
           result['method'] == 'hash' and result['sent_bytes'] <= sent, result)
    expect('import of a newer export: equal', lab.contents(dst) == lab.contents(SRC))
    before = lab.contents('/dev/nas2/small')
    result = send('import', '--src', image, '--dst', '/dev/nas2/small', '--yes')
    expect('import to a volume that is too small: refused',
           result.code == lab.TARGET_UNSUITABLE and
           lab.contents('/dev/nas2/small') == before, result)
    result = send('import', '--src', image, '--dst', 'localhost:far', '--uuid', 'b')
    expect('import by an agent', result.code == 0, result)
    expect('import by an agent: equal', lab.contents('/dev/nas2/far') == lab.contents(SRC))
    change(rng)
    export('localhost:%s/remote.qcow2' % THERE, '--uuid', 'far')
    result = send('import', '--src', 'localhost:%s/remote.qcow2' % THERE, '--dst',
                  'localhost:far', '--uuid', 'b', '--yes')
    expect('import of an image of the agent', result.code == 0, result)
    expect('import of an image of the agent: equal',
           lab.contents('/dev/nas2/far') == lab.contents(SRC))
    result = send('import', '--src', SRC, '--dst', dst, '--uuid', 'b')
    expect('what is no image: refused', result.code not in (0, 1), result)


def old_lines(rng):
    """As the old tool's manual has them."""
    change(rng)
    run('lvcreate', '-qq', '-s', '-kn', '-pr', '-n', 'snap30001', 'nas1/vol')
    thin_id = run('lvs', '--noheadings', '-o', 'thin_id', 'nas1/snap30001').strip()
    image = HERE + '/testqcow2'
    config = ['--state-directory', STATE]
    result = lab.run_send('qcow2_exporter', '--meta', '/dev/mapper/nas1-pool_tmeta', '--id',
                          thin_id, '--src', '/dev/mapper/nas1-snap30001', '--uuid', '1',
                          '--qcow', image, '--size', str(SIZE), *config)
    expect('qcow2_exporter', result.code == 0, result)
    judge('qcow2_exporter', image, raw='/dev/nas1/snap30001')
    lab.write_device('/dev/nas2/old', 0, rng.randbytes(MIB))
    result = lab.run_send('qcow2_importer', '--dst', '/dev/mapper/nas2-old', '--uuid', '1',
                          '--src', image, *config)
    expect('qcow2_importer', result.code == 0, result)
    expect('qcow2_importer: equal',
           lab.contents('/dev/nas2/old') == lab.contents('/dev/nas1/snap30001'))


def main():
    rng = random.Random(lab.seed_from_environment())
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_nas_pair(400 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    for name in ('back', 'far', 'old'):
        lab.make_thin('nas2', 'pool', name, SIZE)
    lab.make_thin('nas2', 'pool', 'small', SIZE // 2)
    run('lvcreate', '-qq', '-Wn', '-L', '%db' % (8 * MIB), '-n', 'thick', 'nas1')
    os.makedirs(HERE)
    os.makedirs(THERE)
    lab.write_randomly(rng, SRC, 20)
    agent = lab.Agent([('far', '/dev/nas2/far', 'thin'), ('exports', THERE + '/', 'qcow2')],
                      clients=[('nas1', ['receive', 'send', 'revert'], ['*']),
                               ('nas2', ['receive', 'send', 'revert'], ['*'])]).start()
    one_file(rng)
    shapes(rng)
    chain(rng)
    by_agent(rng, agent)
    bring_back(rng)
    old_lines(rng)
    expect('the agent ends well', agent.stop() == 0)
    lab.finish()


main()
