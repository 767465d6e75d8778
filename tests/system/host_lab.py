# SPDX-License-Identifier: Apache-2.0
"""A lab on the host: imported before lab, which then has a temporary folder."""
import os
import shutil
import tempfile

FOLDER = os.environ['SNAPSYNC_LAB'] = tempfile.mkdtemp(prefix='snapsync-lab-')


def play(main):
    """Runs the test; nothing is left of the folder."""
    import lab
    try:
        main()
    finally:
        shutil.rmtree(FOLDER)
    lab.finish()
