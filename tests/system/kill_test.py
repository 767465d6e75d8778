#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""SIGKILL at each durable step of a sync of files (steps.c names and counts them):
of the agent, of the sender, of both at once; then the same command again, or an
abort. kills.py has what must hold. A first sync, and one that sends what differs.

  SNAPSYNC_CASES=N    how many, drawn from all (each step in one way; in all of them
                      with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import os
import random
import shutil
import tempfile

LAB = tempfile.mkdtemp(prefix='snapsync-kill-')
os.environ['SNAPSYNC_LAB'] = LAB  # lab wants to know it

import files_place  # noqa: E402
import kills  # noqa: E402
import lab  # noqa: E402
import steps  # noqa: E402


def main():
    seed = lab.seed_from_environment()
    rng = random.Random(seed)
    steps.build()
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    files = files_place.Files(rng)
    everything = kills.all_cases(kills.count_all(files, (files_place.FIRST,
                                                         files_place.UPDATE)))
    cases = kills.limit(rng, everything) or kills.sample(rng, everything, True)
    kills.run_all(files, 'SIGKILL at a step, files', cases, seed)
    files.agent.stop()
    lab.finish()


try:
    main()
finally:
    shutil.rmtree(LAB)
