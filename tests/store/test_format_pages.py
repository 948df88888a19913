"""The worked examples of docs/format/ are what the code reads and writes."""

import re
from pathlib import Path

from ostraka.nodes import superblock
from ostraka.store import keys

FORMATS = Path(__file__).parents[2] / "docs" / "format"


def hex_example(page: str) -> bytes:
    block = re.search(r"```hex\n(.*?)```", (FORMATS / page).read_text(), re.S)
    assert block
    return b"".join(bytes.fromhex(line.split("  ", 1)[1]) for line in block[1].splitlines())


def test_superblock_page() -> None:
    content = hex_example("superblock.md")
    block = superblock.decode(content, "the page")
    assert block.store_id == bytes(range(16))
    assert (block.epoch.k, block.epoch.m, len(block.epoch.members)) == (1, 0, 1)
    assert superblock.encode(block) == content


def test_keys_page() -> None:
    example = re.search(r"```json\n(.*?)```", (FORMATS / "keys.md").read_text(), re.S)
    assert example
    found = keys.decode(example[1].encode(), "the page")
    assert keys.encode(found).decode() == example[1]
