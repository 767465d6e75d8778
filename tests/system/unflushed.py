# SPDX-License-Identifier: Apache-2.0
"""What a power cut leaves, at worst, of the files that a program changes: unflushed.c,
preloaded into it, keeps what was flushed, and this puts it back after the program was
killed. Imported after lab is.
"""
import mmap
import os
import shutil
import struct

import lab
import steps

SOURCE = lab.ROOT + '/tests/system/unflushed.c'
LIBRARY = lab.LAB + '/unflushed.so'


def build():
    lab.run('gcc', '-Wall', '-Werror', '-O1', '-shared', '-fPIC', '-o', LIBRARY, SOURCE)


class Counter(steps.Counter):
    """Also counts flushes, of which one can be taken away, and keeps what was flushed."""

    def __init__(self, name):
        super().__init__(name)
        self.kept = self.path + '.unflushed'
        self.flushes = self.path + '.flushes'
        os.makedirs(self.kept)
        with open(self.flushes, 'wb') as f:
            f.truncate(24)
        with open(self.flushes, 'r+b') as f:
            self.flush_memory = mmap.mmap(f.fileno(), 24)
        self.settings = {'LD_PRELOAD': '%s %s' % (steps.LIBRARY, LIBRARY),
                         'SNAPSYNC_STEPS': self.path, 'SNAPSYNC_UNFLUSHED': self.kept,
                         'SNAPSYNC_FLUSHES': self.flushes}
        self.told = {}
        self.without = 0  # the flush that does not count; 0: none
        self.forget()

    def begin(self, *arguments, **options):
        super().begin(*arguments, **options)
        self.forget()

    def forget(self):
        """All that is there counts as flushed; of the flushes that come, `without` does
        not."""
        for folder in ('files', 'kept'):
            shutil.rmtree('%s/%s' % (self.kept, folder), ignore_errors=True)
            os.mkdir('%s/%s' % (self.kept, folder))
        open(self.kept + '/names', 'w').close()
        _, _, forgets = struct.unpack_from('<QQQ', self.flush_memory)
        struct.pack_into('<QQQ', self.flush_memory, 0, 0, self.without, forgets + 1)

    def flushed(self):
        """The paths of files and folders that were flushed since forget(), in order."""
        return [path for what, path, *_ in self._notes() if what == 'flush']

    def _notes(self):
        with open(self.kept + '/names') as f:
            return [line.rstrip('\n').split('\t') for line in f]

    def lose(self, chooses=lambda path: True):
        """Puts back what was never flushed of the files and folders that are chosen; the
        program must have ended. What was put back."""
        lost = self._lose_names(chooses) + self._lose_contents(chooses)
        self.forget()
        return lost

    def _lose_names(self, chooses):
        flushed, lost = set(), []
        for what, path, *more in reversed(self._notes()):
            folder = os.path.dirname(path)
            if what == 'flush':
                flushed.add(path)
            elif folder not in flushed and chooses(folder + '/'):
                lost += self._undo(what, path, more)
        return lost

    def _undo(self, what, path, more):
        """One change of a name, which may not have been made before the kill."""
        if what == 'create' and os.path.exists(path):
            os.unlink(path)
        elif what == 'mkdir' and os.path.isdir(path):
            shutil.rmtree(path)
        elif what == 'remove' and not os.path.exists(path):
            os.rename('%s/kept/%s' % (self.kept, more[0]), path)
            self._tell(path, int(more[1]))
        elif (what == 'rename' and os.path.exists(path) and
              os.stat(path).st_ino == int(more[0])):
            os.rename(path, more[2])
            self._tell(more[2], int(more[1]))
        else:
            return []
        return ['%s %s' % (what, path)]

    def _lose_contents(self, chooses):
        lost = []
        for folder, _, names in os.walk(lab.LAB):
            if '.unflushed' in folder:
                continue
            for name in names:
                path = os.path.join(folder, name)
                kept = '%s/files/%d' % (self.kept, os.stat(path).st_ino)
                if os.path.exists(kept) and chooses(path) and _put_back(kept, path):
                    self._tell(path, os.stat(kept).st_mtime_ns)
                    lost.append('contents ' + path)
        return lost

    def _tell(self, path, time):
        """The file has the change time that it had, for who asks by statx()."""
        facts = os.stat(path)
        self.told[facts.st_ino] = (facts.st_ctime_ns, time)
        with open(self.kept + '/told', 'w') as f:
            f.writelines('%d %d %d\n' % (inode, *times)
                         for inode, times in self.told.items())


def _put_back(kept, path):
    """Whether it was another one."""
    with open(kept, 'rb') as f:
        old = f.read()
    with open(path, 'rb') as f:
        if f.read() == old:
            return False
    with open(path, 'r+b') as f:
        f.truncate(len(old))
        f.write(old)
    return True
