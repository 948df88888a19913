"""The worked example of docs/format/job-rows.md is what the code reads and writes."""

import re
from pathlib import Path

import pytest

from ostraka.errors import Corrupt, Refused
from ostraka.jobs.records import (
    HEAL_KEY,
    REBALANCE_KEY,
    SCRUB_KEY,
    HealRecord,
    Layout,
    RebalanceRecord,
    ScrubRecord,
    decode,
    encode,
)

PAGE = Path(__file__).parents[2] / "docs" / "format" / "job-rows.md"


def example(name: str) -> bytes:
    block = re.search(rf"```hex{name}\n(.*?)```", PAGE.read_text(), re.S)
    assert block
    return b"".join(bytes.fromhex(line.split("  ", 1)[1]) for line in block[1].splitlines())


def test_the_page_shows_what_rebalancing_writes() -> None:
    stays = ((0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 4))
    record = RebalanceRecord(
        layout=Layout(4, 2, stays, ((7, 9),)),
        since=9,
        cursor=b"c\x00\x01",
        settled=True,
        examined=5,
        total=40,
        moved=2,
        moved_bytes=1024,
    )
    value = example(" rebalance")
    assert decode(REBALANCE_KEY, value) == record
    assert encode(record) == value


def test_the_page_shows_what_is_written() -> None:
    value = example("")
    record = HealRecord(
        settled=(3,),
        healing=((4, 9),),
        gone=(2,),
        cursor=b"c\x00\x01",
        examined=5,
        repaired=2,
        left=1,
        danger=1,
        most=1,
        walked=7,
        total=40,
    )
    assert decode(HEAL_KEY, value) == record
    assert encode(record) == value


def test_a_row_that_is_none_or_is_newer_is_told_apart() -> None:
    with pytest.raises(Corrupt):
        decode(HEAL_KEY, b"\xc1")
    with pytest.raises(Corrupt):
        decode(b"jwhat", encode(ScrubRecord()))
    with pytest.raises(Refused):
        decode(SCRUB_KEY, encode(ScrubRecord(version=2)))
