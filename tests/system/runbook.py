# SPDX-License-Identifier: Apache-2.0
"""What docs/operating.md tells to do when LVM does not bring a group up by itself."""
import contextlib
import os
import re

from lab import run

BEHIND = r'transaction_id is (\d+), while expected (\d+)'
CLEAR = 'global/thin_check_options=["-q","--clear-needs-check-flag"]'


def bring_up(group, disk, volume):
    """Activates what there is on a disk of a group, which has a pool, until there is the
    node of a volume; what that took: of 'restored' (LVM's metadata), 'repaired' (the
    pool's), 'renumbered' and 'checked'.

    A snapshot whose making was cut may not come up: the agent removes it. And Linux'
    dm-thin has a window in its metadata snapshots that leaves reference counts behind.
    """
    taken = []
    said = run('vgchange', '-qq', '-ay', group, check=False)
    if 'Volume group "%s" not found' % group in said:
        print(said.strip())
        restore_group(group, disk)
        taken.append('restored')
        said = run('vgchange', '-qq', '-ay', group, check=False)
    if not os.path.exists(volume) and 'Manual repair required' in said:
        print(said.strip())
        run('vgchange', '-qq', '-an', group)
        run('lvconvert', '-qq', '-y', '--repair', group + '/pool')
        run('lvremove', '-qq', '-f', group + '/pool_meta0')  # as they were
        taken.append('repaired')
        said = run('vgchange', '-qq', '-ay', group, check=False)
    behind = re.search(BEHIND, said)
    if behind:
        renumber(group, *behind.groups())
        taken.append('renumbered')
        said = run('vgchange', '-qq', '-ay', group, check=False)
    if 'needs_check' in run('dmsetup', 'status', group + '-pool-tpool', check=False):
        run('vgchange', '-qq', '-an', group)
        said = run('vgchange', '-qq', '-ay', '--config', CLEAR, group, check=False)
        taken.append('checked')
        found, expected = transaction_ids(group)
        if found != expected:  # LVM says so only when it next changes something
            renumber(group, found, expected)
            taken.append('renumbered')
            said = run('vgchange', '-qq', '-ay', group, check=False)
    if not os.path.exists(volume):
        raise RuntimeError(said)
    return ' '.join(taken)


def pool_is_well(group):
    status = run('dmsetup', 'status', group + '-pool-tpool').split()
    return 'rw' in status and 'needs_check' not in status


def transaction_ids(group):
    """Of the pool, as the kernel and as LVM say."""
    return (run('dmsetup', 'status', group + '-pool-tpool').split()[3],
            run('lvs', '--noheadings', '-o', 'transaction_id', group + '/pool').strip())


def renumber(group, found, expected):
    """LVM counts changes of a pool that the kernel has taken back."""
    path = '/run/%s.renumbered' % group
    run('vgchange', '-qq', '-an', group)
    run('vgcfgbackup', '-qq', '-f', path, group)
    run('sed', '-i', 's/^\\(\\s*transaction_id = \\)%s$/\\1%s/' % (expected, found), path)
    run('vgcfgrestore', '-qq', '--force', '-f', path, group)


def restore_group(group, disk):
    """LVM writes its metadata and where they lie without a flush in between: the newest
    metadata that the disk has, but for those of which LVM says that they are not whole."""
    torn = re.findall(r'Checksum error on \S+ at offset (\d+)',
                      run('vgs', group, check=False))
    found = run('pvck', '--dump', 'metadata_search', disk, check=False)
    newest = max(int(number) for at, number in re.findall(
        r'metadata at (\d+) .* vg %s seqno (\d+)' % group, found) if at not in torn)
    path = '/run/%s.vg' % group
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # pvck writes over no file
    run('pvck', '--dump', 'metadata_search', '--settings', 'seqno=%d' % newest, '-f', path,
        disk, check=False)
    run('pvck', '-y', '--repair', '-f', path, disk)


def recreate_group(group, disk, copy):
    """From a copy of its metadata, where the disk has none any more. What LVM says when
    it is activated."""
    with open(copy) as f:
        volume = re.search(r'pv0 \{\s*id = "([^"]+)"', f.read()).group(1)
    run('pvcreate', '-qq', '-ff', '-y', '--uuid', volume, '--restorefile', copy, disk)
    run('vgcfgrestore', '-qq', '--force', '-f', copy, group)
    return run('vgchange', '-qq', '-ay', group, check=False)
