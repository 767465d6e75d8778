#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 768M --timeout 1500 --disk :2G --disk :2G --scratch /var/lib/snapsync-lab:512M
"""Revert on real thin pools, between two agents in two network namespaces: back to the
newest state, to an older one, and undone; the old tool's line; who has no right; and
the fail-back runbook of docs/failback.md, with an agent killed in the middle. Bytes are
compared, and no more is sent than differs on either side.
"""
import os
import random
import re
import shutil
import subprocess
import time

import lab
from lab import BLOCK, MIB, expect, run

SIZE = 64 * MIB
SRC, REPLICA = '/dev/nas1/vol', '/dev/nas2/replica'
NAS1, NAS2 = '10.77.0.1', '10.77.0.2'


class NamespaceAgent(lab.Agent):
    """An agent in a network namespace, where /etc/snapsync is its own."""

    def __init__(self, node, host, agent_volumes, clients):
        super().__init__(agent_volumes, name=node, clients=clients, host=host,
                         directory='%s/%s' % (lab.LAB, node))
        self.etc = '/etc/netns/%s/snapsync' % node
        os.makedirs(self.etc, exist_ok=True)
        os.makedirs('/etc/snapsync', exist_ok=True)
        with open(self.etc + '/send.toml', 'w') as f:
            f.write('[defaults]\nstate-directory = "%s"\ntimeout = 60\n[tls]\n'
                    'ca = "%s/ca.crt"\ncert = "%s/%s.crt"\nkey = "%s/%s.key"\n' % (
                        self.directory, lab.PKI, lab.PKI, node, lab.PKI, node))

    def write_configuration(self):
        shutil.copyfile(super().write_configuration(), self.etc + '/agent.toml')
        return '/etc/snapsync/agent.toml'

    def start(self):
        # The one that runs is the child of `ip`.
        programs = lab.PROGRAMS
        wrapper = '%s/in-%s' % (lab.LAB, self.name)
        os.makedirs(wrapper, exist_ok=True)
        with open(wrapper + '/snapsync-agent', 'w') as f:
            f.write('#!/bin/sh\nexec ip netns exec %s %s/snapsync-agent "$@"\n' % (
                self.name, programs))
        os.chmod(wrapper + '/snapsync-agent', 0o755)
        lab.PROGRAMS = wrapper
        try:
            return super().start()
        finally:
            lab.PROGRAMS = programs


def start(node, *command):
    """A command on a node."""
    return subprocess.Popen(['ip', 'netns', 'exec', node, *command],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True,
                            env=dict(os.environ, PATH='%s:%s' % (
                                lab.PROGRAMS, os.environ['PATH'])))


def end(process):
    out, err = process.communicate(timeout=300)
    return lab.Result(process.returncode, out, err)


def send(node, *arguments, identity=None):
    """snapsync-send on a node."""
    if identity:
        arguments += ('--tls-cert', '%s/%s.crt' % (lab.PKI, identity),
                      '--tls-key', '%s/%s.key' % (lab.PKI, identity))
    return end(start(node, 'snapsync-send', *arguments, '--json'))


def sync(*arguments):
    return send('nas1', 'sync', '--src', SRC, '--dst', 'nas2:replica', '--uuid', 'u',
                *arguments)


def revert(*arguments, node='nas1', generation='', identity=None):
    return send(node, 'revert', '--src', 'nas2:replica' + generation,
                '--dst', 'nas1:vol', '--uuid', 'u', *arguments, identity=identity)


