#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The two programs on loopback, with files as source and target: real gRPC, real
TLS, no device-mapper. What needs a kernel is in tests/system.

  loopback_test.py SNAPSYNC-SEND SNAPSYNC-AGENT
"""
import glob
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SEND, AGENT = sys.argv[1:3]
SOURCE_DIR = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20
BLOCK = 64 << 10


class Agent:
    """snapsync-agent with a folder of its own, on a port that the kernel chose."""

    def __init__(self, folder, pki, node='nas2', volumes='["*"]', port=0, descriptors=4096):
        self.folder, self.port = folder, port
        self.descriptors = descriptors
        self.config = folder + '/agent.toml'
        self.log_path = folder + '/agent.log'
        with open(self.config, 'w') as f:
            f.write(f'''[agent]
listen = ["127.0.0.1:PORT"]
state-directory = "{folder}/agent-state"
[tls]
ca = "{pki}/ca.crt"
cert = "{pki}/{node}.crt"
key = "{pki}/{node}.key"
[[client]]
name = "nas1"
allow = ["receive"]
volumes = {volumes}
[[volume]]
name = "file"
path = "{folder}/target.raw"
kind = "file"
'''.replace('PORT', str(port)))
        self.start()

    def start(self):
        if self.port:
            with open(self.config) as f:
                text = f.read()
            with open(self.config, 'w') as f:
                f.write(text.replace('127.0.0.1:0', '127.0.0.1:%d' % self.port))
        begin = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, 'a') as log_file:
            self.process = subprocess.Popen(
                [AGENT, 'serve', '--config', self.config], stderr=log_file,
                preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors)))
        for _ in range(600):
            with open(self.log_path) as f:
                f.seek(begin)
                log = f.read()
            if 'listening on ' in log:
                self.port = int(log.split('listening on 127.0.0.1:')[1].split()[0])
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError('the agent did not start:\n' + log)

    def log(self):
        with open(self.log_path) as f:
            return f.read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=30)


class LoopbackTest(unittest.TestCase):
    def setUp(self):
        self.folder_object = tempfile.TemporaryDirectory(prefix='snapsync-loopback.')
        self.folder = self.folder_object.name
        self.pki = self.make_pki('pki', 'nas1', 'nas2', 'nas3')
        self.source = self.folder + '/source.raw'
        self.target = self.folder + '/target.raw'
        self.random = random.Random(7)
        # Data, a hole, zeroes that are written, and an end that is no whole MiB.
        with open(self.source, 'wb') as f:
            f.write(self.random.randbytes(5 * MIB + 192 * 1024))
            f.seek(9 * MIB)
            f.write(bytes(MIB))
            f.write(self.random.randbytes(3 * MIB + 4096))
        self.agent = None

    def tearDown(self):
        if self.agent and self.agent.process.poll() is None:
            self.assertEqual(self.agent.stop(), 0, self.agent.log())
        self.folder_object.cleanup()

    def make_pki(self, name, *nodes):
        path = self.folder + '/' + name
        subprocess.run([SOURCE_DIR + '/certs/make-certs', path, *nodes], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return path

    @staticmethod
    def write(path, offsets):
        """Changes the byte at each offset."""
        with open(path, 'r+b') as f:
            for offset in offsets:
                f.seek(offset)
                byte = f.read(1)[0]
                f.seek(offset)
                f.write(bytes([byte ^ 0xff]))

    def start(self, *options, node='nas1', pki=None, volume='file', uuid='u',
              command='sync'):
        pki = pki or self.pki
        return subprocess.Popen(
            [SEND, command, '--src', self.source, '--dst',
             volume if volume.startswith('/') else 'localhost:' + volume,
             '--uuid', uuid, '--port', str(self.agent.port if self.agent else 1),
             '--state-directory', self.folder + '/send-state', '--json',
             '--tls-ca', pki + '/ca.crt', '--tls-cert', f'{pki}/{node}.crt',
             '--tls-key', f'{pki}/{node}.key', *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process, code):
        out, err = process.communicate(timeout=120)
        log = self.agent.log() if self.agent else ''
        self.assertEqual(process.returncode, code, out + err + log)
        result = json.loads(out)
        self.assertEqual(result['exit_code'], code)
        return result

    def sync(self, code, *options, **how):
        return self.finish(self.start(*options, **how), code)

    def assert_equal_files(self):
        with open(self.source, 'rb') as a, open(self.target, 'rb') as b:
            self.assertTrue(a.read() == b.read(), 'source and target differ')

    def test_a_file_arrives_and_zeroes_do_not_travel(self):
        self.agent = Agent(self.folder, self.pki)
        result = self.sync(0)
        self.assert_equal_files()
        self.assertEqual(result['result'], 'ok')
        self.assertEqual(result['method'], 'full')
        self.assertEqual(result['number'], 1)
        data = 8 * MIB + 192 * 1024 + 4096
        self.assertEqual(result['sent_bytes'], data)
        self.assertEqual(result['plan']['data_bytes'], data)
        self.assertEqual(result['plan']['zero_bytes'], MIB)  # the hole is not even read
        # The target has holes where the source had zeroes.
        self.assertLess(os.stat(self.target).st_blocks * 512, data + 256 * 1024)

    def test_within_one_host_no_agent_and_no_certificate_is_needed(self):
        result = self.sync(0, '--tls-ca', '/nonexistent', volume=self.target)
        self.assert_equal_files()
        self.assertEqual(result['number'], 1)
        self.write(self.source, [5 * MIB])
        result = self.sync(0, volume=self.folder + '/./target.raw')
        self.assertEqual((result['method'], result['sent_bytes']), ('hash', BLOCK))
        self.assert_equal_files()

    def test_the_source_itself_is_no_target_whatever_its_name(self):
        before = open(self.source, 'rb').read()
        result = self.sync(2, '--yes', volume=self.source)
        self.assertIn('is the target itself', result['error'])
        os.link(self.source, self.folder + '/link.raw')
        self.sync(9, '--yes', volume=self.folder + '/link.raw')
        self.assertTrue(open(self.source, 'rb').read() == before)
        self.agent = Agent(self.folder, self.pki)
        self.sync(0)
        self.source = self.target
        for command in ('sync', 'verify'):
            result = self.sync(2, command=command)
            self.assertIn('is the target itself', result['error'])

    def test_a_killed_local_sync_leaves_the_old_target(self):
        self.sync(0, volume=self.target)
        before = open(self.target, 'rb').read()
        with open(self.source, 'r+b') as f:
            f.write(self.random.randbytes(8 * MIB))
        process = self.start('--yes', '--speed-limit', '2M', volume=self.target)
        time.sleep(2)
        process.kill()
        process.communicate()
        self.assertTrue(open(self.target, 'rb').read() == before)
        self.sync(0, '--yes', volume=self.target)
        self.assert_equal_files()

    def test_a_second_sync_sends_what_differs(self):
        self.agent = Agent(self.folder, self.pki)
        self.sync(0)
        self.write(self.source, (MIB + 5, MIB + BLOCK - 1, 10 * MIB))
        result = self.sync(0)
        self.assert_equal_files()
        self.assertEqual(result['method'], 'hash')
        self.assertIn('no thin metadata', result['why'])
        self.assertEqual(result['number'], 2)
        self.assertEqual(result['sent_bytes'], 2 * BLOCK)
        result = self.sync(0)
        self.assertEqual(result['result'], 'unchanged')
        self.assertEqual(result['number'], 2)
        self.assertEqual(result['sent_bytes'], 0)

    def test_equal_files_send_nothing_and_scattered_changes_just_these(self):
        with open(self.source, 'wb') as f:
            for _ in range(64):
                f.write(self.random.randbytes(MIB))
        self.agent = Agent(self.folder, self.pki)
        self.assertEqual(self.sync(0)['sent_bytes'], 64 * MIB)
        self.assertEqual(self.sync(0, '--method', 'hash')['sent_bytes'], 0)
        changed = sorted(self.random.sample(range(64 * MIB // BLOCK), 10))
        self.write(self.source, [number * BLOCK + 4096 for number in changed])
        result = self.sync(0)
        self.assertEqual(result['sent_bytes'], 10 * BLOCK)
        self.assert_equal_files()

    def test_a_full_sync_over_a_replica_needs_consent(self):
        self.agent = Agent(self.folder, self.pki)
        self.sync(0)
        self.write(self.source, [0])
        with open(self.target, 'rb') as f:
            before = f.read()
        self.assertIn('--allow-full', self.sync(6, '--method', 'full')['error'])
        self.assertIn('no thin metadata', self.sync(6, '--method', 'metadata')['error'])
        with open(self.target, 'rb') as f:
            self.assertTrue(f.read() == before)
        result = self.sync(0, '--allow-full')
        self.assertEqual((result['number'], result['method']), (2, 'full'))
        self.assert_equal_files()

    def test_a_foreign_write_is_refused_and_healed_by_consent(self):
        self.agent = Agent(self.folder, self.pki)
        self.sync(0)
        self.write(self.target, [3 * MIB])
        with open(self.target, 'rb') as f:
            before = f.read()
        self.assertIn('--yes', self.sync(6)['error'])
        dry = self.sync(0, '--yes', '--dry-run')
        self.assertEqual((dry['method'], dry['plan']['data_bytes']), ('hash', BLOCK))
        with open(self.target, 'rb') as f:
            self.assertTrue(f.read() == before)
        result = self.sync(0, '--yes')
        self.assertEqual((result['method'], result['sent_bytes']), ('hash', BLOCK))
        self.assert_equal_files()

    def test_what_is_on_a_target_is_compared_by_consent(self):
        shutil.copyfile(self.source, self.target)
        self.write(self.target, [0, 5 * MIB])
        # Ends within a sector; the rest is zeroes.
        os.truncate(self.target, os.path.getsize(self.source) - 5000)
        self.agent = Agent(self.folder, self.pki)
        self.assertIn('not empty', self.sync(9)['error'])
        result = self.sync(0, '--yes')
        self.assertEqual((result['method'], result['number']), ('hash', 2))
        self.assertEqual(result['sent_bytes'], 3 * BLOCK + 4096)
        self.assert_equal_files()
        # Another replication's, and all of it.
        result = self.sync(0, '--allow-full', uuid='another')
        self.assertEqual((result['method'], result['number']), ('full', 3))

    def files(self):
        """What each file of the agent's side holds, and when it was written."""
        found = {}
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                if 'send-state' in path or path.endswith('.log'):
                    continue
                with open(path, 'rb') as f:
                    found[path] = (os.stat(path).st_mtime_ns, f.read())
        return found

    def verify_and_repair(self, volume):
        self.sync(0, volume=volume)
        before = self.files()
        result = self.sync(0, command='verify', volume=volume)
        self.assertEqual((result['result'], result['different']), ('equal', []))
        self.assertEqual(result['compared_bytes'], os.path.getsize(self.source))
        self.assertTrue(self.files() == before)
        # In the data, in the hole, in written zeroes, and at the end.
        offsets = [MIB + 77, 7 * MIB, 9 * MIB + 5, os.path.getsize(self.source) - 1]
        self.write(self.target, offsets)
        before = self.files()
        result = self.sync(8, command='verify', volume=volume)
        self.assertTrue(self.files() == before)
        self.assertEqual(result['result'], 'different')
        self.assertEqual([d[0] for d in result['different']],
                         [offset // BLOCK * BLOCK for offset in offsets])
        self.assertEqual(result['different_bytes'], 3 * BLOCK + 4096)
        self.assertIn('offset %d' % MIB, result['error'])
        result = self.sync(0, '--repair', command='verify', volume=volume)
        self.assertEqual(result['result'], 'repaired')
        self.assertEqual(result['different_bytes'], 3 * BLOCK + 4096)
        self.assertLessEqual(result['sent_bytes'], 3 * BLOCK + 4096)
        self.assert_equal_files()
        self.assertEqual(self.sync(0, volume=volume)['result'], 'unchanged')

    def test_verify_finds_each_flipped_byte_and_repairs_it(self):
        self.agent = Agent(self.folder, self.pki)
        self.verify_and_repair('file')

    def test_verify_works_within_one_host(self):
        self.verify_and_repair(self.target)

    def test_verify_does_not_touch_what_is_not_its_replica(self):
        self.agent = Agent(self.folder, self.pki)
        self.sync(0)
        self.write(self.target, [MIB])
        before = self.files()
        for options in ((), ('--repair',)):
            result = self.sync(9, *options, command='verify', uuid='another')
            self.assertIn('replica of', result['error'])
        self.assertTrue(self.files() == before)

    def test_verify_tells_that_somebody_wrote_what_was_there_before(self):
        self.agent = Agent(self.folder, self.pki)
        self.sync(0)
        self.write(self.target, [MIB, MIB])
        result = self.sync(0, command='verify')
        self.assertEqual(result['result'], 'equal')
        self.assertIn('written', ' '.join(result['warnings']))

    def test_verify_of_a_blank_volume_says_so(self):
        self.agent = Agent(self.folder, self.pki)
        self.assertIn('blank', self.sync(6, command='verify')['error'])

    def test_a_dry_run_writes_nothing(self):
        self.agent = Agent(self.folder, self.pki)
        self.assertEqual(self.sync(0, '--dry-run')['result'], 'dry-run')
        self.assertFalse(os.path.exists(self.target))

    def interrupt(self, *command):
        """Runs it until a part is durable, and kills it."""
        started = time.time()
        process = subprocess.Popen([*command, '--speed-limit', '1M'],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        changes = set()  # of its journal: as the session is opened, and with each part
        while len(changes) < 3:
            time.sleep(0.05)
            self.assertIsNone(process.poll())
            changes |= {os.stat(path).st_mtime_ns for path in glob.glob(
                self.folder + '/send-state/local/*/targets/*.journal')
                if os.stat(path).st_mtime > started}
        process.kill()
        process.wait()

    def resume(self, *command):
        """How much of it was there already."""
        done = subprocess.run([*command, '--json'], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)['resumed_from_bytes']

    def test_a_killed_sync_of_a_file_goes_on_as_long_as_the_file_is_the_same(self):
        target, image = self.target, self.folder + '/image.qcow2'
        state = ('--state-directory', self.folder + '/send-state')
        sync = (SEND, 'sync', '--src', self.source, '--dst', target, '--uuid', 'u', *state)
        export = (SEND, 'export', '--src', self.source, '--qcow', image, *state)
        load = (SEND, 'import', '--src', image, '--dst', self.folder + '/loaded.raw', *state)
        for command in (sync, export, load):
            time.sleep(2)  # what was written just now may be written again unseen
            self.interrupt(*command)
            self.assertGreater(self.resume(*command), 2 * MIB, command)
        self.assert_equal_files()
        self.target = self.folder + '/loaded.raw'
        self.assert_equal_files()
        self.target = target
        # A comparison goes on, too; and not when the file was written to meanwhile.
        for changes in (False, True):
            with open(self.source, 'r+b') as f:
                f.write(self.random.randbytes(8 * MIB))
            time.sleep(2)
            self.interrupt(*sync)
            if changes:
                self.write(self.source, [MIB])
            if changes:
                self.assertEqual(self.resume(*sync), 0)
            else:
                self.assertGreater(self.resume(*sync), 2 * MIB)
            self.assert_equal_files()

    def test_a_killed_agent_comes_back_and_the_sync_goes_on(self):
        self.agent = Agent(self.folder, self.pki)
        process = self.start('--speed-limit', '3M', '--timeout', '60')
        time.sleep(2.5)
        self.agent.kill()
        self.assertFalse(os.path.exists(self.target))
        time.sleep(0.5)
        self.agent.start()
        self.finish(process, 0)
        self.assert_equal_files()
        self.assertIn('goes on at chunk', self.agent.log())

    def test_a_second_sender_is_told_of_the_first_and_may_take_over(self):
        self.agent = Agent(self.folder, self.pki)
        first = self.start('--speed-limit', '1M')
        while not os.path.exists(self.target + '.snapsync-stage'):
            self.assertIsNone(first.poll(), self.agent.log())
            time.sleep(0.05)
        time.sleep(0.5)
        other = ('--state-directory', self.folder + '/other-state')
        self.assertIn('being written by nas1', self.sync(7, *other)['error'])
        self.assertEqual(self.sync(0, *other, '--take-over')['number'], 1)
        self.assert_equal_files()
        self.assertIn('was taken over by nas1', self.finish(first, 7)['error'])
        self.assert_equal_files()

    def test_an_interrupt_has_its_exit_code_and_leaves_nothing_half_done(self):
        self.agent = Agent(self.folder, self.pki)
        for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = self.start('--speed-limit', '1M')
            time.sleep(2)
            process.send_signal(sent)
            self.assertIn('goes on', self.finish(process, code)['error'])
            self.assertFalse(os.path.exists(self.target))
        self.sync(0)
        self.assert_equal_files()

    def test_a_limit_is_kept_to(self):
        self.agent = Agent(self.folder, self.pki)
        self.assertGreater(self.sync(0, '--speed-limit', '4M')['seconds'], 1.5)
        self.assert_equal_files()

    def test_certificates_of_another_ca_are_refused_on_either_side(self):
        self.agent = Agent(self.folder, self.pki)
        other = self.make_pki('other', 'nas1')
        error = self.sync(5, pki=other)['error']
        self.assertIn('certificate', error)
        # Their certificate, our CA: the agent refuses what the sender shows.
        error = self.sync(5, '--tls-ca', self.pki + '/ca.crt', pki=other)['error']
        self.assertIn('nas1.crt', error)
        self.assertFalse(os.path.exists(self.target))

    def test_rights_decide(self):
        self.agent = Agent(self.folder, self.pki, volumes='["other*"]')
        for node, volume in (('nas1', 'file'), ('nas3', 'file'), ('nas1', 'nothing')):
            self.assertIn('no right', self.sync(5, node=node, volume=volume)['error'])
        self.assertFalse(os.path.exists(self.target))

    def test_only_tls_1_3_is_spoken(self):
        self.agent = Agent(self.folder, self.pki)
        for version, good in (('-tls1_2', False), ('-tls1_3', True)):
            done = subprocess.run(
                ['openssl', 's_client', version, '-brief', '-alpn', 'h2', '-connect',
                 '127.0.0.1:%d' % self.agent.port, '-CAfile', self.pki + '/ca.crt',
                 '-cert', self.pki + '/nas1.crt', '-key', self.pki + '/nas1.key'],
                stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors='replace', timeout=30)
            self.assertEqual('TLS_AES_256_GCM_SHA384' in done.stderr, good, done.stderr)

    def test_nobody_there_is_a_connection_error(self):
        self.assertIn('does snapsync-agent run there', self.sync(4, '--retry-for', '1')['error'])

    def connect(self, address, count):
        connections = []
        for _ in range(count):
            connection = socket.socket()
            connection.bind((address, 0))
            connection.connect(('127.0.0.1', self.agent.port))
            connections.append(connection)
        return connections

    def wait_for_refusal(self, connections):
        """How many were closed, once the last one was."""
        connections[-1].settimeout(30)
        try:
            self.assertEqual(connections[-1].recv(1), b'')
        except ConnectionResetError:
            pass
        closed = 0
        for connection in connections:
            connection.setblocking(False)
            try:
                closed += connection.recv(1) == b''
            except ConnectionResetError:
                closed += 1
            except BlockingIOError:
                pass
        return closed

    def test_who_opens_many_connections_keeps_nobody_out(self):
        # gRPC itself, out of descriptors once, would accept nobody any more.
        self.agent = Agent(self.folder, self.pki, descriptors=256)
        silent = self.connect('127.0.0.2', 200)
        self.assertGreaterEqual(self.wait_for_refusal(silent), 200 - 64)
        self.sync(0)
        self.assert_equal_files()
        # As many as the process can have, from many addresses.
        for number in range(3, 8):
            silent += self.connect('127.0.0.%d' % number, 60)
        self.wait_for_refusal(silent)
        self.write(self.source, [0])
        process = self.start('--retry-for', '60')
        time.sleep(1)
        for connection in silent:
            connection.close()
        self.finish(process, 0)
        self.assert_equal_files()
        self.assertIn('a connection was refused', self.agent.log())

    def test_the_second_agent_of_a_state_folder_is_refused(self):
        self.agent = Agent(self.folder, self.pki)
        second = subprocess.run([AGENT, '--config', self.agent.config],
                                capture_output=True, text=True, timeout=30)
        self.assertEqual(second.returncode, 7, second.stderr)

    def test_a_target_open_elsewhere_is_busy(self):
        with open(self.target, 'wb'):
            self.agent = Agent(self.folder, self.pki)
            self.assertIn('open', self.sync(7)['error'])
        self.sync(0)
        self.assert_equal_files()


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
