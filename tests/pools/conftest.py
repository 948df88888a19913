"""A store's disks for the tests of the pool: real directories, files that can fail, members that change."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ostraka.errors import Unavailable
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Disk
from ostraka.pools.pool import ErasurePool
from ostraka.pools.types import Stripe
from ostraka.testing.files import FaultyFiles


class Store:
    """Disks, and the committed view of which are up: what Members promises, without epochs on disk."""

    def __init__(self, root: Path, k: int, m: int, count: int, limits: Limits) -> None:
        self.k, self.m = k, m
        self.root = root
        self.limits = limits
        self.files = FaultyFiles()
        self.host = Host(self.files)
        self.disks: dict[int, LocalDisk] = {}
        self.down: set[int] = set()
        self.lost: set[int] = set()
        self.failures: list[tuple[int, BaseException]] = []
        self.read_only = False
        for _ in range(count):
            self.add()
        self.pool = ErasurePool(self, self.host, limits)

    def add(self) -> int:
        number = len(self.disks)
        path = self.root / f"disk-{number}"
        path.mkdir()
        self.disks[number] = LocalDisk.open_owner(path, number, b"s" * 16, bytes([number]) * 16, self.host, self.limits)
        return number

    # -- Members

    def up(self) -> Sequence[Disk]:
        return [disk for number, disk in self.disks.items() if number not in self.down | self.lost]

    def disk(self, number: int) -> Disk | None:
        return None if number in self.down | self.lost else self.disks.get(number)

    def gone(self, number: int) -> bool:
        return number in self.lost

    async def failed(self, number: int, error: BaseException) -> None:
        if self.read_only:
            raise Unavailable("no majority", reason="read-only")
        self.failures.append((number, error))
        self.down.add(number)

    # -- what a test does to it

    def damage(self, stripe: Stripe, index: int, at: int = 0) -> None:
        """Flip a bit of a shard's data at rest."""
        disk = self.disks[stripe.disks[index]]
        extent = disk.index.get(stripe.write_id, index)
        assert extent is not None
        name = f"{extent.segment[:16].hex()}-{extent.segment[16:].hex()}.segment"
        with (disk.directory / name).open("r+b") as file:
            file.seek(extent.offset + extent.header.data_offset + at)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))

    def forget(self, stripe: Stripe, index: int) -> None:
        """The shard is not on its disk: its segments are gone, and the index's row."""
        disk = self.disks[stripe.disks[index]]
        for writer in disk._writers:
            writer.seal()
        for info in disk.segments():
            disk.settle([stripe.write_id])
            disk.compact(info.segment, lambda o, oid, write_id, i: (write_id, i) != (stripe.write_id, index))
        disk.release([(stripe.write_id, index)])

    def segments(self) -> int:
        return sum(len(list(disk.directory.iterdir())) for disk in self.disks.values())

    async def close(self) -> None:
        await self.pool.close()
        for disk in self.disks.values():
            disk.close()


MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    made: list[Store] = []

    def make(k: int, m: int, count: int, **limits: Any) -> Store:
        root = tmp_path / f"store-{len(made)}"
        root.mkdir()
        store = Store(root, k, m, count, replace(LIMITS, **limits))
        made.append(store)
        return store

    yield make
    for store in made:
        for disk in store.disks.values():
            disk.close()
