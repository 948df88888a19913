"""Defects of a local disk that were found by reviewing it, each by its name."""

from dataclasses import replace
from pathlib import Path

import pytest

from ostraka.errors import Full
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.nodes.local import LocalDisk
from ostraka.testing.files import FaultyFiles

STORE = b"s" * 16


@pytest.mark.parametrize("total", [1 << 34, 1 << 38, 1 << 40, 1 << 44])
def test_the_bound_on_reserves_leaves_compaction_room_on_a_huge_disk(tmp_path: Path, total: int) -> None:
    """All three were cut to the same bytes: when writes had to stop, compaction had to stop as well, for ever."""
    files = FaultyFiles()
    limits = replace(LIMITS)
    (tmp_path / "d").mkdir()
    disk = LocalDisk.open_owner(tmp_path / "d", 7, STORE, b"1" * 16, Host(files), limits)
    writes = min(int(total * limits.reserve_writes), limits.reserve_bytes_max)
    files.room = (writes + 1000, total)
    with disk.space.reserve(900, limits.reserve_writes):
        pass
    files.room = (writes - 1, total)
    with pytest.raises(Full), disk.space.reserve(0, limits.reserve_writes):
        pass
    with disk.space.reserve(writes // 4, limits.reserve_compaction):
        pass
    files.room = (writes // 2, total)
    with pytest.raises(Full), disk.space.reserve(0, limits.reserve_compaction):
        pass
    with disk.space.reserve(writes // 4, limits.reserve_deletes):
        pass
    disk.close()
