# SPDX-License-Identifier: Apache-2.0
"""A network between sender and agent that can be cut at any message.

A message is a TLS record: what is in it is not known, but where it ends is.
"""
import errno
import select
import socket
import struct
import threading
import time
import traceback

KIB = 1 << 10
TO_AGENT, TO_SENDER = 0, 1
OUTAGE = 7  # seconds

# How the network is cut. After a silence the messages that were delayed arrive, or
# nothing ever passes again through the connections of before.
WAYS = ['reset', 'close', 'silence', 'silence for good']


class Proxy(threading.Thread):
    """Passes TLS records on, and cuts the network at one of them.

    point: 2 k cuts before record k of the direction, 2 k + 1 after it; None: never.
    look: called when it was cut, and before the network is there again.
    outage: seconds that a silence lasts.
    """

    def __init__(self, port, direction=TO_AGENT, point=None, way='', look=lambda: None,
                 outage=OUTAGE):
        super().__init__(daemon=True)
        self.agent = ('127.0.0.1', port)
        self.direction, self.point, self.way, self.look = direction, point, way, look
        self.outage = outage
        self.records, self.bytes = [0, 0], [0, 0]
        self.cut_bytes = None  # that had passed to the agent when it was cut
        self.heals_at = None
        self.streams = {}      # socket: (its peer, direction, bytes not passed on yet)
        self.dead = []         # sockets that are open and say nothing
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.stopping = False
        self.error = None

    def run(self):
        try:
            while not self.stopping:
                self.heal_in_time()
                waiting = [] if self.heals_at else [self.listener, *self.streams]
                for ready in select.select(waiting, [], [], 0.05)[0]:
                    if ready is self.listener:
                        self.accept()
                    elif ready in self.streams:  # the cut may have been just now
                        self.receive(ready)
        except Exception:  # a fault of the test
            self.error = traceback.format_exc()
        self.close_all()

    def stop(self):
        self.stopping = True
        self.join(60)
        if self.is_alive():
            self.error = 'the proxy hangs'

    def accept(self):
        sender = self.listener.accept()[0]
        agent = socket.create_connection(self.agent)
        for one, other, direction in ((sender, agent, TO_AGENT), (agent, sender, TO_SENDER)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(30)  # a test must not hang
            self.streams[one] = (other, direction, bytearray())

    def receive(self, source):
        sink, direction, pending = self.streams[source]
        try:
            data = source.recv(64 * KIB)
        except ConnectionResetError:
            return self.end(source, sink)
        if not data:
            return self.end(source, sink)
        pending += data
        while len(pending) >= 5:
            length = 5 + struct.unpack('>H', pending[3:5])[0]
            if len(pending) < length:
                break
            if not self.pass_on(sink, direction, bytes(pending[:length])):
                return None
            # After the record was counted: a silence may end, and it goes on here.
            del pending[:length]
            if self.reached(direction, 2 * self.records[direction] - 1):
                return self.cut()
        return None

    def pass_on(self, sink, direction, record):
        if self.reached(direction, 2 * self.records[direction]):
            self.cut()
            return False
        self.records[direction] += 1
        self.bytes[direction] += len(record)
        try:
            sink.sendall(record)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the other end is gone; it says so on its own stream
        return True

    def reached(self, direction, point):
        return self.cut_bytes is None and (direction, point) == (self.direction, self.point)

    def end(self, source, sink):
        """A side has ended the connection."""
        del self.streams[source]
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        self.dead.append(source)

    def cut(self):
        self.cut_bytes = self.bytes[TO_AGENT]
        for one in [] if self.way.startswith('silence') else list(self.streams):
            del self.streams[one]
            if self.way == 'reset':
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                one.close()
            else:
                one.shutdown(socket.SHUT_WR)
                self.dead.append(one)
        if self.way.startswith('silence'):
            self.heals_at = time.monotonic() + self.outage
        self.look()

    def heal_in_time(self):
        if self.heals_at is None or time.monotonic() < self.heals_at:
            return
        self.look()
        self.heals_at = None
        if self.way == 'silence for good':
            self.dead += self.streams
            self.streams = {}

    def close_all(self):
        for one in [self.listener, *self.streams, *self.dead]:
            one.close()
