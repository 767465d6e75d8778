#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""snapsync-send export killed (SIGKILL) at random moments: the image is not there, or
the generation before, or the new one, and qemu-img check finds nothing; the same
command then ends it. A new image, an update of one, and beside them, for comparison,
`qemu-img convert`, which leaves files that are valid and wrong.

By hand: SNAPSYNC_KILLS=N SNAPSYNC_SEED=S.
"""
import os
import random
import shutil
import subprocess
import tempfile
import time

import lab
from lab import MIB, expect

KILLS = int(os.environ.get('SNAPSYNC_KILLS', 500 if os.environ.get('SNAPSYNC_LONG') else 25))
SIZE = 24 * MIB


def judge(raw, image):
    """Whether the image is sound, and whether it is equal to the raw file."""
    check = subprocess.run(['qemu-img', 'check', '-q', '-f', 'qcow2', image],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    compare = subprocess.run(['qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2', raw,
                              image], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return check.returncode == 0, compare.returncode == 0


class Lab:
    def __init__(self, folder, rng):
        self.folder, self.rng = folder, rng
        self.raw, self.old = folder + '/raw', folder + '/old'
        self.image = folder + '/image.qcow2'
        with open(self.raw, 'wb') as f:
            f.truncate(SIZE)
        for _ in range(12):
            self.change()

    def change(self):
        with open(self.raw, 'r+b') as f:
            f.seek(self.rng.randrange(SIZE // 65536 - 16) * 65536)
            f.write(self.rng.randbytes(MIB))

    def command(self):
        return [lab.PROGRAMS + '/snapsync-send', 'export', '--src', self.raw, '--qcow',
                self.image, '--state-directory', self.folder + '/state']

    def run(self, command):
        begin = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        return time.monotonic() - begin

    def kill(self, command, length):
        """Whether it was killed before its end."""
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        time.sleep(self.rng.random() * length)
        process.kill()
        return process.wait() != 0

    def forget(self):
        for path in (self.image, self.image + '.part', self.image + '.part.journal'):
            if os.path.exists(path):
                os.unlink(path)
        shutil.rmtree(self.folder + '/state', ignore_errors=True)


def fresh(it):
    it.forget()
    length = it.run(it.command())
    counts = {'killed': 0, 'no image': 0, 'complete': 0, 'wrong': 0}
    for _ in range(KILLS):
        it.forget()
        counts['killed'] += it.kill(it.command(), length)
        if not os.path.exists(it.image):
            counts['no image'] += 1
        else:
            sound, equal = judge(it.raw, it.image)
            counts['complete' if sound and equal else 'wrong'] += 1
    expect('new image: nothing valid is wrong', counts['wrong'] == 0 and
           counts['killed'] > KILLS // 4, counts)
    it.run(it.command())
    expect('new image: the same command ends it', judge(it.raw, it.image) == (True, True))
    print('new image:', counts)
    lab.report('SIGKILL at any moment of an export, new image', KILLS, counts['wrong'])


def update(it):
    it.change()
    length = it.run(it.command())
    counts = {'killed': 0, 'old': 0, 'new': 0, 'wrong': 0}
    for _ in range(KILLS):
        shutil.copyfile(it.raw, it.old)
        for _ in range(3):
            it.change()
        counts['killed'] += it.kill(it.command(), length)
        sound, new = judge(it.raw, it.image)
        _, old = judge(it.old, it.image)
        counts['wrong' if not sound or not (old or new) else 'new' if new else 'old'] += 1
        it.run(it.command())
        if judge(it.raw, it.image) != (True, True):
            counts['wrong'] += 1
    expect('update: nothing valid is wrong', counts['wrong'] == 0 and
           counts['killed'] > KILLS // 4, counts)
    print('update:', counts)
    lab.report('SIGKILL at any moment of an export, update', KILLS, counts['wrong'])


def convert(it):
    """QEMU's own, for the record."""
    it.forget()
    command = ['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', it.raw, it.image]
    length = it.run(command)
    counts = {'killed': 0, 'no image': 0, 'refused': 0, 'complete': 0, 'valid but wrong': 0}
    for _ in range(KILLS):
        it.forget()
        counts['killed'] += it.kill(command, length)
        if not os.path.exists(it.image):
            counts['no image'] += 1
            continue
        sound, equal = judge(it.raw, it.image)
        counts['complete' if equal else 'valid but wrong' if sound else 'refused'] += 1
    print('qemu-img convert:', counts)


def main():
    folder = tempfile.mkdtemp(prefix='snapsync-kill-')
    try:
        it = Lab(folder, random.Random(lab.seed_from_environment()))
        for what in (fresh, update, convert):
            what(it)
    finally:
        shutil.rmtree(folder)
    lab.finish()


main()
