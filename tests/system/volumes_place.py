# SPDX-License-Identifier: Apache-2.0
"""Thin volumes of a guest with two pools as source and target, for kill_thin_test.py and
failing_thin_test.py."""
import errno
import glob
import os
import shutil
import time

import lab
import place
import steps
from lab import BLOCK, LAB, MIB

SIZE = 16 * MIB
UPDATE = 'update'
STATE = {'lock', 'replication.state', 'agent.lock', 'replica.state', 'replica.journal',
         'replica.manifest', 'replica.manifest-log', 'nas1', 'nas2'}
KEPT = 3  # generations


class Volumes(place.Place):
    DISPENSABLE = {
        'ftruncate lock*': 'the number in a lock is for people',
        'pwrite lock*': 'the number in a lock is for people',
        # The manifest is no condition of a sync: it goes, and a scrub makes a new one.
        **{call + ' replica.manifest*': 'no manifest is kept then'
           for call in ('open', 'ftruncate', 'pwrite', 'fdatasync', 'unlink')},
        # The sender's last: a success, with a warning.
        **{step + ' after lvremove': 'the next sync notes that the snapshot is gone'
           for step in ('* replication.state*', 'fsync %s' % ('[0-9a-f]' * 32))},
    }
    OPEN = (
        # Without a snapshot of the metadata it compares; a volume that is not needed any
        # more stays for a while; some commands are run again.
        'spawn*', 'ioctl*', 'mkdir *', '* metadata-snapshot: *', 'fsync sender: *',
        'fsync agent: *', 'fsync ubd? after lvremove: *',
        'fsync ubd? after lvchange: *',  # the tag that makes a later revert cheap
        # Flushed again before the commit is acknowledged.
        'fsync ubd? after lvconvert: EIO', 'fsync ubd? after lvconvert: ENOSPC')

    def __init__(self, rng, **disks):
        super().__init__()
        self.rng = rng
        self.volume, self.uuid = 'replica', 'volumes'
        self.src, self.target = '/dev/nas1/vol', '/dev/nas2/replica'
        lab.make_nas_pair(600 * MIB, **disks)
        self.agent = self.make_agent()
        self.begin()

    def make_agent(self):
        return steps.Agent(self.counters['agent'], [('replica', self.target, 'thin')])

    def begin(self):
        lab.make_thin('nas1', 'pool', 'vol', SIZE)
        lab.make_thin('nas2', 'pool', 'replica', SIZE)
        lab.write_randomly(self.rng, self.src, 10)
        self.number, self.turn = 0, (12 * MIB, 14 * MIB)
        self.counters['agent'].end()
        self.agent.start()

    def forget(self):
        self.agent.kill()
        time.sleep(3)  # for a command of LVM that it had started
        for group in ('nas1', 'nas2'):
            lab.remove(group, *lab.volumes(group))
        for folder in ('/agent', '/sender'):
            shutil.rmtree(LAB + folder, ignore_errors=True)
        self.begin()

    def prepare(self, scenario):
        # From then on each sync removes a generation.
        while self.number < KEPT:
            self.change()
            self.number = self.sync()['number']
        self.change()

    def change(self):
        """At the same places each time, so that one sync has the steps of another."""
        for offset in (MIB, 5 * MIB, 9 * MIB):
            lab.write_device(self.src, offset, self.rng.randbytes(BLOCK))
        written, discarded = self.turn
        lab.write_device(self.src, written, self.rng.randbytes(BLOCK))
        lab.discard(self.src, discarded, BLOCK)
        self.turn = discarded, written

    def seen(self):
        """HIDDEN: a commit has taken it away, and there is no agent to go on."""
        if self.agent.process.poll() is None:
            self.agent.wait_until_idle()  # LVM can't take away what we read
        try:
            return self.old()
        except OSError as error:
            # The second: LVM, which goes on alone, has not removed the node yet.
            if error.errno not in (errno.ENOENT, errno.ENXIO):
                raise
            return place.HIDDEN

    def old(self):
        return lab.contents(self.target)

    def new(self):
        return lab.contents(self.src)

    def leftovers(self):
        wanted = ['replica'] + ['replica.g%d' % number for number in range(
            max(1, self.now() - KEPT + 1), self.now() + 1)]
        volumes, sources = lab.volumes('nas2'), lab.volumes('nas1')
        found = [] if volumes == sorted(wanted) else [
            'volumes %s instead of %s' % (volumes, sorted(wanted))]
        if len(sources) != 2:
            found.append('volumes of the source: %s' % sources)
        found += ['active: ' + name for name in os.listdir('/dev/nas1')
                  if name.startswith('vol.')]
        found += self.held_metadata()
        for path in glob.glob(LAB + '/agent/**', recursive=True) + glob.glob(
                LAB + '/sender/**', recursive=True):
            name = os.path.basename(path)
            if not os.path.isfile(path) or name in STATE:
                continue
            with open(path, 'rb') as f:
                if not name.startswith('metadata-snapshot-') or f.read().strip():
                    found.append(path)
        return found + place.pending()

    @staticmethod
    def held_metadata():
        status = lab.run('dmsetup', 'status', '--target', 'thin-pool').splitlines()
        return ['metadata snapshot: ' + line for line in status
                if line.split()[7] != '-']

    def now(self):
        return place.record('%s/agent/targets/%s.state' % (LAB, self.volume))['number']
