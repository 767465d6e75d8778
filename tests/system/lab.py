# SPDX-License-Identifier: Apache-2.0
"""Two NAS boxes in one guest: volume groups, an agent, and syncs.

For the system tests, inside a uml-run guest with two disks and
--scratch /var/lib/snapsync-lab:SIZE; or on the host, with files as volumes and
SNAPSYNC_LAB set to a folder before this is imported. Sizes are in bytes.
"""
import contextlib
import ctypes
import fcntl
import glob
import hashlib
import json
import mmap
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PROGRAMS = os.environ.get('SNAPSYNC_PROGRAMS', ROOT + '/build/release/bin')
LAB = os.environ.get('SNAPSYNC_LAB', '/var/lib/snapsync-lab')
PKI = LAB + '/pki'
KIB = 1 << 10
MIB = 1 << 20
BLOCK = 64 * KIB  # the pools' chunk size
ZEROES = hashlib.sha256(bytes(BLOCK)).digest()
# A page of memory that is new costs 200 us in a guest: the buffer of all reads and
# writes, and a heap that gives nothing back.
_buffer = mmap.mmap(-1, MIB)
_view = memoryview(_buffer)
_m_trim_threshold, _m_mmap_threshold = -1, -3
for _threshold in (_m_trim_threshold, _m_mmap_threshold):
    if not ctypes.CDLL(None).mallopt(_threshold, 32 * MIB):  # the most that it takes
        raise RuntimeError('mallopt')

# Exit codes of the programs.
DONE, USAGE, CONFIGURATION, CONNECTION, PERMISSION = 0, 2, 3, 4, 5
BASE_MISMATCH, BUSY, VERIFICATION, TARGET_UNSUITABLE, IO, NO_SPACE = 6, 7, 8, 9, 10, 11

failures = 0
begun = time.monotonic()


def expect(what, condition, detail=''):
    """Prints one line for a check, and when it was; a failed one fails the test at its
    end."""
    global failures
    at = time.monotonic() - begun
    if condition:
        print('ok     %6.1f s  %s' % (at, what))
    else:
        failures += 1
        more = ': %s' % (detail,) if detail != '' else ''
        print('FAILED %6.1f s  %s%s' % (at, what, more))
    sys.stdout.flush()
    return bool(condition)


def report(scenario, runs, violations):
    """A line of the fault report, which tests/run puts together from all tests."""
    print('report: %s | %d | %d' % (scenario, runs, violations), flush=True)


def finish():
    print('%s: %s' % (os.path.basename(sys.argv[0]),
                      'all passed' if failures == 0 else '%d failed' % failures))
    sys.exit(0 if failures == 0 else 1)


def run(*command, check=True):
    """Output of a command, stderr included; raises with it when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if check and done.returncode:
        raise RuntimeError('%s: status %d: %s' % (
            ' '.join(command), done.returncode, done.stdout.strip()))
    return done.stdout


# --- Devices -----------------------------------------------------------------

def device_size(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def grow(path, size):
    run('lvextend', '-qq', '-L', '%db' % size, path)


def contents(path, size=None):
    """What is on a device or in a file: a digest of each 64 KiB.

    Compared with other contents by ==; a page of new memory costs 200 us here, so
    the bytes themselves are not kept.
    """
    if size is None:
        size = device_size(path)
    # O_DIRECT: what is on the device, not what a cache believes.
    direct = 0 if os.path.isfile(path) else os.O_DIRECT
    fd = os.open(path, os.O_RDONLY | direct)
    digests = []
    try:
        for piece in range(0, size, MIB):
            got = min(os.preadv(fd, [_buffer], piece), size - piece)
            if got < min(MIB, size - piece):
                raise RuntimeError('%s ends before %d bytes' % (path, size))
            digests += [hashlib.sha256(_view[at:min(at + BLOCK, got)]).digest()
                        for at in range(0, got, BLOCK)]
    finally:
        os.close(fd)
    return digests


def first_difference(path, wanted, size):
    """The first block of `path` that differs from contents of `size` bytes."""
    if device_size(path) < size:
        return 'the end'
    for number, digest in enumerate(contents(path, size)):
        if digest != wanted[number]:
            return 'block %d' % number
    return None


def write_device(path, offset, data):
    """O_DIRECT, so offset and length are multiples of 4 KiB; OSError if full."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        for at in range(0, len(data), MIB):
            piece = data[at:at + MIB]
            _buffer[:len(piece)] = piece
            os.pwritev(fd, [_view[:len(piece)]], offset + at)
        os.fsync(fd)
    finally:
        os.close(fd)


def discard(path, offset, length):
    blkdiscard = 0x1277
    fd = os.open(path, os.O_WRONLY)
    try:
        fcntl.ioctl(fd, blkdiscard, struct.pack('QQ', offset, length))
    finally:
        os.close(fd)


