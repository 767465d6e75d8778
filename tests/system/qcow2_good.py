# SPDX-License-Identifier: Apache-2.0
"""Images that are sound: made(folder) makes them all and returns their cases."""
import os
import shutil
import signal
import struct
import subprocess
import zlib

from qcow2_images import (COPIED, Case, Image, convert, qemu_io, raw_file, run)

MIXED = ('write -P 1 0 200k', 'write -P 2 1M 1M', 'write -z 1200k 128k',
         'write -P 3 3900k 100k', 'discard 1M 64k', 'write -P 4 70k 512')


class Maker:
    def __init__(self, folder):
        self.folder = folder
        self.cases = []
        self.raw = raw_file(folder + '/source.raw', 6 << 20)

    def path(self, name, file='disk.qcow2'):
        return '%s/%s/%s' % (self.folder, name, file)

    def add(self, name, *options, file='disk.qcow2'):
        self.cases.append(Case(name, self.path(name, file), list(options)))

    def image(self, name, *arguments, **keywords):
        self.add(name)
        return Image(self.path(name), *arguments, **keywords)

    def sizes(self):
        self.image('empty_v3', writes=())
        self.image('empty_v2', options='compat=0.10', writes=())
        self.image('size_0', size='0', writes=())
        self.image('size_512', size='512', writes=('write -P 5 0 512',))
        self.image('size_odd', size='1234432', writes=('write -P 5 1M 185856',))
        self.image('size_not_whole').set(size=(4 << 20) - 200)
        self.image('size_below_a_sector', size='512', writes=()).set(size=511)
        self.image('size_1t', size='1T', writes=('write -P 6 0 1M', 'write -P 7 777G 1M',
                                                  'write -P 8 1048575M 1M'))
        self.image('size_8t_c2m', size='8T', options='cluster_size=2M',
                   writes=('write -P 6 5T 3M',))
        self.image('l1_larger_than_needed', size='4M', writes=MIXED)
        qemu_io(self.path('l1_larger_than_needed'), 'truncate 3G', 'truncate 4M',
                options=('-f', 'qcow2'))

    def clusters(self):
        for size in ('512', '1k', '4k', '64k', '256k', '2M'):
            self.image('v3_c' + size, options='cluster_size=' + size, writes=MIXED)
        for size in ('512', '64k', '2M'):
            self.image('v2_c' + size, options='compat=0.10,cluster_size=' + size, writes=MIXED)
        for bits in (1, 2, 4, 8, 32, 64):
            self.image('refcount_bits_%d' % bits, options='refcount_bits=%d' % bits,
                       writes=MIXED)

    def allocation(self):
        for mode in ('metadata', 'falloc', 'full'):
            self.image('preallocation_' + mode, options='preallocation=' + mode,
                       writes=('write -P 9 1M 100k',))
        self.image('preallocation_extl2',
                   options='preallocation=metadata,extended_l2=on', writes=('write -P 9 1M 9k',))
        self.image('zeroes', writes=('write -P 9 0 1M', 'write -z 0 512k',
                                     'write -z -u 512k 128k', 'write -z 2M 1M'))
        self.image('discarded', writes=('write -P 9 0 1M', 'discard 64k 512k'))
        image = self.image('copied_bits_clear', writes=MIXED)
        for index in range(3):
            image.set_l2(index, image.l2(index) & ~COPIED)
        image.set_l1(0, image.u64(image.l1_at()) & ~COPIED)
        self.image('resized', writes=MIXED)
        run('qemu-img', 'resize', '-q', self.path('resized'), '700M')
        qemu_io(self.path('resized'), 'write -P 10 699M 1M')
        self.image('shrunk', writes=MIXED)
        run('qemu-img', 'resize', '-q', '--shrink', self.path('shrunk'), '1100k')
        self.image('amended_to_v2', writes=('write -P 9 0 1M',))
        run('qemu-img', 'amend', '-q', '-f', 'qcow2', '-o', 'compat=0.10',
            self.path('amended_to_v2'))

    def dirty(self):
        self.image('dirty_bit').set(incompatible=1)
        image = self.image('dirty_wrong_refcounts').set(incompatible=1)
        image.patch(image.get('reft_offset'), struct.pack('>Q', 0x1234567))
        self.image('dirty_after_a_crash', options='lazy_refcounts=on', writes=MIXED)
        subprocess.run(['qemu-io', '-c', 'write -P 11 2M 500k', '-c', 'flush', '-c',
                        'sigraise %d' % signal.SIGKILL, self.path('dirty_after_a_crash')],
                       stdout=subprocess.DEVNULL, check=False)

    def compressed(self):
        for kind in ('zlib', 'zstd'):
            for size in ('4k', '64k', '2M'):
                name = '%s_c%s' % (kind, size)
                self.add(name)
                convert(self.raw, self.path(name), '-c', '-o',
                        'compression_type=%s,cluster_size=%s' % (kind, size))
        self.add('zlib_c512')
        convert(raw_file(self.folder + '/small.raw', 400000), self.path('zlib_c512'), '-c',
                '-o', 'cluster_size=512')
        self.add('zlib_v2')
        convert(self.raw, self.path('zlib_v2'), '-c', '-o', 'compat=0.10')
        for kind in ('zlib', 'zstd'):
            name = kind + '_out_of_order'
            self.add(name)
            convert(self.raw, self.path(name), '-c', '-W', '-m', '16', '-o',
                    'compression_type=' + kind)
            name = kind + '_mixed'
            self.add(name)
            convert(self.raw, self.path(name), '-c', '-o', 'compression_type=' + kind)
            qemu_io(self.path(name), 'write -P 12 100k 200k', 'write -z 1M 200k',
                    'write -P 13 5M 3k')
        self.add('zlib_without_padding')
        image = convert(self.raw, self.path('zlib_without_padding'), '-c')
        last = max(image.compressed_offset(image.l2(i)) for i in range(96)
                   if image.l2(i) >> 62 == 1)
        # Only the stream itself, not the sector's rest.
        data = image.bytes(last, 1 << 20)
        if len(data.rstrip(b'\0')) < len(data):
            image.truncate(last + len(data.rstrip(b'\0')))
        self.add('zlib_far_distances')
        image = convert(self.raw, self.path('zlib_far_distances'), '-c')
        self.deflate_again(image)

    @staticmethod
    def deflate_again(image):
        """A stream with the largest window, at the end of the file."""
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = bytes((i * i >> 5) & 255 for i in range(30000))
        data = (data + data + data)[:65536]
        stream = squeeze.compress(data) + squeeze.flush()
        at = image.grow(1 + len(stream) // 65536)
        image.patch(at, stream)
        index, _ = image.first_compressed()
        image.set_compressed(index, at, len(stream))

    def extended_l2(self):
        for size in ('16k', '64k', '2M'):
            self.image('extl2_c' + size, options='extended_l2=on,cluster_size=' + size,
                       writes=MIXED)
        self.image('extl2_subclusters', options='extended_l2=on,cluster_size=128k', writes=(
            'write -P 1 4k 4k', 'write -P 2 12k 8k', 'write -z 28k 4k', 'write -P 3 127k 2k',
            'write -P 4 1M 128k', 'write -z 1060k 12k', 'discard 1M 8k'))
        self.add('extl2_zstd')
        convert(self.raw, self.path('extl2_zstd'), '-c', '-o',
                'extended_l2=on,compression_type=zstd')
        qemu_io(self.path('extl2_zstd'), 'write -P 12 100k 2k', 'write -z 1M 200k')
        Image(self.path('extl2_backing', 'base.qcow2'), writes=MIXED)
        self.image('extl2_backing', size=None, options='extended_l2=on', backing='base.qcow2',
                   writes=('write -P 5 2k 2k', 'write -z 6k 2k', 'write -P 6 1M 3k'))

    def chains(self):
        for name, base_size, size in (('raw_shorter', 3 << 20, '4M'),
                                      ('raw_longer', 5 << 20, '4M'),
                                      ('raw_odd', (3 << 20) + 777, '4M')):
            name = 'backing_' + name
            raw_file(self.path(name, 'base.raw'), base_size)
            self.image(name, size=size, backing='base.raw', backing_format='raw',
                       writes=('write -P 5 100k 2k', 'write -z 1M 64k'))
        for name, base in (('shorter', '3M'), ('longer', '6M')):
            name = 'backing_qcow2_' + name
            Image(self.path(name, 'base.qcow2'), size=base, writes=('write -P 7 0 3M',))
            self.image(name, size='4M', backing='base.qcow2',
                       writes=('write -P 5 100k 2k', 'write -z 1M 64k'))
        Image(self.path('backing_v2_zeroes', 'base.qcow2'), writes=('write -P 7 0 3M',))
        self.image('backing_v2_zeroes', size=None, options='compat=0.10', backing='base.qcow2',
                   writes=('write -z 1M 1M',))
        Image(self.path('backing_other_clusters', 'base.qcow2'), options='cluster_size=512',
              writes=MIXED)
        self.image('backing_other_clusters', size=None, options='cluster_size=2M',
                   backing='base.qcow2', writes=('write -P 5 3M 1k',))
        convert(self.raw, self.path('backing_compressed', 'base.qcow2'), '-c')
        self.image('backing_compressed', size=None, backing='base.qcow2',
                   writes=('write -P 5 1M 1k', 'write -z 2M 64k'))
        for depth in (3, 16):
            name = 'chain_of_%d' % depth
            Image(self.path(name, '1.qcow2'))
            for level in range(2, depth + 1):
                Image(self.path(name, '%d.qcow2' % level), size=None,
                      backing='%d.qcow2' % (level - 1),
                      writes=('write -P %d %dk 3k' % (level, 100 * level),))
            self.add(name, file='%d.qcow2' % depth)
        # Each name is relative to the folder of the file that has it.
        Image(self.path('chain_in_folders', 'sub/deep/base.qcow2'))
        Image(self.path('chain_in_folders', 'sub/middle.qcow2'), size=None,
              backing='deep/base.qcow2', writes=('write -P 8 2M 1k',))
        self.image('chain_in_folders', size=None, backing='./sub/middle.qcow2',
                   writes=('write -P 9 3M 1k',))
        self.anywhere()

    def anywhere(self):
        """What is refused by default, and read when the operator says so."""
        base = self.folder + '/elsewhere/base.qcow2'
        Image(base)
        Image(self.path('backing_absolute'), size=None, backing=base, writes=())
        self.add('backing_absolute', '--allow-anywhere')
        Image(self.path('backing_dotdot'), size=None, backing='../elsewhere/base.qcow2',
              writes=())
        self.add('backing_dotdot', '--allow-anywhere')
        os.makedirs(self.folder + '/backing_symlink')
        os.symlink(base, self.path('backing_symlink', 'base.qcow2'))
        Image(self.path('backing_symlink'), size=None, backing='base.qcow2', writes=())
        self.add('backing_symlink', '--allow-anywhere')
        raw_file(self.path('backing_without_format', 'base.raw'), 1 << 20)
        image = Image(self.path('backing_without_format'), writes=())
        image.set_extensions([], b'base.raw')
        self.add('backing_without_format', '--backing-format=raw')
        Image(self.path('corrupt_allowed')).set(incompatible=2)
        self.add('corrupt_allowed', '--allow-corrupt')

    def snapshots(self):
        image = 'snapshots'
        self.image(image, writes=MIXED)
        for count in range(3):
            run('qemu-img', 'snapshot', '-c', 'number %d' % count, self.path(image))
            qemu_io(self.path(image), 'write -P %d 100k 200k' % (20 + count), 'discard 1M 128k')
        self.image('snapshot_applied', writes=MIXED)
        run('qemu-img', 'snapshot', '-c', 'one', self.path('snapshot_applied'))
        qemu_io(self.path('snapshot_applied'), 'write -P 20 0 4M')
        run('qemu-img', 'snapshot', '-a', 'one', self.path('snapshot_applied'))
        self.image('snapshot_deleted', writes=MIXED)
        run('qemu-img', 'snapshot', '-c', 'one', self.path('snapshot_deleted'))
        qemu_io(self.path('snapshot_deleted'), 'write -P 20 0 1M')
        run('qemu-img', 'snapshot', '-d', 'one', self.path('snapshot_deleted'))
        self.image('bitmaps', writes=MIXED)
        for name in ('one', 'two'):
            run('qemu-img', 'bitmap', '--add', self.path('bitmaps'), name)
        qemu_io(self.path('bitmaps'), 'write -P 20 0 1M')
        shutil.copytree(self.folder + '/bitmaps', self.folder + '/bitmaps_void')
        Image.at(self.path('bitmaps_void')).set(autoclear=0)
        self.add('bitmaps_void')

    def headers(self):
        image = self.image('header_104')
        image.set_extensions([]).set(header_length=104)
        image.patch(104, bytes(200))
        image = self.image('header_128')
        image.patch(112, b'\xff' * 16).set(header_length=128)
        image.set_extensions([(0x12345678, b'unknown')])
        self.image('no_feature_names').set_extensions([])
        self.image('unknown_bits').set(compatible=1 << 60 | 2, autoclear=1 << 50)
        self.image('unknown_extensions').set_extensions(
            [(0x10000 + i, b'x' * i) for i in range(60)])
        # The extensions reach to the end of their area, without an end marker.
        image = self.image('extensions_to_the_end', options='cluster_size=512')
        area = struct.pack('>II', 0x4242, 512 - 112 - 8) + bytes(512 - 112 - 8)
        image.patch(112, area)
        Image(self.path('backing_name_at_the_end', 'base.qcow2'))
        image = self.image('backing_name_at_the_end', size=None, backing='base.qcow2')
        image.patch(65536 - 10, b'base.qcow2').set(backing_offset=65536 - 10)

    def data_files(self):
        for name, options in (('data_file', ''), ('data_file_raw', ',data_file_raw=on')):
            os.makedirs(self.folder + '/' + name)
            cwd = os.getcwd()
            os.chdir(self.folder + '/' + name)
            try:
                run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o',
                    'data_file=disk.data' + options, 'disk.qcow2', '4M')
                qemu_io('disk.qcow2', *MIXED)
            finally:
                os.chdir(cwd)
            self.add(name, '--allow-data-file')


def made(folder):
    maker = Maker(folder)
    maker.sizes()
    maker.clusters()
    maker.allocation()
    maker.dirty()
    maker.compressed()
    maker.extended_l2()
    maker.chains()
    maker.snapshots()
    maker.headers()
    maker.data_files()
    return maker.cases
