"""A worker that starts long after the owner opened the store, with what the owner said then."""

import asyncio
import os
import shutil
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from ostraka.host import Host
from ostraka.shared import Shared
from ostraka.store import disks
from ostraka.store.recovery import Recovered, hold
from ostraka.store.store import Store, new_shared, open_here, open_owner, open_worker


class LateWorker:
    """A process that is forked before the owner opens anything, and joins the store when it is told to."""

    def __init__(self, shared: Shared) -> None:
        told_read, self._told = os.pipe()
        self._said, said_write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._told)
                with os.fdopen(told_read, "rb") as stream:
                    recovered = msgspec.msgpack.decode(stream.read(), type=Recovered)
                os.write(said_write, asyncio.run(_usable_disks(recovered, shared)))
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(told_read)
        os.close(said_write)

    async def usable_disks(self, recovered: Recovered) -> list[int]:
        """Have it join the store; numbers of the disks that it can use. It ends."""
        with os.fdopen(self._told, "wb") as stream:
            stream.write(msgspec.msgpack.encode(recovered))
        with os.fdopen(self._said, "rb") as stream:
            said = await asyncio.to_thread(stream.read)
        await asyncio.to_thread(os.waitpid, self._pid, 0)
        return msgspec.json.decode(said, type=list[int])


async def _usable_disks(recovered: Recovered, shared: Shared) -> bytes:
    store = open_worker(recovered, shared, 0, Host())
    numbers = sorted(disk.number for disk in store.membership.up())
    await store.close()
    return msgspec.json.encode(numbers)


def seen_by_a_late_worker(paths: list[Path], meanwhile: Callable[[Store], Awaitable[object]]) -> list[int]:
    """Which disks a worker can use that starts after something happened to the store."""
    shared = new_shared(2)
    worker = LateWorker(shared)

    async def own() -> list[int]:
        with hold(paths, Host(), make=False):
            store = open_owner(paths, shared, 1, existing=True)
            first_word = store.recovered
            await meanwhile(store)
            numbers = await worker.usable_disks(first_word)
            await store.close()
            return numbers

    return asyncio.run(own())


def formed(tmp_path: Path, count: int) -> list[Path]:
    paths = [tmp_path / f"d{i}" for i in range(count)]

    async def form() -> None:
        async with open_here(paths):
            pass

    asyncio.run(form())
    return paths


def test_a_worker_that_is_replaced_after_a_disk_joined_writes_to_all_of_them(tmp_path: Path) -> None:
    paths = formed(tmp_path, 2)
    shutil.rmtree(paths[1])

    async def replace(store: Store) -> None:
        await disks.replace(store, lambda *_: None, old="", new=str(tmp_path / "d2"))

    assert seen_by_a_late_worker(paths[:1], replace) == [0, 2]


def test_a_worker_that_is_replaced_after_a_mark_was_damaged_starts_without_that_disk(tmp_path: Path) -> None:
    paths = formed(tmp_path, 4)

    async def damage(store: Store) -> None:
        (paths[2] / "shards" / "mark").write_bytes(b"{")

    assert seen_by_a_late_worker(paths, damage) == [0, 1, 3]


def test_a_worker_of_a_store_of_which_a_disk_could_not_be_opened_starts_without_that_disk(tmp_path: Path) -> None:
    paths = formed(tmp_path, 4)

    async def unopened(store: Store) -> None:
        mark = paths[2] / "shards" / "mark"
        mark.write_bytes(mark.read_bytes().replace(b'"state":"open"', b'"state":"clean"'))

    assert seen_by_a_late_worker(paths, unopened) == [0, 1, 3]
