# SPDX-License-Identifier: Apache-2.0
"""A disk of the guest whose every read, write and flush this program answers (nbd), so
that it can let any of them fail. Imported after lab is.

It has a volatile cache: what was written is read back at once, and lost by a flush that
fails as LOST, as far as no earlier flush has made it durable.
"""
import collections
import fcntl
import os
import socket
import struct
import threading

from lab import run

READ, WRITE, FLUSH = 'read', 'write', 'flush'
# Errors reach the guest as EIO, whatever they are: nbd knows no other.
EIO, SHORT, LOST = 'EIO', 'short', 'lost'
FOR_GOOD = 'EIO for good'  # that one and each later one of its kind
FAULTS = {READ: [EIO, FOR_GOOD], WRITE: [EIO, SHORT, FOR_GOOD], FLUSH: [EIO, LOST, FOR_GOOD]}

# Bytes; data: of a write. A flush has no place.
Operation = collections.namedtuple('Operation', 'kind place size data')

# linux/nbd.h: requests to the driver, what the disk can do, and what it is asked for.
SET_SOCK, SET_BLKSIZE, DO_IT, SET_SIZE_BLOCKS, SET_FLAGS = (
    0xab00, 0xab01, 0xab03, 0xab07, 0xab0a)
HAS_FLAGS, SEND_FLUSH = 1, 4
KINDS = {0: READ, 1: WRITE, 3: FLUSH}
REQUEST, REPLY = struct.Struct('>IIQQI'), struct.Struct('>IIQ')
REPLY_MAGIC = 0x67446698
SECTOR = 512


class Disk(threading.Thread):
    """device: /dev/nbd0 or the like; path: a file for what is on it."""

    def __init__(self, device, path, size):
        super().__init__(daemon=True)
        run('modprobe', 'nbd')
        self.data = os.open(path, os.O_RDWR | os.O_CREAT)
        os.truncate(path, size)
        self.undo = []  # (place, bytes) of what was written since the last flush
        self.lock = threading.Lock()
        self.begin()
        self.socket, kernel = socket.socketpair()
        device = os.open(device, os.O_RDWR)
        fcntl.ioctl(device, SET_BLKSIZE, SECTOR)
        fcntl.ioctl(device, SET_SIZE_BLOCKS, size // SECTOR)
        fcntl.ioctl(device, SET_FLAGS, HAS_FLAGS | SEND_FLUSH)
        fcntl.ioctl(device, SET_SOCK, kernel.fileno())
        self.start()
        # As long as there is the disk; the kernel's end is kept with it.
        threading.Thread(target=lambda: (fcntl.ioctl(device, DO_IT), kernel),
                         daemon=True).start()

    def begin(self, which=lambda operation: False, fault=EIO):
        """Operations are kept from here on; the first for which which(operation) is true
        fails."""
        with self.lock:
            self.operations, self.failed = [], None
            self.which, self.fault = which, fault

    def end(self):
        """No operation fails from here on. Returns the operations since begin(), and that
        which failed first (None: none did)."""
        with self.lock:
            found = self.operations, self.failed
            self.operations, self.failed = [], None
            self.which, self.fault = lambda operation: False, None
            return found

    def run(self):
        """Answers the kernel, one request after the other."""
        while True:
            _, number, handle, place, size = REQUEST.unpack(self.receive(REQUEST.size))
            kind = KINDS[number & 0xffff]
            data = self.receive(size) if kind == WRITE else b''
            with self.lock:
                failed, answer = self.do(Operation(kind, place, size, data))
            self.socket.sendall(REPLY.pack(REPLY_MAGIC, 5 if failed else 0, handle) + answer)

    def receive(self, size):
        data = self.socket.recv(size, socket.MSG_WAITALL)
        if len(data) != size:
            raise EOFError('the kernel has closed its end')
        return data

    def do(self, operation):
        """Whether it fails, and what was read."""
        self.operations.append(operation)
        kind, place, size, data = operation
        fails = self.failed is None and self.which(operation)
        if fails:
            self.failed = operation
        elif self.failed and self.fault == FOR_GOOD:
            fails = kind == self.failed.kind
        if kind == READ:
            return fails, b'' if fails else os.pread(self.data, size, place)
        if kind == WRITE:
            if fails:
                data = data[:size // 2] if self.fault == SHORT else b''
            self.undo.append((place, os.pread(self.data, len(data), place)))
            os.pwrite(self.data, data, place)
        elif not fails:
            self.undo = []
        elif self.fault == LOST:
            for at, before in reversed(self.undo):
                os.pwrite(self.data, before, at)
            self.undo = []
        return fails, b''
