#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""Images with a few random changes in their metadata: if our reader and QEMU
both accept one, they read the same. (QEMU accepts more: it reads zeroes beyond
the end of a file, for one.)

A failure prints its seed; SNAPSYNC_SEED=N SNAPSYNC_MUTATIONS=1 makes that
change again. SNAPSYNC_LONG=1 makes 2,000 instead of 60.
"""
import filecmp
import os
import random
import shutil
import subprocess
import sys
import tempfile

import lab
from lab import expect
from qcow2_images import OFFSET_MASK, Image, convert, raw_file, run

READER = lab.PROGRAMS + '/qcow2_to_raw'
COUNT = int(os.environ.get('SNAPSYNC_MUTATIONS',
                           2000 if os.environ.get('SNAPSYNC_LONG') else 60))
# A changed size may be anything: what is larger is compared by QEMU.
LARGE = 32 << 20


def originals(folder):
    """Small images of all kinds, and what of each is metadata."""
    raw = raw_file(folder + '/source.raw', 2 << 20)
    images = []
    for name, options in (('v3', ''), ('v2', 'compat=0.10'), ('c4k', 'cluster_size=4k'),
                          ('c512', 'cluster_size=512'), ('extl2', 'extended_l2=on')):
        images.append(Image('%s/%s.qcow2' % (folder, name), '2M', options,
                            ('write -P 1 0 300k', 'write -z 64k 128k', 'write -P 2 1M 300k')))
    for name, options in (('zlib', 'compression_type=zlib'), ('zstd', 'compression_type=zstd'),
                          ('zstd4k', 'compression_type=zstd,cluster_size=4k'),
                          ('zextl2', 'extended_l2=on,compression_type=zstd')):
        images.append(convert(raw, '%s/%s.qcow2' % (folder, name), '-c', '-o', options))
    Image(folder + '/base.qcow2', '2M')
    images.append(Image(folder + '/overlay.qcow2', '3M', backing='base.qcow2',
                        writes=('write -P 3 100k 5k', 'write -z 1M 64k')))
    images.append(Image(folder + '/snapshots.qcow2', '2M'))
    run('qemu-img', 'snapshot', '-c', 'one', images[-1].path)
    run('qemu-img', 'bitmap', '--add', images[-1].path, 'two')
    for image in images:
        image.places = places(image)
    return images


def places(image):
    """Ranges in which a change means something: (offset, length)."""
    cluster = 1 << image.get('cluster_bits')
    ranges = [(0, 120), (0, min(cluster, 600)), (image.get('l1_offset'), 16),
              (image.get('reft_offset'), 16)]
    for index in range(min(image.get('l1_size'), 4)):
        table = image.u64(image.l1_at(index)) & OFFSET_MASK
        if table:
            ranges += [(table, min(cluster, 48 * image.entry_bytes()))] * 3
    if image.get('snapshots'):
        ranges.append((image.get('snapshots_offset'), 64))
    # Streams, or data: any byte of the file.
    ranges.append((0, image.file_size()))
    return ranges


def mutate(rng, image, path):
    shutil.copyfile(image.path, path)
    changed = Image.at(path)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, length = rng.choice(image.places)
        at += rng.randrange(length)
        kind = rng.randrange(4)
        if kind == 0:
            changed.patch(at, bytes([changed.bytes(at, 1)[0] ^ 1 << rng.randrange(8)]))
        elif kind == 1:
            changed.patch(at, rng.randbytes(rng.choice((1, 2, 4, 8))))
        elif kind == 2:
            # Another entry, or field, of the same kind.
            other = rng.choice(image.places)[0] + 8 * rng.randrange(8)
            changed.patch(at & ~7, changed.bytes(other, 8))
        else:
            changed.patch(at & ~7, rng.choice((0, 1, 255, 2**31, 2**63, 65536, 2**62 | 65536))
                          .to_bytes(8, 'big'))
    if rng.randrange(20) == 0:
        changed.truncate(rng.randrange(changed.file_size()))


def accepts(argv, folder):
    """Whether a program succeeds; nobody may take minutes, or crash."""
    done = subprocess.run(['timeout', '60', *argv], cwd=folder, check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr.strip()


def main():
    seed = int(os.environ.get('SNAPSYNC_SEED', random.randrange(10**9)))
    folder = tempfile.mkdtemp(prefix='snapsync-qcow2-')
    both = ours_only = theirs_only = 0
    path, ours, theirs = (folder + '/' + name for name in
                          ('changed.qcow2', 'ours.raw', 'theirs.raw'))
    try:
        images = originals(folder)
        for number in range(seed, seed + COUNT):
            rng = random.Random(number)
            image = rng.choice(images)
            mutate(rng, image, path)
            for file in (ours, theirs):
                if os.path.exists(file):
                    os.unlink(file)
            code, error = accepts([READER, path, ours], folder)
            if not expect('seed %d: an answer' % number,
                          code in (0, lab.PERMISSION, lab.TARGET_UNSUITABLE, lab.IO), error):
                continue
            # The format is given: it would take a broken magic for a raw file.
            other, _ = accepts(['qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', path, theirs],
                               folder)
            if code == 0 and other == 0:
                both += 1
                same = os.path.getsize(ours) == os.path.getsize(theirs) and (
                    filecmp.cmp(ours, theirs, shallow=False)
                    if os.path.getsize(ours) <= LARGE else
                    accepts(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', ours, theirs],
                            folder)[0] == 0)
                expect('seed %d: the same contents' % number, same,
                       os.path.basename(image.path))
            elif code == 0:
                ours_only += 1
                print('        accepted by us alone: seed %d, %s' %
                      (number, os.path.basename(image.path)))
            elif other == 0:
                theirs_only += 1
    finally:
        shutil.rmtree(folder)
    print('%d mutations: %d accepted by both, %d by us alone, %d by QEMU alone' %
          (COUNT, both, ours_only, theirs_only))
    lab.finish()


if __name__ == '__main__':
    sys.dont_write_bytecode = True
    main()
