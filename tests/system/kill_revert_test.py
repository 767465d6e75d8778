#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 9000 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""kill_test.py on a thin volume that is brought back (snapsync-send revert): at its steps
the agent that writes it is killed, or that and the program that ordered it; at those of
the agent of the replica, which sends, that one or both agents. Then the same command
goes on, or is given again; before, there may be kills at each step of the start of the
agent that writes.

  SNAPSYNC_CASES=N    how many, drawn from all (12, among them two that once went wrong;
                      all of them with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import kills
import lab
import reverts_place
import volumes_place

CASES = 12


def went_wrong(case):
    """The agent had lost the ticket of the one that sends, which then had no right. And
    what was sent after the agent had made what was there a generation passed for an
    earlier revert, whose receipt was given."""
    return (case.name in ('fdatasync vol.journal', 'spawned lvchange') and case.nth == 1 and
            case.victims == ('agent',) and case.way == kills.RESUME)


def choose(rng, counted):
    everything = [case for case in kills.all_cases(counted) if case.way != kills.ABORT]
    known = kills.known(everything, went_wrong, 2)
    return kills.limit(rng, everything) or (
        known + kills.sample(rng, everything, False))[:CASES]


kills.play(reverts_place.Reverts, [volumes_place.UPDATE], choose,
           'SIGKILL at a step, revert', share=0.75)
lab.finish()
