# SPDX-License-Identifier: Apache-2.0
"""One case of kill_test.py and kill_thin_test.py: SIGKILL at one durable step of a
sync, then the way out of it, and what must hold then. Where it happens is a
place.Place.
"""
import collections
import contextlib
import itertools
import os
import random
import re
import signal
import time

import lab
import steps
from place import HIDDEN, stopped

BOTH = ('agent', 'sender')
# Restarts: the agent is killed at each step of its start in turn, until one start gets
# through; then the same command again.
RESUME, ABORT, RESTARTS = WAYS = 'resume', 'abort', 'restarts'
# To reach a step: now and then a revert has one more than the next.
TRIES = 10

# scenario: what the Place prepares; program: whose step number `step` it is, of those
# with that name the `nth`.
Case = collections.namedtuple('Case', 'scenario program step name nth victims way')


def describe(case):
    return '%s: %s killed at step %d of the %s (%s), then %s' % (
        case.scenario, ' and '.join(case.victims), case.step, case.program,
        case.name, case.way)


class Violations(list):
    def unless(self, condition, text, detail=''):
        if not condition:
            self.append('%s%s' % (text, ': %s' % detail if detail != '' else ''))
        return condition


def count(place, scenario):
    """The steps of both programs in a sync that nothing happens to."""
    place.prepare(scenario)
    for counter in place.counters.values():
        counter.begin()
    result = place.start().wait()
    if result.code != 0:
        raise RuntimeError('%s, not killed: %s' % (scenario, result))
    place.number = result['number']
    return {program: place.counters[program].steps() for program in BOTH}


def count_all(place, scenarios):
    counted = {scenario: count(place, scenario) for scenario in scenarios}
    for scenario, programs in counted.items():
        print('%s: %s' % (scenario, ', '.join(
            '%d steps of the %s' % (len(found), program)
            for program, found in programs.items())))
    return counted


def name(call, what):
    """A step, without what differs from run to run."""
    if call.startswith('spawn'):
        what = what.split()[0]  # without its arguments
    what = os.path.basename(what.rstrip('/'))
    return '%s %s' % (call, re.sub(r'^(metadata-snapshot|mappings)[-.].*', r'\1', what))


def names(found):
    return [name(*step) for step in found]


def numbered(found):
    """(number, name, how often there was one of that name) of each step."""
    seen = collections.Counter()
    for number, step in enumerate(names(found), 1):
        seen[step] += 1
        yield number, step, seen[step]


def all_cases(counted):
    """counted: {scenario: count()}; by SNAPSYNC_WAYS, if that is set."""
    ways = os.environ.get('SNAPSYNC_WAYS', ','.join(WAYS)).split(',')
    if not set(ways) <= set(WAYS):
        raise RuntimeError('SNAPSYNC_WAYS: %s; there are %s' % (ways, WAYS))
    return [Case(scenario, program, *step, victims, way)
            for scenario, programs in counted.items()
            for program, found in programs.items()
            for step in numbered(found)
            for victims in ((program,), BOTH)
            for way in ways if way != RESTARTS or 'agent' in victims]


def sample(rng, cases, each_time):
    """Each name of a step once, or each time that it comes in a sync, in turn by each
    of the ways."""
    groups = {}
    for case in cases:
        nth = case.nth if each_time else 0
        groups.setdefault((case.program, case.name, nth), []).append(case)
    turns = itertools.cycle([(alone, way) for alone in (True, False) for way in WAYS])
    chosen = [[case for case in group if case.way == way and
               (case.victims != BOTH) == alone] or group
              for group, (alone, way) in zip(shuffled(rng, groups.values()), turns)]
    return [rng.choice(group) for group in chosen]


def shuffled(rng, items):
    return rng.sample(list(items), len(items))


# --- One case

def executed(place, case):
    """The agent's steps that were done for certain."""
    found = names(place.counters['agent'].steps())
    return found[:-1] if 'agent' in case.victims and found else found


