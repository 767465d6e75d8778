#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""SIGKILL at each durable step of a sync of files (steps.c names and counts them):
of the agent, of the sender, of both at once; then the same command again, or an
abort, or first of all kills of the agent at each step of its next start. kills.py has
what must hold. A first sync, and one that sends what differs.

  SNAPSYNC_CASES=N    how many, drawn from all (each step in one way; in all of them
                      with SNAPSYNC_LONG)
  SNAPSYNC_WAYS=W     only some of "resume,abort,restarts"
  SNAPSYNC_TIMES=N    with SNAPSYNC_LONG, steps of each name so often at least
  SNAPSYNC_SEED=S
"""
import host_lab  # before lab
import files_place
import kills


def choose(rng, counted):
    everything = kills.all_cases(counted)
    return kills.limit(rng, everything) or kills.sample(rng, everything, True)


host_lab.play(lambda: kills.play(files_place.Files, files_place.SCENARIOS, choose,
                                 'SIGKILL at a step, files'))
