# SPDX-License-Identifier: Apache-2.0
"""What is on the disk of a NAS, read without a kernel: the agent's records in an ext4
file system, LVM's metadata, and the contents of its volumes. So thousands of disks
can be judged that a power cut could have left.

Formats: the text of LVM's metadata and where it lies, lib/format_text of LVM 2.03; thin
metadata and the agent's files, docs/formats.md of this project.
"""
import contextlib
import functools
import json
import os
import re
import struct
import zlib

from lab import BLOCK, ZEROES, run

SECTOR = 512
METADATA_BLOCK = 4096


class Unreadable(Exception):
    """LVM's metadata, or those of a pool, are not what they have to be."""


# --- The agent's state ------------------------------------------------------------

def read_state(image, volume, folder):
    """The record of a volume (None: no such file) and how many chunks of its session the
    journal says are durable; `image` holds the file system of the agent's state directory
    and may be changed."""
    paths = {'%s/%s' % (folder, kind): '%s.%s' % (volume, kind)
             for kind in ('state', 'journal')}
    run('e2fsck', '-y', '-E', 'journal_only', image, check=False)
    with open(folder + '/commands', 'w') as f:
        for path, name in paths.items():
            f.write('dump /state/targets/%s %s\n' % (name, path))
    said = run('debugfs', '-f', folder + '/commands', image)
    if 'not open' in said:
        raise RuntimeError(said)
    text, journal = [take(path) for path in paths]
    head, _, body = text.partition(b'\n')
    if head and not head.startswith(b'snapsync target 1 '):
        raise RuntimeError('%s.state begins with %r' % (volume, head[:60]))
    record = json.loads(body) if head else None
    session = record and record.get('session')
    return record, watermark(journal, session['id']) if session else 0


def take(path):
    """The bytes of a file, which is removed; none if there is no such file."""
    if not os.path.exists(path):
        return b''
    with open(path, 'rb') as f:
        data = f.read()
    os.unlink(path)
    return data


def watermark(journal, session):
    """How many chunks of a session the journal says are durable."""
    newest = (0, 0)
    for at in range(0, len(journal) - 76, 4096):
        magic, version, sequence, of, chunks = struct.unpack_from('<4sIQ16sQ', journal, at)
        if magic == b'SNPJ' and version == 1 and of == bytes.fromhex(session):
            newest = max(newest, (sequence, chunks))
    return newest[1]


# --- LVM --------------------------------------------------------------------------

@functools.lru_cache
def parse(text):
    """LVM's metadata as dictionaries, not to be changed."""
    token = re.compile(r'\s+|#[^\n]*|(?P<word>[\w.+-]+)|(?P<mark>[{}=\[\],])|"(?P<text>'
                       r'(?:[^"\\]|\\.)*)"')
    stack, key, values, assigned, at = [{}], None, None, False, 0
    while at < len(text):
        found = token.match(text, at)
        if not found:
            raise Unreadable('metadata of LVM: %r' % text[at:at + 40])
        at = found.end()
        word, mark, quoted = found.group('word', 'mark', 'text')
        value = quoted if quoted is not None else word
        if mark == '{':
            stack[-1][key] = {}
            stack.append(stack[-1][key])
            key = None
        elif mark == '}':
            stack.pop()
        elif mark == '[':
            values = stack[-1][key] = []
        elif mark == ']':
            key = values = None
        elif value is not None and values is not None:
            values.append(value)
        elif value is not None and key is not None and assigned:
            stack[-1][key] = value
            key = None
        elif value is not None:
            key, assigned = value, False
        if mark == '=':
            assigned = True
    if len(stack) != 1:
        raise Unreadable('metadata of LVM end early')
    return stack[0]


def metadata_area(disk, start):
    """(first byte, size) of that of the physical volume that begins at byte `start`."""
    for sector in range(4):
        label = start + sector * SECTOR
        if disk[label:label + 8] == b'LABELONE':
            break
    else:
        raise Unreadable('no label of LVM')
    areas = label + 32 + 40  # behind the UUID and the size
    while struct.unpack_from('<Q', disk, areas)[0]:  # data areas
        areas += 16
    offset, size = struct.unpack_from('<QQ', disk, areas + 16)
    return start + offset, size


def checksum(data):
    return zlib.crc32(data, 0xf597a6cf ^ 0xffffffff) ^ 0xffffffff


