"""A bit that flips in a small file is damage, told as such: never content, and never "a newer version wrote this"."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from xxhash import xxh3_64_digest

from ostraka.errors import Corrupt, Refused
from ostraka.nodes import keys, superblock

FORMATS = Path(__file__).parents[2] / "docs" / "format"


def example(page: str) -> bytes:
    block = re.search(r"```(hex|json)\n(.*?)```", (FORMATS / page).read_text(), re.S)
    assert block
    if block[1] == "json":
        return block[2].encode()
    return b"".join(bytes.fromhex(line.split("  ", 1)[1]) for line in block[2].splitlines())


@pytest.mark.parametrize(
    ("page", "decode"),
    [("superblock.md", superblock.decode), ("keys.md", keys.decode)],
    ids=["superblock", "keys"],
)
def test_every_flipped_bit_is_corrupt(page: str, decode: Callable[[bytes, str], Any]) -> None:
    whole = example(page)
    decode(whole, "whole")
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decode(bytes(flipped), f"bit {bit}")


def test_what_a_newer_version_wrote_is_refused() -> None:
    block = bytearray(example("superblock.md")[:-8])
    block[9] += 1
    with pytest.raises(Refused, match="release"):
        superblock.decode(bytes(block) + xxh3_64_digest(bytes(block)), "newer")
    said = msgspec.json.decode(example("keys.md")) | {"version": 2, "more": [1], "checksum": ""}
    said["checksum"] = keys._checksum(said)
    with pytest.raises(Refused, match="release"):
        keys.decode(msgspec.json.encode(said), "newer")
