"""Frames that are opened: every mixture of codecs gives the plaintext back, and nothing that is wrong goes through."""

import itertools
import random

import pytest

from ostraka.chunks import frames
from ostraka.chunks.frames import FrameTable
from ostraka.chunks.types import RECIPE, Codec
from ostraka.errors import Corrupt

SEED = 12
FRAME = 1000
LENGTH = 5 * FRAME + 300  # the last frame is shorter


def plain_of(codecs: str) -> bytes:
    """``z`` for a frame that compresses, ``r`` for one that does not."""
    dice = random.Random(SEED)
    whole = b"".join(dice.randbytes(FRAME) if c == "r" else dice.randbytes(10) * (FRAME // 10) for c in codecs)
    return whole[:LENGTH]


def stored(plain: bytes) -> tuple[bytes, FrameTable]:
    size = frames.table_size(LENGTH, FRAME)
    room = memoryview(bytearray(size) + plain)
    built = frames.build(room, size, LENGTH, FRAME)
    body = bytes(room) if built.body is None else built.body
    return body, frames.parse(memoryview(body)[:size], LENGTH, len(body))


@pytest.mark.parametrize("codecs", ["zzzzzz", "rrrrrr", "zrrzzr", "rzzrrz", "zrzrzr"])
@pytest.mark.parametrize("roomy", [True, False])
def test_every_range_of_frames_opens_to_its_plaintext_in_as_few_buffers_as_codecs_change(
    codecs: str, roomy: bool
) -> None:
    plain = plain_of(codecs)
    body, table = stored(plain)
    assert [Codec(c) for c in table.codecs] == [Codec.RAW if c == "r" else Codec.ZSTD for c in codecs]
    for first in range(6):
        for last in range(first + 1, 7):
            data = memoryview(body)[table.start(first) : table.ends[last - 1]]
            expected = plain[first * FRAME : last * FRAME]
            room = memoryview(bytearray(len(expected))) if roomy else None
            pieces = frames.open_frames(data, table, first, last, room)
            assert b"".join(pieces) == expected
            part = codecs[first:last]
            assert len(pieces) == 1 + sum(a != b for a, b in itertools.pairwise(part))


@pytest.mark.parametrize("codecs", ["zzzzzz", "zrrzzr", "rrrrrr"])
def test_no_damaged_byte_of_any_frame_is_handed_out(codecs: str) -> None:
    plain = plain_of(codecs)
    body, table = stored(plain)
    dice = random.Random(SEED)
    for frame in range(6):
        for at in {table.start(frame), table.ends[frame] - 1, dice.randrange(table.start(frame), table.ends[frame])}:
            damaged = bytearray(body)
            damaged[at] ^= 1 << dice.randrange(8)
            data = memoryview(damaged)[table.table_size :]
            try:
                pieces = frames.open_frames(data, table, 0, 6, memoryview(bytearray(LENGTH)))
            except Corrupt:
                continue
            assert b"".join(pieces) == plain, "only a bit that means nothing may be passed over"


def test_a_frame_that_unfolds_to_another_length_or_is_cut_is_corrupt() -> None:
    packed = frames.compressor(RECIPE)(bytes(1000))
    for wrong in (999, 1001, 1):
        with pytest.raises(Corrupt):
            frames.inflate_into(packed, memoryview(bytearray(wrong)))
    for cut in (0, 3, len(packed) - 1):
        with pytest.raises(Corrupt):
            frames.inflate_into(packed[:cut], memoryview(bytearray(1000)))
    into = memoryview(bytearray(1000))
    frames.inflate_into(packed, into)
    assert into == bytes(1000)
