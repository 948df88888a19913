"""The worked examples of docs/format/ are what the code reads and writes."""

import os
import re
from pathlib import Path

import pytest

from ostraka.errors import InUse
from ostraka.host import Host
from ostraka.nodes import keys, recovery, superblock
from ostraka.store.recovery import LOCK, hold

FORMATS = Path(__file__).parents[2] / "docs" / "format"


def json_example(page: str) -> str:
    block = re.search(r"```json\n(.*?)```", (FORMATS / page).read_text(), re.S)
    assert block
    return block[1]


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
    example = json_example("keys.md")
    found = keys.decode(example.encode(), "the page")
    assert keys.encode(found).decode() == example


def test_mark_of_the_shard_index_page(tmp_path: Path) -> None:
    example = json_example("shard-index.md").strip()
    path = recovery.index_directory(tmp_path) / "mark"
    path.parent.mkdir()
    path.write_text(example)
    mark = recovery.read_mark(Host(), tmp_path)
    assert mark is not None
    assert (mark.version, mark.store, mark.state) == (recovery.VERSION, bytes(range(16)).hex(), "open")
    recovery.write_mark(Host(), tmp_path, mark)
    assert path.read_text() == example


def test_lock_page(tmp_path: Path) -> None:
    content = hex_example("lock.md")
    with hold([tmp_path], Host(), make=True):
        assert (tmp_path / LOCK).read_bytes() == content.replace(b"4711", str(os.getpid()).encode())
        (tmp_path / LOCK).write_bytes(content)
        with pytest.raises(InUse, match="by process 4711"), hold([tmp_path], Host(), make=True):
            pass
    with hold([tmp_path], Host(), make=True):
        pass  # what is left of a lock bars nobody
