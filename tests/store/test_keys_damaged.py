"""Defects of how the store's keys are read, each by its name."""

import asyncio
from pathlib import Path

import pytest

from ostraka.errors import OstrakaError
from ostraka.store.store import open_here


async def open_and_close(disk: Path) -> None:
    async with open_here([disk]):
        pass


def test_keys_that_are_no_text_any_more_are_a_typed_refusal(tmp_path: Path) -> None:
    """A flipped bit that broke UTF-8 came through as UnicodeDecodeError, past every door."""
    disk = tmp_path / "disk"
    asyncio.run(open_and_close(disk))
    keys = disk / "keys.json"
    whole = keys.read_bytes()
    for at in range(0, len(whole), 7):
        keys.write_bytes(whole[:at] + bytes([whole[at] ^ 0x80]) + whole[at + 1 :])
        with pytest.raises(OstrakaError):
            asyncio.run(open_and_close(disk))
    keys.write_bytes(whole)
    asyncio.run(open_and_close(disk))
