#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: guest --mem 512M --disk :2G --disk :2G --scratch /var/lib/snapsync-lab:256M
"""What must be refused, is: with the documented exit code, a message that says
why, and not one byte written: neither to the target nor to the volumes beside it.
"""
import os
import random
import shutil
import subprocess

import lab
from lab import MIB, expect, run

SIZE = 32 * MIB
SRC = '/dev/nas1/vol'
TARGET = '/dev/nas2/replica'


def state_of_nas2():
    """The contents and the names of all that a wrong write could hit."""
    names = lab.volumes('nas2')
    active = [n for n in names if os.path.exists('/dev/nas2/' + n)]
    return [(n, lab.contents('/dev/nas2/' + n)) for n in active], names


def refused(what, code, *arguments, words=(), volume='replica', uuid='one',
            src=SRC, **options):
    before = state_of_nas2()
    result = lab.sync(src, volume, uuid, *arguments, **options)
    expect('%s: exit code %d' % (what, code), result.code == code, result)
    expect('%s: the JSON says so' % what,
           result['result'] == 'error' and result['exit_code'] == result.code,
           result.stdout)
    message = result.stderr.strip()
    expect('%s: a message' % what, message and
           all(word in result.text for word in words), result)
    expect('%s: not one byte written' % what, state_of_nas2() == before)


def accepted(what, *arguments, volume='replica', uuid='one', src=SRC,
             target=TARGET, method=None, **options):
    result = lab.sync(src, volume, uuid, *arguments, **options)
    expect('%s: exit code 0' % what, result.code == 0, result)
    if method:
        expect('%s: by method %s' % (what, method), result['method'] == method, result)
    expect('%s: the target is equal' % what,
           lab.contents(target) == lab.contents(src))


def set_up():
    lab.make_certificates(lab.PKI, 'nas1', 'nas2', 'nas3', 'nas4')
    lab.make_certificates(lab.LAB + '/otherca', 'nas1', 'nas2')
    lab.make_group('/dev/ubda', 'nas1')
    lab.make_group('/dev/ubdb', 'nas2')
    lab.make_pool('nas1', 'pool', 1000 * MIB)
    lab.make_pool('nas2', 'pool', 1000 * MIB)
    lab.make_thin('nas1', 'pool', 'vol', SIZE)
    run('mkfs.ext4', '-q', SRC)
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    lab.make_thin('nas2', 'pool', 'small', SIZE - 4 * MIB)
    lab.make_thin('nas2', 'pool', 'used', SIZE)
    lab.write_device('/dev/nas2/used', 0, random.Random(1).randbytes(MIB))
    lab.make_thin('nas2', 'pool', 'secret', SIZE)


def certificates(agent):
    refused('no certificate file', lab.PERMISSION, '--tls-cert',
            lab.LAB + '/missing.crt', words=['missing.crt'])
    shutil.copyfile(lab.PKI + '/nas3.key', lab.LAB + '/wrong.key')
    os.chmod(lab.LAB + '/wrong.key', 0o600)
    refused('a key of another certificate', lab.PERMISSION, '--tls-key',
            lab.LAB + '/wrong.key', words=['wrong.key'])
    with open(lab.LAB + '/garbage.crt', 'w') as f:
        f.write('no certificate\n')
    refused('a garbage certificate', lab.PERMISSION, '--tls-cert',
            lab.LAB + '/garbage.crt', words=['garbage.crt'])
    refused('a certificate of another CA', lab.PERMISSION,
            '--tls-cert', lab.LAB + '/otherca/nas1.crt',
            '--tls-key', lab.LAB + '/otherca/nas1.key')
    refused('the agent\'s certificate of another CA', lab.PERMISSION,
            '--tls-ca', lab.LAB + '/otherca/ca.crt')
    refused('a client that the agent does not know', lab.PERMISSION, identity='nas4')
    refused('a client without the right to send', lab.PERMISSION, identity='nas3')
    refused('a volume that is not granted', lab.PERMISSION, volume='secret')
    refused('a volume that does not exist', lab.PERMISSION, volume='nothing')
    agent.stop()
    refused('no agent', lab.CONNECTION, '--retry-for', '3')
    agent.start()


def unsuitable_targets():
    refused('a target that is too small', lab.TARGET_UNSUITABLE, volume='small')
    refused('a target with somebody\'s data', lab.TARGET_UNSUITABLE, volume='used')


def bases(agent):
    record = lab.LAB + '/record'
    shutil.copytree(agent.directory, record)  # the agent's state, at generation 1
    accepted('to a second generation', src=change())
    refused('a target of another replication', lab.TARGET_UNSUITABLE, uuid='two')

    change()
    agent.stop()
    os.rename(agent.directory, record + '.new')
    os.rename(record, agent.directory)
    agent.start()
    refused('a base that the agent is not at', lab.BASE_MISMATCH)
    agent.stop()
    shutil.rmtree(agent.directory)
    os.rename(record + '.new', agent.directory)
    agent.start()
    accepted('with the right base')

    saved = lab.LAB + '/sender.old'
    shutil.copytree(lab.LAB + '/sender', saved)
    change()
    accepted('to a further generation')
    change()
    accepted('a sender whose state is of an older generation', method='hash',
             state=saved)
    accepted('with the newest state, which is an older one now', method='metadata')

    change()
    lab.write_device(TARGET, 4 * MIB, random.Random(3).randbytes(4096))
    refused('a target that somebody wrote to', lab.BASE_MISMATCH)
    refused('the same, forced', lab.BASE_MISMATCH, '--method', 'hash')
    accepted('what either side changed, as told', '--yes', method='metadata')
    change()
    refused('all of it, not agreed to', lab.BASE_MISMATCH, '--method', 'full')
    accepted('all of it, as told', '--method', 'full', '--allow-full', method='full')


