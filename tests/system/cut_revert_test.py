#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 20000 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""The network is cut before or after each message of a revert (cut_proxy.py): on the
way to the agent that writes the volume, by snapsync-send and by the agent that sends, or
on that of the order, from snapsync-send to the agent that sends. The same command ends by
itself with exit code 0 and makes the generations that an uncut one makes; the volume is
then what the replica is, and was before that or the old one.

  SNAPSYNC_CASES=N    how many (12; each message in each way with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import collections
import random

import kills
import lab
import reverts_place
import volumes_place
from cut_proxy import TO_AGENT, TO_SENDER, WAYS, Proxy

CASES = 12
TIMEOUT, OUTAGE = 20, 25  # seconds: of both agents and snapsync-send; that a silence lasts
DATA, ORDER = 'data', 'order'

# point: as in cut_proxy.Proxy.
Case = collections.namedtuple('Case', 'line direction point way')


class Reverts(reverts_place.Reverts):
    """With a network that can be cut between any two of the three."""

    def __init__(self, rng):
        self.ports = {}
        super().__init__(rng)

    def make_agent(self):
        agent = super().make_agent()
        agent.timeout = self.other.timeout = TIMEOUT
        return agent

    def arguments(self):
        source, *others, port, yes, retry, seconds = super().arguments()
        return (source, *others, str(self.ports.get(ORDER, port)), yes, retry, seconds,
                '--timeout', str(TIMEOUT))

    def run(self, case=None):
        """The revert over networks of which one may be cut, and both networks."""
        proxies = {}
        for line, port in ((DATA, self.agent.port), (ORDER, self.other.port)):
            cut = case[1:] if case and case.line == line else ()
            proxies[line] = Proxy(port, *cut, outage=OUTAGE)
            proxies[line].start()
        self.ports = {line: proxy.port for line, proxy in proxies.items()}
        result = lab.Sync(*self.arguments(), port=self.ports[DATA],
                          command=self.COMMAND).wait()
        self.ports = {}
        for proxy in proxies.values():
            proxy.stop()
        return result, proxies


def describe(case):
    return '%s: %s %s record %d to the %s' % (
        case.line, case.way, 'after' if case.point % 2 else 'before', case.point // 2,
        'agent' if case.direction == TO_AGENT else 'other side')


def run_case(place, case):
    """Violations, and whether the network was cut. How many messages there are differs a
    little."""
    for _ in range(3):
        bad, cut, records = play(place, case)
        if bad or cut:
            break
        case = case._replace(point=max(0, min(case.point, 2 * records) - 2))
    return bad, cut


def play(place, case):
    """Violations, whether the network was cut, and how many messages there were."""
    bad = kills.Violations()
    place.prepare(volumes_place.UPDATE)
    old, new, number = place.old(), place.new(), place.number
    begin = len(place.agent.log())
    result, proxies = place.run(case)
    bad.unless(place.seen() == (new if result.code == 0 else old),
               'the volume is not what it should be')
    for proxy in proxies.values():
        bad.unless(not proxy.error, 'a fault of the test', proxy.error)
    wanted = number + place.MAKES
    bad.unless(result.code == 0 and result['number'] == wanted,
               'it should end and make number %d' % wanted, result)
    made = place.agent.log()[begin:].count(' committed\n')
    bad.unless(made == 1, 'commits of what was sent', made)  # the other is what was there
    if result.code != 0:
        after = place.sync()
        bad.unless(after.code == 0 and place.seen() == new, 'nor does the next', after)
    bad.extend('left over: ' + text for text in place.leftovers())
    place.number = place.now()
    cut = proxies[case.line]
    return bad, cut.cut_bytes is not None, cut.records[case.direction]


def choose(rng, records):
    """By line, direction and way in turn."""
    groups = [[Case(line, direction, point, way) for point in range(2 * count)]
              for line, counts in records.items()
              for direction, count in zip((TO_AGENT, TO_SENDER), counts) for way in WAYS]
    turns = [kills.shuffled(rng, cases) for cases in kills.shuffled(rng, groups)]
    everything = [cases[turn] for turn in range(max(map(len, turns))) for cases in turns
                  if turn < len(cases)]
    return kills.limit(rng, everything) or everything[:CASES]


def main():
    seed = lab.seed_from_environment()
    rng = random.Random(seed)
    volumes_place.steps.build()
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    place = Reverts(rng)
    place.prepare(volumes_place.UPDATE)
    result, proxies = place.run()
    lab.expect('an uncut revert', result.code == 0, result)
    place.number = result['number']
    records = {line: proxy.records for line, proxy in proxies.items()}
    print('records to the agent and back: %s' % records)
    kills.run_all(place, 'network cut at a message of a revert', choose(rng, records), seed,
                  run_one=run_case, describe_one=describe,
                  name_one=lambda _, case: case, share=0.75)
    place.agent.stop()
    lab.finish()


main()
