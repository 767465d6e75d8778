#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# system-test: host
"""`snapsync-send delta` against thin_delta, where both apply the same rule, and
against what the devices of the fixtures were read to contain."""
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PROGRAMS = os.environ.get('SNAPSYNC_PROGRAMS', ROOT + '/build/release/bin')
failures = 0


def expect(what, got, wanted):
    global failures
    if got == wanted:
        print('ok      ' + what)
    else:
        failures += 1
        print(f'FAILED  {what}: got {str(got)[:600]}, expected {str(wanted)[:600]}')


def delta(*options):
    return subprocess.run([PROGRAMS + '/snapsync-send', 'delta', *map(str, options)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


def delta_json(*options):
    done = delta(*options, '--json')
    if done.returncode:
        return f'status {done.returncode}: {done.stderr}'
    # As it is documented, to the letter.
    if not re.fullmatch(
            r'\{"block_size":\d+,"changed":\[(\[\d+,\d+\](,\[\d+,\d+\])*)?\],'
            r'"gone":\[(\[\d+,\d+\](,\[\d+,\d+\])*)?\],"changed_bytes":\d+,'
            r'"gone_bytes":\d+,"metadata_blocks_read":\d+\}\n', done.stdout):
        return 'not the documented form: ' + done.stdout
    answer = json.loads(done.stdout)
    for kind in 'changed', 'gone':
        if answer[kind + '_bytes'] != sum(length for _, length in answer[kind]):
            return f'{kind}_bytes is not the sum'
    return answer


def extents(runs, block_size):
    """Runs of blocks as extents in bytes, adjacent ones joined."""
    joined = []
    for begin, length in sorted(runs):
        if joined and sum(joined[-1]) == begin * block_size:
            joined[-1][1] += length * block_size
        else:
            joined.append([begin * block_size, length * block_size])
    return joined


def thin_delta(image, base, snapshot, block_size):
    """(changed, gone) as thin_delta sees them."""
    text = subprocess.run(['thin_delta', '--thin1', str(base), '--thin2',
                           str(snapshot), image], check=True,
                          capture_output=True, text=True).stdout
    changed, gone = [], []
    for kind, begin, length in re.findall(
            r'<(\w+) begin="(\d+)" length="(\d+)"/>', text):
        run = int(begin), int(length)
        if kind in ('different', 'right_only'):
            changed.append(run)
        elif kind == 'left_only':
            gone.append(run)
    return extents(changed, block_size), extents(gone, block_size)


def check_fixtures(folder):
    data = ROOT + '/tests/data/thin'
    for archive in sorted(os.listdir(data)):
        if archive.endswith('.tar.gz'):
            with tarfile.open(f'{data}/{archive}') as tar:
                tar.extractall(folder)
    pairs = 0
    for name in sorted(os.listdir(folder)):
        if not os.path.exists(f'{folder}/{name}/truth.txt'):
            continue
        wrong = []
        lines = open(f'{folder}/{name}/truth.txt').read().splitlines()
        for pair, changed, gone in zip(lines[::3], lines[1::3], lines[2::3]):
            _, image, held, base, snapshot, base_size, size = pair.split()
            image = f'{folder}/{name}/{image}'
            numbers = [[int(word) for word in line.split()[1:]]
                       for line in (changed, gone)]
            truth = [[[row[at], row[at + 1]] for at in range(0, len(row), 2)]
                     for row in numbers]
            options = ['--metadata-snapshot'] if held == '1' else []
            got = delta_json('--meta', image, '--base-id', base, '--id', snapshot,
                             '--size', size, *options)
            pairs += 1
            # The base's size is not told to this command.
            if int(base_size) >= int(size) and (
                    isinstance(got, str) or [got['changed'], got['gone']] != truth):
                wrong.append((pair, got, truth))
            if held == '0' and base != 'none':
                got = delta_json('--meta', image, '--base-id', base, '--id', snapshot)
                if isinstance(got, str):
                    wrong.append((pair, got))
                    continue
                other = thin_delta(image, base, snapshot, got['block_size'])
                if (got['changed'], got['gone']) != other:
                    wrong.append((pair, got, other))
        expect(f'{name}: truth and thin_delta', wrong, [])
    expect('pairs compared', pairs > 60, True)


def restored(folder, name, devices):
    """A metadata file made by thin_restore: {id: {virtual block: (block, time)}}."""
    used = max(block for maps in devices.values() for block, _ in maps.values()) + 1
    xml = [f'<superblock uuid="" time="9" transaction="1" flags="0" version="2" '
           f'data_block_size="128" nr_data_blocks="{used}">']
    for device, maps in devices.items():
        xml.append(f'<device dev_id="{device}" mapped_blocks="{len(maps)}" '
                   f'transaction="0" creation_time="8" snap_time="8">')
        xml += [f'<single_mapping origin_block="{at}" data_block="{block}" '
                f'time="{time}"/>' for at, (block, time) in sorted(maps.items())]
        xml.append('</device>')
    xml.append('</superblock>')
    with open(f'{folder}/{name}.xml', 'w') as file:
        file.write('\n'.join(xml))
    with open(f'{folder}/{name}.img', 'wb') as file:
        file.truncate(64 << 20)
    subprocess.run(['thin_restore', '-q', '-i', f'{folder}/{name}.xml', '-o',
                    f'{folder}/{name}.img'], check=True, stdout=subprocess.DEVNULL)
    return f'{folder}/{name}.img'


def check_tall_trees(folder):
    random.seed(5)
    base = {at: (at, 1) for at in random.sample(range(10 ** 6), 150000)}
    snapshot = dict(base)
    for at in random.sample(sorted(base), 3000):
        del snapshot[at]
    for number, at in enumerate(random.sample(range(10 ** 6), 4000)):
        snapshot[at] = 10 ** 6 + number, 2
    image = restored(folder, 'tall', {1: base, 2: snapshot, 3: {}, 4: {7: (1, 1)}})
    for first, second in [(1, 2), (2, 1), (1, 3), (3, 1), (4, 1), (1, 4), (3, 4)]:
        got = delta_json('--meta', image, '--base-id', first, '--id', second)
        if isinstance(got, str):
            expect(f'tall trees, {first} to {second}', got, 'a delta')
            continue
        expect(f'tall trees, {first} to {second}, as thin_delta',
               (got['changed'], got['gone']),
               thin_delta(image, first, second, 65536))
    got = delta_json('--meta', image, '--base-id', 'none', '--id', 2)
    expect('all that is mapped', got['changed'],
           extents([(at, 1) for at in snapshot], 65536))


def check_errors(folder):
    image = f'{folder}/linear/pool.img'
    for what, status, options, text in [
            ('an id that the pool does not have', 2,
             ['--meta', image, '--base-id', 1, '--id', 77], 'no thin device 77'),
            ('a base that the pool does not have', 2,
             ['--meta', image, '--base-id', 77, '--id', 1], 'no thin device 77'),
            ('a file that does not exist', 10,
             ['--meta', folder + '/absent', '--base-id', 1, '--id', 2], '/absent'),
            ('a file that is no metadata', 10,
             ['--meta', sys.argv[0], '--base-id', 1, '--id', 2], sys.argv[0]),
            ('a metadata snapshot that is not there', 10,
             ['--meta', image, '--base-id', 1, '--id', 2, '--metadata-snapshot'],
             'no metadata snapshot')]:
        for form in [], ['--json']:
            done = delta(*options, *form)
            expect(f'{what}{" as JSON" if form else ""}: status', done.returncode,
                   status)
            expect(f'{what}: says so', text in done.stderr, True)
            if not form:
                expect(f'{what}: nothing on stdout', done.stdout, '')
    done = delta('--meta', image, '--base-id', 0, '--id', 1)
    expect('an origin as base: a warning, and the delta',
           (done.returncode, 'G6' in done.stderr, 'changed' in done.stdout),
           (0, True, True))


def main():
    with tempfile.TemporaryDirectory() as folder:
        check_fixtures(folder)
        check_tall_trees(folder)
        check_errors(folder)
    print('delta_test:', 'all passed' if failures == 0 else f'{failures} failed')
    sys.exit(failures != 0)


if __name__ == '__main__':
    main()
