#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 900 --disk :2G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""The method "saved" on real LVM: the base is gone, its mappings are there
(--save-mappings). What docs/delta.md names as ways to be wrong is forced, each in a
pool of its own; each ends right, or is refused by the guard named here. Then what
becomes of witnesses and files, and a sync that is interrupted.
"""
import os
import re
import random
import shutil
import signal

import lab
from lab import BLOCK, MIB, expect, run

SIZE = 16 * MIB
MAPPINGS = lab.LAB + '/sender/replications'


class Case:
    """One volume nas1/NAME in a pool nas1/NAMEp, its replica nas2/NAME."""

    def __init__(self, name, rng, pool=32 * MIB):
        self.name, self.rng = name, rng
        self.src, self.target = '/dev/nas1/' + name, '/dev/nas2/' + name
        lab.make_pool('nas1', name + 'p', pool)
        lab.make_thin('nas1', name + 'p', name, SIZE)
        lab.make_thin('nas2', 'pool', name, SIZE)
        for number in range(0, 40, 2):
            self.write(number)

    def write(self, *numbers, path=None):
        for number in numbers:
            lab.write_device(path or self.src, number * BLOCK,
                             self.rng.randbytes(BLOCK))

    def discard(self, *numbers, path=None):
        for number in numbers:
            lab.discard(path or self.src, number * BLOCK, BLOCK)

    def sync(self, *arguments, src=None):
        return lab.sync(src or self.src, self.name, self.name, '--save-mappings',
                        *arguments)

    def bases(self):
        return [v for v in lab.volumes('nas1')
                if v.startswith(self.name + '.snapsync-')]

    def witnesses(self):
        return [v for v in lab.volumes('nas1')
                if v.startswith(self.name + '.witness-')]

    def lose_base(self):
        lab.remove('nas1', *self.bases())

    def right(self, what, result, method, sent=None, guard=None):
        expect('%s: exit code 0' % what, result.code == 0, result)
        expect('%s: by method %s' % (what, method), result['method'] == method, result)
        different = lab.first_difference(self.target, lab.contents(self.src),
                                         lab.device_size(self.src))
        expect('%s: the target is equal' % what, different is None, different)
        if sent is not None:
            expect('%s: %d blocks sent' % (what, sent),
                   result['sent_bytes'] == sent * BLOCK, result)
        if guard:
            expect('%s: refused by %s' % (what, guard),
                   re.search(r'\b%s\b' % guard, result['why'] or ''), result)

    def first(self):
        self.right(self.name + ', first', self.sync(), 'full')


def plain(rng):
    """Without anything special: no more is sent than was changed."""
    case = Case('plain', rng)
    case.first()
    expect('plain: one witness', len(case.witnesses()) == 1, case.witnesses())
    case.lose_base()
    case.write(3, 4, 10)
    case.discard(20, 22)
    result = case.sync('--dry-run')
    expect('plain, dry run: by method saved', result['method'] == 'saved', result)
    case.right('plain, base gone', case.sync(), 'saved', sent=3)
    expect('plain: the witness is another one, and one',
           len(case.witnesses()) == 1, case.witnesses())
    case.right('plain, base there', case.sync(), 'metadata', sent=0)
    case.lose_base()
    case.right('plain, nothing changed', case.sync(), 'saved', sent=0)
    case.lose_base()
    case.write(1)
    case.right('plain, after that', case.sync(), 'saved', sent=1)
    forced = case.sync('--method', 'saved')
    case.right('plain, forced with the base there', forced, 'saved', sent=0)
    # A snapshot of the operator's, who removes the one before it: each night.
    lab.make_snapshot('nas1', 'plain', 'night1')
    case.right('plain, night 1', case.sync(src='/dev/nas1/night1'), 'metadata', sent=0)
    lab.remove('nas1', 'night1')
    case.write(5)
    lab.make_snapshot('nas1', 'plain', 'night2')
    case.right('plain, night 2', case.sync(src='/dev/nas1/night2'), 'saved', sent=1)
    expect('plain: still one witness', len(case.witnesses()) == 1, case.witnesses())


def without_asking(rng):
    """Nothing is saved, and what was saved goes, when it is not asked for."""
    case = Case('unasked', rng)
    case.first()
    result = lab.sync(case.src, 'unasked', 'unasked')
    case.right('unasked', result, 'metadata', sent=0)
    expect('unasked: no witness', not case.witnesses(), case.witnesses())
    case.lose_base()
    case.right('unasked, base gone', lab.sync(case.src, 'unasked', 'unasked'), 'hash')
    case.lose_base()
    result = case.sync('--method', 'saved')
    expect('unasked, forced: refused, with what to do',
           result.code == lab.BASE_MISMATCH and '--save-mappings' in result.text, result)


def b1_same_block_again(rng):
    """A data block is freed and comes back at the same place, with other contents."""
    case = Case('b1', rng, pool=4 * MIB)
    case.discard(*range(0, 40, 2))
    case.write(*range(60))  # nearly full: what is freed is what is used next
    case.first()
    case.lose_base()
    case.discard(7)
    run('lvchange', '-an', 'nas1/b1')
    run('lvchange', '-an', 'nas1/b1p')
    run('lvchange', '-ay', 'nas1/b1')
    case.write(7)
    case.right('b1', case.sync(), 'saved', sent=1)


def b2_base_written_before_its_sync(rng):
    """The base has blocks as young as itself: their times prove nothing."""
    case = Case('b2', rng)
    case.first()
    lab.make_snapshot('nas1', 'b2', 'b2s', 'rw')
    case.write(1, path='/dev/nas1/b2s')
    result = case.sync(src='/dev/nas1/b2s')
    expect('b2, a snapshot that was written to: refused by G7',
           result.code == lab.BASE_MISMATCH and 'G7' in result.text, result)
    lab.remove('nas1', 'b2s')
    case.lose_base()
    case.write(1)
    case.right('b2', case.sync(), 'saved', sent=1)


def b5_thin_id_again(rng):
    """LVM gives the base's thin id to the next volume: harmless to the rule."""
    case = Case('b5', rng)
    case.first()
    case.lose_base()
    lab.make_snapshot('nas1', 'b5', 'b5s', 'rw')
    case.write(0, 2, 4, path='/dev/nas1/b5s')
    case.write(6)
    case.right('b5', case.sync(), 'saved', sent=1, guard='G4')


