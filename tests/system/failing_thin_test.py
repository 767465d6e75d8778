#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 9000 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""failing_step_test.py on thin volumes: a durable step of agent or sender that fails,
among them LVM's commands: which can't be started, fail, or do all and then fail. What
must hold is in failing.py. Besides, no snapshot is left but the base and the last three
generations, and no metadata snapshot.

  SNAPSYNC_CASES=N    how many, drawn from all (4 of LVM's commands, 2 others; all of
                      them with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import failing
import kills
import volumes_place


def choose(rng, counted):
    everything = failing.all_cases(counted, [failing.SAME])
    commands = [case for case in everything if case.name.startswith('spawn')]
    others = [case for case in everything if not case.name.startswith('spawn')]
    return kills.limit(rng, everything) or rng.sample(commands, 4) + rng.sample(others, 2)


volumes_place.play(choose, 'the k-th operation fails, thin volumes', run_one=failing.run_case,
                   describe_one=failing.describe)
