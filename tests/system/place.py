# SPDX-License-Identifier: Apache-2.0
"""Where syncs go from and to in the tests that count steps."""
import contextlib
import glob
import json
import signal

import lab
import steps

HIDDEN = 'hidden'  # the target, while there is nobody to end a commit


class Place:
    """Where syncs go from and to. What a place has to have, besides COMMAND and MAKES, if it
    is not a sync:

    agent (a steps.Agent), target, volume, uuid, src (what is to be sent next)
    prepare(scenario)  a new state in src that is not on the target yet; `number`, the
                       generation there, and nothing under way
    old(), new()       contents of target and source
    leftovers()        what is there and should not be, once nothing is under way
    """

    COMMAND = 'sync'
    MAKES = 1  # generations

    def __init__(self, make_counter=steps.Counter):
        self.counters = {name: make_counter(name + '.steps') for name in ('agent', 'sender')}
        self.number = 0

    def arguments(self):
        # The sender may be stopped for minutes.
        return (self.src, self.volume, self.uuid, '--retry-for', '600')

    def start(self):
        return steps.start_sync(self.counters['sender'], *self.arguments(),
                                port=self.agent.port, command=self.COMMAND)

    def sync(self):
        """The plain command, with nothing counted."""
        return lab.sync(*self.arguments(), port=self.agent.port, command=self.COMMAND)

    def goes_on(self, case):
        """Whether what start() has begun does, though its sender was killed."""
        return False

    def abort(self):
        return lab.run_send(
            'abort', '--dst', 'localhost:' + self.volume, '--uuid', self.uuid, '--port',
            str(self.agent.port), '--tls-ca', lab.PKI + '/ca.crt', '--tls-cert',
            lab.PKI + '/nas1.crt', '--tls-key', lab.PKI + '/nas1.key',
            '--state-directory', lab.LAB + '/sender', '--json')

    def seen(self):
        """What is on the target now. Whoever has it open is in the way of a commit,
        so the agent is stopped meanwhile."""
        with stopped(self.agent.process):
            return self.old()


@contextlib.contextmanager
def stopped(process):
    """A process, or None, that does nothing meanwhile."""
    running = process is not None and process.poll() is None
    if running:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if running:
            process.send_signal(signal.SIGCONT)


def record(path):
    """The JSON of a state file."""
    with open(path) as f:
        f.readline()
        return json.load(f)


def pending():
    """What a sender has begun and not ended."""
    found = []
    for path in glob.glob(lab.LAB + '/sender/replications/*/replication.state'):
        try:
            if 'pending' in record(path):
                found.append('a pending sync: ' + path)
        except ValueError as error:
            found.append('a state that is none: %s: %s' % (path, error))
    return found