# --- LVM ---------------------------------------------------------------------

def make_group(disk, group):
    run('pvcreate', '-qq', disk)
    run('vgcreate', '-qq', group, disk)


def make_pool(group, pool, size, *arguments):
    run('lvcreate', '-qq', '-L', '%db' % size, '-c', '%db' % BLOCK, '-T',
        '%s/%s' % (group, pool), '--errorwhenfull', 'y', *arguments)


def make_nas_pair(pool_size, disks=('/dev/ubda', '/dev/ubdb')):
    """Groups nas1 and nas2 on two disks, each with a pool."""
    for disk, group in zip(disks, ('nas1', 'nas2')):
        make_group(disk, group)
        make_pool(group, 'pool', pool_size)


def enlarge_pool(group, pool):
    run('lvextend', '-qq', '-L', '+64m', '%s/%s' % (group, pool))


def make_thin(group, pool, name, size):
    run('lvcreate', '-qq', '-V', '%db' % size, '-T', '%s/%s' % (group, pool),
        '-n', name)
    return '/dev/%s/%s' % (group, name)


def make_snapshot(group, origin, name, permission='r'):
    run('lvcreate', '-qq', '-s', '-kn', '-p' + permission, '-n', name,
        '%s/%s' % (group, origin))
    return '/dev/%s/%s' % (group, name)


def volumes(group):
    """Names of the group's volumes, without its pools."""
    report = run('lvs', '--noheadings', '-o', 'lv_name,lv_attr', group)
    rows = [line.split() for line in report.splitlines() if line.strip()]
    return sorted(row[0] for row in rows if len(row) > 1 and row[1][0] != 't')


def remove(group, *names):
    if names:
        run('lvremove', '-qq', '-f', *['%s/%s' % (group, name) for name in names])


# --- The programs ------------------------------------------------------------

def make_certificates(directory, *names):
    """Of a CA of their own; in PKI, those that tests/run has made, if it has these."""
    made = os.environ.get('SNAPSYNC_PKI', '')
    if directory == PKI and all(os.path.exists('%s/%s.key' % (made, n)) for n in names):
        shutil.copytree(made, directory, dirs_exist_ok=True)
    else:
        run(ROOT + '/certs/make-certs', directory, *names)


class Agent:
    """snapsync-agent with a configuration; one volume is (name, path, kind)."""

    def __init__(self, agent_volumes, name='nas2', port=7780, clients=None,
                 directory=None, pki=PKI, host='127.0.0.1', timeout=60):
        self.host = host
        self.timeout = timeout
        self.name = name
        self.port = port
        self.volumes = agent_volumes
        self.clients = clients or [('nas1', ['receive'],
                                    [v[0] for v in agent_volumes])]
        self.directory = directory or LAB + '/agent'
        self.pki = pki
        self.process = None
        self.log_path = '%s.log' % self.directory

    def write_configuration(self):
        lines = ['[agent]', 'name = "%s"' % self.name,
                 'listen = ["%s:%d"]' % (self.host, self.port),
                 'state-directory = "%s"' % self.directory, 'timeout = %d' % self.timeout,
                 '[tls]', 'ca = "%s/ca.crt"' % self.pki,
                 'cert = "%s/%s.crt"' % (self.pki, self.name),
                 'key = "%s/%s.key"' % (self.pki, self.name)]
        for name, allow, granted in self.clients:
            lines += ['[[client]]', 'name = "%s"' % name,
                      'allow = %s' % json.dumps(allow),
                      'volumes = %s' % json.dumps(granted)]
        for name, path, kind in self.volumes:
            lines += ['[[volume]]', 'name = "%s"' % name, 'path = "%s"' % path,
                      'kind = "%s"' % kind]
        path = self.directory + '.toml'
        with open(path, 'w') as f:
            f.write('\n'.join(lines) + '\n')
        return path

    def start(self):
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        configuration = self.write_configuration()
        with open(self.log_path, 'ab') as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                [PROGRAMS + '/snapsync-agent', 'serve', '--config', configuration],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(600):
            if 'listening on' in self.log(begin):
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError('the agent does not listen: ' + self.log(begin))

    def log(self, begin=0):
        with open(self.log_path, errors='replace') as f:
            f.seek(begin)
            return f.read()

    def peak_memory(self):
        return peak_memory(self.process.pid)

    def stop(self):
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        self.process = None
        return status

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None


def has_child(pid):
    for path in glob.glob('/proc/[0-9]*/stat'):
        with contextlib.suppress(OSError), open(path) as f:
            if int(f.read().rpartition(')')[2].split()[1]) == pid:
                return True
    return False