def change():
    lab.write_device(SRC, 8 * MIB, os.urandom(2 * lab.BLOCK))
    return SRC


def busy_targets():
    change()
    os.makedirs(lab.LAB + '/mnt', exist_ok=True)
    run('mount', '-o', 'ro,noload', TARGET, lab.LAB + '/mnt')
    refused('a mounted target', lab.BUSY)
    refused('a mounted target, with --yes', lab.BUSY, '--yes')
    run('umount', lab.LAB + '/mnt')

    holder = os.open(TARGET, os.O_RDONLY)
    # Also our own reading of it has to go: it is open, and that is the point.
    before = lab.volumes('nas2')
    result = lab.sync(SRC, 'replica', 'one')
    expect('a target open elsewhere: exit code 7', result.code == lab.BUSY, result)
    expect('a target open elsewhere: nothing is made', lab.volumes('nas2') == before)
    os.close(holder)

    run('dmsetup', 'create', 'holder', '--table', '0 8 linear %s 0' % TARGET)
    result = lab.sync(SRC, 'replica', 'one')
    expect('a target under another device: exit code 7', result.code == lab.BUSY, result)
    run('dmsetup', 'remove', 'holder')
    accepted('after all have let go')


def another_target_of_the_same_name():
    change()
    run('lvrename', '-qq', 'nas2/replica', 'nas2/before')
    lab.make_thin('nas2', 'pool', 'replica', SIZE)
    refused('another device under the path', lab.TARGET_UNSUITABLE)
    lab.remove('nas2', 'replica')
    run('lvrename', '-qq', 'nas2/before', 'nas2/replica')
    accepted('the right device again')


def metadata():
    change()
    snapshot = lab.make_snapshot('nas1', 'vol', 'manual')
    garbage = lab.LAB + '/garbage.meta'
    with open(garbage, 'wb') as f:
        f.write(random.Random(4).randbytes(MIB))
    thin_id = run('lvs', '--noheadings', '-o', 'thin_id', 'nas1/manual').strip()
    refused('metadata that is not that of the pool', lab.USAGE, '--meta', garbage,
            '--id', thin_id, src=snapshot)
    image = lab.LAB + '/image.raw'
    with open(image, 'wb') as f:
        f.truncate(MIB)
    refused('garbage as metadata', lab.IO, '--meta', garbage, '--id', '1', src=image)
    refused('a wrong device id', lab.USAGE, '--meta', '/dev/mapper/nas1-pool_tmeta',
            '--id', '7777', src=snapshot)
    with open(garbage, 'wb') as f:
        f.write(b'short')
    for base in ('none', '1'):
        delta = subprocess.run([lab.PROGRAMS + '/snapsync-send', 'delta', '--meta',
                                garbage, '--base-id', base, '--id', '2'],
                               capture_output=True, text=True)
        expect('delta of garbage, base %s: exit code 10' % base,
               delta.returncode == lab.IO and garbage in delta.stderr, delta)
    lab.remove('nas1', 'manual')


def command_lines(agent):
    refused('a source that does not exist', lab.USAGE, src='/dev/nas1/nothing')
    for what, arguments, code in (
            ('no arguments', [], lab.USAGE),
            ('an unknown command', ['send'], lab.USAGE),
            ('an unknown flag', ['sync', '--fast'], lab.USAGE),
            ('a missing flag', ['sync', '--src', SRC], lab.USAGE)):
        done = subprocess.run([lab.PROGRAMS + '/snapsync-send', *arguments],
                              capture_output=True, text=True)
        expect('%s: exit code %d' % (what, code),
               done.returncode == code and done.stderr, done)
    path = agent.write_configuration()
    with open(path) as f:
        good = f.read()
    for what, text, line in (
            ('an unknown key', good.replace('timeout =', 'timeoute ='), '5'),
            ('no TOML', good.replace('[tls]', '[tls'), '6'),
            ('a kind that there is not', good.replace('"thin"', '"thick"'), None)):
        with open(path + '.wrong', 'w') as f:
            f.write(text)
        done = subprocess.run([lab.PROGRAMS + '/snapsync-agent', 'check-config',
                               '--config', path + '.wrong'],
                              capture_output=True, text=True)
        expect('configuration with %s: exit code 3, its place' % what,
               done.returncode == lab.CONFIGURATION and
               path + '.wrong' in done.stderr and (line or '') in done.stderr, done)
    done = subprocess.run([lab.PROGRAMS + '/snapsync-agent', 'check-config',
                           '--config', path], capture_output=True, text=True)
    expect('a good configuration: exit code 0', done.returncode == 0, done)


def main():
    set_up()
    granted = ['replica', 'small', 'used']
    agent = lab.Agent(
        [(n, '/dev/nas2/' + n, 'thin') for n in granted + ['secret']],
        clients=[('nas1', ['receive'], granted), ('nas3', [], granted)]).start()
    certificates(agent)
    unsuitable_targets()
    command_lines(agent)
    accepted('a first sync')
    bases(agent)
    busy_targets()
    another_target_of_the_same_name()
    metadata()
    change()
    accepted('and at the end all is well')
    agent.stop()
    print(agent.log()[-3000:] if lab.failures else '', end='')
    lab.finish()


main()
