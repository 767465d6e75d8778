#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 9000 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""kill_test.py on thin volumes: SIGKILL at a durable step of agent, sender, or both,
among them LVM's commands, before they start and while they run; then the same command
again, or an abort. kills.py has what must hold. Besides, no snapshot is left but the
base and the last three generations, and no metadata snapshot.

  SNAPSYNC_CASES=N    how many, drawn from all (5, each of another name; all of them with
                      SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import kills
import volumes_place

CASES = 5


def choose(rng, counted):
    everything = kills.all_cases(counted)
    return kills.limit(rng, everything) or kills.sample(rng, everything, False)[:CASES]


volumes_place.play(choose, 'SIGKILL at a step, thin volumes')
