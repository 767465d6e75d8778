# SPDX-License-Identifier: Apache-2.0
"""The durable steps of a program, counted by steps.c, which is preloaded into it:
to kill the program at one of them, or to let it fail. Imported after lab is.
"""
import contextlib
import errno
import mmap
import os
import struct
import time

import lab

SOURCE = lab.ROOT + '/tests/system/steps.c'
LIBRARY = lab.LAB + '/steps.so'
KILL, SHORT, FALSE = -1, -2, -3
QUIET = 0.5  # seconds
FOR_GOOD = 'EIO for good'  # again at each later step of the same name
ACTIONS = {'EIO': errno.EIO, 'ENOSPC': errno.ENOSPC, 'short': SHORT, 'kill': KILL,
           FOR_GOOD: errno.EIO,
           'fails': FALSE, 'fails at its end': SHORT}


def build():
    """The library; LAB must be there."""
    lab.run('gcc', '-Wall', '-Werror', '-O1', '-shared', '-fPIC', '-o', LIBRARY, SOURCE)


class Counter:
    """struct control of steps.c, and the log beside it; for one program at a time."""

    COUNT, AT, ACTION, ALSO, FIRED, FOR_GOOD = range(6)

    def __init__(self, name):
        self.path = '%s/%s' % (lab.LAB, name)
        with open(self.path, 'wb') as f:
            f.truncate(8 * 6)
        with open(self.path, 'r+b') as f:
            self.memory = mmap.mmap(f.fileno(), 8 * 6)
        open(self.path + '.log', 'w').close()
        self.settings = {'LD_PRELOAD': LIBRARY, 'SNAPSYNC_STEPS': self.path}

    def _get(self, field):
        return struct.unpack_from('<q', self.memory, 8 * field)[0]

    def _set(self, field, value):
        struct.pack_into('<q', self.memory, 8 * field, value)

    @contextlib.contextmanager
    def preloaded(self):
        """What is started in here is counted."""
        os.environ.update(self.settings)
        try:
            yield
        finally:
            for name in self.settings:
                del os.environ[name]

    def begin(self, step=0, action=KILL, for_good=False):
        """Steps are counted from here on; at the `step`th the action is taken, and, for
        good, at each later one of the same name."""
        open(self.path + '.log', 'w').close()
        self._set(self.FIRED, 0)
        self._set(self.COUNT, 0)
        self._set(self.ACTION, action)
        self._set(self.ALSO, 0)
        self._set(self.FOR_GOOD, for_good)
        self._set(self.AT, step)

    def kill_also(self, pid):
        self._set(self.ALSO, pid)

    def end(self):
        self._set(self.AT, 0)
        self._set(self.FOR_GOOD, 0)

    @property
    def count(self):
        return self._get(self.COUNT)

    @property
    def fired(self):
        return self._get(self.FIRED) != 0

    def steps(self):
        """(name, what it is done to), in order, since begin()."""
        with open(self.path + '.log', errors='replace') as f:
            rows = [line.rstrip('\n').split(' ', 2) for line in f]
        return [(row[1], row[2]) for row in sorted(rows, key=lambda row: int(row[0]))]


class Agent(lab.Agent):
    """An agent whose steps are counted."""

    def __init__(self, counter, *arguments, **options):
        super().__init__(*arguments, **options)
        self.counter = counter

    def start(self):
        with self.counter.preloaded():
            return super().start()

    def start_again(self):
        """After it has ended, or before that; what is to happen at a step is off."""
        self.counter.end()
        if self.process.poll() is None:
            self.stop()
        return self.start()

    def wait_until_idle(self):
        """Until it has taken no step and run no program for a while, or has ended."""
        last, since = None, time.monotonic()
        while self.process.poll() is None and time.monotonic() < since + QUIET:
            now = self.counter.count
            if now != last or lab.has_child(self.process.pid):
                last, since = now, time.monotonic()
            time.sleep(0.05)


def start_sync(counter, *arguments, **options):
    with counter.preloaded():
        return lab.Sync(*arguments, **options)
