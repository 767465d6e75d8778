# SPDX-License-Identifier: Apache-2.0
"""QCOW2 images of the host as target (an export by an agent) and as source (an
import), for the tests that count steps."""
import glob
import os

import files_place
import lab
from lab import LAB

CONVERT = ('qemu-img', 'convert', '-O', 'raw', '-f', 'qcow2')


class Exports(files_place.Files):
    """To an image that an agent keeps; qemu-img says what is in it."""

    KIND, TARGET = 'qcow2', LAB + '/target.qcow2'

    def old(self):
        if not os.path.exists(self.target):
            return []
        raw = LAB + '/seen.raw'
        lab.run(*CONVERT, self.target, raw)
        return lab.contents(raw)


class Imports(files_place.Files):
    """Of images, whose contents are beside them."""

    COMMAND = 'import'

    def __init__(self, rng, **options):
        super().__init__(rng, **options)
        for raw in glob.glob(LAB + '/source-*.raw'):
            lab.run('qemu-img', 'convert', '-O', 'qcow2', '-f', 'raw', raw, raw[:-3] + 'qcow2')

    def arguments(self):
        _, *others = super().arguments()
        return (self.src[:-3] + 'qcow2', *others)