def b6_set_back(rng):
    """Metadata dumped, base made and synced, metadata restored, other data written,
    base made again: nothing in the metadata shows it. The witness does."""
    case = Case('b6', rng)
    case.write(41)
    run('lvchange', '-an', 'nas1/b6')
    swap(case, 'dump')
    run('lvchange', '-ay', 'nas1/b6')
    lab.make_snapshot('nas1', 'b6', 'b6s')
    result = case.sync(src='/dev/nas1/b6s')
    expect('b6, synced', result.code == 0, result)
    run('lvchange', '-an', 'nas1/b6', 'nas1/b6s')
    swap(case, 'restore')
    run('lvchange', '-ay', 'nas1/b6')
    case.write(41)
    lab.make_snapshot('nas1', 'b6', 'b6s')
    lab.remove('nas1', 'b6s')
    result = case.sync('--method', 'saved')
    expect('b6, saved: refused by G9', result.code == lab.BASE_MISMATCH and
           'G9' in result.text, result)
    case.right('b6', case.sync(), 'hash')


def swap(case, what):
    """The pool's metadata and LVM's own copied to files, or back from there."""
    vg, pool, dump = 'nas1', case.name + 'p', lab.LAB + '/' + case.name
    if what == 'dump':
        run('vgcfgbackup', '-qq', '-f', dump + '.vg', vg)
        copy_metadata(vg, pool, dump + '.meta', False)
        return
    run('vgchange', '-qq', '-an', vg)
    run('vgcfgrestore', '-qq', '--force', '-f', dump + '.vg', vg)
    copy_metadata(vg, pool, dump + '.meta', True)


