# SPDX-License-Identifier: Apache-2.0
"""One case of failing_step_test.py and failing_thin_test.py: a durable step of a sync that
fails, and what must hold then. Where it happens is a place.Place, which has besides:

    DISPENSABLE   {pattern of the names of steps that a sync gets over: why}
    OPEN          patterns of "NAME: FAULT" that it may get over or not
    take_twin()   the next sync takes another source with the same contents
"""
import collections
import fnmatch
import os
import re

import kills
import lab
import place as places
import steps
from steps import FOR_GOOD

Case = collections.namedtuple('Case', 'scenario program step name fault then')
SAME, TWIN = 'the same source', 'another source'
WRITES = ('write', 'pwrite', 'uring-write', 'copy_file_range')


def describe(case):
    return '%s: step %d of the %s (%s) fails: %s; then %s' % (
        case.scenario, case.step, case.program, case.name, case.fault, case.then)


def faults(name):
    call = name.split()[0]
    if call == 'spawned':
        return []
    if call == 'spawn':
        return ['EIO', 'fails', 'fails at its end']
    if call in ('fsync', 'fdatasync'):
        return ['EIO', 'ENOSPC', FOR_GOOD]
    return ['EIO', 'ENOSPC'] + (['short'] if call in WRITES else [])


def all_cases(counted, thens):
    return [Case(scenario, program, number, name, fault, then)
            for scenario, programs in counted.items()
            for program, found in programs.items()
            for number in range(1, len(found) + 1)
            for name in [name_of_last(found[:number])]
            for fault in faults(name)
            for then in thens]


def name_of_last(found):
    """With the program before it, of a flush of the disks that this wrote to, and of what
    comes last, when a snapshot was removed."""
    name = kills.name(*found[-1])
    programs = [what.split()[0] for call, what in found if call == 'spawned']
    last = programs[-1] if programs and not name.startswith('spawn') else None
    if last == 'lvremove' or fnmatch.fnmatch(name, 'fsync ubd?'):
        return '%s after %s' % (name, last)
    return name


def got_over(place, case, name):
    """Whether the sync has to succeed; None: may."""
    if case.fault == 'short' and name.split()[0] in WRITES:
        return True  # the rest is written, too
    if any(fnmatch.fnmatch('%s: %s' % (name, case.fault), pattern) for pattern in place.OPEN):
        return None
    return any(fnmatch.fnmatch(name, pattern) for pattern in place.DISPENSABLE)


def judge_failure(case, call, what, result, bad):
    """What the sync has to say of it: the program, or what the call was about."""
    if call.startswith('spawn'):
        what = what.split()[0]
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
    counter.begin(case.step, steps.ACTIONS[case.fault], case.fault == FOR_GOOD)
    result = place.start().wait()
    counter.end()
    fired = counter.fired
    # It may be another step than in the sync that was counted.
    found = counter.steps()[:case.step]
    over = got_over(place, case, name_of_last(found)) if fired else True
    if over is False or (over is None and result.code != 0):
        judge_failure(case, *found[-1], result, bad)
    elif result.code != 0:
        bad.append('this should have been got over: %s' % result)
    if not bad.unless(place.agent.process.poll() is None, 'the agent has ended'):
        place.agent.start_again()
    seen = place.seen()
    # An agent that could not end a commit tries again later.
    hidden = [places.HIDDEN] if over is None and result.code != 0 else []
    bad.unless(seen in [old, new] + hidden, 'neither old nor new')
    bad.unless(result.code != 0 or seen == new, 'a success, but the target is old')
    if case.then == TWIN:
        place.take_twin()
    after = place.sync()
    bad.unless(after.code == 0 and after['number'] == place.number + 1,
               'the next sync should make number %d' % (place.number + 1), after)
    bad.unless(place.seen() == new, 'after the next sync the target is not equal')
    bad.extend('left over: ' + text for text in place.leftovers())
    place.number += 1
    make_manifest_again(place)
    return bad, fired


def make_manifest_again(place):
    """If the failure has cost it: without one the next sync has other steps than that
    which was counted."""
    agent = place.agent
    if not os.path.exists('%s/targets/%s.manifest' % (agent.directory, place.volume)):
        lab.run(lab.PROGRAMS + '/snapsync-agent', 'scrub', place.volume, '--config',
                agent.directory + '.toml')
