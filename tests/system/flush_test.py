#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""Each flush of a sync of files is made, and is needed.

First the power is cut at steps of a sync (steps.c), and once it was over: both programs
are killed, and what was never flushed is put back (unflushed.c): of all files and
folders, of files only, or of folders only, in which order a file system may well write
them. Then the same command: target, acknowledged data and receipt must be as promised.

Then one flush is taken away at a time, and of the states that a power cut leaves from
there on, at least one must break a promise. NOT_NEEDED has those that may go, and why.

  SNAPSYNC_CASES=N    how many cuts (all with SNAPSYNC_LONG), and how many flushes
  SNAPSYNC_SEED=S
"""
import collections
import fnmatch
import os
import random
import re
import subprocess

import host_lab  # before lab
import files_place
import kills
import lab
import steps
import unflushed

# What is lost of what was not flushed.
LOST = {'all': lambda path: True,
        'contents': lambda path: not path.endswith('/'),
        'names': lambda path: path.endswith('/')}
Cut = collections.namedtuple('Cut', 'scenario program step name victims without lost')
Flush = collections.namedtuple('Flush', 'scenario program name number cuts')

FLUSHES = ('fsync', 'fdatasync')
# Flushes that no promise of a sync of files rests on, and what makes up for each.
NOT_NEEDED = {
    'agent: rename vol.state > fsync targets > open target.raw.snapsync-stage':
        'a stage without a record is removed',
    'agent: rename vol.state > fsync targets > open vol.journal.new':
        'the folder is flushed with the journal, before anything is acknowledged',
    'agent: write vol.journal.new > fsync *': 'a journal that is too short is made again',
    'agent: * > fdatasync vol.manifest-log > *': 'no manifest is kept then',
    'agent: * > fdatasync vol.manifest > pwrite vol.manifest':
        'the record says that the commit has not ended, so all of it is written again',
    'agent: rename vol.state > fsync targets > unlink vol.manifest-log':
        'with the record before it the next start ends the commit again',
    'agent: fdatasync vol.journal > fsync targets > *':
        'the name of a log of the manifest: no manifest is kept then',
    'sender: mkdir * > fsync *': 'the agent knows all of it',
    'sender: * > fsync hash.plan.new > *': 'the volumes are compared again',
    'sender: rename hash.plan > fsync * > *': 'the volumes are compared again',
    'sender: unlink hash.plan > fsync * > *': 'a plan of another sync is not taken',
    'sender: rename replication.state > fsync * > unlink hash.plan':
        'the agent gives the receipt again',
    'sender: rename replication.state > fsync * > open replication.state.new':
        'the agent knows the generation, too',
}


def describe(cut):
    return '%s: power cut %s, lost: %s' % (
        cut.scenario, 'at step %d of the %s (%s)' % (cut.step, cut.program, cut.name)
        if cut.step else 'after it', cut.lost)


def run_cut(place, cut):
    """Violations of what must hold, and whether the step was reached."""
    bad = kills.Violations()
    place.prepare(cut.scenario)
    old, new = place.old(), place.new()
    place.counters[cut.program].without = cut.without
    kills.strike(place, cut, bad)
    place.counters[cut.program].without = 0
    fired = place.counters[cut.program].fired
    acknowledged, committing = kills.durable(place, cut)
    if not fired:
        place.agent.kill()
    lost = []
    for counter in place.counters.values():
        counter.end()
        lost += counter.lose(LOST[cut.lost])
    wanted = [old, new] if fired else [new]
    bad.unless(place.old() in wanted, 'after the cut the target is another one')
    try:
        place.agent.start()
    except RuntimeError as error:
        bad.append(str(error)[-500:])
        return bad, True
    bad.unless(place.old() in wanted, 'after the recovery the target is another one')
    result = place.sync()
    number = place.number + 1
    if bad.unless(result.code == 0, 'the same command does not end it', result):
        bad.unless(result['number'] == number,
                   'the generation should be number %d' % number, result)
        if not fired:
            bad.unless(result['result'] == 'unchanged', 'the receipt is lost', result)
        elif acknowledged and not committing:
            bad.unless(result['resumed_from_bytes'] > 0,
                       'what was acknowledged was sent again', result)
    bad.unless(place.old() == new, 'the target is not equal to the source')
    code, found = scrub()
    bad.unless(code == lab.DONE or code == lab.TARGET_UNSUITABLE and 'no manifest' in found,
               'the manifest is wrong', found)
    bad.extend('left over: ' + text for text in place.leftovers())
    place.number = number
    if bad:
        bad.append('lost: ' + ', '.join(lost))
    return bad, fired or cut.step == 0


def scrub():
    done = subprocess.run(
        [lab.PROGRAMS + '/snapsync-agent', 'scrub', 'vol', '--config',
         lab.LAB + '/agent.toml'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, text=True)
    return done.returncode, done.stdout


def cuts(counted):
    return [Cut(scenario, program, step, name, kills.BOTH, 0, lost)
            for scenario, programs in counted.items()
            for program, found in programs.items()
            for step, name, _ in [*kills.numbered(found), (0, '', 0)]
            for lost in LOST]


def same(path, other):
    """Whether a file has this name now and had the other one, or the other way round."""
    return len({re.sub(r'\.(new|snapsync-stage)$', '', name) for name in (path, other)}) == 1


def count(place, scenario):
    """As kills.count(), and the number in it of each step that is a flush of something."""
    found = kills.count(place, scenario)
    numbers = {}
    for program, counter in place.counters.items():
        at = 0
        numbers[program] = []
        for path in counter.flushed():
            at = next(number for number, (call, what) in enumerate(found[program], 1)
                      if number > at and call in FLUSHES and what == path)
            numbers[program].append(at)
    return found, numbers


def flushes(scenario, found, numbers):
    """Each flush, and the cuts before the same file or folder is flushed again."""
    everything = []
    for program, steps_of_it in found.items():
        around = ['', *kills.names(steps_of_it), '']
        for without, at in enumerate(numbers[program], 1):
            path = steps_of_it[at - 1][1]
            until = next((later for later in numbers[program]
                          if later > at and same(steps_of_it[later - 1][1], path)), None)
            # What a flush of a file saves are contents, of a folder, names.
            kinds = ['all', 'names' if os.path.isdir(path) else 'contents']
            ends = [*range(at + 1, (until or len(steps_of_it)) + 1)] + ([] if until else [0])
            everything.append(Flush(
                scenario, program, ' > '.join(around[at - 1:at + 2]), at,
                [Cut(scenario, program, step, around[step], kills.BOTH, without, lost)
                 for step in ends for lost in kinds]))
    return everything


def not_needed(flush):
    return any(fnmatch.fnmatch('%s: %s' % (flush.program, flush.name), pattern)
               for pattern in NOT_NEEDED)


def is_needed(place, rng, flush):
    """What was wrong without it, or None."""
    for cut in rng.sample(flush.cuts, len(flush.cuts)):
        bad, _ = run_cut(place, cut)
        if bad:
            place.forget()
            return '%s: %s' % (describe(cut), bad[0])
    return None


def main():
    seed = lab.seed_from_environment()
    rng = random.Random(seed)
    steps.build()
    unflushed.build()
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    place = files_place.Files(rng, make_counter=unflushed.Counter)
    counted = {scenario: count(place, scenario) for scenario in files_place.SCENARIOS}
    cut_power(place, rng, counted, seed)
    take_flushes_away(place, rng, counted)
    place.agent.stop()


def cut_power(place, rng, counted, seed):
    everything = cuts({scenario: found for scenario, (found, _) in counted.items()})
    kills.run_all(place, 'power cuts of files, what was not flushed lost',
                  kills.limit(rng, everything) or kills.shuffled(rng, everything), seed,
                  run_cut, describe)


def take_flushes_away(place, rng, counted):
    everything = [flush for scenario, facts in counted.items()
                  for flush in flushes(scenario, *facts) if not not_needed(flush)]
    found, played = 0, 0
    for flush in kills.limit(rng, everything) or everything:
        wrong = is_needed(place, rng, flush)
        played += 1
        found += wrong is not None
        lab.expect('%s: without %s (step %d of the %s) a promise is broken' % (
            flush.scenario, flush.name, flush.number, flush.program), wrong is not None)
        print('         ' + str(wrong)[:300])
    lab.report('flushes taken away, one at a time, and not missed', played, played - found)


host_lab.play(main)
