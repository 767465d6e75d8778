#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 9000 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""failing_step_test.py on thin volumes: a durable step of agent or sender that fails,
among them LVM's commands: which can't be started, fail, or do all and then fail. What
must hold is in failing.py. Besides, no snapshot is left but the base and the last three
generations, and no metadata snapshot.

  SNAPSYNC_CASES=N    how many, drawn from all (those that once went wrong, and 10 more;
                      all of them with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import failing
import kills
import lab
import volumes_place

# A snapshot stayed for good; an old generation stayed until the next commit; a commit was
# acknowledged that may not have been durable.
WENT_WRONG = [('sender', 'fsync ubda after lvcreate', 'EIO'),
              ('agent', 'spawn lvremove', 'EIO'),
              ('agent', 'fsync ubdb after lvconvert', failing.FOR_GOOD)]


def went_wrong(case):
    return (case.program, case.name, case.fault) in WENT_WRONG


def choose(rng, counted):
    everything = failing.all_cases(counted, [failing.SAME])
    known = kills.known(everything, went_wrong, len(WENT_WRONG))
    commands = [case for case in everything if case.name.startswith('spawn')]
    others = [case for case in everything if not case.name.startswith('spawn')]
    return kills.limit(rng, everything) or (
        known + rng.sample(commands, 4) + rng.sample(others, 6))


kills.play(volumes_place.Volumes, [volumes_place.UPDATE], choose,
           'the k-th operation fails, thin volumes', run_one=failing.run_case,
           describe_one=failing.describe, share=1.5)
lab.finish()