def durable(place, case):
    """Whether all data was acknowledged, and whether the commit had begun."""
    done = executed(place, case)
    flushed = [at for at, step in enumerate(done)
               if step == 'fdatasync %s.journal' % place.volume]
    if not flushed:
        return False, False
    committing = 'rename %s.state' % place.volume in done[flushed[-1]:]
    return True, committing


def strike(place, case, bad):
    """The sync, until its victims are dead. The sync, if it is still there."""
    for counter in place.counters.values():
        counter.begin()
    counter = place.counters[case.program]
    counter.begin(case.step)
    sync = place.start()
    if case.victims == BOTH:
        other = sync if case.program == 'agent' else place.agent
        counter.kill_also(other.process.pid)
    while sync.running() and not counter.fired:
        time.sleep(0.01)
    if not counter.fired:
        result = sync.wait()
        bad.unless(result.code == 0, 'the sync was not killed and failed', result)
        return None
    if 'agent' in case.victims:
        place.agent.process.wait(timeout=30)
    if 'sender' not in case.victims or place.goes_on(case):
        return sync
    result = sync.wait()
    bad.unless(result.code == -signal.SIGKILL, 'the sender was not killed', result)
    return None


def recover(place, case, sync, bad, old, new):
    """Starts the agent again if it is dead; the target before and after that. The
    sender, if it is alive, stays out of it meanwhile: for how many seconds."""
    since = time.monotonic()
    place.counters[case.program].end()
    dead = place.agent.process.poll() is not None
    hidden = [HIDDEN] if dead else []
    bad.unless(place.seen() in [old, new] + hidden, 'after the kill neither old nor new')
    if not dead:
        return 0
    with stopped(sync.process if sync else None):
        if case.way == RESTARTS:
            kill_at_each_step_of_its_start(place, bad, old, new)
        else:
            place.agent.start()
        bad.unless(place.old() in (old, new), 'after the recovery neither old nor new')
    return time.monotonic() - since


def kill_at_each_step_of_its_start(place, bad, old, new):
    agent = place.agent
    agent.counter = counter = steps.Counter('start.steps')
    for step in range(1, 1000):
        counter.begin(step)
        with contextlib.suppress(RuntimeError):  # it was killed before it listens
            agent.start()
        agent.wait_until_idle()
        if not counter.fired:
            break
        agent.process.wait(timeout=30)
        bad.unless(place.seen() in (old, new, HIDDEN),
                   'after a kill at step %d of the start neither old nor new' % step)
    bad.unless(agent.process.poll() is None, 'the agent does not start', agent.log()[-2000:])
    agent.counter = place.counters['agent']
    agent.start_again()


def run_case(place, case):
    """Violations of what must hold; and whether the step was reached."""
    bad = Violations()
    place.prepare(case.scenario)
    old, new, number = place.old(), place.new(), place.number
    sync = strike(place, case, bad)
    fired = place.counters[case.program].fired
    acknowledged, committing = durable(place, case)
    if sync and case.way == ABORT:
        # It holds the lock of the replication, and would try again.
        result = sync.kill(signal.SIGINT)
        bad.unless(result.code in (130, lab.CONNECTION), 'an interrupted sender', result)
        sync = None
    idle = recover(place, case, sync, bad, old, new)
    if fired and case.way == ABORT:
        number = give_up(place, bad, old, new, committing)
        acknowledged = False  # and gone
    result = sync.wait() if sync else None
    by_itself = result is not None
    if not by_itself:
        result = place.sync()
    # Of a call that was made before a long stop nobody can say that.
    bad.unless(idle > 50 or 'nothing moved' not in result.stderr,
               'a call got no answer, though the agent was there', result)
    number = max(number, place.number + place.MAKES)
    if bad.unless(result.code == 0, 'the same command does not end it', result):
        bad.unless(result['number'] == number,
                   'the generation should be number %d' % number, result)
        if acknowledged and not committing and fired:
            kept = result['resumed_from_bytes'] > 0 or (
                by_itself and result['sent_bytes'] == result['plan']['data_bytes'])
            bad.unless(kept, 'what was acknowledged was sent again', result)
    bad.unless(place.old() == new, 'the target is not equal to the source')
    bad.extend('left over: ' + text for text in place.leftovers())
    place.number = number
    return bad, fired