def copy_metadata(vg, pool, path, back):
    """LVM shows the metadata of an inactive pool, but for reading alone: what comes
    back is written to where it lies on the disk."""
    run('lvchange', '-an', '%s/%s' % (vg, pool))
    run('lvchange', '-y', '-ay', '%s/%s_tmeta' % (vg, pool))
    device = '/dev/mapper/%s-%s_tmeta' % (vg, pool)
    _, sectors, _, _, start = run('dmsetup', 'table', device).split()
    if not back:
        run('dd', 'if=' + device, 'of=' + path, 'bs=1M', 'iflag=direct', 'conv=fsync')
    run('lvchange', '-an', '%s/%s_tmeta' % (vg, pool))
    if back:
        run('dd', 'if=' + path, 'of=/dev/ubda', 'bs=64K', 'oflag=direct,seek_bytes',
            'seek=%d' % (int(start) * 512), 'count=%d' % (int(sectors) // 128),
            'conv=fsync')


def d2_trimmed_on_both(rng):
    """The base is trimmed where the origin is, too: a delta from the base as it is
    now would be empty there; the saved mappings tell."""
    case = Case('d2', rng)
    case.first()
    base = case.bases()[0]
    run('lvchange', '-prw', 'nas1/' + base)
    run('lvchange', '-ay', '-K', 'nas1/' + base)
    case.discard(8, path='/dev/nas1/' + base)
    run('lvchange', '-an', 'nas1/' + base)
    case.discard(8)
    case.right('d2', case.sync(), 'saved', sent=0, guard='G5')


def m1_merged(rng):
    """The volume goes back to the base: its device is the live volume now."""
    case = Case('m1', rng)
    case.first()
    run('lvconvert', '-y', '-qq', '--merge', 'nas1/' + case.bases()[0])
    case.write(2, 9)
    case.right('m1', case.sync(), 'saved', sent=2, guard='G4')


def e2_shrunk_and_grown(rng):
    """Old mappings come back beyond what the base's size was."""
    case = Case('e2', rng)
    case.write(*range(200, 210))
    run('lvreduce', '-qq', '-f', '-L', '%db' % (8 * MIB), 'nas1/e2')
    case.first()
    case.lose_base()
    run('lvextend', '-qq', '-L', '%db' % SIZE, 'nas1/e2')
    case.right('e2', case.sync(), 'saved', sent=10)


def damaged(rng):
    """A file that was changed is of no use, and does no harm."""
    case = Case('damaged', rng)
    case.first()
    case.lose_base()
    [path] = [os.path.join(folder, name) for folder, _, names in os.walk(MAPPINGS)
              for name in names if name.startswith('mappings.') and
              run('lvs', '--noheadings', '-o', 'lv_tags', 'nas1/' + case.witnesses()[0])
              .strip().endswith(os.path.basename(folder))]
    with open(path, 'r+b') as f:
        f.seek(60)
        byte = f.read(1)[0]
        f.seek(60)
        f.write(bytes([byte ^ 1]))
    case.write(1)
    result = case.sync()
    case.right('damaged', result, 'hash', sent=1)
    expect('damaged: says so', path in (result['why'] or ''), result)
    expect('damaged: the file is gone', not os.path.exists(path))


def interrupted(rng):
    """A sync by saved mappings that is killed goes on with the same plan."""
    case = Case('cut', rng)
    case.first()
    case.lose_base()
    case.write(*range(50, 250))
    before = lab.watermarks()
    sync = lab.Sync(case.src, 'cut', 'cut', '--save-mappings', '--speed-limit', '512K')
    lab.wait_for_watermark(before, sync.process)
    expect('cut: under way', sync.running())
    sync.kill(signal.SIGKILL)
    result = case.sync()
    case.right('cut, gone on with', result, 'saved')
    expect('cut: not from the start', (result['resumed_from_bytes'] or 0) > 0, result)


CASES = (plain, without_asking, b1_same_block_again, b2_base_written_before_its_sync,
         b5_thin_id_again, d2_trimmed_on_both, m1_merged, e2_shrunk_and_grown, damaged,
         interrupted, b6_set_back)  # b6 sets back the whole volume group


def main():
    rng = random.Random(lab.seed_from_environment())
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/ubdb', 'nas2')
    lab.make_pool('nas2', 'pool', 512 * MIB)
    names = ('plain', 'unasked', 'b1', 'b2', 'b5', 'b6', 'd2', 'm1', 'e2', 'damaged', 'cut')
    agent = lab.Agent([(n, '/dev/nas2/' + n, 'thin') for n in names]).start()
    chosen = list(CASES)
    if not os.environ.get('SNAPSYNC_LONG'):
        chosen = sorted(rng.sample(CASES, 6), key=lambda case: case is b6_set_back)
    for case in lab.in_time(chosen, 2):
        case(rng)
    agent.stop()
    lab.finish()


if __name__ == '__main__':
    main()
