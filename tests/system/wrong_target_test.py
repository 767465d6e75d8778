#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 3000 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""Whatever makes a target the wrong one, alone or together with each other reason: the
sync is refused with the exit code of one of its reasons, the next sync after the reasons
have gone is right, and until then not one sector is written to the pool's data, as the
kernel counts them.
"""
import contextlib
import itertools
import os
import random
import shutil

import lab
from lab import MIB, expect, run

SIZE = 8 * MIB
SRC, TARGET = '/dev/nas1/vol', '/dev/nas2/replica'
OLDER = lab.LAB + '/older'  # the agent's state at an older generation


def writes():
    """(sectors written, sectors discarded) of what holds all data of nas2's pool."""
    number = os.minor(os.stat('/dev/mapper/nas2-pool_tdata').st_rdev)
    with open('/sys/block/dm-%d/stat' % number) as f:
        fields = [int(field) for field in f.read().split()]
    return fields[6], fields[13]


def swap(one, other):
    os.rename(one, one + '.away')
    os.rename(other, one)
    os.rename(one + '.away', other)


# --- What makes a target the wrong one --------------------------------------

@contextlib.contextmanager
def another_volume(place):
    run('lvrename', '-qq', 'nas2/replica', 'nas2/before')
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    yield
    lab.remove('nas2', 'replica')
    run('lvrename', '-qq', 'nas2/before', 'nas2/replica')


@contextlib.contextmanager
def another_generation(place):
    place.agent.stop()
    swap(place.agent.directory, OLDER)
    place.agent.start()
    yield
    place.agent.stop()
    swap(place.agent.directory, OLDER)
    place.agent.start()


@contextlib.contextmanager
def written_to(place):
    lab.write_device(TARGET, 3 * MIB, os.urandom(4096))
    yield
    place.agreed = ['--yes']


@contextlib.contextmanager
def in_use(place):
    holder = os.open(TARGET, os.O_RDONLY)
    yield
    os.close(holder)


@contextlib.contextmanager
def of_another_replication(place):
    place.replication = 'two'
    yield
    place.replication = 'one'


@contextlib.contextmanager
def the_source_itself(place):
    place.source = TARGET
    yield
    place.source = SRC


@contextlib.contextmanager
def too_small(place):
    lab.grow(SRC, SIZE + 4 * MIB)
    yield
    run('lvreduce', '-qq', '-f', '-L', '%db' % SIZE, SRC)


# In the order in which they are made so: the later ones are of what the earlier ones
# put under the target's path. With the exit code that each has.
REASONS = [(another_volume, lab.TARGET_UNSUITABLE),
           (another_generation, lab.BASE_MISMATCH),
           (written_to, lab.BASE_MISMATCH),
           (the_source_itself, lab.USAGE),
           (too_small, lab.TARGET_UNSUITABLE),
           (of_another_replication, lab.TARGET_UNSUITABLE),
           (in_use, lab.BUSY)]


class Place:
    def __init__(self):
        lab.make_certificates(lab.PKI, 'nas1', 'nas2')
        lab.make_nas_pair(600 * MIB)
        lab.make_thin('nas1', 'pool', 'vol', SIZE)
        lab.make_thin('nas2', 'pool', 'replica', SIZE)
        lab.write_device(SRC, 0, random.Random(1).randbytes(SIZE // 2))
        self.agent = lab.Agent([('replica', TARGET, 'thin')]).start()
        self.source, self.replication = SRC, 'one'
        self.agreed = []  # by the operator, for the next sync that is right

    def change(self):
        lab.write_device(SRC, MIB, os.urandom(lab.BLOCK))

    def accepted(self, what):
        before, _ = writes()
        result = lab.sync(SRC, 'replica', self.replication, *self.agreed)
        self.agreed = []
        return all([expect(what, result.code == 0, result),
                    expect(what + ': equal', lab.contents(TARGET) == lab.contents(SRC)),
                    expect(what + ': its writes are counted', writes()[0] > before)])

    def refused(self, reasons):
        """Whether it is refused for any of them, and nothing is written."""
        what = ', '.join(reason.__name__ for reason, _ in reasons)
        self.change()
        with contextlib.ExitStack() as stack:
            for reason, _ in reasons:
                stack.enter_context(reason(self))
            volumes, before = lab.volumes('nas2'), writes()
            result = lab.sync(self.source, 'replica', self.replication)
            after = writes()
            good = [expect('%s: refused' % what,
                           result.code in [code for _, code in reasons], result),
                    expect('%s: a message' % what, result.stderr.strip(), result),
                    expect('%s: not one sector is written' % what, after == before,
                           '%s, then %s' % (before, after)),
                    expect('%s: no volume is made' % what, lab.volumes('nas2') == volumes,
                           lab.volumes('nas2'))]
        # A pair that leaves the target as it was is told apart by the next one.
        if len(reasons) == 1 or written_to in [reason for reason, _ in reasons]:
            good.append(self.accepted('after ' + what))
        return all(good)


def main():
    rng = random.Random(lab.seed_from_environment())
    place = Place()
    place.accepted('a first sync')
    place.agent.stop()
    shutil.copytree(place.agent.directory, OLDER)
    place.agent.start()
    place.change()
    place.accepted('a second one')
    pairs = [list(pair) for pair in itertools.combinations(REASONS, 2)]
    cases = [[reason] for reason in REASONS] + rng.sample(pairs, len(pairs))
    played = [place.refused(case) for case in lab.in_time(cases, len(REASONS), 4.5)]
    place.change()
    played[-1] &= place.accepted('after all')
    lab.report('wrong targets, each reason alone and in pairs', len(played),
               played.count(False))
    print(place.agent.log()[-3000:] if lab.failures else '', end='')
    place.agent.stop()
    lab.finish()


main()
