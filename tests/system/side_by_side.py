# SPDX-License-Identifier: Apache-2.0
"""Cases on the host that wait most of the time, played side by side: each worker is a
process with an agent and a folder of its own.
"""
import contextlib
import multiprocessing
import os
import re
import signal
import time
import traceback

import lab


def _stop(pid):
    """Stops a process, all of its threads. Now and then the kernel does not tell that
    they are (the agent has threads of io_uring, too); then once more."""
    for _ in range(10):
        os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + 2
        while time.monotonic() < until:
            if os.waitpid(pid, os.WUNTRACED | os.WNOHANG)[0]:
                return
            time.sleep(0.001)
        os.kill(pid, signal.SIGCONT)
    raise RuntimeError('process %d does not stop' % pid)


class Worker:
    """Plays one case after the other; a case's outcome is a dictionary with `name`,
    `violations` and, if there are any, `detail`."""

    def __init__(self, number, volumes, **agent):
        self.folder = '%s/worker%d' % (lab.LAB, number)
        os.mkdir(self.folder)
        lab.LAB = self.folder  # where lab.Sync writes; the certificates stay
        self.agent = lab.Agent([(name, self.target(name), self.volume_kind(name))
                                for name in volumes], port=0,
                               directory=self.folder + '/agent', **agent).start()
        self.port = int(re.search(r'listening on \S+:(\d+)', self.agent.log()).group(1))

    def volume_kind(self, name):
        return 'file'

    def target(self, name):
        return '%s/%s.raw' % (self.folder, name)

    @contextlib.contextmanager
    def standing_still(self):
        """To look at a target at one moment, and since the agent refuses to commit
        while another one has the file open."""
        pid = self.agent.process.pid
        _stop(pid)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def prepare(self):
        """Before the first case."""

    def play(self, case):
        raise NotImplementedError

    def stop(self):
        self.agent.stop()


def _work(make_worker, number, cases, outcomes):
    worker = None
    try:
        worker = make_worker(number)
        worker.prepare()
        for case in iter(cases.get, None):
            outcomes.put(worker.play(case))
    except Exception:
        outcomes.put({'name': 'worker %d' % number, 'violations': ['a fault of the test'],
                      'detail': traceback.format_exc()})
    finally:
        if worker:
            worker.stop()
        outcomes.put(None)


def play_all(make_worker, count, cases):
    """Plays the cases in so many workers, and expects no violations. Returns the
    outcomes and how many have violations."""
    context = multiprocessing.get_context('fork')
    waiting, outcomes = context.Queue(), context.Queue()
    for case in [*cases, *[None] * count]:
        waiting.put(case)
    workers = [context.Process(target=_work, args=(make_worker, n, waiting, outcomes))
               for n in range(count)]
    for worker in workers:
        worker.start()
    played = []
    while count:
        outcome = outcomes.get()
        if outcome is None:
            count -= 1
            continue
        played.append(outcome)
        lab.expect(outcome['name'], not outcome['violations'], outcome.get('detail', ''))
    for worker in workers:
        worker.join()
    return played, sum(bool(outcome['violations']) for outcome in played)
