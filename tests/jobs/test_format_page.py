"""The worked example of docs/format/job-rows.md is what the code reads and writes."""

import re
from pathlib import Path

import pytest

from ostraka.errors import Corrupt, Refused
from ostraka.jobs.records import HEAL_KEY, SCRUB_KEY, HealRecord, ScrubRecord, decode, encode

PAGE = Path(__file__).parents[2] / "docs" / "format" / "job-rows.md"


def test_the_page_shows_what_is_written() -> None:
    block = re.search(r"```hex\n(.*?)```", PAGE.read_text(), re.S)
    assert block
    value = b"".join(bytes.fromhex(line.split("  ", 1)[1]) for line in block[1].splitlines())
    record = HealRecord(settled=(3,), healing=((4, 9),), gone=(2,), cursor=b"c\x00\x01", examined=5, repaired=2, left=1)
    assert decode(HEAL_KEY, value) == record
    assert encode(record) == value


def test_a_row_that_is_none_or_is_newer_is_told_apart() -> None:
    with pytest.raises(Corrupt):
        decode(HEAL_KEY, b"\xc1")
    with pytest.raises(Corrupt):
        decode(b"jwhat", encode(ScrubRecord()))
    with pytest.raises(Refused):
        decode(SCRUB_KEY, encode(ScrubRecord(version=2)))
