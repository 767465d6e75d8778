#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""kill_test.py on QCOW2 images: an export to an agent, new and brought up to date, and
an import. qemu-img says what is in an image.

  SNAPSYNC_CASES=N    how many of each, drawn from all (each step in one way; in all of
                      them with SNAPSYNC_LONG)
  SNAPSYNC_SEED=S
"""
import host_lab  # before lab
import files_place
import images_place
import kills


def choose(rng, counted):
    everything = kills.all_cases(counted)
    return kills.limit(rng, everything) or kills.sample(rng, everything, True)


def main():
    for make_place, title in ((images_place.Exports, 'exports'),
                              (images_place.Imports, 'imports')):
        kills.play(make_place, files_place.SCENARIOS, choose,
                   'SIGKILL at a step, QCOW2 ' + title, share=0.5)


host_lab.play(main)
