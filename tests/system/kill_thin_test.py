#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 9000 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""kill_test.py on thin volumes: SIGKILL at a durable step of agent, sender, or both,
among them LVM's commands, before they start and while they run; then one of the ways of
kill_test.py. kills.py has what must hold. Besides, no snapshot is left but the
base and the last three generations, and no metadata snapshot.

  SNAPSYNC_CASES=N    how many, drawn from all (20, among them two that once went wrong;
                      all of them with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import kills
import lab
import volumes_place

CASES = 20


def went_wrong(case):
    """An old generation stayed: the agent was killed after the commit, before it removed
    that, and the sync that was asked for again had nothing to do. A metadata snapshot
    stayed: its note was empty while it was written anew."""
    return case.victims == kills.BOTH and (
        (case.name == 'unlink replica.manifest-log' and case.way == kills.RESUME) or
        (case.name == 'pwrite metadata-snapshot' and case.way == kills.ABORT and
         case.nth == 2 and case.program == 'sender'))


def choose(rng, counted):
    everything = kills.all_cases(counted)
    known = kills.known(everything, went_wrong, 2)
    return kills.limit(rng, everything) or (
        known + kills.sample(rng, everything, False))[:CASES]


kills.play(volumes_place.Volumes, [volumes_place.UPDATE], choose,
           'SIGKILL at a step, thin volumes', share=1.5)
lab.finish()
