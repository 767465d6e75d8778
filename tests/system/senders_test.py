#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""2 to 8 senders on one volume at once, with a state and a source of their own each;
some take over, some are stopped in the middle and go on when another one has
finished, so that their messages arrive late. Each ends with 0, 6 or 7, each success
is one generation, and the target holds the source of the last one: never a mixture.

  SNAPSYNC_CASES=N  rounds (50; 5000 with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S   round number i has the seed S + i
"""
import collections
import hashlib
import os
import random
import re
import signal
import time

import host_lab  # before lab
import lab
import side_by_side
from lab import MIB, expect

ROUNDS = int(os.environ.get('SNAPSYNC_CASES') or
             (5000 if os.environ.get('SNAPSYNC_LONG') else 50))
WORKERS = 4  # most of the time they wait for the speed limit
SENDERS = 8
SIZE = 3 * MIB
# Done; somebody else committed meanwhile; somebody else writes, or has taken over.
CODES = [lab.DONE, lab.BASE_MISMATCH, lab.BUSY]


def digest(path):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()


class Sender:
    """One of the senders: a folder with its state, and a source."""

    def __init__(self, folder, number):
        self.folder = folder
        self.node = self.identity = 'nas%d' % (number + 1)
        self.source = folder + '/source'
        self.process = self.result = None
        self.stopped = False
        os.mkdir(folder)

    def change(self, rng):
        with open(self.source, 'wb') as f:
            f.write(rng.randbytes(SIZE))
        self.digest = digest(self.source)
        self.process = self.result = None

    def choose(self, rng, take_over, same_node):
        """What it will do, and when, in seconds."""
        # Who was stopped while it called for the first time has to try again.
        self.options = ['--speed-limit', '%dK' % rng.randrange(2000, 8000), '--retry-for', '60']
        self.options += rng.choice([[], ['--yes'], ['--allow-full']])
        if rng.random() < take_over:
            self.options.append('--take-over')
        self.identity = 'nas1' if same_node else self.node
        self.starts_at = rng.uniform(0, 0.8)
        # As often as not there is another one by then.
        self.stops_at = self.starts_at + rng.uniform(0.1, 1) if rng.random() < 0.4 else None

    def start(self, port):
        lab.LAB = self.folder  # where lab.Sync writes what is said, and the state
        self.process = lab.Sync(self.source, 'file', 'many', *self.options, port=port,
                                identity=self.identity)

    def running(self):
        return self.process is not None and self.process.running()

    def act(self, now, port):
        """Does what is due."""
        if self.process is None and now >= self.starts_at:
            self.start(port)
        elif self.stops_at is not None and now >= self.stops_at:
            self.stops_at = None
            if self.running():
                self.process.process.send_signal(signal.SIGSTOP)
                self.stopped = True

    def go_on(self):
        if self.stopped:
            self.process.process.send_signal(signal.SIGCONT)
            self.stopped = False


class Worker(side_by_side.Worker):
    """An agent, and the senders to its volume."""

    def __init__(self, number):
        nodes = [('nas%d' % (n + 1), ['receive'], ['file']) for n in range(SENDERS)]
        super().__init__(number, ['file'], name='agent', clients=nodes)
        self.senders = [Sender('%s/sender%d' % (self.folder, n), n) for n in range(SENDERS)]
        self.number = 0

    def prepare(self):
        first = self.senders[0]
        first.change(random.Random(0))
        first.options = []
        first.start(self.port)
        self.number = first.process.wait()['number']

    def stop(self):
        for sender in self.senders:
            if sender.running():
                sender.process.kill()
        super().stop()

    def held(self):
        with self.standing_still():
            return digest(self.target('file'))

    def play(self, seed):
        rng = random.Random(seed)
        # Few of them more often: then there is less that is merely busy.
        senders = rng.sample(self.senders, min(rng.randint(2, SENDERS) for _ in range(2)))
        take_over, same_node = rng.choice([0, 0.3, 0.8]), rng.random() < 0.3
        allowed = [self.held()]
        for sender in senders:
            sender.change(rng)
            sender.choose(rng, take_over, same_node)
            allowed.append(sender.digest)
        log_begin = os.path.getsize(self.agent.log_path)
        violations = self.run(senders, allowed)
        for sender in senders:
            sender.result = sender.process.wait()
        log = self.agent.log(log_begin)
        violations += self.judge(senders, same_node, log)
        codes = [s.result.code for s in senders]
        outcome = {'name': 'round (seed %d): %d senders, exit codes %s' % (
                       seed, len(senders), ' '.join(map(str, codes))),
                   'violations': violations, 'codes': codes}
        if violations:
            outcome['detail'] = '%s\n%s\nthe agent:\n%s' % (
                '; '.join(violations),
                '\n'.join('%s as %s %s: %s' % (s.node, s.identity, s.options, s.result)
                          for s in senders), log[-6000:])
        again = self.sync_again(rng.choice(self.senders), rng)
        if again:
            violations.append(again)
            outcome['detail'] = outcome.get('detail', '') + again
        return outcome

    def run(self, senders, allowed):
        """Until all have ended: those that were stopped go on after the others."""
        begin, looks_at, violations = time.monotonic(), 0, []
        while True:
            now = time.monotonic() - begin
            for sender in senders:
                sender.act(now, self.port)
            if now >= looks_at:
                looks_at = now + 0.5
                if self.held() not in allowed:
                    violations.append('the target is a mixture')
            if all(s.process for s in senders):
                if not any(s.running() and not s.stopped for s in senders):
                    if not any(s.running() for s in senders):
                        return violations
                    for sender in senders:
                        sender.go_on()
            time.sleep(0.02)

    def judge(self, senders, same_node, log):
        violations = []
        for sender in senders:
            if sender.result.code not in CODES:
                violations.append('%s: exit code %d' % (sender.node, sender.result.code))
            # By its certificate it is known whose session ended, unless they share one.
            if (not same_node and sender.result.code != lab.BUSY and
                    re.search(r'takes over from %s\n' % sender.node, log)):
                violations.append('%s was taken over and ended with %d' % (
                    sender.node, sender.result.code))
        done = {s.result['number']: s for s in senders if s.result.code == 0}
        successes = sum(s.result.code == 0 for s in senders)
        numbers = list(range(self.number + 1, self.number + 1 + successes))
        committed = [int(n) for n in re.findall(r'generation (\d+) \(.* committed', log)]
        if sorted(done) != numbers or committed != numbers:
            violations.append('generations %s were expected, the senders made %s, the agent %s' % (
                numbers, sorted(done), committed))
        if not done:
            violations.append('nobody succeeded')
        elif self.held() != done[max(done)].digest:
            violations.append('the target does not hold what was committed last')
        self.number = max([self.number, *committed, *done])
        return violations

    def sync_again(self, sender, rng):
        """Without any option, with new contents."""
        sender.change(rng)
        sender.options = []
        sender.start(self.port)
        result = sender.process.wait()
        self.number = max(self.number, result['number'] or 0)
        if result.code == 0 and self.held() == sender.digest:
            return ''
        return 'a plain sync afterwards: %s' % result


def main():
    seed = lab.seed_from_environment()
    lab.make_certificates(lab.PKI, 'agent', *['nas%d' % (n + 1) for n in range(SENDERS)])
    played, violations = side_by_side.play_all(
        Worker, min(WORKERS, ROUNDS), [seed + number for number in range(ROUNDS)])
    rounds = [outcome for outcome in played if 'codes' in outcome]
    codes = collections.Counter(code for outcome in rounds for code in outcome['codes'])
    print('senders by exit code: %s' % dict(codes))
    expect('all rounds were played', len(rounds) == ROUNDS, len(rounds))
    expect('some senders met another one',
           codes[lab.BASE_MISMATCH] + codes[lab.BUSY] > 0 or ROUNDS < 50, codes)
    lab.report('2 to 8 senders on one volume', ROUNDS, violations)


if __name__ == '__main__':
    host_lab.play(main)