def set_up():
    lab.make_certificates(lab.PKI, 'nas1', 'nas2', 'nas3')
    with open('/etc/hosts', 'a') as f:
        f.write('%s nas1\n%s nas2\n' % (NAS1, NAS2))
    lab.make_nas_pair(1200 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    # Other extents, another size.
    lab.make_thin('nas2', 'pool', 'replica', SIZE + 4 * MIB)
    for node, address in (('nas1', NAS1), ('nas2', NAS2)):
        run('ip', 'netns', 'add', node)
        run('ip', 'netns', 'exec', node, 'ip', 'link', 'set', 'lo', 'up')
    run('ip', 'link', 'add', 'to-nas2', 'netns', 'nas1', 'type', 'veth', 'peer', 'name',
        'to-nas1', 'netns', 'nas2')
    for node, device, address in (('nas1', 'to-nas2', NAS1), ('nas2', 'to-nas1', NAS2)):
        run('ip', 'netns', 'exec', node, 'ip', 'addr', 'add', address + '/24', 'dev', device)
        run('ip', 'netns', 'exec', node, 'ip', 'link', 'set', device, 'up')
    lab.make_thin('nas1', 'pool', 'wide', 16 * MIB)
    lab.make_thin('nas2', 'pool', 'narrow', 16 * MIB)
    nas1 = NamespaceAgent('nas1', NAS1, [('vol', SRC, 'thin'),
                                         ('wide', '/dev/nas1/wide', 'thin')],
                          [('nas1', ['revert', 'send'], ['vol', 'wide']), ('nas2', ['revert'], ['vol', 'wide']), ('nas3', ['revert'], ['no*'])])
    nas2 = NamespaceAgent('nas2', NAS2, [('replica', REPLICA, 'thin'),
                                         ('narrow', '/dev/nas2/narrow', 'thin')],
                          [('nas1', ['receive', 'send'], ['replica', 'narrow']),
                           ('nas3', [], [])])
    return nas1.start(), nas2.start()


def blocks_that_differ(one, other):
    return sum(BLOCK for a, b in zip(one, other) if a != b and b != lab.ZEROES)


def check(what, result, device, wanted, most=None, method='metadata'):
    expect('%s: exit code 0' % what, result.code == 0, result)
    different = lab.first_difference(device, wanted, len(wanted) * BLOCK)
    expect('%s: equal' % what, different is None, different)
    if most is not None and result.code == 0:
        expect('%s: method %s' % (what, method), result['method'] == method, result)
        expect('%s: no more sent than differs' % what,
               result['sent_bytes'] <= 1.02 * most, '%s; %d' % (result, most))


def from_a_smaller_one(rng):
    """What the volume had behind the replica's end is not in common afterwards."""
    def sync_wide(what):
        result = send('nas1', 'sync', '--src', '/dev/nas1/wide', '--dst', 'nas2:narrow',
                      '--uuid', 'w')
        check(what, result, '/dev/nas2/narrow', lab.contents('/dev/nas1/wide'))

    lab.write_randomly(rng, '/dev/nas1/wide', 5)
    sync_wide('smaller replica, first sync')
    lab.grow('/dev/nas1/wide', 20 * MIB)
    lab.write_device('/dev/nas1/wide', 18 * MIB, rng.randbytes(BLOCK))
    result = end(start('nas2', 'snapsync-agent', 'promote', 'narrow'))
    expect('smaller replica, promoted', result.code == 0, result)
    lab.write_device('/dev/nas2/narrow', 3 * MIB, rng.randbytes(BLOCK))
    wanted = lab.contents('/dev/nas2/narrow')
    result = send('nas1', 'revert', '--src', 'nas2:narrow', '--dst', 'nas1:wide',
                  '--uuid', 'w', '--yes')
    check('smaller replica, reverted to', result, '/dev/nas1/wide', wanted)
    lab.grow('/dev/nas2/narrow', 20 * MIB)
    sync_wide('smaller replica, enlarged')


def back_and_forth(rng):
    lab.write_randomly(rng, SRC, 30)
    check('first sync', sync(), REPLICA, lab.contents(SRC))
    first = lab.contents(SRC)
    lab.write_randomly(rng, SRC, 5)
    lab.discard_randomly(rng, SRC, 3)
    second = lab.contents(SRC)
    check('second sync', sync(), REPLICA, second)

    # Mistakes are made on the source; the replica has it still.
    lab.write_randomly(rng, SRC, 6)
    lab.discard_randomly(rng, SRC, 4)
    spoilt = lab.contents(SRC)
    result = revert()
    expect('without --yes nothing is done', result.code == lab.USAGE, result)
    result = revert('--yes', identity='nas3')
    expect('nas3 has no right to order', result.code == lab.PERMISSION, result)
    expect('refused: the volume is what it was', lab.contents(SRC) == spoilt)
    check('revert', revert('--yes', node='nas2'), SRC, second, blocks_that_differ(spoilt, second))
    undo = send('nas1', 'revert', '--src', 'nas1:vol@1', '--dst', 'nas1:vol', '--uuid',
                'u', '--yes')
    check('undone', undo, SRC, spoilt, blocks_that_differ(second, spoilt))
    check('done again', revert('--yes'), SRC, second, blocks_that_differ(spoilt, second))
    check('sync after it', sync(), REPLICA, second, 0)

    listed = send('nas1', 'revert', '--src', 'nas2:replica', '--list')
    numbers = [g['number'] for g in listed['generations'] or [] if g['retained']]
    expect('--list shows what there is', numbers[:2] == [1, 2], listed)
    check('revert to the first', revert('--yes', generation='@1'), SRC, first,
          blocks_that_differ(second, first))
    lab.write_randomly(rng, SRC, 3)
    now = lab.contents(SRC)
    check('sync after it', sync(), REPLICA, now, blocks_that_differ(second, now))

    # The old tool's line, as it was but for the program.
    lab.write_randomly(rng, SRC, 3)
    result = send('nas1', 'master', '--port', '22', '--meta', '/dev/mapper/nas2-pool_tmeta',
                  '--id', '4', '--src', 'admin@nas2:' + REPLICA,
                  '--dst', 'admin@nas1:' + SRC, '--uuid', 'u')
    check("the old tool's line", result, SRC, now)
    result = revert('--yes', generation='@99')
    expect('no such generation', result.code == lab.TARGET_UNSUITABLE, result)
    fd = os.open(SRC, os.O_RDONLY)
    result = revert('--yes')
    os.close(fd)
    expect('a volume in use is busy', result.code == lab.BUSY, result)


def runbook():
    """The commands of docs/failback.md: (node, command) in their order."""
    with open(lab.ROOT + '/docs/failback.md') as f:
        return re.findall(r'^ {4}(nas[12])# (.*)$', f.read(), re.MULTILINE)


def fail_back(rng, nas1, nas2):
    # nas1 is lost with changes that nobody has; nas2 takes over.
    check('a last sync', sync(), REPLICA, lab.contents(SRC))
    common = lab.contents(SRC)
    lab.write_randomly(rng, SRC, 4)
    nas1.kill()
    (promote, dry_run, revert_line, sync_line, list_line) = runbook()
    result = end(start(promote[0], *promote[1].split()))
    expect('runbook: ' + promote[1], result.code == 0, result)
    result = sync()
    expect('a promoted replica receives nothing', result.code == lab.TARGET_UNSUITABLE,
           result)
    lab.write_randomly(rng, REPLICA, 6)
    lab.discard_randomly(rng, REPLICA, 2)
    taken_over = lab.contents(REPLICA)
    nas1.start()
    result = revert('--yes')
    expect('a volume that is smaller than the promoted one',
           result.code == lab.TARGET_UNSUITABLE, result)
    lab.grow(SRC, SIZE + 4 * MIB)
    stale = lab.contents(SRC)
    result = end(start(dry_run[0], *dry_run[1].split()))
    expect('runbook: ' + dry_run[1], result.code == lab.DONE, result)
    # nas2 is killed in the middle of bringing nas1 back.
    logged, begin = len(nas1.log()), time.time()
    process = start(revert_line[0], *revert_line[1].split(), '--speed-limit', '256K', '--json')
    while 'goes on at chunk' not in nas1.log(logged) and time.time() < begin + 60:
        time.sleep(0.1)
    time.sleep(0.5)
    nas2.kill()
    expect('cut: nas1 is what it was', lab.contents(SRC) == stale)
    time.sleep(1)
    nas2.start()
    union = sum(BLOCK for c, s, t in zip(common + [lab.ZEROES] * 64, stale, taken_over)
                if (s != c or t != c) and t != lab.ZEROES)
    check('runbook: ' + revert_line[1], end(process), SRC, taken_over, union)
    lab.write_randomly(rng, SRC, 4)
    now = lab.contents(SRC)
    check('runbook: ' + sync_line[1],
          end(start(sync_line[0], *sync_line[1].split(), '--json')), REPLICA, now,
          blocks_that_differ(taken_over, now))
    lab.write_randomly(rng, SRC, 2)
    before, now = now, lab.contents(SRC)
    check('and once more', sync(), REPLICA, now, blocks_that_differ(before, now))
    result = end(start(list_line[0], *list_line[1].split()))
    expect('runbook: ' + list_line[1], 'replica@' in result.stdout, result)


def main():
    rng = random.Random(lab.seed_from_environment())
    nas1, nas2 = set_up()
    from_a_smaller_one(rng)
    back_and_forth(rng)
    fail_back(rng, nas1, nas2)
    if lab.failures:
        print(nas1.log()[-4000:], nas2.log()[-6000:])
    expect('nas1 ends well', nas1.stop() == 0)
    expect('nas2 ends well', nas2.stop() == 0)
    lab.finish()


main()
