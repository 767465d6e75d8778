#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""Random histories with two sides, on a real kernel: all that history_test.py does, and
reverts to the newest and to older generations, replicas that are promoted and written to,
and brought back. After each: equal byte by byte, and no more sent than the union of what
differs on either side.

  SNAPSYNC_HISTORIES=N  how many (4; 300 with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S       as in history_test.py
"""
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)
import history_test  # noqa: E402
import lab  # noqa: E402
from history_test import SLACK, Wrong, data_in_changed_blocks  # noqa: E402
from lab import BLOCK, run  # noqa: E402

SOURCE_PORT = 7781


class TwoSided(history_test.History):
    def __init__(self, seed, counts):
        super().__init__(seed, counts)
        self.generations = {}  # number: contents, of the replica
        self.base_lost = False

    @classmethod
    def begin(cls, seeds):
        cls.agent = lab.Agent(
            [('v%d' % s, '/dev/nas1/v%d' % s, 'thin') for s in seeds], name='nas1',
            port=SOURCE_PORT, directory=lab.LAB + '/nas1',
            clients=[('nas1', ['revert'], ['v*']), ('nas2', [], [])]).start()

    @classmethod
    def end(cls):
        cls.agent.stop()

    def accepted(self, result, content):
        self.generations[result['number']] = content

    def send_revert(self, generation, *arguments):
        result = lab.run_send(
            'revert', '--src', 'localhost:%s%s' % (self.replica, generation),
            '--src-port', '7780', '--dst', 'localhost:%s' % self.name, '--port',
            str(SOURCE_PORT), '--uuid', 'u%d' % self.seed, '--yes', '--json',
            '--timeout', '60', '--tls-ca', lab.PKI + '/ca.crt',
            '--tls-cert', lab.PKI + '/nas1.crt', '--tls-key', lab.PKI + '/nas1.key',
            *arguments)
        self.note('revert %s -> %s' % (generation, result))
        return result

    def bring_back(self, generation, wanted):
        before = lab.contents(self.src)
        size = len(wanted) * BLOCK
        if lab.device_size(self.src) < size:
            result = self.send_revert(generation)
            if result.code != lab.TARGET_UNSUITABLE:
                raise Wrong('a volume that is too small was not refused: %s' % result)
            self.counts['refused: target too small'] += 1
            self.size = size
            lab.grow(self.src, size)
            before = lab.contents(self.src)
        result = self.send_revert(generation)
        if result.code == lab.NO_SPACE:
            self.counts['refused: no room'] += 1
            lab.enlarge_pool('nas1', self.pool)
            result = self.send_revert(generation)
        if result.code != 0:
            raise Wrong('revert failed: %s' % result)
        different = lab.first_difference(self.src, wanted, size)
        if different is not None:
            raise Wrong('reverted, but different at %s: %s' % (different, result))
        if 'either side' in result['why']:
            most = self.data_of_both_sides(result, before, wanted)
        else:
            most = data_in_changed_blocks(before, wanted)
        if result['sent_bytes'] > SLACK * most and not self.excused(result):
            raise Wrong('%d bytes sent for %d that differ: %s' % (
                result['sent_bytes'], most, result))
        self.counts['reverted: %s' % result['method']] += 1
        self.counts['accepted: revert'] += 1
        self.synced = wanted
        self.known[result['generation'][:8]] = wanted

    def excused(self, result):
        """Once the youngest generations in common were deleted, blocks that were
        brought back to what they were count as changed; no metadata tells."""
        if 'either side' not in result['why'] or not self.base_lost:
            return False
        self.counts['more sent than differs, since a base was lost'] += 1
        return True

    def delete_base(self):
        self.base_lost = True
        super().delete_base()

    def merge(self):
        # With a snapshot of the sender's or agent's goes what it proved.
        self.base_lost = True
        super().merge()

    def retained(self):
        listed = lab.run_send(
            'revert', '--list', '--json', '--src', 'localhost:' + self.replica,
            '--src-port', '7780', '--tls-ca', lab.PKI + '/ca.crt',
            '--tls-cert', lab.PKI + '/nas1.crt', '--tls-key', lab.PKI + '/nas1.key')
        if listed.code != 0:
            raise Wrong('revert --list: %s' % listed)
        return [g['number'] for g in listed['generations']
                if g['retained'] and g['number'] in self.generations]

    def revert_newest(self):
        if self.target_touched:
            return
        # Of a target that is larger than the source was, so much is the generation.
        self.bring_back('', lab.contents(self.target, len(self.synced) * BLOCK))

    def revert_older(self):
        numbers = self.retained()
        if numbers:
            number = self.rng.choice(numbers)
            self.bring_back('@%d' % number, self.generations[number])

    def fail_over_and_back(self):
        run(lab.PROGRAMS + '/snapsync-agent', 'promote', '--config',
            lab.LAB + '/agent.toml', self.replica)
        if self.rng.random() < 0.5:
            self.write()
        # Written to, all of the target is what is brought back; else what was synced.
        larger = lab.device_size(self.target) > len(self.synced) * BLOCK
        lab.write_randomly(self.rng, self.target, self.rng.randrange(int(larger), 5))
        lab.discard_randomly(self.rng, self.target, self.rng.randrange(0, 3))
        self.bring_back('', lab.contents(self.target))
        self.target_touched = False


def weighted(weight, action):
    """An action of History, as TwoSided does it."""
    name = action.__name__
    return weight * (0.7 if name in ('sync_origin', 'write') else 1), getattr(TwoSided, name)


TwoSided.ACTIONS = [weighted(*item) for item in history_test.History.ACTIONS] + [
    (5, TwoSided.revert_newest), (3, TwoSided.revert_older),
    (4, TwoSided.fail_over_and_back)]


if __name__ == '__main__':
    history_test.main(__file__, TwoSided, 4, 300)
