#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""Random histories on a real kernel: writes, discards, snapshots made, deleted,
merged and written to, device ids used again, volumes grown and shrunk, the target
written to. After each sync that is accepted the target must be equal to the source
byte by byte, and no more sent than the data in changed blocks. A guard that refuses
a delta must lead to a comparison by itself; the target that somebody wrote to must be
refused, and "--yes" must lead out of it.

On the host it boots a guest per processor and shares the histories out. By hand:

  SNAPSYNC_HISTORIES=N  how many (4; 150 with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S       history number i has the seed S + i; with
                        SNAPSYNC_HISTORIES=1 one history comes again
"""
import collections
import os
import random
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)
import lab  # noqa: E402
from lab import BLOCK, MIB, run  # noqa: E402

GUARD = re.compile(r'\bG(1[01]|[1-9])\b')
COMMON = re.compile(r'since generation ([0-9a-f]{8}), which both hold')
# Of a history, besides the first sync.
STEPS = 8 if os.environ.get('SNAPSYNC_LONG') else 4
SLACK = 1.02


class Wrong(Exception):
    """The product did what it must not."""


def data_in_changed_blocks(old, new):
    """Bytes of the pool's blocks that differ and are not zeroes; old None: of all.

    What is written is random, so a block that was written to differs.
    """
    before = old or []
    return sum(BLOCK for number, digest in enumerate(new)
               if digest != lab.ZEROES and
               (number >= len(before) or before[number] != digest))


class History:
    """One volume nas1/v<seed> and its replica nas2/r<seed>, in pools of its own."""

    def __init__(self, seed, counts):
        self.seed = seed
        self.rng = random.Random(seed)
        self.counts = counts
        self.pool = 'p%d' % seed
        self.name = 'v%d' % seed
        self.replica = 'r%d' % seed
        self.src = '/dev/nas1/' + self.name
        self.target = '/dev/nas2/' + self.replica
        self.size = self.rng.choice((16, 24, 32, 48, 64)) * MIB
        self.snapshots = {}  # the operator's: name -> writable
        self.made = 0
        self.synced = None  # what the last accepted sync sent
        self.known = {}  # the same by generation
        self.target_touched = False
        self.saving = self.rng.random() < 0.5
        self.log = []

    def set_up(self):
        # A tight pool soon uses freed blocks again; a roomy one never.
        factor = self.rng.choice((1.3, 2, 4))
        lab.make_pool('nas1', self.pool, int(self.size * factor / MIB) * MIB)
        lab.make_pool('nas2', self.pool, self.size * 4)
        lab.make_thin('nas1', self.pool, self.name, self.size)
        lab.make_thin('nas2', self.pool, self.replica, self.size)
        self.note('%d MiB in a pool of %.1f times that' % (self.size / MIB, factor))
        lab.write_randomly(self.rng, self.src, 10)

    def tear_down(self):
        lab.remove('nas1', self.pool)
        lab.remove('nas2', self.pool)

    def note(self, text):
        self.log.append(text)

    # --- What an operator, or bad luck, may do --------------------------------

    def write(self):
        lab.write_randomly(self.rng, self.src, self.rng.randrange(1, 8))

    def write_zeroes(self):
        offset = self.rng.randrange(0, self.size // BLOCK - 8) * BLOCK
        try:
            lab.write_device(self.src, offset, bytes(self.rng.randrange(1, 8) * BLOCK))
        except OSError:
            pass

    def discard(self):
        lab.discard_randomly(self.rng, self.src, self.rng.randrange(1, 5))

    def new_snapshot_name(self):
        self.made += 1
        return 's%d.%d' % (self.seed, self.made)

    def snapshot(self):
        name = self.new_snapshot_name()
        writable = self.rng.random() < 0.3
        lab.make_snapshot('nas1', self.name, name, 'rw' if writable else 'r')
        self.snapshots[name] = writable

    def delete_snapshot(self):
        if self.snapshots:
            name = self.rng.choice(sorted(self.snapshots))
            del self.snapshots[name]
            lab.remove('nas1', name)

    def bases(self):
        """The snapshots that the sender keeps for itself."""
        report = run('lvs', '--noheadings', '-o', 'lv_name', '-S',
                     'pool_lv=%s' % self.pool, 'nas1').split()
        return sorted(set(report) - set(self.snapshots) - {self.name})

    def delete_base(self):
        for name in self.bases():
            lab.remove('nas1', name)

    def reuse_base_id(self):
        """LVM gives the smallest free device id to the next volume at once."""
        self.delete_base()
        name = self.new_snapshot_name()
        if self.rng.random() < 0.5:
            lab.make_snapshot('nas1', self.name, name, 'rw')
        else:
            lab.make_thin('nas1', self.pool, name, self.size)
            lab.write_randomly(self.rng, '/dev/nas1/' + name, 5)
        self.snapshots[name] = True

    def write_to_base(self):
        for name in self.bases():
            run('lvchange', '-qq', '-prw', 'nas1/' + name, check=False)
            run('lvchange', '-qq', '-ay', '-K', 'nas1/' + name)
            path = '/dev/nas1/' + name
            if self.rng.random() < 0.7:
                lab.write_randomly(self.rng, path, 3)
            else:
                lab.discard_randomly(self.rng, path, 3)
            run('lvchange', '-qq', '-an', 'nas1/' + name)
            run('lvchange', '-qq', '-pr', 'nas1/' + name, check=False)

    def snapshot_of_base(self):
        for name in self.bases()[:1]:
            copy = self.new_snapshot_name()
            lab.make_snapshot('nas1', name, copy, 'rw')
            self.snapshots[copy] = True

    def write_to_snapshot(self):
        for name in [n for n, writable in self.snapshots.items() if writable][:1]:
            lab.write_randomly(self.rng, '/dev/nas1/' + name, 3)

    def merge(self):
        """The origin goes back to a snapshot, or becomes what that was made."""
        own = run('lvs', '--noheadings', '-o', 'lv_name', '-S',
                  'origin=%s' % self.name, 'nas1').split()
        candidates = sorted(set(own) & set(self.snapshots)) or (
            own if self.rng.random() < 0.5 else [])
        if candidates:
            name = self.rng.choice(candidates)
            self.snapshots.pop(name, None)
            run('lvconvert', '-qq', '--merge', 'nas1/' + name)
            self.size = lab.device_size(self.src)

    def grow(self):
        self.size += self.rng.randrange(1, 4) * 4 * MIB
        run('lvextend', '-qq', '-L', '%db' % self.size, 'nas1/' + self.name)
        if self.rng.random() < 0.8:
            self.grow_target()

    def grow_target(self):
        if lab.device_size(self.target) < self.size:
            lab.grow(self.target, self.size)

    def shrink(self):
        if self.size > 12 * MIB:
            self.size -= self.rng.randrange(1, 3) * 4 * MIB
            run('lvreduce', '-qq', '-f', '-L', '%db' % self.size, 'nas1/' + self.name)

    def shrink_target(self):
        size = max(8 * MIB, lab.device_size(self.target) - 4 * MIB)
        run('lvreduce', '-qq', '-f', '-L', '%db' % size, 'nas2/' + self.replica)
        self.target_touched = True

    def write_to_target(self):
        lab.write_randomly(self.rng, self.target, 2)
        self.target_touched = True

    # --- Syncs ----------------------------------------------------------------

    def sync_origin(self):
        self.sync(self.src)

    def sync_snapshot(self):
        name = self.new_snapshot_name()
        path = lab.make_snapshot('nas1', self.name, name)
        self.snapshots[name] = False
        if self.rng.random() < 0.3:
            self.write()
        self.sync(path)

    def sync(self, src):
        size = lab.device_size(src)
        content = lab.contents(src)
        before = lab.contents(self.target)
        result = self.send(src)
        if result.code != 0:
            self.check_refusal(result, before, size)
            result = self.follow_advice(src, result, size)
        self.check_accepted(result, content, before, size)

    def follow_advice(self, src, result, size):
        """What the operator does who is told what is wrong, one after the other."""
        arguments = []
        for _ in range(3):
            if result.code == lab.TARGET_UNSUITABLE:
                lab.grow(self.target, size)
            elif result.code == lab.NO_SPACE:
                lab.enlarge_pool('nas2', self.pool)
            elif result.code == lab.BASE_MISMATCH:
                arguments = ['--yes']
            result = self.send(src, *arguments)
            if result.code == 0:
                return result
        raise Wrong('no way out of a refusal: %s' % result)

    def send(self, src, *arguments):
        if self.saving:
            arguments += ('--save-mappings',)
        result = lab.sync(src, self.replica, 'u%d' % self.seed, *arguments)
        for _ in range(3):  # a busy machine; the exit code says: try again
            if result.code != lab.CONNECTION:
                break
            self.note('sync %s timed out -> %s' % (src, result))
            result = lab.sync(src, self.replica, 'u%d' % self.seed, *arguments)
        self.note('sync %s %s -> %s' % (src, ' '.join(arguments), result))
        return result

    def check_refusal(self, result, before, source_size):
        if lab.contents(self.target) != before:
            raise Wrong('refused, but the target changed: %s' % result)
        guard = GUARD.search(result.text)
        too_small = lab.device_size(self.target) < source_size
        if result.code == lab.TARGET_UNSUITABLE and too_small:
            self.counts['refused: target too small'] += 1
        elif result.code == lab.NO_SPACE:
            self.counts['refused: no room'] += 1
        elif result.code == lab.BASE_MISMATCH and guard:
            self.counts['refused: ' + guard.group(0)] += 1
        elif result.code == lab.BASE_MISMATCH and self.target_touched:
            self.counts['refused: target was written to'] += 1
        else:
            raise Wrong('a refusal that names no guard: %s' % result)

    def check_accepted(self, result, content, before, size):
        different = lab.first_difference(self.target, content, size)
        if different is not None:
            raise Wrong('accepted, but different at %s: %s' % (
                different, result))
        # What it is incremental to: the last sync, what is on the target, nothing.
        old = {'metadata': self.synced, 'saved': self.synced, 'hash': before,
               'full': None}[result['method']]
        data = data_in_changed_blocks(old, content)
        if 'either side' in result['why']:
            data = self.data_of_both_sides(result, before, content)
        if result['sent_bytes'] > SLACK * data and not self.excused(result):
            raise Wrong('%d bytes sent for %d in changed blocks: %s' % (
                result['sent_bytes'], data, result))
        self.counts['accepted: %s' % result['method']] += 1
        if result['method'] != 'metadata':
            guard = GUARD.search(result['why'])
            if guard:
                self.counts['%s, since %s' % (result['method'], guard.group(0))] += 1
        self.synced = content
        self.known[result['generation'][:8]] = content
        self.target_touched = False
        self.accepted(result, content)

    def data_of_both_sides(self, result, before, content):
        """Bytes to send of the blocks that differ, on either side, from what was in
        common."""
        common = self.known[COMMON.search(result['why']).group(1)]
        return sum(BLOCK for number, digest in enumerate(content)
                   if digest != lab.ZEROES and not (
                       number < len(common) and number < len(before) and
                       common[number] == digest == before[number]))

    def accepted(self, result, content):
        pass

    def excused(self, result):
        """More may be sent than differs, since nothing can tell."""
        return False

    # What runs beside all histories of a guest.
    @classmethod
    def begin(cls, seeds):
        pass

    @classmethod
    def end(cls):
        pass

    # (weight, action)
    ACTIONS = [
        (8, write), (2, write_zeroes), (5, discard), (3, snapshot),
        (2, delete_snapshot), (12, sync_origin), (5, sync_snapshot),
        (1, delete_base), (1, reuse_base_id), (1, write_to_base),
        (1, snapshot_of_base), (1, write_to_snapshot), (2, merge), (1, grow),
        (1, shrink), (0.5, shrink_target), (0.5, write_to_target)]

    def play(self):
        self.set_up()
        self.sync_origin()
        weights = [weight for weight, _ in self.ACTIONS]
        for _ in range(STEPS):
            action = self.rng.choices(self.ACTIONS, weights)[0][1]
            self.note(action.__name__)
            action(self)
        self.note('at the end')
        self.write()
        self.sync_origin()


def play_histories(first, count, kind=History):
    """In the guest; prints the counts as lines for the host to add up."""
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/ubdb', 'nas2')
    seeds = range(first, first + count)
    agent = lab.Agent([('r%d' % s, '/dev/nas2/r%d' % s, 'thin') for s in seeds],
                      clients=[('nas1', ['receive', 'send', 'promote'], ['r*'])]).start()
    kind.begin(seeds)
    counts = collections.Counter()
    for seed in lab.in_time(seeds):
        history = kind(seed, counts)
        log_begin = os.path.getsize(agent.log_path)
        try:
            history.play()
            counts['histories'] += 1
        except (Wrong, RuntimeError) as error:
            counts['wrong'] += 1
            print('WRONG: SNAPSYNC_SEED=%d: %s' % (seed, error))
            print('\n'.join('  | ' + line for line in history.log))
            print('\n'.join('  a ' + line for line in agent.log(log_begin).splitlines()[-20:]))
        print('history %d done, accepted so far: %d' % (
            seed, sum(n for k, n in counts.items() if k.startswith('accepted'))),
            flush=True)
        try:
            history.tear_down()
        except RuntimeError as error:
            print('not removed: %s' % error)
    agent.stop()
    kind.end()
    for key, number in sorted(counts.items()):
        print('COUNT %d %s' % (number, key))
    sys.exit(1 if counts['wrong'] else 0)


def share_out(script, normal, long):
    """On the host: a guest per processor."""
    seed = int(os.environ.get('SNAPSYNC_SEED') or
               random.SystemRandom().randrange(1 << 31))
    count = int(os.environ.get('SNAPSYNC_HISTORIES') or
                (long if os.environ.get('SNAPSYNC_LONG') else normal))
    guests = lab.guests(min(4, count))
    print('SNAPSYNC_SEED=%d SNAPSYNC_HISTORIES=%d' % (seed, count), flush=True)
    processes = []
    for number in range(guests):
        first = seed + count * number // guests
        last = seed + count * (number + 1) // guests
        processes.append(subprocess.Popen(
            [HERE + '/uml-run', '--mem', '512M', '--timeout', '%d' % (900 + 90 * count),
             '--disk', ':4G', '--disk', ':4G', '--scratch', lab.LAB + ':256M', '--',
             script, '--play', str(first), str(last - first)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    counts = collections.Counter()
    failed = False
    outputs = [process.communicate()[0] for process in processes]
    for process, output in zip(processes, outputs):
        for line in output.splitlines():
            found = re.match(r'COUNT (\d+) (.*)', line)
            if found:
                counts[found.group(2)] += int(found.group(1))
            else:
                print(line)
        failed |= process.returncode != 0
    for key, number in sorted(counts.items()):
        print('%6d %s' % (number, key))
    # Histories that never meet a guard would prove little.
    refused = sum(n for key, n in counts.items()
                  if key.startswith(('refused', 'full, since', 'hash, since')))
    if counts['histories'] >= 20 and refused == 0:
        print('no history met a guard')
        failed = True
    played = counts['histories'] + counts['wrong']
    lab.report('random histories, ' + os.path.basename(script), played, counts['wrong'])
    print('%s: %d histories, %d syncs accepted, %d refused, wrong: %d' % (
        os.path.basename(script), counts['histories'], sum(n for k, n in counts.items() if k.startswith('accepted')),
        refused, counts['wrong']))
    all_done = played == count or os.environ.get('SNAPSYNC_SECONDS')
    sys.exit(1 if failed or counts['wrong'] or not played or not all_done else 0)


def main(script, kind, normal, long):
    if sys.argv[1:2] == ['--play']:
        play_histories(int(sys.argv[2]), int(sys.argv[3]), kind)
    else:
        share_out(os.path.realpath(script), normal, long)


if __name__ == '__main__':
    main(__file__, History, 4, 150)
