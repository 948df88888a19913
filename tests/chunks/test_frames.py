"""Frames that are opened: every mixture of codecs gives the plaintext back, and nothing that is wrong goes through."""

import itertools
import random

import pytest

from ostraka.chunks import frames
from ostraka.chunks.frames import FrameTable
from ostraka.chunks.types import RECIPE, Codec, Recipe
from ostraka.errors import Corrupt

SEED = 12
FRAME = 1000
LENGTH = 5 * FRAME + 300  # the last frame is shorter


def plain_of(codecs: str) -> bytes:
    """``z`` for a frame that compresses, ``r`` for one that does not."""
    dice = random.Random(SEED)
    whole = b"".join(dice.randbytes(FRAME) if c == "r" else dice.randbytes(10) * (FRAME // 10) for c in codecs)
    return whole[:LENGTH]


RECIPES = [RECIPE, Recipe(Codec.ZSTD, 9), Recipe(Codec.LZ4, 1), Recipe(Codec.LZ4, 9)]


def stored(plain: bytes, recipe: Recipe = RECIPE) -> tuple[bytes, FrameTable]:
    size = frames.table_size(LENGTH, FRAME)
    room = memoryview(bytearray(size) + plain)
    built = frames.build(room, size, LENGTH, FRAME, recipe)
    body = bytes(room) if built.body is None else built.body
    return body, frames.parse(memoryview(body)[:size], LENGTH, len(body))


@pytest.mark.parametrize("codecs", ["zzzzzz", "rrrrrr", "zrrzzr", "rzzrrz", "zrzrzr"])
@pytest.mark.parametrize("roomy", [True, False])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_range_of_frames_opens_to_its_plaintext_in_as_few_buffers_as_codecs_change(
    codecs: str, roomy: bool, recipe: Recipe
) -> None:
    plain = plain_of(codecs)
    body, table = stored(plain, recipe)
    assert [Codec(c) for c in table.codecs] == [Codec.RAW if c == "r" else recipe.codec for c in codecs]
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
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_no_damaged_byte_of_any_frame_is_handed_out(codecs: str, recipe: Recipe) -> None:
    plain = plain_of(codecs)
    body, table = stored(plain, recipe)
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


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_frame_that_unfolds_to_another_length_or_is_cut_is_corrupt(recipe: Recipe) -> None:
    packed = frames.compressor(recipe)(bytes(1000))
    for wrong in (999, 1001, 1, 1 << 20):
        with pytest.raises(Corrupt):
            frames.inflate_into(recipe.codec, packed, memoryview(bytearray(wrong)))
        with pytest.raises(Corrupt):
            frames.inflate(recipe.codec, packed, wrong)
    for cut in (0, 3, len(packed) - 1):
        with pytest.raises(Corrupt):
            frames.inflate_into(recipe.codec, packed[:cut], memoryview(bytearray(1000)))
    into = memoryview(bytearray(1000))
    frames.inflate_into(recipe.codec, packed, into)
    assert into == bytes(1000)


def test_a_recipe_that_compresses_nothing_keeps_frames_as_they_came() -> None:
    body, table = stored(plain_of("zzzzzz"), Recipe(Codec.RAW))
    assert set(table.codecs) == {Codec.RAW}
    assert body[table.table_size :] == plain_of("zzzzzz")


def test_what_does_not_shrink_is_tried_three_times_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def counted(recipe: Recipe) -> frames.Compress:
        def compress(piece: object) -> bytes:
            tried.append(piece)
            return right(recipe)(piece)  # type: ignore[arg-type]

        return compress

    right = frames.compressor
    monkeypatch.setattr(frames, "compressor", counted)
    for recipe in RECIPES:
        tried.clear()
        _, table = stored(plain_of("rrrrrr"), recipe)
        assert set(table.codecs) == {Codec.RAW}
        assert len(tried) == 3