def give_up(place, bad, old, new, committing):
    """The generation's number that the abort leaves."""
    result = place.abort()
    good = bad.unless(result.code == 0 and result['result'] in ('aborted', 'unchanged') and
                      result['number'] in (place.number, place.number + 1), 'the abort',
                      result)
    if not good:
        return place.number
    number = result['number']
    bad.unless(committing or number == place.number,
               'an abort before the commit began made a generation', result)
    bad.unless(place.old() == (old if number == place.number else new),
               'after the abort the target is not generation %d' % number)
    bad.extend('left over after the abort: ' + text
               for text in place.leftovers() if 'stage' in text)
    return number


# --- All of them

def play(make_place, scenarios, choose, title, **options):
    """Counts the steps, and runs the cases that choose(rng, counted) returns."""
    seed = lab.seed_from_environment()
    rng = random.Random(seed)
    steps.build()
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    place = make_place(rng)
    cases = choose(rng, count_all(place, scenarios))
    run_all(place, title, cases, seed, **options)
    place.agent.stop()


def known(cases, went_wrong, count):
    """Those that once went wrong, which must be there still."""
    found = [case for case in cases if went_wrong(case)]
    if len(found) != count:  # the steps have other names or another order now
        raise RuntimeError('not the %d cases that once went wrong: %s' % (count, found))
    return found


def as_played(place, case):
    """It may be another step than in the sync that was counted."""
    found = place.counters[case.program].steps()
    return case._replace(name=name(*found[case.step - 1]))


def run_all(place, scenario, cases, seed, run_one=run_case, describe_one=describe,
            name_one=as_played, share=1):
    """Runs the cases, in a share of the time that there is, and reports them as
    `scenario`."""
    wrong, missed, played = 0, 0, 0
    for case in lab.in_time(cases, share=share):
        played += 1
        for _ in range(TRIES):
            bad, fired = run_one(place, case)
            if bad or fired:
                break
        missed += not fired
        if fired:
            case = name_one(place, case)
        lab.expect(describe_one(case) + ('' if fired else ' (not reached)'), not bad,
                   '; '.join(bad))
        if bad:
            wrong += 1
            print_what_is_known(place)
            place.forget()
    lab.expect('nearly all of it was reached', missed <= played / 10,
               '%d of %d were not' % (missed, played))
    print('%d cases, seed %d' % (played, seed))
    lab.report(scenario, played - missed, wrong)


def print_what_is_known(place):
    for program in BOTH:
        print('  steps of the %s:' % program)
        for number, step in enumerate(place.counters[program].steps(), 1):
            print(('    %d %s %s' % (number, *step))[:160])
    print('  log of the agent:\n    ' +
          place.agent.log()[-4000:].replace('\n', '\n    '))


def limit(rng, cases):
    """What SNAPSYNC_CASES, or SNAPSYNC_LONG, SNAPSYNC_TIMES and SNAPSYNC_FROM, want of
    these."""
    wanted = os.environ.get('SNAPSYNC_CASES')
    if wanted:
        return rng.sample(cases, min(int(wanted), len(cases)))
    if not os.environ.get('SNAPSYNC_LONG'):
        return None
    times = int(os.environ.get('SNAPSYNC_TIMES') or 1)
    return often(cases, times)[int(os.environ.get('SNAPSYNC_FROM') or 0):]


def often(cases, times):
    """All of them; then again, round by round, those that would else come less than so
    many times, where cases differ that do so in more than in which of the steps of one
    name it is."""
    chosen, came = list(cases), collections.Counter(map(but_which, cases))
    for case in cases * (times - 1):
        if came[but_which(case)] < times:
            came[but_which(case)] += 1
            chosen.append(case)
    return chosen


def but_which(case):
    return tuple(value for field, value in case._asdict().items()
                 if field not in ('step', 'nth'))
