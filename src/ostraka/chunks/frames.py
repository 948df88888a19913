"""The stored form of a chunk: a frame table, then frames, each by itself compressed, sealed and checksummed.

Plain functions over memory, meant for worker threads: hashing, compression and checksums run without the
interpreter's lock. The format is docs/format/chunk.md. Nothing here knows where bytes are kept.

The table stands in front, and a receive buffer leaves room for it there, so that a chunk that does not compress is
written from the very memory it was received into. Sealed frames need other memory: what was received is still read.
"""

import functools
import threading
from array import array
from collections.abc import Callable
from struct import Struct as Layout
from typing import NamedTuple

import lz4.block
import zstandard
from xxhash import xxh3_64_intdigest

from ostraka.chunks.sealing import CIPHER_NONE, CIPHERS, PLACE, TAG_SIZE, DataKey
from ostraka.chunks.types import RECIPE, Codec, Recipe
from ostraka.errors import Corrupt, Refused
from ostraka.host import Buffer

MAGIC = b"OSTc"
VERSION = 1

HEADER = Layout(">4sBBHIIII8x")  # magic, version, cipher, reserved, frame size, frames, plain bytes, table size
FRAME = Layout(">IB3xQ")  # stored bytes, codec, XXH3-64 of the plaintext
CHECKSUM = Layout(">Q")  # XXH3-64 of the table before it
TABLE_ALIGNMENT = 64  # a cache line, so that the plaintext starts on one

Compress = Callable[[Buffer], bytes]

KEEP_RATIO = 0.95  # a frame is kept compressed when that saves one byte in twenty


CODECS = frozenset(Codec)


class Stored(NamedTuple):
    """A chunk as it goes to the pool. ``body`` None: it stands in the receive buffer, table in front."""

    length: int
    body: bytes | None


class FrameTable:
    """A verified frame table: where each frame is in the body, and what its plaintext must hash to."""

    __slots__ = ("checksums", "cipher", "codecs", "ends", "frame_size", "length", "table_size")

    def __init__(self, frame_size: int, length: int, table_size: int, cipher: int = CIPHER_NONE) -> None:
        self.frame_size = frame_size
        self.length = length  # plaintext bytes of the chunk
        self.table_size = table_size
        self.ends = array("Q")  # where each frame ends in the body
        self.codecs = bytearray()
        self.checksums = array("Q")  # of sealed frames as they stand there, masked
        self.cipher = cipher

    def start(self, frame: int) -> int:
        """Offset of a frame in the body."""
        return self.ends[frame - 1] if frame else self.table_size

    def plain_size(self, frame: int) -> int:
        return min(self.frame_size, self.length - frame * self.frame_size)

    @property
    def size(self) -> int:
        """Memory it takes, roughly: what the cache of tables counts."""
        return 400 + 17 * len(self.codecs)