def watermarks():
    """The records in the journals of the agent in LAB: how far a session is durable."""
    records = set()
    for path in glob.glob(LAB + '/agent/targets/*.journal'):
        with contextlib.suppress(FileNotFoundError), open(path, 'rb') as f:
            records.update(iter(lambda: f.read(4096), b''))
    return {record for record in records if record.startswith(b'SNPJ')}


def wait_for_watermark(before, process):
    """Until there is one that is not among `before`, or the sender has ended."""
    while process.poll() is None and watermarks() <= before:
        time.sleep(0.05)


def peak_memory(pid):
    with open('/proc/%d/status' % pid) as f:
        return int(re.search(r'VmHWM:\s+(\d+) kB', f.read()).group(1)) * KIB


class Result:
    """What one snapsync-send said: .code, .stderr, and the JSON as .json."""

    def __init__(self, code, stdout, stderr):
        self.code = code
        self.stderr = stderr
        try:
            self.json = json.loads(stdout)
        except ValueError:
            self.json = {}
        self.stdout = stdout

    @property
    def text(self):
        return self.stderr + self.stdout

    def __getitem__(self, key):
        return self.json.get(key)

    def __str__(self):
        return 'exit code %d, %s, stderr: %s' % (
            self.code, self.stdout.strip(), self.stderr.strip()[-1500:])


def run_send(*arguments, **environment):
    """snapsync-send with these arguments alone."""
    done = subprocess.run([PROGRAMS + '/snapsync-send', *arguments],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env=dict(os.environ, **environment), timeout=300)
    return Result(done.returncode, done.stdout, done.stderr)


class Sync:
    """A snapsync-send sync under way, or another command that takes the same; host=None:
    to a target of this host."""

    def __init__(self, src, volume, uuid, *arguments, state=None, pki=PKI,
                 identity='nas1', port=7780, host='localhost', command='sync'):
        state = state or LAB + '/sender'
        os.makedirs(state, mode=0o700, exist_ok=True)
        self.stdout = open(LAB + '/send.out', 'w+')
        self.stderr = open(LAB + '/send.err', 'w+')
        self.command = [
            PROGRAMS + '/snapsync-send', command, '--src', src, '--dst',
            '%s:%s' % (host, volume) if host else volume, '--uuid', uuid, '--port', str(port),
            '--state-directory', state, '--tls-ca', pki + '/ca.crt',
            '--tls-cert', '%s/%s.crt' % (pki, identity),
            '--tls-key', '%s/%s.key' % (pki, identity), '--timeout', '60',
            '--json', *arguments]
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=self.stdout,
            stderr=self.stderr)

    def running(self):
        return self.process.poll() is None

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.wait()

    def wait(self, timeout=300):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = -1  # hung
        texts = []
        for f in (self.stdout, self.stderr):
            f.seek(0)
            texts.append(f.read())
            f.close()
        return Result(code, *texts)


def sync(*arguments, **options):
    return Sync(*arguments, **options).wait()


def generation_snapshots(group, name):
    return [v for v in volumes(group) if re.fullmatch(name + r'\.g\d+', v)]


# --- Random input ------------------------------------------------------------

def write_randomly(rng, path, count, largest=512 * KIB):
    """count pieces of random bytes, anywhere; stops when the pool is full."""
    size = device_size(path)
    for _ in range(count):
        length = rng.randrange(1, largest // 4096 + 1) * 4096
        offset = rng.randrange(0, (size - length) // 4096 + 1) * 4096
        try:
            write_device(path, offset, rng.randbytes(length))
        except OSError:
            return


def discard_randomly(rng, path, count, largest=MIB):
    size = device_size(path)
    for _ in range(count):
        length = rng.randrange(1, largest // 4096 + 1) * 4096
        offset = rng.randrange(0, (size - length) // 4096 + 1) * 4096
        if rng.random() < 0.7:  # whole blocks of the pool
            offset -= offset % BLOCK
            length = max(BLOCK, length - length % BLOCK)
        discard(path, offset, min(length, size - offset))


def guests(most):
    """How many a test may boot at once: tests/run has others beside it."""
    return min(most, int(os.environ.get('SNAPSYNC_GUESTS') or
                         len(os.sched_getaffinity(0))))


def in_time(cases, least=1, share=1):
    """Of these as many as there is time for: all, or with SNAPSYNC_SECONDS, the first
    `least` and those that can be begun by then, or in a share of it."""
    seconds = share * float(os.environ.get('SNAPSYNC_SECONDS') or 'inf')
    begun = time.monotonic()
    for number, case in enumerate(cases):
        if number >= least and time.monotonic() - begun > seconds:
            print('%d cases, for more there is no time' % number)
            return
        yield case


def seed_from_environment():
    text = os.environ.get('SNAPSYNC_SEED')
    seed = int(text) if text else random.SystemRandom().randrange(1 << 32)
    print('SNAPSYNC_SEED=%d' % seed, flush=True)
    return seed
