#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""Every QCOW2 image that is sound is read as QEMU reads it, byte by byte; every
one that is not is refused with its reason, leaves nothing behind, and costs
little time and memory. By snapsync-send import, and by the reader in the process.
"""
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile

import lab
import qcow2_bad
import qcow2_good
from lab import expect
from qcow2_images import Image, run

READER = lab.PROGRAMS + '/qcow2_to_raw'
# An error of a reader: not a usage error, no crash, no broken process.
REFUSALS = (lab.PERMISSION, lab.BUSY, lab.TARGET_UNSUITABLE, lab.IO)
MEMORY_KIB = 256 * 1024
# Far more than it takes: a reader that needs this long hangs.
HANGS_AFTER = 60
# Above this contents are compared by QEMU, which knows holes.
LARGE = 64 << 20


def left_over(raw):
    """What a reader made, or should have removed."""
    return [path for path in (raw, raw + '.part', raw + '.snapsync-stage')
            if os.path.exists(path)]


class Outcome:
    def __init__(self, case, raw, *options):
        """Reads an image to the raw file; its exit code, error and memory."""
        self.state = raw + '.state'
        for path in left_over(raw):
            os.unlink(path)
        shutil.rmtree(self.state, ignore_errors=True)
        command = [READER, *options, *case.options, case.path, raw]
        if not options:
            command = [lab.PROGRAMS + '/snapsync-send', 'import', '--src', case.path,
                       '--dst', raw, '--state-directory', self.state, *case.options]
        process = subprocess.Popen(['timeout', str(HANGS_AFTER), *command],
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   text=True)
        # Before it a command may say what it is about to do.
        self.error = process.stderr.read().strip().split('\nerror: ')[-1]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = self.code = os.waitstatus_to_exitcode(status)
        self.memory_kib = usage.ru_maxrss

    def __str__(self):
        return 'exit code %d, %d MiB, "%s"' % (self.code, self.memory_kib >> 10, self.error)


def is_equal(case, raw, expected):
    """Whether the raw file is what QEMU makes of the image."""
    folder = os.path.dirname(case.path)
    size = os.path.getsize(raw)
    if size > LARGE:
        return subprocess.run(['qemu-img', 'compare', '-q', '-f', 'qcow2', '-F', 'raw',
                               case.path, raw], cwd=folder, check=False).returncode == 0
    subprocess.run(['qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', case.path, expected],
                   cwd=folder, check=True)
    return size == os.path.getsize(expected) and filecmp.cmp(raw, expected, shallow=False)


def read_good(folder):
    cases = qcow2_good.made(folder)
    expect('there are images of all kinds', len(cases) >= 60, len(cases))
    raw = folder + '/read.raw'
    for case in cases:
        for options in ((), ('--local',)):
            outcome = Outcome(case, raw, *options)
            expect('%s is read%s' % (case.name, ' in the process' if options else ''),
                   outcome.code == 0 and is_equal(case, raw, folder + '/expected.raw'), outcome)


def refuse_bad(folder):
    cases = qcow2_bad.made(folder)
    expect('there is damage of all kinds', len(cases) >= 107, len(cases))
    raw = folder + '/read.raw'
    for case in cases:
        for options in ((), ('--local',)):
            outcome = Outcome(case, raw, *options)
            nothing_left = not left_over(raw)
            # A sanitizer needs more memory than what it watches.
            frugal = outcome.memory_kib < MEMORY_KIB or 'asan' in lab.PROGRAMS
            expect('%s is refused%s' % (case.name, ' in the process' if options else ''),
                   outcome.code in REFUSALS and case.error in outcome.error and
                   outcome.error.count('\n') == 0 and nothing_left and frugal, outcome)


def allow(folder):
    """An option allows what it says and nothing else."""
    overlay = folder + '/disk.qcow2'
    Image(folder + '/elsewhere/base.qcow2')
    Image(overlay, size=None, backing='elsewhere/base.qcow2')
    case = qcow2_good.Case('overlay', overlay, ['--backing-format=raw'])
    raw = folder + '/read.raw'
    expect('a recorded format is not overridden',
           Outcome(case, raw).code == 0 and is_equal(case, raw, folder + '/expected.raw'))
    case.path = os.path.relpath(overlay)
    case.options = []
    expect('a relative path is read', Outcome(case, raw).code == 0)
    # A large table of a large image that has nothing in it.
    Image(folder + '/huge.qcow2', size='7T', options='cluster_size=2M', writes=())
    case.path = folder + '/huge.qcow2'
    outcome = Outcome(case, raw)
    expect('an empty disk of 7 TiB costs nothing',
           outcome.code == 0 and os.stat(raw).st_blocks < 1000 and
           outcome.memory_kib < MEMORY_KIB, outcome)


def main():
    for what in (read_good, refuse_bad, allow):
        folder = tempfile.mkdtemp(prefix='snapsync-qcow2-')
        try:
            what(folder)
        finally:
            shutil.rmtree(folder)
    lab.finish()


if __name__ == '__main__':
    sys.dont_write_bytecode = True
    run('qemu-img', '--version')
    main()