def frame_count(length: int, frame_size: int) -> int:
    return -(-length // frame_size)


def table_size(length: int, frame_size: int) -> int:
    """Bytes of the table of a chunk of up to ``length`` plaintext bytes."""
    size = HEADER.size + FRAME.size * frame_count(length, frame_size) + CHECKSUM.size
    return -(-size // TABLE_ALIGNMENT) * TABLE_ALIGNMENT


# -- writing


LZ4_HC_FROM = 3  # levels are those of the lz4 program: below this one it is the fast kind, which has but one


class _Codecs(threading.local):
    """A thread's own: they cannot be shared, and are dear to make."""

    def __init__(self) -> None:
        self.compressors: dict[tuple[Codec, int], Compress] = {}
        self.decompressor = zstandard.ZstdDecompressor()


_codecs = _Codecs()


def compressor(recipe: Recipe) -> Compress:
    """This thread's compression by a recipe that has one."""
    name = (recipe.codec, recipe.level)
    known = _codecs.compressors.get(name)
    if known is None:
        known = _codecs.compressors[name] = _compressor(*name)
    return known


def _compressor(codec: Codec, level: int) -> Compress:
    if codec == Codec.ZSTD:
        return zstandard.ZstdCompressor(level=level).compress
    assert codec == Codec.LZ4, codec
    if level < LZ4_HC_FROM:
        return functools.partial(lz4.block.compress, store_size=False)
    return functools.partial(lz4.block.compress, mode="high_compression", compression=level, store_size=False)


def build(room: memoryview, table: int, length: int, frame_size: int, recipe: Recipe = RECIPE) -> Stored:
    """The stored form of ``room[table : table + length]``; ``room[:table]`` is where its table may go.

    The plaintext is not touched: digests may be reading it.
    """
    plain = room[table : table + length]
    pieces = [plain[at : at + frame_size] for at in range(0, length, frame_size)]
    checksums = [xxh3_64_intdigest(piece) for piece in pieces]
    packed = _compressed(pieces, compressor(recipe)) if recipe.codec != Codec.RAW else None
    if packed is None:
        room[:table] = _table(table, length, frame_size, [(len(p), Codec.RAW) for p in pieces], checksums)
        return Stored(table + length, None)
    stored = [(len(f), Codec.RAW if f is p else recipe.codec) for f, p in zip(packed, pieces, strict=True)]
    body = b"".join([_table(table, length, frame_size, stored, checksums), *packed])
    return Stored(len(body), body)


def _compressed(pieces: list[memoryview], compress: Compress) -> list[Buffer] | None:
    """Frames as they are to be stored; None when compression does not pay: then as few as three were tried."""
    tried: dict[int, bytes] = {}
    for at in {0, len(pieces) // 2, len(pieces) - 1}:
        tried[at] = compress(pieces[at])
    if not any(len(frame) <= KEEP_RATIO * len(pieces[at]) for at, frame in tried.items()):
        return None
    frames: list[Buffer] = []
    for at, piece in enumerate(pieces):
        frame = tried.get(at) or compress(piece)
        frames.append(frame if len(frame) <= KEEP_RATIO * len(piece) else piece)
    return frames


def sealed_size(table: int, length: int, frame_size: int) -> int:
    """Room that the stored form of a sealed chunk takes at most."""
    return table + length + TAG_SIZE * frame_count(length, frame_size)


def build_sealed(
    room: memoryview,
    table: int,
    length: int,
    frame_size: int,
    recipe: Recipe,
    key: DataKey,
    chunk: bytes,
    into: memoryview,
) -> int:
    """As build, each frame sealed under ``key``, which is for this alone; the stored form is put into ``into``
    (`sealed_size` bytes). Returns its length."""
    plain = room[table : table + length]
    pieces = [plain[at : at + frame_size] for at in range(0, length, frame_size)]
    count = len(pieces)
    checksums = [xxh3_64_intdigest(p) ^ mask for p, mask in zip(pieces, key.masks(0, count), strict=True)]
    packed = _compressed(pieces, compressor(recipe)) if recipe.codec != Codec.RAW else None
    stored: list[tuple[int, Codec]] = []
    at = table
    for number, piece in enumerate(pieces):
        frame = piece if packed is None else packed[number]
        codec = Codec.RAW if frame is piece else recipe.codec
        size = len(frame) + TAG_SIZE
        key.seal_into(number, frame, _bound(chunk, number, count, codec, len(piece)), into[at : at + size])
        stored.append((size, codec))
        at += size
    into[:table] = _table(table, length, frame_size, stored, checksums, key.cipher)
    return at


def _bound(chunk: bytes, number: int, count: int, codec: int, plain: int) -> bytes:
    """What a sealed frame belongs to."""
    return chunk + PLACE.pack(number, count, codec, plain)


def _table(
    size: int,
    length: int,
    frame_size: int,
    stored: list[tuple[int, Codec]],
    checksums: list[int],
    cipher: int = CIPHER_NONE,
) -> bytes:
    parts = [HEADER.pack(MAGIC, VERSION, cipher, 0, frame_size, len(stored), length, size)]
    parts += [FRAME.pack(n, codec, checksum) for (n, codec), checksum in zip(stored, checksums, strict=True)]
    head = b"".join(parts).ljust(size - CHECKSUM.size, b"\0")
    return head + CHECKSUM.pack(xxh3_64_intdigest(head))


# -- reading


def parse(data: Buffer, length: int, body_length: int) -> FrameTable:
    """The table at the front of a chunk's body. Corrupt if it is none, or not of a chunk of these lengths."""
    view = memoryview(data)
    if len(view) < HEADER.size + CHECKSUM.size:
        raise Corrupt("a frame table that is cut", reason="frame-table")
    magic, version, cipher, _, frame_size, count, plain, size = HEADER.unpack_from(view)
    if magic != MAGIC or size != len(view):
        raise Corrupt("no frame table where a chunk begins", reason="frame-table")
    if CHECKSUM.unpack_from(view, size - CHECKSUM.size)[0] != xxh3_64_intdigest(view[: size - CHECKSUM.size]):
        raise Corrupt("a frame table that does not match its checksum", reason="frame-table")
    if version != VERSION or (cipher != CIPHER_NONE and cipher not in CIPHERS):
        raise Refused(f"a chunk of version {version}, cipher {cipher}; this program reads {VERSION}", reason="version")
    if (
        plain != length
        or frame_size <= 0
        or count != frame_count(plain, frame_size)
        or size < table_size(plain, frame_size)
    ):
        raise Corrupt("a frame table that belongs to another chunk", reason="frame-table")
    table = FrameTable(frame_size, plain, size, cipher)
    tag = TAG_SIZE if cipher else 0
    end = size
    for number, (stored, codec, checksum) in enumerate(
        FRAME.iter_unpack(view[HEADER.size : HEADER.size + count * FRAME.size])
    ):
        room = table.plain_size(number) + tag
        if not tag <= stored <= room or codec not in CODECS or (codec == Codec.RAW and stored != room):
            raise Corrupt(f"frame {number} of a chunk cannot be as its table says", reason="frame-table")
        end += stored
        table.ends.append(end)
        table.codecs.append(codec)
        table.checksums.append(checksum)
    if end != body_length:
        raise Corrupt("a frame table that does not fill its chunk", reason="frame-table")
    return table


def open_frames(
    data: memoryview, table: FrameTable, first: int, last: int, room: memoryview | None = None
) -> list[Buffer]:
    """The plaintext of frames [first, last), whose stored bytes are ``data``; neighbours of one codec are one buffer.

    Each frame is verified against the checksum that was made when it came in, over the memory that is returned. What
    is compressed unfolds into ``room``, if there is any: as large as the plaintext of all of these frames.
    """
    out: list[Buffer] = []
    base = table.start(first)
    begin = first
    while begin < last:
        end, codec = begin + 1, table.codecs[begin]
        while end < last and table.codecs[end] == codec:
            end += 1
        stored = data[table.start(begin) - base : table.ends[end - 1] - base]
        if codec != Codec.RAW:
            at = (begin - first) * table.frame_size
            stored = _unfold(stored, table, begin, end, None if room is None else room[at:])
        for frame in range(begin, end):
            at = (frame - begin) * table.frame_size
            _verify(stored[at : at + table.plain_size(frame)], table.checksums[frame], frame)
        out.append(stored)
        begin = end
    return out


def open_sealed(
    key: DataKey, chunk: bytes, data: memoryview, table: FrameTable, first: int, last: int, room: memoryview | None
) -> list[Buffer]:
    """As open_frames, of a chunk whose frames are sealed; its plaintext is one buffer."""
    count = len(table.codecs)
    base, size = table.start(first), (last - 1 - first) * table.frame_size + table.plain_size(last - 1)
    plain = memoryview(bytearray(size)) if room is None else room[:size]
    for frame, mask in zip(range(first, last), key.masks(first, last - first), strict=True):
        at, length, codec = (frame - first) * table.frame_size, table.plain_size(frame), table.codecs[frame]
        into = plain[at : at + length]
        sealed = data[table.start(frame) - base : table.ends[frame] - base]
        bound = _bound(chunk, frame, count, codec, length)
        if codec == Codec.RAW:
            key.open_into(frame, sealed, bound, into)
        else:
            inflate_into(codec, key.open(frame, sealed, bound), into)
        _verify(into, table.checksums[frame] ^ mask, frame)
    return [plain]


def _unfold(data: memoryview, table: FrameTable, first: int, last: int, room: memoryview | None) -> memoryview:
    """The plaintext of frames that are all compressed, as one buffer."""
    base, size = table.start(first), (last - 1 - first) * table.frame_size + table.plain_size(last - 1)
    if room is None and last - first == 1:
        return memoryview(inflate(table.codecs[first], data, size))
    plain = memoryview(bytearray(size)) if room is None else room[:size]
    for frame in range(first, last):
        at = (frame - first) * table.frame_size
        stored = data[table.start(frame) - base : table.ends[frame] - base]
        inflate_into(table.codecs[frame], stored, plain[at : at + table.plain_size(frame)])
    return plain


def inflate(codec: int, data: Buffer, length: int) -> bytes:
    """Decompress to exactly ``length`` bytes; Corrupt for anything else. No more memory than that is taken."""
    try:
        if codec == Codec.LZ4:
            plain: bytes = lz4.block.decompress(data, uncompressed_size=length)
        elif zstandard.frame_content_size(data) != length:
            raise _other_length()
        else:
            plain = _codecs.decompressor.decompress(data, max_output_size=length)
    except (zstandard.ZstdError, lz4.block.LZ4BlockError) as error:
        raise _unreadable(error) from error
    if len(plain) != length:
        raise _other_length()
    return plain


def inflate_into(codec: int, data: Buffer, into: memoryview) -> None:
    """Decompress to exactly the bytes of ``into``; Corrupt for anything else."""
    if codec == Codec.LZ4:  # its library knows no other place than one of its own
        into[:] = inflate(codec, data, len(into))
        return
    try:
        if zstandard.frame_content_size(data) != len(into):
            raise _other_length()
        with _codecs.decompressor.stream_reader(data) as reader:
            done = reader.readinto(into)
    except zstandard.ZstdError as error:
        raise _unreadable(error) from error
    if done != len(into):
        raise _other_length()


def _other_length() -> Corrupt:
    return Corrupt("compressed bytes of another length than recorded", reason="frame")


def _unreadable(error: Exception) -> Corrupt:
    return Corrupt(f"compressed bytes that cannot be read: {error}", reason="frame")


def _verify(plain: Buffer, checksum: int, frame: int) -> None:
    if xxh3_64_intdigest(plain) != checksum:
        raise Corrupt(f"frame {frame} does not match the checksum that was made when it came in", reason="frame")
