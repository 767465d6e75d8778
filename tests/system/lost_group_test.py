#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --timeout 900 --disk :1G --disk :1G --scratch /var/lib/snapsync-lab:256M
"""LVM does not find the group of a replica any more. docs/operating.md brings it back,
with each generation, and the next sync sends what changed and nothing else:

- after a power cut which left of LVM's newest metadata only a part;
- when all metadata are gone from the disk, and LVM's own copies with them, with the copy
  that the agent keeps;
- when somebody changed the pool after that copy was made: what does not fit together is
  told, and mended.
"""
import os
import random
import re

import lab
import nas_disk
import power
import runbook
from lab import LAB, MIB, expect, run

SRC, TARGET, SIZE = '/dev/nas1/vol', '/dev/nas2/replica', 16 * MIB
GROUP, DISK = 'nas2', '/dev/ubdb'
COPY = LAB + '/agent/lvm/' + GROUP


def sync(rng):
    lab.write_randomly(rng, SRC, 5)
    result = lab.sync(SRC, 'replica', 'lost')
    expect('a sync: exit code 0', result.code == 0, result)
    expect('equal', lab.contents(TARGET) == lab.contents(SRC))
    return result


def wipe():
    run('vgchange', '-qq', '-an', GROUP)
    kept = run('lvmconfig', 'backup/backup_dir').split('"')[1]
    os.unlink(kept + '/' + GROUP)
    lab.write_device(DISK, 0, bytes(MIB))
    expect('LVM does not know the group', 'not found' in run('vgs', GROUP, check=False))


def tear(sector):
    """The power was cut before a sector of LVM's newest metadata was on the disk."""
    run('vgchange', '-qq', '-an', GROUP)
    with open(DISK, 'r+b') as f:
        disk = f.read(MIB)
        area, _ = nas_disk.metadata_area(disk, 0)
        at, length = nas_disk.committed(disk, area)
        lost = range(area + at, area + at + length, power.SECTOR)[sector]
        f.seek(lost)
        f.write(bytes(power.SECTOR))
        f.flush()
        os.fsync(f.fileno())
    expect('LVM does not know the group', 'not found' in run('vgs', GROUP, check=False))


def main():
    rng = random.Random(lab.seed_from_environment())
    lab.make_certificates(lab.PKI, 'nas1', 'nas2')
    lab.make_nas_pair(300 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    agent = lab.Agent([('replica', TARGET, 'thin')], port=7780).start()
    for _ in range(2):
        sync(rng)
    volumes = lab.volumes(GROUP)
    agent.stop()
    for number, sector in enumerate((0, 2, -1), start=3):
        tear(sector)
        runbook.restore_group(GROUP, DISK)
        run('vgchange', '-qq', '-ay', GROUP)
        expect('no generation is lost', set(lab.volumes(GROUP)) >= set(volumes),
               lab.volumes(GROUP))
        agent.start()
        result = sync(rng)
        expect('what changed was sent', result['method'] == 'metadata' and
               result['number'] == number, result)
        volumes = lab.volumes(GROUP)
        agent.stop()
    wipe()
    runbook.recreate_group(GROUP, DISK, COPY)
    expect('all volumes are back', lab.volumes(GROUP) == volumes, lab.volumes(GROUP))
    agent.start()
    result = sync(rng)
    expect('what changed was sent', result['method'] == 'metadata' and
           result['number'] == 6, result)
    agent.stop()

    lab.make_thin(GROUP, 'pool', 'other', SIZE)
    wipe()
    said = runbook.recreate_group(GROUP, DISK, COPY)
    behind = re.search(runbook.BEHIND, said)
    expect('LVM knows less than the pool', behind, said)
    agent.start()
    lab.write_randomly(rng, SRC, 5)
    result = lab.sync(SRC, 'replica', 'lost')
    expect('a sync: exit code 9, and where to read on',
           result.code == lab.TARGET_UNSUITABLE and
           'docs/operating.md' in result['error'], result)
    agent.stop()
    runbook.renumber(GROUP, *behind.groups())
    run('vgchange', '-qq', '-ay', GROUP)
    agent.start()
    result = sync(rng)
    expect('what changed was sent', result['method'] == 'metadata' and
           result['number'] == 7, result)
    agent.stop()
    lab.finish()


main()
