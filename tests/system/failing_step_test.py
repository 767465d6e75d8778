#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""A durable step of a sync of files that fails, in the agent or in the sender: with
EIO, with ENOSPC, or as a write that writes half. Nothing crashes; the sync ends with
a documented exit code and names what failed, the target is old or new, and the next
sync is right, also of another source. Above all, no sync succeeds in which a flush has
failed (but of the manifest, which is no condition of a sync).

  SNAPSYNC_CASES=N    how many, drawn from all (nearly each step, failing in one way;
                      with SNAPSYNC_LONG in each way)
  SNAPSYNC_SEED=S
"""
import collections
import os
import re

import host_lab  # before lab
import files_place
import kills
import lab
import steps

Case = collections.namedtuple('Case', 'scenario program step name fault then')
SAME, TWIN = 'the same source', 'another source'
WRITES = ('write', 'pwrite', 'uring-write', 'copy_file_range')
# What a sync may do without, and why.
DISPENSABLE = {
    'ioctl-clone': 'the file is copied then',
    'fallocate': 'zeroes are written then',
    'ftruncate lock': 'the number in a lock is for people',
    'pwrite lock': 'the number in a lock is for people',
    # The manifest is no condition of a sync: it goes, and a scrub makes a new one.
    **{call + ' vol.manifest': 'no manifest is kept then'
       for call in ('open', 'ftruncate', 'pwrite', 'fdatasync', 'unlink')},
}


def describe(case):
    return '%s: step %d of the %s (%s) fails: %s; then %s' % (
        case.scenario, case.step, case.program, case.name, case.fault, case.then)


def faults(name):
    call = name.split()[0]
    return ['EIO', 'ENOSPC'] + (['short'] if call in WRITES else [])


def all_cases(counted):
    return [Case(scenario, program, number, name, fault, then)
            for scenario, programs in counted.items()
            for program, found in programs.items()
            for number, name in enumerate(kills.names(found), 1)
            for fault in faults(name)
            for then in (SAME, TWIN)]


def sample(rng, cases):
    """Each step in one way; of a first sync's sender only what is not in an update."""
    known = {case.name for case in cases if case.scenario == files_place.UPDATE}
    by_step = {}
    for case in cases:
        if (case.scenario == files_place.UPDATE or case.program == 'agent' or
                case.name not in known):
            by_step.setdefault(case[:3], []).append(case)
    return [rng.choice(group) for group in by_step.values()]


def may_succeed(case, name):
    if case.fault == 'short' and name.split()[0] in WRITES:
        return True  # the rest is written, too
    return any(name.startswith(part) for part in DISPENSABLE)


def judge_failure(case, what, result, bad):
    """`what` has failed: what the sync has to say of it."""
    wanted = [lab.IO] + ([lab.NO_SPACE] if case.fault == 'ENOSPC' else [])
    bad.unless(result.code in wanted, 'the exit code should be one of %s' % wanted, result)
    # A file that becomes another one is named as either.
    name = re.sub(r'\.(new|snapsync-stage)$', '', os.path.basename(what))
    bad.unless(name in (result['error'] or ''), 'the error does not name ' + what,
               result['error'])


def run_case(place, case):
    """Violations of what must hold, and whether the step was reached."""
    bad = kills.Violations()
    place.prepare(case.scenario)
    old, new = place.seen(), place.new()
    for counter in place.counters.values():
        counter.begin()
    counter = place.counters[case.program]
    counter.begin(case.step, steps.ACTIONS[case.fault])
    result = place.start().wait()
    counter.end()
    fired = counter.fired
    # It may be another step than in the sync that was counted.
    step = counter.steps()[case.step - 1] if fired else ('', '')
    if fired and not may_succeed(case, kills.name(*step)):
        judge_failure(case, step[1], result, bad)
    elif result.code != 0:
        bad.append('this should have been got over: %s' % result)
    if not bad.unless(place.agent.process.poll() is None, 'the agent has ended'):
        place.agent.start_again()
    seen = place.seen()
    bad.unless(seen in (old, new), 'neither old nor new')
    bad.unless(result.code != 0 or seen == new, 'a success, but the target is old')
    if case.then == TWIN:
        place.take_twin()
    after = place.sync()
    bad.unless(after.code == 0 and after['number'] == place.number + 1,
               'the next sync should make number %d' % (place.number + 1), after)
    bad.unless(place.seen() == new, 'after the next sync the target is not equal')
    bad.extend('left over: ' + text for text in place.leftovers())
    place.number += 1
    return bad, fired


def choose(rng, counted):
    everything = all_cases(counted)
    return kills.limit(rng, everything) or sample(rng, everything)


host_lab.play(lambda: files_place.play(choose, 'the k-th operation fails', run_one=run_case,
                                       describe_one=describe))
