#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that no compiler and no clang-tidy checks.

  tests/lint/tidy.py               check all files that git knows or would add
  tests/lint/tidy.py --self-test   check that each rule can fail

Prints PATH:LINE: what is wrong; status 1 if anything is.
"""
import re
import subprocess
import sys
from fnmatch import fnmatch

LINES_MAX = 500
SPDX = '// SPDX-License-Identifier: Apache-2.0'
BANNED_STEMS = {'util', 'utils', 'helper', 'helpers', 'misc', 'common', 'core'}

# Layers: a file may include its own folder and what its folder's line names.
LAYERS = {
    'common/base': set(),
    'common/block': {'common/base'},
    'common/thin': {'common/base', 'common/block'},
    'common/lvm': {'common/base', 'common/block'},
    'common/generations': {'common/base', 'common/block', 'common/thin', 'common/lvm'},
    'common/transfer': {'common/base', 'common/block'},
    'common/qcow2': {'common/base', 'common/block'},
    'common/wire': {'common/base', 'common/block', 'common/transfer', 'proto'},
    'sender': {'common', 'proto'},
    'agent': {'common', 'proto', 'sender'},
}

# The sender's side of a sync within one host is the agent's code, called.
SENDER_WITH_AGENT = 'sender/local_*'

# Who may include a library: (pattern of the include, patterns of paths, why).
LIBRARIES = [
    (r'(liburing|linux/io_uring)\.h', ['common/block/uring*'],
     'liburing belongs in common/block/uring'),
    (r'(libdevmapper|linux/dm-ioctl)\.h',
     ['common/thin/pool_control*', 'common/block/dm*'],
     'libdevmapper belongs in common/thin/pool_control and common/block/dm*'),
    (r'glog/.*', ['common/base/log.cc'], 'glog belongs in common/base/log.cc'),
    (r'(grpc|grpcpp|google/protobuf)/.*|.*\.(pb|grpc\.pb)\.h',
     ['common/wire/*', '*/grpc_*', 'agent/main.cc', 'sender/main.cc',
      'tests/*/wire/*', 'tests/integration/*'],
     'gRPC and protobuf belong in common/wire, grpc_* files and main.cc'),
]

# stdout carries results, and only the programs' own files write there.
STDOUT = [r'\bstd::cout\b', r'(?<![\w:])(std::)?(printf|puts|putchar)\s*\(']
STDOUT_ALLOWED = ['sender/main.cc', 'agent/main.cc', 'sender/*result*',
                  'sender/*output*', 'sender/*command*', 'agent/*command*',
                  'bench/*']

INCLUDE = re.compile(r'\s*#\s*include\s*[<"]([^>"]+)[>"]')
CODE = ('.h', '.cc')
TEXT = CODE + ('.c', '.py', '.sh', '.md', '.proto', '.toml', '.txt', '.cmake',
               '.json')


def matches(path, patterns):
    return any(fnmatch(path, pattern) for pattern in patterns)


def layer_of(path):
    for layer in LAYERS:
        if path.startswith(layer + '/'):
            return layer
    return None


def check_layers(path, include):
    layer = layer_of(path)
    if layer is None:
        return None
    if '/' not in include or not re.match(r'(common|agent|sender|proto|snapsync|tests)/',
                                          include):
        return None
    allowed = LAYERS[layer] | {layer}
    if matches(path, [SENDER_WITH_AGENT]):
        allowed.add('agent')
    if include.startswith('snapsync/v1/'):  # generated from proto/
        include = 'proto/' + include
    if any(include.startswith(a + '/') for a in allowed):
        return None
    return '%s must not include %s (docs/architecture.md)' % (layer, include)


def guard_of(path):
    return 'SNAPSYNC_' + re.sub(r'[^A-Za-z0-9]', '_', path).upper() + '_'


def check_code(path, lines):
    if not lines or lines[0] != SPDX:
        yield 1, 'the first line must be "%s"' % SPDX
    if len(lines) > LINES_MAX:
        yield LINES_MAX, '%d lines; over %d is a file with two subjects' % (
            len(lines), LINES_MAX)
    stem = path.rsplit('/', 1)[-1].split('.')[0]
    if set(stem.split('_')) & BANNED_STEMS:
        yield 1, 'the name says nothing: what is in it?'
    if path.endswith('.h'):
        guard = guard_of(path)
        wanted = ['#ifndef ' + guard, '#define ' + guard, '#endif  // ' + guard]
        preprocessor = [line for line in lines if line.startswith('#')]
        if (preprocessor[:2] != wanted[:2] or
                preprocessor[-1:] != wanted[2:]):
            yield 1, 'the include guard must be %s' % guard
    for number, line in enumerate(lines, 1):
        include = INCLUDE.match(line)
        if include:
            name = include.group(1)
            for pattern, allowed, why in LIBRARIES:
                if re.fullmatch(pattern, name) and not matches(path, allowed):
                    yield number, why
            wrong = check_layers(path, name)
            if wrong:
                yield number, wrong
        code = line.split('//')[0]
        if any(re.search(p, code) for p in STDOUT) and not matches(
                path, STDOUT_ALLOWED):
            yield number, 'stdout is for results: see common/base/log.h'


def check(path, text):
    lines = text.split('\n')
    if lines[-1] == '':
        lines.pop()
    elif text:
        yield len(lines), 'no newline at the end'
    for number, line in enumerate(lines, 1):
        if '\t' in line:
            yield number, 'a tab'
        if line != line.rstrip():
            yield number, 'white space at the end'
    if path.endswith(CODE):
        yield from check_code(path, lines)
    elif (path.endswith(('.c', '.py', '.sh', '.proto')) and
          'SPDX-License-Identifier: Apache-2.0' not in '\n'.join(lines[:3])):
        yield 1, 'no SPDX line'


def self_test():
    header = SPDX + '\n#ifndef SNAPSYNC_%s_H_\n#define SNAPSYNC_%s_H_\n' \
        '%s\n#endif  // SNAPSYNC_%s_H_\n'

    def file(guard, body):
        return header % (guard, guard, body, guard)

    good = [
        ('common/block/a.h', file('COMMON_BLOCK_A', '#include "common/base/b.h"')),
        ('common/block/uring.cc', SPDX + '\n#include <liburing.h>\n'),
        ('sender/grpc_x.cc', SPDX + '\n#include "common/wire/tls.h"\n'
         '#include <grpcpp/grpcpp.h>\n'),
        ('sender/local_x.cc', SPDX + '\n#include "agent/session.h"\n'),
        ('agent/x.cc', SPDX + '\n// printf() is not used\nsnprintf(a, 1);\n'),
    ]
    bad = [
        ('common/base/a.cc', '#include <vector>\n'),
        ('common/base/a.cc', SPDX + '\n' * (LINES_MAX + 2)),
        ('common/base/string_util.cc', SPDX + '\n'),
        ('common/base/a.h', file('COMMON_BASE_B', '')),
        ('common/base/a.cc', SPDX + '\n#include "common/block/extent.h"\n'),
        ('common/thin/a.cc', SPDX + '\n#include "common/wire/tls.h"\n'),
        ('common/thin/a.cc', SPDX + '\n#include "common/lvm/volume.h"\n'),
        ('common/wire/a.cc', SPDX + '\n#include "agent/session.h"\n'),
        ('sender/a.cc', SPDX + '\n#include "agent/session.h"\n'),
        ('common/generations/a.cc', SPDX + '\n#include "sender/pump.h"\n'),
        ('agent/a.cc', SPDX + '\n#include <liburing.h>\n'),
        ('agent/a.cc', SPDX + '\n#include <libdevmapper.h>\n'),
        ('agent/a.cc', SPDX + '\n#include <glog/logging.h>\n'),
        ('agent/a.cc', SPDX + '\n#include <grpcpp/grpcpp.h>\n'),
        ('agent/a.cc', SPDX + '\n#include "snapsync/v1/agent.pb.h"\n'),
        ('agent/a.cc', SPDX + '\nstd::cout << 1;\n'),
        ('agent/a.cc', SPDX + '\n  printf("x");\n'),
        ('agent/a.cc', SPDX + '\n\tint x;\n'),
        ('agent/a.cc', SPDX + '\nint x; \n'),
        ('agent/a.cc', SPDX + '\nint x;'),
        ('tests/x.sh', 'true\n'),
    ]
    failures = 0
    for path, text in good:
        for number, message in check(path, text):
            print('self-test: %s should pass: %s' % (path, message))
            failures += 1
    for path, text in bad:
        if not list(check(path, text)):
            print('self-test: should fail: %s: %r' % (path, text[-60:]))
            failures += 1
    return failures


def main():
    if sys.argv[1:] == ['--self-test']:
        sys.exit(1 if self_test() else 0)
    top = subprocess.run(['git', 'rev-parse', '--show-toplevel'], check=True,
                         capture_output=True, text=True).stdout.strip()
    names = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        check=True, capture_output=True, text=True, cwd=top).stdout
    failures = self_test()
    count = 0
    for path in sorted(set(filter(None, names.split('\0')))):
        if not path.endswith(TEXT) or path.startswith(('tests/fuzz/corpus/',
                                                       'tests/data/')):
            continue
        try:
            with open(top + '/' + path, encoding='utf-8') as f:
                text = f.read()
        except FileNotFoundError:  # deleted, not yet committed
            continue
        count += 1
        for number, message in check(path, text):
            print('%s:%d: %s' % (path, number, message))
            failures += 1
    print('tidy.py: %d files, %d findings' % (count, failures), file=sys.stderr)
    sys.exit(1 if failures else 0)


main()
