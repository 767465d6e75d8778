# SPDX-License-Identifier: Apache-2.0
"""Images that must be refused: made(folder) makes them all and returns their
cases. Each case says with which words of the error; what is damaged besides
would be found later, if it were read on."""
import ctypes
import hashlib
import os
import struct
import zlib

from qcow2_images import (CLUSTER, COMPRESSED, COPIED, Case, Image, convert, raw_file, run)

MAX32 = 2**32 - 1
HALF32 = 2**31 - 1
MAX64 = 2**64 - 1
EXTENSION_BACKING_FORMAT = 0xe2792aca
EXTENSION_BITMAPS = 0x23852875
EXTENSION_DATA_FILE = 0x44415441


def zstd_frame(data):
    """A zstd frame, by the library that everybody has."""
    library = ctypes.CDLL('libzstd.so.1')
    library.ZSTD_compressBound.restype = ctypes.c_size_t
    library.ZSTD_compress.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(len(data) + 1024)
    length = library.ZSTD_compress(room, ctypes.c_size_t(len(room)), data,
                                   ctypes.c_size_t(len(data)), 3)
    return room.raw[:length]


def deflated(data):
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -12)
    return squeeze.compress(data) + squeeze.flush()


class Maker:
    def __init__(self, folder):
        self.folder = folder
        self.cases = []
        self.raw = raw_file(folder + '/source.raw', 2 << 20)

    def path(self, name, file='disk.qcow2'):
        return '%s/%s/%s' % (self.folder, name, file)

    def add(self, name, error, *options, file='disk.qcow2'):
        self.cases.append(Case(name, self.path(name, file), list(options), error))

    def image(self, name, error, *arguments, **keywords):
        self.add(name, error)
        return Image(self.path(name), *arguments, **keywords)

    def compressed(self, name, error, kind='zlib', options=''):
        """The image, and the index of its first compressed cluster."""
        self.add(name, error)
        image = convert(self.raw, self.path(name), '-c', '-o',
                        'compression_type=' + kind + options)
        return image, image.first_compressed()[0]

    def with_stream(self, name, error, stream, kind='zlib', length=None):
        """An image of which one cluster is this stream."""
        image, index = self.compressed(name, error, kind)
        at = image.grow(1 + len(stream) // CLUSTER)
        image.patch(at, stream)
        image.set_compressed(index, at, length or len(stream))

    def header(self):
        self.image('bad_magic', 'not a QCOW2 image').set(magic=0x514649fc)
        self.image('bad_vmdk_magic', 'not a QCOW2 image').patch(0, b'KDMV')
        self.image('bad_empty_file', 'not a QCOW2 image').truncate(0)
        self.image('bad_short_file', 'truncated').truncate(50)
        self.image('bad_short_v3_header', 'truncated').truncate(100)
        for version in (0, 1, 4, MAX32):
            self.image('bad_version_%d' % version, 'version').set(version=version)
        for bits in (0, 8, 22, 63, MAX32):
            self.image('bad_cluster_bits_%d' % bits, 'cluster_bits').set(cluster_bits=bits)
        for length in (0, 96, 108, CLUSTER + 8, HALF32, MAX32, MAX32 - 7):
            self.image('bad_header_length_%d' % length, 'header_length') \
                .set(header_length=length)
        for order in (7, MAX32):
            self.image('bad_refcount_order_%d' % order, 'refcount_order') \
                .set(refcount_order=order)
        for size in (2**63, MAX64):
            self.image('bad_size_%x' % size, 'size').set(size=size)
        for bit in (5, 31, 63):
            self.image('bad_incompatible_bit_%d' % bit, 'bit %d' % bit) \
                .set(incompatible=1 << bit)
        self.image('bad_compression_bit_alone', 'compression_type').set(incompatible=8)
        self.image('bad_compression_type_alone', 'compression_type').set(compression=1)
        self.image('bad_compression_type_2', 'compression type 2') \
            .set(incompatible=8, compression=2)
        self.image('bad_extl2_4k', 'extended L2', options='cluster_size=4k') \
            .set(incompatible=16)
        self.image('bad_corrupt_bit', 'marked as corrupt').set(incompatible=2)

    def tables(self):
        for entries in (0, HALF32, MAX32, (4 << 20) + 1):
            self.image('bad_l1_size_%d' % entries, 'l1_size').set(l1_size=entries)
        self.image('bad_l1_too_small', 'l1_size', size='2G').set(l1_size=3)
        image = self.image('bad_l1_on_the_refcount_table', 'two owners')
        image.set(l1_offset=image.get('reft_offset'))
        image.set(size=512)
        for name in ('l1', 'reft'):
            for value in (0, 512, 3 * CLUSTER + 8, 2**63, MAX64 - CLUSTER + 1, 1 << 40):
                self.image('bad_%s_offset_%x' % (name, value), '_offset') \
                    .set(**{name + '_offset': value})
        for clusters in (0, 129, HALF32, MAX32):
            self.image('bad_reft_clusters_%d' % clusters, 'refcount_table_clusters') \
                .set(reft_clusters=clusters)
        image = self.image('bad_reft_entry_unaligned', "refcount table's entry")
        image.set_u64(image.get('reft_offset'), image.u64(image.get('reft_offset')) + 512)
        image = self.image('bad_reft_entry_reserved', "refcount table's entry")
        image.set_u64(image.get('reft_offset'), image.u64(image.get('reft_offset')) | 1)
        image = self.image('bad_reft_entry_beyond_end', "refcount table's entry")
        image.set_u64(image.get('reft_offset') + 8, 1 << 40)
        image = self.image('bad_reft_entry_twice', 'two owners')
        image.set_u64(image.get('reft_offset') + 8, image.u64(image.get('reft_offset')))
        self.image('bad_snap_too_many', 'nb_snapshots').set(snapshots=65537)
        self.image('bad_snap_max', 'nb_snapshots').set(snapshots=MAX32)
        self.image('bad_snap_unaligned', 'snapshots_offset') \
            .set(snapshots=1, snapshots_offset=CLUSTER + 8)
        self.image('bad_snap_offset_0', 'snapshots_offset').set(snapshots=1)
        self.image('bad_snap_beyond_end', 'snapshots_offset') \
            .set(snapshots=1, snapshots_offset=1 << 40)
        image = self.image('bad_snap_table_cut', 'snapshot')
        image.set(snapshots=1638, snapshots_offset=image.grow())
        image.set(snapshots=1639)
        image = self.image('bad_snap_names_beyond_end', 'snapshot 0')
        at = image.grow()
        image.patch(at, bytes(12) + b'\xff\xff\xff\xff')
        image.set(snapshots=1, snapshots_offset=at)
        image = self.image('bad_snap_extra_data', 'extra data')
        at = image.grow()
        image.patch(at + 36, struct.pack('>I', MAX32))
        image.set(snapshots=1, snapshots_offset=at)

    def extensions(self):
        def with_head(name, error, kind, length, **fields):
            image = self.image(name, error)
            image.set_extensions([])
            image.patch(112, struct.pack('>II', kind, length))
            image.set(**fields)

        for length in (HALF32, MAX32, MAX32 - 7, CLUSTER - 112 - 7):
            with_head('bad_ext_length_%x' % length, 'extension', 0x1234, length)
            with_head('bad_ext_end_length_%x' % length, 'extension', 0, length)
            with_head('bad_ext_format_length_%x' % length, 'extension',
                      EXTENSION_BACKING_FORMAT, length)
        with_head('bad_ext_end_with_data', 'yet has data', 0, 8)
        self.image('bad_ext_flood', 'one too many') \
            .set_extensions([(0x5000 + index, b'') for index in range(497)])
        self.image('bad_ext_repeated', 'twice').set_extensions([(0x5000, b'a')] * 2)
        self.image('bad_ext_runs_into_the_name', 'extension', size=None,
                   **self.backed('bad_ext_runs_into_the_name')).set(backing_offset=112 + 8)
        for name, data in (('length', bytes(23)), ('none', bytes(24)),
                           ('unaligned', struct.pack('>IIQQ', 1, 0, 32, CLUSTER + 8)),
                           ('reserved', struct.pack('>IIQQ', 1, 1, 32, CLUSTER)),
                           ('huge', struct.pack('>IIQQ', 1, 0, 1 << 40, CLUSTER)),
                           ('beyond_end', struct.pack('>IIQQ', 1, 0, 32, 1 << 40))):
            self.image('bad_bitmap_ext_' + name, 'bitmaps') \
                .set_extensions([(EXTENSION_BITMAPS, data)]).set(autoclear=1)

    def backed(self, name):
        Image(self.path(name, 'base.qcow2'))
        return {'backing': 'base.qcow2', 'writes': ()}

    def backing_fields(self):
        for name, error, fields in (
                ('in_the_header', 'backing_file_offset', {'backing_offset': 64}),
                ('beyond_the_cluster', 'backing_file_offset', {'backing_offset': CLUSTER + 8}),
                ('far_beyond', 'backing_file_offset', {'backing_offset': MAX64}),
                ('length_0', 'backing_file_size', {'backing_size': 0}),
                ('length_1024', 'backing_file_size', {'backing_size': 1024}),
                ('length_max', 'backing_file_size', {'backing_size': MAX32}),
                ('past_the_cluster', 'backing_file_size', {'backing_offset': CLUSTER - 4})):
            name = 'bad_bk_' + name
            self.image(name, error, size=None, **self.backed(name)).set(**fields)
        name = 'bad_bk_zero_byte'
        image = self.image(name, 'zero byte', size=None, **self.backed(name))
        image.patch(image.get('backing_offset') + 4, b'\0')
        name = 'bad_bk_format_too_long'
        image = self.image(name, 'name of', size=None, **self.backed(name))
        image.set_extensions([(EXTENSION_BACKING_FORMAT, b'0123456789abcdef')], b'base.qcow2')

    def named(self, name, error, backing, kind=b'qcow2', file='disk.qcow2'):
        """An image that names this backing file, whether there is one or not."""
        name = 'bad_bk_' + name
        self.add(name, error, file=file)
        extensions = [] if kind is None else [(EXTENSION_BACKING_FORMAT, kind)]
        Image(self.path(name, file), writes=()).set_extensions(extensions, backing)
        return self.folder + '/' + name

    def backing_names(self):
        self.named('missing', "can't be opened", b'nothing.qcow2')
        self.named('itself', 'comes back', b'disk.qcow2')
        folder = self.named('loop', 'comes back', b'other.qcow2')
        Image(folder + '/other.qcow2').set_extensions(
            [(EXTENSION_BACKING_FORMAT, b'qcow2')], b'disk.qcow2')
        folder = self.named('chain_of_20', 'chain of more', b'1.qcow2')
        for level in range(1, 20):
            Image(folder + '/%d.qcow2' % level, writes=()).set_extensions(
                [(EXTENSION_BACKING_FORMAT, b'qcow2')], b'%d.qcow2' % (level + 1))
        Image(folder + '/20.qcow2')
        folder = self.named('absolute', 'allow files anywhere', b'/etc/passwd', b'raw')
        self.named('dotdot', 'allow files anywhere', b'../bad_bk_absolute/disk.qcow2')
        self.named('dotdot_inside', 'allow files anywhere', b'sub/../disk2.qcow2')
        self.named('json', 'protocol', b'json:{"driver":"raw","file.filename":"/etc/passwd"}')
        self.named('nbd', 'protocol', b'nbd:localhost:10809', b'raw')
        self.named('file_protocol', 'protocol', b'file:disk2.qcow2')
        folder = self.named('symlink', 'symbolic link', b'link.raw', b'raw')
        os.symlink('/etc/passwd', folder + '/link.raw')
        folder = self.named('symlinked_folder', 'symbolic link', b'link/passwd', b'raw')
        os.symlink('/etc', folder + '/link')
        folder = self.named('fifo', 'neither a regular file', b'fifo', b'raw')
        os.mkfifo(folder + '/fifo')
        folder = self.named('folder', 'neither a regular file', b'sub', b'raw')
        os.mkdir(folder + '/sub')
        folder = self.named('character_device', 'neither a regular file', b'zero', b'raw')
        if os.geteuid() == 0:
            os.mknod(folder + '/zero', 0o20666, os.makedev(1, 5))
        else:
            os.mkfifo(folder + '/zero')
        self.named('device', 'allow files anywhere', b'/dev/zero', b'raw')
        folder = self.named('no_format', 'which format', b'base.raw', None)
        raw_file(folder + '/base.raw', 1 << 20)
        folder = self.named('vmdk', 'only raw and qcow2', b'base.vmdk', b'vmdk')
        run('qemu-img', 'create', '-q', '-f', 'vmdk', folder + '/base.vmdk', '1M')
        folder = self.named('raw_as_qcow2', 'not a QCOW2 image', b'base.raw')
        raw_file(folder + '/base.raw', 1 << 20)
        folder = self.named('damaged', 'base.qcow2', b'base.qcow2')
        Image(folder + '/base.qcow2').set(l1_size=0)
        folder = self.folder + '/bad_symlink'
        Image(folder + '/real.qcow2')
        os.symlink('real.qcow2', folder + '/disk.qcow2')
        self.add('bad_symlink', 'symbolic link')

    def data_files(self):
        def with_data_file(name, error, *options, data=b'disk.data', make=True, raw=False):
            name = 'bad_df_' + name
            self.add(name, error, *options)
            folder = self.folder + '/' + name
            os.makedirs(folder)
            run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o',
                'data_file=%s/disk.data' % folder + (',data_file_raw=on' if raw else ''),
                folder + '/disk.qcow2', '4M')
            run('qemu-io', '-c', 'write -P 5 1M 128k', folder + '/disk.qcow2')
            image = Image.at(folder + '/disk.qcow2')
            image.set_extensions([(EXTENSION_DATA_FILE, data)] if data else [])
            if not make:
                os.unlink(folder + '/disk.data')
            return image

        with_data_file('without_consent', 'allow external data files')
        with_data_file('passwd', 'allow files anywhere', '--allow-data-file', data=b'/etc/passwd')
        with_data_file('json', 'protocol', '--allow-data-file',
                       data=b'json:{"driver":"raw","file.filename":"/etc/passwd"}')
        with_data_file('missing', "can't be opened", '--allow-data-file', make=False)
        with_data_file('no_name', 'no name', '--allow-data-file', data=None)
        with_data_file('itself', 'comes back', '--allow-data-file', data=b'disk.qcow2')
        image = with_data_file('other_offset', 'another place', '--allow-data-file')
        image.set_l2(16, image.l2(17))
        image = with_data_file('compressed', 'data file', '--allow-data-file')
        image.set_l2(16, COMPRESSED | 1 << 20)
        image = with_data_file('truncated', 'truncated', '--allow-data-file')
        os.truncate(os.path.dirname(image.path) + '/disk.data', (1 << 20) + CLUSTER)
        self.image('bad_df_raw_bit_alone', 'external data file').set(autoclear=2)

    def encryption(self):
        self.image('bad_crypt_aes', 'method AES').set(crypt=1)
        self.image('bad_crypt_luks', 'method LUKS').set(crypt=2)
        self.image('bad_crypt_unknown', 'method 3').set(crypt=3)
        self.add('bad_luks', 'method LUKS')
        os.makedirs(self.folder + '/bad_luks')
        create = ('qemu-img', 'create', '-q', '--object', 'secret,id=s,data=abc', '-f', 'qcow2',
                  '-o', 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10',
                  self.path('bad_luks'), '1M')
        for attempt in range(5):
            try:
                run(*create)
                break
            # QEMU measures how long a key takes, and gives up where its clock of CPU
            # time has not moved meanwhile.
            except RuntimeError as error:
                if 'accurate CPU usage' not in str(error) or attempt == 4:
                    raise

    def l1_entries(self):
        for name, error, change in (
                ('unaligned', 'into a cluster', lambda i: i.l2_table() + 512),
                ('beyond_end', 'beyond the end', lambda i: 1 << 40),
                ('far_beyond_end', 'beyond the end', lambda i: 0x00ffffffffff0000),
                ('reserved_low', 'reserved', lambda i: i.l2_table() | 1),
                ('reserved_high', 'reserved', lambda i: i.l2_table() | 1 << 56),
                ('copied_without_table', 'no L2 table', lambda i: COPIED),
                ('the_l1_table', 'two owners', lambda i: i.get('l1_offset')),
                ('the_refcount_table', 'two owners', lambda i: i.get('reft_offset')),
                ('a_refcount_block', 'two owners', lambda i: i.u64(i.get('reft_offset')))):
            image = self.image('bad_l1e_' + name, error)
            image.set_l1(0, change(image))
        image = self.image('bad_l1e_twice', 'two owners', size='1G')
        image.set_l1(1, image.l2_table())

    def l2_entries(self):
        for name, error, change in (
                ('unaligned', 'into a cluster', lambda i: i.l2() + 512),
                ('beyond_end', 'beyond the end', lambda i: 1 << 40 | COPIED),
                ('at_the_end', 'beyond the end', lambda i: i.grow() + CLUSTER | COPIED),
                ('zero_beyond_end', 'beyond the end', lambda i: 1 << 40 | 1),
                ('reserved_low', 'reserved', lambda i: i.l2() | 2),
                ('reserved_high', 'reserved', lambda i: i.l2() | 1 << 56),
                ('copied_without_cluster', 'no host cluster', lambda i: COPIED),
                ('the_l1_table', 'two owners', lambda i: i.get('l1_offset')),
                ('the_refcount_table', 'two owners', lambda i: i.get('reft_offset')),
                ('a_refcount_block', 'two owners', lambda i: i.u64(i.get('reft_offset'))),
                ('its_own_table', 'two owners', lambda i: i.l2_table()),
                ('twice', 'two owners', lambda i: i.l2(1)),
                ('twice_as_zero', 'two owners', lambda i: i.l2(1) | 1)):
            image = self.image('bad_l2e_' + name, error)
            image.set_l2(0, change(image))
        image = self.image('bad_l2e_zero_in_v2', 'version 2', options='compat=0.10')
        image.set_l2(0, 1)
        image = self.image('bad_l2e_of_a_snapshot_table', 'two owners')
        run('qemu-img', 'snapshot', '-c', 'one', image.path)
        image.grow(0)
        image.set_l2(0, image.get('snapshots_offset') | COPIED)

    def truncated(self):
        for size in ('512', '64k', '2M'):
            writes = ('write -P 5 0 4M',)
            # Cut into the last cluster of data, which is not the last in a
            # file of QEMU's when tables come later.
            name = 'bad_truncated_c%s' % size
            image = self.image(name + '_a_sector', 'truncated',
                               options='cluster_size=' + size, writes=writes)
            image.truncate(image.file_size() - 512)
            image = self.image(name + '_half', 'truncated', options='cluster_size=' + size,
                               writes=writes)
            image.truncate(image.file_size() // 2)
        image = self.image('bad_truncated_a_byte', 'truncated', writes=('write -P 5 0 4M',))
        image.truncate(image.file_size() - 1)
        image = self.image('bad_truncated_l2', 'truncated', writes=())
        at = image.grow()
        image.set_l1(0, at | COPIED).truncate(at + 64 * 8 - 8)
        self.image('bad_truncated_after_header', 'truncated').truncate(CLUSTER)
        image, _ = self.compressed('bad_truncated_compressed', 'truncated')
        image.truncate(image.file_size() // 2)

    def streams(self):
        data = bytes(range(256)) * 256
        good = deflated(data)
        self.with_stream('bad_comp_garbage', 'deflate', b'\xff' * 600)
        self.with_stream('bad_comp_short_output', 'ends after', deflated(data[:-1]))
        noise = b''.join(hashlib.sha256(b'%d' % index).digest() for index in range(2048))
        self.with_stream('bad_comp_cut', 'ends after', deflated(noise)[:1024])
        self.with_stream('bad_comp_zlib_header', 'deflate', zlib.compress(data))
        image, index = self.compressed('bad_comp_beyond_end', 'beyond the end')
        image.set_l2(index, COMPRESSED | 1 << 40)
        image, index = self.compressed('bad_comp_length_past_end', 'beyond the end')
        at = image.grow()
        image.patch(at, good).set_compressed(index, at, CLUSTER + 512)
        image, index = self.compressed('bad_comp_reserved_offset', 'reserved', options=',cluster_size=4k')
        image.set_l2(index, image.l2(index) | 1 << 57)
        image, index = self.compressed('bad_comp_bit_63', 'reserved')
        image.set_l2(index, image.l2(index) | COPIED)
        image, index = self.compressed('bad_comp_twice', 'one place')
        other = next(i for i in range(index + 1, 32) if image.l2(i) >> 62 == 1)
        image.set_l2(other, image.l2(index))
        for name, at in (('the_l2_table', Image.l2_table),
                         ('the_header', lambda i: 200),
                         ('the_refcount_table', lambda i: i.get('reft_offset'))):
            image, index = self.compressed('bad_comp_in_' + name, 'two owners')
            image.set_compressed(index, at(image) + 16, 600)
        image, index = self.compressed('bad_comp_overlapping', 'share their bytes')
        # Many streams that begin at different bytes and each claim it all.
        at = image.grow(2)
        for index in range(32):
            image.set_compressed(index, at + index, 2 * CLUSTER - 1024)
        self.with_stream('bad_zstd_magic', 'zstd', b'\x29' + zstd_frame(data)[1:], 'zstd')
        window = bytes([0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x03, 0x00, 0x00]) + b'x' * 300
        self.with_stream('bad_zstd_window_2g', 'zstd', window, 'zstd')
        named = bytes([0x28, 0xb5, 0x2f, 0xfd, 0x21, 77, 0x00]) + zstd_frame(data)[6:]
        self.with_stream('bad_zstd_dictionary', 'zstd', named, 'zstd')
        empty = bytes([0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00])
        self.with_stream('bad_zstd_empty_frames', 'zstd', empty * 7000, 'zstd')
        skippable = struct.pack('<II', 0x184d2a50, 8) + bytes(8)
        self.with_stream('bad_zstd_skippable_frames', 'zstd', skippable * 4000, 'zstd')
        self.with_stream('bad_zstd_short_output', 'zstd', zstd_frame(data[:-1]), 'zstd')
        self.with_stream('bad_zstd_long_output', 'zstd', zstd_frame(data + b'x'), 'zstd')

    def subclusters(self):
        def extended(name, error, word, entry=lambda i: i.l2()):
            image = self.image('bad_sub_' + name, error, options='extended_l2=on')
            at = image.l2_at()
            image.set_u64(at, entry(image))
            image.set_u64(at + 8, word)

        extended('allocated_and_zero', 'read as zeroes', 1 << 32 | MAX32)
        extended('allocated_without_host', 'no host cluster', 1, lambda i: 0)
        extended('zero_bit', 'reserved', MAX32, lambda i: i.l2() | 1)
        extended('compressed_with_subclusters', 'compressed and', 1,
                 lambda i: COMPRESSED | i.l2() & ~COPIED)

    def bombs(self):
        # A GiB of zeroes in a few KiB: each L1 entry leads to one L2 table, each
        # of its entries to one stream.
        stream = deflated(bytes(CLUSTER))
        image = self.image('bad_bomb_one_l2_table', 'two owners', size='256G', writes=())
        table = image.grow(2)
        image.patch(table + CLUSTER, stream)
        entry = COMPRESSED | table + CLUSTER
        image.patch(table, struct.pack('>Q', entry) * 8192)
        for index in range(512):
            image.set_l1(index, table | COPIED)
        image = self.image('bad_bomb_one_stream', 'one place', size='512M', writes=())
        table = image.grow(2)
        image.patch(table + CLUSTER, stream)
        image.patch(table, struct.pack('>Q', COMPRESSED | table + CLUSTER) * 8192)
        image.set_l1(0, table | COPIED)
        # A disk for which there is no room anywhere.
        image = self.image('bad_bomb_exbibytes', '', options='cluster_size=2M', writes=())
        at = image.grow()
        image.truncate(at + (32 << 20))
        image.set(size=1 << 61, l1_size=4 << 20, l1_offset=at)
        image = self.image('bad_bomb_exbibytes_in_28k', 'l1_table_offset')
        image.set(size=1 << 49, l1_size=1 << 20)


def made(folder):
    maker = Maker(folder)
    maker.header()
    maker.tables()
    maker.extensions()
    maker.backing_fields()
    maker.backing_names()
    maker.data_files()
    maker.encryption()
    maker.l1_entries()
    maker.l2_entries()
    maker.truncated()
    maker.streams()
    maker.subclusters()
    maker.bombs()
    return maker.cases
