#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""A durable step of a sync of files that fails, in the agent or in the sender: with
EIO, with ENOSPC, as a write that writes half, or as a flush that fails from then on.
Nothing crashes; the sync ends with a documented exit code and names what failed, the
target is old or new, and the next sync is right, also of another source. Above all, no
sync succeeds in which a flush has failed (but of the manifest, which is no condition of a
sync).

  SNAPSYNC_CASES=N    how many, drawn from all (nearly each step, failing in one way;
                      with SNAPSYNC_LONG in each way)
  SNAPSYNC_SEED=S
"""
import host_lab  # before lab
import failing
import files_place
import kills


def choose(rng, counted):
    everything = failing.all_cases(counted, (failing.SAME, failing.TWIN))
    return kills.limit(rng, everything) or sample(rng, everything)


def sample(rng, cases):
    """Each step in one way; of a first sync's sender only what is not in an update."""
    known = {case.name for case in cases if case.scenario == files_place.UPDATE}
    by_step = {}
    for case in cases:
        if (case.scenario == files_place.UPDATE or case.program == 'agent' or
                case.name not in known):
            by_step.setdefault(case[:3], []).append(case)
    return [rng.choice(group) for group in by_step.values()]


host_lab.play(lambda: kills.play(files_place.Files, files_place.SCENARIOS, choose,
                                 'the k-th operation fails', run_one=failing.run_case,
                                 describe_one=failing.describe))
