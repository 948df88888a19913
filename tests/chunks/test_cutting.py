"""Cuts: where docs/format/cutting.md says, whatever came before and however the bytes arrived."""

import hashlib
import random
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyfastcdc.py.constants import GEAR, MASKS

from ostraka.chunks.cutting import ContentCutter, Cutter, FixedCutter, cutter
from ostraka.chunks.types import Cut
from ostraka.limits import KIB, LIMITS, MIB

PAGE = (Path(__file__).parents[2] / "docs" / "format" / "cutting.md").read_text()


def cuts(how: Cutter, body: bytes) -> list[int]:
    """As a stream does it: more bytes only when those that are there do not tell."""
    view, at, found = memoryview(body), 0, []
    while at < len(body):
        for stop in how.stops:
            data = view[at : at + stop]
            size = how.cut(data, at + len(data) == len(body))
            if size:
                break
        found.append(size)
        at += size
    return found


def by_the_page(body: bytes, average: int) -> list[int]:
    """The loop of the page, letter by letter."""
    bits = average.bit_length() - 1
    strict, loose = MASKS[bits + 2], MASKS[bits - 2]
    found, begin = [], 0
    while begin < len(body):
        end, h = min(len(body) - begin, 2 * average), 0
        for i in range(average // 4, end // 2 * 2):
            h = (2 * h + GEAR[body[begin + i]]) % (1 << 64)
            if h & (strict if i < average else loose) == 0:
                end = i
                break
        found.append(end)
        begin += end
    return found


def test_the_page_names_the_table_and_the_masks_that_cut() -> None:
    assert hashlib.sha256(struct.pack(">256Q", *GEAR)).hexdigest() in PAGE
    masks = re.findall(r"^\| (\d+) (KiB|MiB) \| `([0-9a-f]{16})` \|$", PAGE, re.M)
    assert len(masks) == 9
    for number, unit, mask in masks:
        size = int(number) * (KIB if unit == "KiB" else MIB)
        assert MASKS[size.bit_length() - 1] == int(mask, 16)


@pytest.mark.parametrize(("name", "average"), [("256 KiB", 256 * KIB), ("512 KiB", 512 * KIB), ("1 MiB", MIB)])
def test_the_example_of_the_page_is_cut_there(name: str, average: int) -> None:
    body = hashlib.shake_128(b"ostraka").digest(8 * MIB)
    found = re.search(rf"^\| {name} \| ([\d ]+) \|$", PAGE, re.M)
    assert found
    told = [int(size) for size in found[1].split()]
    assert cuts(ContentCutter(average), body)[: len(told)] == told


@pytest.mark.parametrize("average", [512, 1024, 2048])
def test_a_plain_reading_of_the_page_gives_the_same_cuts(average: int, seed: int) -> None:
    dice = random.Random(seed)
    bodies = [dice.randbytes(dice.randrange(1, 20 * average)) for _ in range(10)]
    bodies += [bytes(9 * average), b"ab" * (3 * average), dice.randbytes(7) * average]
    for body in bodies:
        assert cuts(ContentCutter(average), body) == by_the_page(body, average)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, 12_000), st.integers(0, 3))
def test_no_chunk_is_out_of_bounds_and_together_they_are_the_body(seed: int, size: int, alphabet: int) -> None:
    dice = random.Random(seed)
    body = bytes(dice.choices(range([2, 4, 64, 256][alphabet]), k=size))
    how = ContentCutter(1024)
    found = cuts(how, body)
    assert sum(found) == size
    assert all(how.minimum <= part <= how.stops[-1] for part in found[:-1])
    assert all(part <= how.stops[-1] for part in found[-1:])


def test_after_an_insertion_only_what_it_touched_is_cut_anew(seed: int) -> None:
    body = random.Random(seed).randbytes(400 * KIB)
    how = ContentCutter(4 * KIB)

    def chunks(of: bytes) -> set[bytes]:
        found, at = set(), 0
        for size in cuts(how, of):
            found.add(of[at : at + size])
            at += size
        return found

    before, after = chunks(body), chunks(body[: 100 * KIB] + b"one line more\n" + body[100 * KIB :])
    assert len(before) > 50
    assert len(before - after) <= 3


def test_fixed_cuts_are_where_they_were_asked_for() -> None:
    assert cuts(FixedCutter(10), bytes(35)) == [10, 10, 10, 5]
    assert cuts(FixedCutter(10), bytes(30)) == [10, 10, 10]
    assert FixedCutter(10).cut(memoryview(bytes(9)), False) == 0


def test_cuts_fit_into_the_bounds_of_the_process() -> None:
    assert cutter(Cut(), LIMITS).stops == (4 * MIB,)
    assert cutter(Cut(MIB), LIMITS).stops == (MIB,)
    assert cutter(Cut(MIB, True), LIMITS).stops[-1] == 2 * MIB
    small = replace(LIMITS, chunk_size=64 * KIB)
    assert cutter(Cut(), small).stops == (64 * KIB,)
    assert cutter(Cut(MIB, True), small).stops[-1] == 64 * KIB
    assert cutter(Cut(MIB, True), replace(LIMITS, chunk_size=128)).stops == (128,)
