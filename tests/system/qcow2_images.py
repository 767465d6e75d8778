# SPDX-License-Identifier: Apache-2.0
"""QCOW2 images for tests: made by QEMU's programs, then changed field by field.

An Image is a file and the means to change it; a Case is what a test is to do
with one. qcow2_good.py and qcow2_bad.py have the cases.
"""
import os
import struct
import subprocess
from dataclasses import dataclass, field

CLUSTER = 65536
COPIED = 1 << 63
COMPRESSED = 1 << 62
OFFSET_MASK = 0x00fffffffffffe00

# Offsets of header fields, and how each is packed.
FIELDS = {
    'magic': (0, '>I'), 'version': (4, '>I'), 'backing_offset': (8, '>Q'),
    'backing_size': (16, '>I'), 'cluster_bits': (20, '>I'), 'size': (24, '>Q'),
    'crypt': (32, '>I'), 'l1_size': (36, '>I'), 'l1_offset': (40, '>Q'),
    'reft_offset': (48, '>Q'), 'reft_clusters': (56, '>I'),
    'snapshots': (60, '>I'), 'snapshots_offset': (64, '>Q'),
    'incompatible': (72, '>Q'), 'compatible': (80, '>Q'),
    'autoclear': (88, '>Q'), 'refcount_order': (96, '>I'),
    'header_length': (100, '>I'), 'compression': (104, '>B'),
}


def run(*argv):
    """Runs a program; its failure is ours."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError('%s: %s%s' % (argv, done.stdout, done.stderr))
    return done.stdout


def qemu_io(path, *commands, options=()):
    """Runs commands of qemu-io on an image (any format that it recognizes)."""
    argv = ['qemu-io', *options]
    for command in commands:
        argv += ['-c', command]
    out = run(*argv, path)
    if 'failed' in out or 'error' in out:
        raise RuntimeError('%s: %s' % (argv, out))


@dataclass
class Case:
    """An image, how it is to be read, and for a bad one a part of the error."""
    name: str
    path: str
    options: list = field(default_factory=list)
    error: str = ''


class Image:
    """An image of a few MiB with data in it, unless told otherwise."""

    def __init__(self, path, size='4M', options='', writes=('write -P 17 0 256k',
                                                            'write -P 34 1M 300k'),
                 backing=None, backing_format='qcow2'):
        self.path = path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        argv = ['qemu-img', 'create', '-q', '-f', 'qcow2']
        if options:
            argv += ['-o', options]
        if backing is not None:
            argv += ['-b', backing, '-F', backing_format]
        run(*argv, path, *([size] if size is not None else []))
        if writes:
            qemu_io(path, *writes)

    @classmethod
    def at(cls, path):
        """One that is there."""
        image = cls.__new__(cls)
        image.path = path
        return image

    def bytes(self, at, length):
        with open(self.path, 'rb') as file:
            file.seek(at)
            return file.read(length)

    def patch(self, at, data):
        with open(self.path, 'r+b') as file:
            file.seek(at)
            file.write(data)
        return self

    def get(self, name):
        at, form = FIELDS[name]
        return struct.unpack(form, self.bytes(at, struct.calcsize(form)))[0]

    def set(self, **values):
        for name, value in values.items():
            at, form = FIELDS[name]
            self.patch(at, struct.pack(form, value))
        return self

    def u64(self, at):
        return struct.unpack('>Q', self.bytes(at, 8))[0]

    def set_u64(self, at, value):
        return self.patch(at, struct.pack('>Q', value & (2**64 - 1)))

    def file_size(self):
        return os.path.getsize(self.path)

    def truncate(self, size):
        os.truncate(self.path, size)
        return self

    def grow(self, clusters=1):
        """Adds clusters of zeroes at the end; the offset of the first one."""
        cluster = 1 << self.get('cluster_bits')
        at = -(-self.file_size() // cluster) * cluster
        self.truncate(at + clusters * cluster)
        return at

    # Tables. Entries are those of the first L2 table unless told otherwise.
    def l1_at(self, index=0):
        return self.get('l1_offset') + 8 * index

    def l2_table(self, index=0):
        return self.u64(self.l1_at(index)) & OFFSET_MASK

    def entry_bytes(self):
        return 16 if self.get('incompatible') & 16 else 8

    def l2_at(self, index=0, table=0):
        return self.l2_table(table) + self.entry_bytes() * index

    def set_l1(self, index, value):
        return self.set_u64(self.l1_at(index), value)

    def set_l2(self, index, value):
        return self.set_u64(self.l2_at(index), value)

    def l2(self, index=0):
        return self.u64(self.l2_at(index))

    def first_compressed(self):
        """Index and entry of the first compressed cluster."""
        for index in range((1 << self.get('cluster_bits')) // self.entry_bytes()):
            if self.l2(index) & COMPRESSED:
                return index, self.l2(index)
        raise RuntimeError('no compressed cluster')

    def compressed_offset(self, entry):
        bits = 62 - (self.get('cluster_bits') - 8)
        return entry & ((1 << bits) - 1)

    def set_compressed(self, index, offset, length):
        """Lets an entry point to a stream of `length` bytes."""
        bits = 62 - (self.get('cluster_bits') - 8)
        more = (offset + length - 1) // 512 - offset // 512
        return self.set_l2(index, COMPRESSED | more << bits | offset)

    # Header extensions: a list of (type, data), and the backing file's name.
    def set_extensions(self, extensions, backing=None, end=True):
        at = self.get('header_length') if self.get('version') == 3 else 72
        area = b''
        for kind, data in extensions:
            area += struct.pack('>II', kind, len(data)) + data + bytes(-len(data) % 8)
        if end:
            area += bytes(8)
        if backing is None:
            self.set(backing_offset=0, backing_size=0)
        else:
            self.set(backing_offset=at + len(area), backing_size=len(backing))
            area += backing
        return self.patch(at, area + bytes(64))


def convert(source, path, *options, source_format='raw'):
    """qemu-img convert to qcow2; -W keeps no order, so it is not the default."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    run('qemu-img', 'convert', '-f', source_format, '-O', 'qcow2', *options, source, path)
    return Image.at(path)


def raw_file(path, size, seed=1):
    """A raw file in which text, noise and holes take turns."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
        file.truncate(size)
        state = seed
        for at in range(0, size, 98304):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            kind = state >> 60 & 3
            length = min(40000 + (state >> 40) % 50000, size - at)
            file.seek(at)
            if kind == 0:
                noise = bytearray()
                while len(noise) < length:
                    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
                    noise += state.to_bytes(8, 'little')[3:]
                file.write(noise[:length])
            elif kind < 3:
                line = b'line %020d of the file\n' % state
                file.write((line * (length // len(line) + 1))[:length])
    return path
