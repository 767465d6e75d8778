#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""The network is cut before or after each message of a session, of a sync, an export or
an import: a proxy between sender and agent counts the TLS records of either direction
and cuts at one of them.
The target is the old or the new generation at each moment; the same command ends by
itself with exit code 0, commits exactly one generation, and does not send again what
was acknowledged. In some cases the sender sleeps after that for as long as gRPC waits
before it looks a name up again: all that it has put off is then done at once.

  SNAPSYNC_CASES=N  how many (60; 2400 with SNAPSYNC_LONG), spread evenly
  SNAPSYNC_SEED=S   case number i has the seed S + i
"""
import collections
import os
import random
import re
import signal
import threading

import host_lab  # before lab
import lab
import side_by_side
from cut_proxy import OUTAGE, TO_AGENT, TO_SENDER, WAYS, Proxy
from lab import BLOCK, KIB, MIB, expect

CASES = int(os.environ.get('SNAPSYNC_CASES') or
            (2400 if os.environ.get('SNAPSYNC_LONG') else 60))
WORKERS = 10  # most of the time they wait
TIMEOUT = OUTAGE - 2  # seconds, of sender and agent; more than any answer takes
DIRECTIONS = ['to the agent', 'to the sender']
ASLEEP = 'asleep after a close'
PAUSE, SLEEP = 0.1, 31  # seconds: until the sender sleeps, and how long

# What is sent. `wide` has a few blocks in a great hole. A chunk spans 4 GiB of hole
# and a segment 64 chunks, so a few records are several segments, of which each is
# acknowledged. The others are compared first: `image` is exported to, `import` is read
# from a QCOW2 image.
SEGMENT = 64 * 4 << 30
SEGMENTS = 3
SEGMENT_DATA = 2 * BLOCK
KINDS = {'wide': ('sync', '--allow-full', '--method', 'full'), 'small': ('sync',),
         'image': ('sync',), 'import': ('import',)}

Case = collections.namedtuple('Case', 'number seed kind direction way part')


# --- Contents ----------------------------------------------------------------

def blocks(path):
    """What is in a file, by block, without zeroes; and its size."""
    found = {}
    with open(path, 'rb') as f:
        size = end = os.fstat(f.fileno()).st_size
        at = 0
        while at < end:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                break
            data = os.pread(f.fileno(), BLOCK, at)
            if data.count(0) != len(data):
                found[at] = data
            at += BLOCK
    return size, found


def change(rng, kind, path):
    """New contents for the source."""
    if kind != 'wide':
        with open(path, 'r+b') as f:
            for number in rng.sample(range(4 * MIB // BLOCK), 8):
                f.seek(number * BLOCK)
                f.write(rng.randbytes(BLOCK))
        return
    with open(path, 'wb') as f:
        f.truncate(SEGMENTS * SEGMENT)
        for segment in range(SEGMENTS):
            # Not at its ends: chunks are a little longer than the holes in them.
            for number in rng.sample(range(4, 56), SEGMENT_DATA // BLOCK):
                f.seek(segment * SEGMENT + (number * 4 << 30) + rng.randrange(9) * BLOCK)
                f.write(rng.randbytes(BLOCK))


def convert(source, form, target, other_form):
    lab.run('qemu-img', 'convert', '-f', form, '-O', other_form, source, target)


# --- Cases -------------------------------------------------------------------

class Worker(side_by_side.Worker):
    """An agent with a volume of each kind, and a sender. What is sent is in a raw file,
    and beside it in the image that is imported."""

    def __init__(self, number):
        super().__init__(number, KINDS, timeout=TIMEOUT)
        self.records, self.numbers = {}, {}

    def prepare(self):
        for kind in KINDS:
            with open(self.source(kind), 'wb') as f:
                f.truncate(4 * MIB)
            for _ in range(2):  # all that follow are like the second one
                self.sync_uncut(kind)

    def sync_uncut(self, kind):
        """Tells how many records there are in a sync."""
        change(random.Random(), kind, self.source(kind))
        proxy = Proxy(self.port)
        proxy.start()
        result = self.start(kind, proxy).wait()
        proxy.stop()
        if result.code != 0 or blocks(self.source(kind)) != self.held(kind):
            raise RuntimeError('an uncut sync: %s' % result)
        self.records[kind] = proxy.records
        self.numbers[kind] = result['number']

    def source(self, kind):
        return '%s/%s.source' % (self.folder, kind)

    def volume_kind(self, name):
        return 'qcow2' if name == 'image' else 'file'

    def command(self, kind):
        """What is sent, and the command that does."""
        command, *arguments = KINDS[kind]
        source = self.source(kind)
        if command == 'import':
            convert(source, 'raw', source + '.qcow2', 'qcow2')
            source += '.qcow2'
        return source, command, arguments

    def start(self, kind, proxy, timeout=60):
        source, command, arguments = self.command(kind)
        return lab.Sync(source, kind, 'cut', '--timeout', str(timeout), '--retry-for', '120',
                        *arguments, port=proxy.port, command=command)

    def held(self, kind):
        with self.standing_still():
            if self.volume_kind(kind) != 'qcow2':
                return blocks(self.target(kind))
            raw = self.folder + '/held.raw'
            convert(self.target(kind), 'qcow2', raw, 'raw')
            return blocks(raw)

    def play(self, case):
        """Plays a case until it was cut: how many records there are varies a little."""
        points = 2 * self.records[case.kind][case.direction]
        point = min(int(case.part * points), points - 1)
        rng = random.Random(case.seed)
        for _ in range(8):
            outcome, records = self.cut_at(case, rng, point)
            if outcome['cut'] or outcome['violations']:
                break
            point = max(0, min(point - 2, 2 * records - 2))
        return outcome

    def cut_at(self, case, rng, point):
        change(rng, case.kind, self.source(case.kind))
        old, new = self.held(case.kind), blocks(self.source(case.kind))
        violations = []

        def look():
            if self.held(case.kind) not in (old, new):
                violations.append('the target is neither the old nor the new generation')

        def fall_asleep():
            look()
            for after, number in ((PAUSE, signal.SIGSTOP), (SLEEP, signal.SIGCONT)):
                threading.Timer(
                    after, lambda number=number: sync.process.send_signal(number)).start()

        log_begin = os.path.getsize(self.agent.log_path)
        proxy = Proxy(self.port, case.direction, point, case.way,
                      fall_asleep if case.way == ASLEEP else look)
        proxy.start()
        # Only a silence is noticed by it; a busy machine is not one.
        timeout = TIMEOUT if case.way.startswith('silence') else 60
        sync = self.start(case.kind, proxy, timeout)
        result = sync.wait()
        proxy.stop()
        look()
        log = self.agent.log(log_begin)
        if proxy.error:
            violations.append(proxy.error)
        if timeout == 60 and 'nothing moved' in result.stderr:
            violations.append('a call got no answer')
        violations += self.judge(case, result, proxy, log)
        if self.held(case.kind) != new:
            violations.append('the target is not what the source is')
        self.numbers[case.kind] += log.count(' committed\n')
        name = 'case %d (seed %d): %s, %s %s record %d %s' % (
            case.number, case.seed, case.kind, case.way, 'after' if point % 2 else 'before',
            point // 2, DIRECTIONS[case.direction])
        outcome = {'name': name, 'violations': violations, 'how': case.kind + ', ' + case.way,
                   'cut': proxy.cut_bytes is not None, 'records': self.records,
                   'resumed': any(resumptions(log))}
        if violations:
            outcome['detail'] = '%s\nrecords: %s\n%s\nthe agent:\n%s' % (
                '; '.join(violations), proxy.records, result, log[-3000:])
            self.repair(case.kind)
        return outcome, proxy.records[case.direction]

    def judge(self, case, result, proxy, log):
        if result.code != 0:
            return ['exit code %d' % result.code]
        violations = []
        number = self.numbers[case.kind] + 1
        if result['number'] != number or log.count('generation %d (' % number) != 1:
            violations.append('not exactly generation %d was committed' % number)
        # What an opening of the session found durable is not sent after it.
        openings = resumptions(log)
        if openings != sorted(openings):
            violations.append('what was durable is not any more')
        if case.kind != 'wide':
            return violations
        most = sum(SEGMENTS - watermark // 64 for watermark in [0] + openings[1:])
        if result['sent_bytes'] > most * SEGMENT_DATA:
            violations.append('what was durable was sent again: %d bytes' % result['sent_bytes'])
        # The sender begins a segment when the one before the last is acknowledged. The
        # rest of the records' bytes are what the data are wrapped in.
        if proxy.cut_bytes is not None and openings[1:]:
            passed = min((proxy.cut_bytes - 48 * KIB) // SEGMENT_DATA, SEGMENTS - 1)
            if openings[-1] < 64 * (passed - 1):
                violations.append('%d segments were acknowledged, but it went on at chunk %d' % (
                    passed - 1, openings[-1]))
        return violations

    def repair(self, kind):
        """After a violation, for the cases that follow."""
        source, command, _ = self.command(kind)
        result = lab.sync(source, kind, 'cut', '--allow-full', port=self.port,
                          command=command)
        self.numbers[kind] = result['number'] or self.numbers[kind]


def resumptions(log):
    """At which chunk each opening of the session went on."""
    return [int(n) for n in re.findall(r'goes on at chunk (\d+)', log)]


def all_cases(seed):
    """Spread over kinds, directions, ways, and the records, from the first to the last."""
    combinations = [(kind, direction, way) for kind in KINDS
                    for direction in (TO_AGENT, TO_SENDER)
                    for way in ('reset', 'close', 'silence')]
    each = -(-CASES // len(combinations))
    cases = []
    for number in range(CASES):
        kind, direction, way = combinations[number % len(combinations)]
        place = number // len(combinations)
        rng = random.Random(seed + number)
        part = (place + (rng.random() if 0 < place < each - 1 else place == each - 1)) / each
        if way == 'silence' and place % 2:
            way = 'silence for good'
        if way == 'close' and place % 3 == 1:
            way = ASLEEP
        cases.append(Case(number, seed + number, kind, direction, way, part))
    # The longest first.
    return sorted(cases, key=lambda case: -[*WAYS, ASLEEP].index(case.way))


def main():
    seed = lab.seed_from_environment()
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    played, violations = side_by_side.play_all(Worker, min(WORKERS, CASES), all_cases(seed))
    cut = [outcome for outcome in played if outcome.get('cut')]
    for records in cut[:1]:
        print('records %s in a session: %s' % (DIRECTIONS, records['records']))
    print('cut: %s' % dict(collections.Counter(outcome['how'] for outcome in cut)))
    print('%d went on where something was durable' % sum(o['resumed'] for o in cut))
    expect('all cases were played, and cut', len(cut) == CASES, len(cut))
    lab.report('network cut at a message', CASES, violations)


if __name__ == '__main__':
    host_lab.play(main)
