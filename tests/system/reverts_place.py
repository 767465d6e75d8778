# SPDX-License-Identifier: Apache-2.0
"""A thin volume that is brought back to what its replica holds, in a guest, for the
tests that count steps: by order of snapsync-send the agent of the replica sends, and
the agent of the volume writes. Both agents' steps are counted, those of the one that
sends as the sender's; snapsync-send itself has none."""
import shutil

import lab
import steps
import volumes_place
from lab import BLOCK, MIB
from volumes_place import KEPT

REPLICA, PORT = '/dev/nas2/replica', 7781
# Of these every other one has data to be brought back, and the others nothing.
SPOILT = (MIB, 5 * MIB, 9 * MIB, 13 * MIB)


class Reverts(volumes_place.Volumes):
    COMMAND = 'revert'
    MAKES = 2  # what was there becomes one, too

    def make_agent(self):
        self.volume, self.target = 'vol', '/dev/nas1/vol'
        self.other = steps.Agent(self.counters['sender'], [('replica', REPLICA, 'thin')],
                                 port=PORT, directory=lab.LAB + '/other',
                                 clients=[('nas1', ['receive', 'send'], ['replica'])])
        return steps.Agent(self.counters['agent'], [('vol', self.target, 'thin')],
                           name='nas1', clients=[('nas1', ['receive', 'revert'], ['vol']),
                                                 ('nas2', ['revert'], ['vol'])])

    def begin(self):
        super().begin()
        for offset in SPOILT[::2]:
            lab.write_device(self.src, offset, self.rng.randbytes(BLOCK))
        for offset in SPOILT[1::2]:
            lab.discard(self.src, offset, BLOCK)
        self.other.start()
        result = lab.sync(self.src, 'replica', self.uuid, port=PORT)
        if result.code != 0:
            raise RuntimeError(str(result))

    def prepare(self, scenario):
        # An agent that was killed while it sent has left this active; the next one has
        # fewer steps then than that which was counted.
        lab.run('lvchange', '-qq', '-an', 'nas2/replica.g1', check=False)
        super().prepare(scenario)

    def start(self):
        return lab.Sync(*self.arguments(), port=self.agent.port, command=self.COMMAND)

    def goes_on(self, case):
        """Where the agent that sends was counted; else snapsync-send was killed."""
        if case.program == 'agent':
            return False
        self.other.process.wait(timeout=30)
        self.counters['sender'].end()
        self.other.start()
        return True

    def forget(self):
        self.counters['sender'].end()
        self.other.kill()
        shutil.rmtree(self.other.directory, ignore_errors=True)
        super().forget()

    def arguments(self):
        return ('localhost:replica', self.volume, self.uuid, '--src-port', str(PORT),
                '--yes', '--retry-for', '600')

    def change(self):
        """What is to be brought back is spoilt, at the same places each time."""
        for offset in SPOILT:
            lab.write_device(self.target, offset, self.rng.randbytes(BLOCK))

    def new(self):
        return lab.contents(REPLICA)

    def leftovers(self):
        """Of the volume: the other side is another test's."""
        newest = self.now()
        wanted = {'vol'} | {'vol.g%d' % number
                            for number in range(newest - KEPT + 1, newest + 1)}
        volumes = lab.volumes('nas1')
        found = [name for name in volumes
                 if name not in wanted and not name.startswith('vol.snapsync-')]
        found += ['%s is gone' % name for name in wanted - set(volumes)]
        return found + self.held_metadata()