def committed(disk, area):
    """Where the header says that LVM's text is: (first byte in the area, length)."""
    expected, = struct.unpack_from('<I', disk, area)
    if expected != checksum(disk[area + 4:area + SECTOR]):
        raise Unreadable('header of LVM\'s metadata')
    return struct.unpack_from('<QQ', disk, area + 40)


def committed_text(disk, area, size):
    """None: it is not whole on the disk."""
    at, length = committed(disk, area)
    expected, = struct.unpack_from('<I', disk, area + 56)
    text = disk[area + at:area + min(at + length, size)]
    if at + length > size:  # it goes on behind the header
        text += disk[area + SECTOR:area + SECTOR + at + length - size]
    return text if checksum(text) == expected else None


def newest_text(disk, area, size, name):
    """Of all that is in the area, the one that `pvck --repair` is given by the runbook."""
    found = []
    torn = area + committed(disk, area)[0]
    for at in range(area + SECTOR, area + size, SECTOR):
        if at == torn or disk[at:at + len(name) + 2] != name.encode() + b' {':
            continue
        text = disk[at:disk.find(b'\0', at)]
        with contextlib.suppress(Unreadable):
            found.append((int(parse(text.decode())[name]['seqno']), text))
    if not found:
        raise Unreadable('no metadata of LVM')
    return max(found)[1]


class Group:
    """The volume group on the physical volume at byte `start` of what power.Replay.cut()
    gives."""

    def __init__(self, cut, start, name):
        self.digest, disk = cut.digest, cut.disk
        self.disk = disk
        area, size = metadata_area(disk, start)
        text = committed_text(disk, area, size)
        self.restored = text is None  # by the runbook
        if self.restored:
            text = newest_text(disk, area, size, name)
        group = parse(text.rstrip(b'\0').decode())[name]
        self.volumes = group['logical_volumes']
        self.start = start + int(group['physical_volumes']['pv0']['pe_start']) * SECTOR
        self.extent = int(group['extent_size']) * SECTOR

    def segments(self, name):
        volume = self.volumes[name]
        return [volume['segment%d' % (i + 1)] for i in range(int(volume['segment_count']))]

    def position(self, name, offset):
        """Where a byte of a linear volume lies on the disk."""
        for segment in self.segments(name):
            first = int(segment['start_extent']) * self.extent
            if first <= offset < first + int(segment['extent_count']) * self.extent:
                return (self.start + int(segment['stripes'][1]) * self.extent +
                        offset - first)
        raise Unreadable('%s has no byte %d' % (name, offset))

    def contents(self, name, size):
        """As lab.contents(). None: no such volume, or not in the pool yet."""
        if name not in self.volumes:
            return None
        segment = self.segments(name)[0]
        if segment['type'] == 'striped':
            return [self.digest(self.position(name, at)) for at in range(0, size, BLOCK)]
        mappings = self.mappings(segment['thin_pool'], int(segment['device_id']))
        if mappings is None:
            return None
        data = self.segments(segment['thin_pool'])[0]['pool']
        return [self.digest(self.position(data, mappings[block] * BLOCK))
                if block in mappings else ZEROES for block in range(size // BLOCK)]

    # --- Thin metadata

    def block(self, pool, number):
        at = self.position(self.segments(pool)[0]['metadata'], number * METADATA_BLOCK)
        data = self.disk[at:at + METADATA_BLOCK]
        if struct.unpack_from('<Q', data, 8)[0] != number:
            raise Unreadable('block %d of the metadata of %s' % (number, pool))
        return data

    def tree(self, pool, number):
        """(key, value) of each entry of a btree of 64-bit values."""
        data = self.block(pool, number)
        flags, _, entries, most = struct.unpack_from('<IQII', data, 4)
        keys = struct.unpack_from('<%dQ' % entries, data, 32)
        values = struct.unpack_from('<%dQ' % entries, data, 32 + 8 * most)
        for key, value in zip(keys, values):
            if flags == 1:
                yield from self.tree(pool, value)
            else:
                yield key, value

    def mappings(self, pool, device):
        """{virtual block: data block} of a thin device; None: not in the pool."""
        superblock = self.block(pool, 0)
        root, = struct.unpack_from('<Q', superblock, 320)
        roots = dict(self.tree(pool, root))
        if device not in roots:
            return None
        return {key: value >> 24 for key, value in self.tree(pool, roots[device])}
