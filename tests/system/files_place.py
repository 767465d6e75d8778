# SPDX-License-Identifier: Apache-2.0
"""Files of the host as source and target, for the tests that count steps."""
import glob
import os
import shutil
import socket
import time

import lab
import place
import steps
from lab import KIB, LAB, MIB

FIRST, UPDATE = SCENARIOS = ('first sync', 'update')
# A log of the manifest that is left is replaced by the next session.
AGENTS = {'agent.lock', 'targets', 'targets/vol.state', 'targets/vol.journal',
          'targets/vol.manifest', 'targets/vol.manifest-log'}
SENDERS = {'lock', 'replication.state'}


def free_port():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        return taken.getsockname()[1]


class Files(place.Place):
    """Two states of the source, sent in turn, as two files each: a file that was
    written just now is not taken to be the same one again, its twin never is."""

    DISPENSABLE = {
        'ioctl-clone*': 'the file is copied then',
        'fallocate*': 'zeroes are written then',
        'ftruncate lock*': 'the number in a lock is for people',
        'pwrite lock*': 'the number in a lock is for people',
        # The manifest is no condition of a sync: it goes, and a scrub makes a new one.
        **{call + ' vol.manifest*': 'no manifest is kept then'
           for call in ('open', 'ftruncate', 'pwrite', 'fdatasync', 'unlink')},
    }
    OPEN = ()
    KIND, TARGET = 'file', LAB + '/target.raw'

    def __init__(self, rng, **options):
        super().__init__(**options)
        self.volume, self.uuid = 'vol', 'files'
        self.target = self.TARGET
        # An update either way sends data and zeroes, and copies from around a hole.
        states = [bytearray(rng.randbytes(3 * MIB)) for _ in range(2)]
        states[1][:] = states[0] + rng.randbytes(128 * KIB)
        states[1][5000:70000] = rng.randbytes(65000)
        states[0][2 * MIB:2 * MIB + 300000] = bytes(300000)
        states[1][MIB:MIB + 300000] = bytes(300000)
        self.state = 0
        for number, state in enumerate(states):
            for twin in ('', '-twin'):
                with open(self.path_of(number) + twin, 'wb') as f:
                    f.write(state)
        self.agent = steps.Agent(self.counters['agent'], [('vol', self.target, self.KIND)],
                                 port=free_port())
        self.src = self.path_of(self.state)
        self.agent.start()
        time.sleep(2)

    @staticmethod
    def path_of(state):
        return '%s/source-%d.raw' % (LAB, state)

    def take_twin(self):
        """The source was replaced by another file with the same contents."""
        self.src = self.path_of(self.state) + '-twin'

    def prepare(self, scenario):
        if scenario == FIRST:
            self.forget()
        elif self.number == 0:
            self.number = self.sync()['number']
        self.state = 1 - self.state
        self.src = self.path_of(self.state)

    def forget(self):
        self.agent.kill()
        for path in glob.glob(self.target + '*'):
            os.unlink(path)
        for folder in ('/agent', '/sender'):
            shutil.rmtree(LAB + folder, ignore_errors=True)
        self.number = 0
        self.counters['agent'].end()
        self.agent.start()

    def old(self):
        return lab.contents(self.target) if os.path.exists(self.target) else []

    def new(self):
        return lab.contents(self.src)

    def leftovers(self):
        found = [path for path in glob.glob(self.target + '*') if path != self.target]
        found += [path for path in glob.glob(LAB + '/agent/**', recursive=True)
                  if os.path.relpath(path, LAB + '/agent') not in AGENTS | {'.'}]
        found += [path for path in glob.glob(LAB + '/sender/replications/*/*')
                  if os.path.basename(path) not in SENDERS]
        return found + place.pending()
