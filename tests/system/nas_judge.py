# SPDX-License-Identifier: Apache-2.0
"""What must hold of the disk of a NAS whose power was cut in a sync, as it lies there.

The disk is that of thin_power_test.py: an ext4 file system with the agent's state, and
behind it the volume group nas2 with the volumes `replica` (thin) and `plain`.
"""
import hashlib
import os

import nas_disk
import power
from kills import Violations
from lab import BLOCK, MIB, ZEROES

THIN, PLAIN = 'thin', 'plain'  # what a sync goes to
VOLUME = {THIN: 'replica', PLAIN: 'plain'}
STATE_SIZE = 8 * MIB
CHUNK_BLOCKS = 16  # 1 MiB of a plan is a chunk
KEPT = 3           # generations


class Judge:
    """wanted: {THIN or PLAIN: contents of each generation}; folder: for its files, best in
    memory, since e2fsck flushes."""

    def __init__(self, wanted, folder):
        self.wanted = {shape: [[bytes.fromhex(d) for d in digests] for digests in of]
                       for shape, of in wanted.items()}
        self.folder = folder
        self.states = {}  # what the file systems said that were read

    def look(self, cut, shape, number, ended):
        """Of what power.Replay.cut() gives: 'old', 'new' or 'torn', with ' restored' if
        LVM's metadata have to be, and violations. The sync to generation number + 1 has
        begun, or ended."""
        bad = Violations()
        record, chunks = self.read_state(cut, VOLUME[shape])
        look = look_thin if shape == THIN else look_plain
        state = record['state'] if record else 'empty'
        held = record['number'] if record else 0
        bad.unless(record or number == 0, 'the record is lost')
        bad.unless(not ended or (state, held) == ('at', number + 1),
                   'the sync had ended, and the record is %s %d' % (state, held))
        bad.unless(held in (number, number + 1), 'the record is of generation %d' % held)
        if bad:
            return 'wrong', bad
        try:
            group = nas_disk.Group(cut, STATE_SIZE, 'nas2')
            found = look(group, self.wanted[shape], number, record, state, chunks, bad)
        except nas_disk.Unreadable as error:
            bad.append(str(error))
            return 'wrong', bad
        return found + (' restored' if group.restored else ''), bad

    def read_state(self, cut, volume):
        digests = b''.join(cut.digest(at) for at in range(0, STATE_SIZE, BLOCK))
        which = volume, hashlib.sha256(digests).digest()
        if which not in self.states:
            path = self.folder + '/state.image'
            # A view: new memory for it would be dear.
            power.save(memoryview(cut.disk)[:STATE_SIZE], path)
            self.states[which] = nas_disk.read_state(path, volume, self.folder)
            os.unlink(path)
        return self.states[which]


def durable_blocks(old, new, record, chunks):
    """The blocks that the journal says are on the stage, or in a torn volume."""
    changed = [block for block in range(len(new)) if old[block] != new[block]]
    if chunks == record['session']['chunk_count']:
        return changed
    data = [block for block in changed if new[block] != ZEROES][:chunks * CHUNK_BLOCKS]
    return [block for block in changed if data and block <= data[-1]]


def look_thin(group, wanted, number, record, state, chunks, bad):
    old, new = wanted[number], wanted[number + 1]
    found = group.contents('replica', len(new) * BLOCK)
    if not bad.unless(found in (old, new), 'the replica is neither old nor new'):
        return 'wrong'
    held = record['number'] if record else 0
    if state in ('empty', 'filling') or (state, held) == ('at', number):
        bad.unless(found == old, 'it is the new generation, and the record says %s' % state)
    elif state == 'at':
        bad.unless(found == new, 'the record says that it is the new generation')
    stage = group.contents('replica.stage', len(new) * BLOCK)
    if state == 'filling':
        blocks = durable_blocks(old, new, record, chunks)
        if bad.unless(stage or not blocks, 'the stage is lost'):
            bad.unless(all(stage[block] == new[block] for block in blocks),
                       'what was acknowledged is not on the stage')
    if state == 'committing' and found == old:
        bad.unless(stage == new, 'the stage of a commit is not whole')
    for generation in range(max(held - KEPT, 0) + 1, held + 1):
        bad.unless(group.contents('replica.g%d' % generation, len(new) * BLOCK) ==
                   wanted[generation], 'generation %d is lost' % generation)
    return 'old' if found == old else 'new'


def look_plain(group, wanted, number, record, state, chunks, bad):
    old, new = wanted[number], wanted[number + 1]
    found = group.contents('plain', len(new) * BLOCK)
    held = record['number'] if record else 0
    if state == 'empty' or (state, held) == ('at', number):
        bad.unless(found == old, 'it is not the old generation, and not marked torn')
    elif state == 'torn':
        bad.unless(all(found[block] == new[block]
                       for block in durable_blocks(old, new, record, chunks)),
                   'what was acknowledged is not there')
        bad.unless(all(found[block] == new[block] for block in range(len(new))
                       if old[block] == new[block]), 'what was not sent was written')
    else:
        bad.unless(found == new, 'it is not the new generation, and the record says %s' %
                   state)
    return 'old' if found == old else 'new' if found == new else 'torn'
