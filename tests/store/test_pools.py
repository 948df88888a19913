"""Pools over backends: objects go where their class is kept, and are forgotten nowhere before they are verified."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import BUCKET, Body, Contents, Md5, directories, fsck, opened, operate, read

from ostraka.chunks.rows import CHUNKS, PACKS, decode_chunk, decode_pack
from ostraka.errors import Absent, Corrupt, Invalid, Refused, Unavailable
from ostraka.jobs.ground import Budget
from ostraka.jobs.tier import Tier
from ostraka.objects.types import Attributes
from ostraka.pools.backend_pool import path_of
from ostraka.state import prefix_end
from ostraka.store.holdings import holdings
from ostraka.store.store import Store

COLD = "GLACIER_IR"


async def put(store: Store, contents: Contents, key: str, size: int, storage_class: str) -> None:
    contents.keys[key] = contents.keys.get(key, (0, 0))[0] + 1, size
    attributes = Attributes(storage_class=storage_class)
    await store.objects.put(BUCKET, key, Body(contents.body(key)), Md5(), attributes, owner="root")


async def set_class(store: Store, key: str, storage_class: str) -> None:
    source = store.objects.lookup(BUCKET, key)
    await store.objects.copy(source, BUCKET, key, Attributes(storage_class=storage_class), owner="root")


async def tier(store: Store, job: Tier | None = None) -> Tier:
    """One whole pass."""
    job = job or Tier(store)
    job.ask()
    while (await job.run_once(Budget(store.host.clock, 60.0, 10_000))).more:
        pass
    return job


def kept(store: Store) -> dict[int, int]:
    """Bodies by pool."""
    found: dict[int, int] = {}
    for table, decode in ((CHUNKS, decode_chunk), (PACKS, decode_pack)):
        for _, value in store.state.scan(table, prefix_end(table), 1000):
            pool = decode(value).stripe.pool
            found[pool] = found.get(pool, 0) + 1
    return found


def objects_in(place: Path) -> list[Path]:
    found = [path for path in place.rglob("*") if path.is_file() and ".ostraka-staging" not in path.parts]
    return [path for path in found if path.name != "ostraka-pool.json"]


async def collect(store: Store) -> None:
    collector = store.objects.collector(lambda incarnation: incarnation in store.live_incarnations())
    while await collector.collect(100):
        pass


async def add(store: Store, place: Path, name: str = "cold", storage_class: str = COLD, cache: int = 0) -> Any:
    arguments = {"name": name, "url": f"file://{place}?root={place}", "storage_class": storage_class}
    return await operate(store, "pool-add", cache_bytes=cache, **arguments)


@asynccontextmanager
async def with_pool(tmp_path: Path, **more: Any) -> AsyncIterator[Store]:
    (tmp_path / "cold").mkdir(exist_ok=True)
    async with opened(directories(tmp_path, 3)) as store:
        await add(store, tmp_path / "cold", **more)
        yield store


def test_what_is_written_with_a_class_goes_to_its_pool_and_comes_back(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with with_pool(tmp_path) as store:
            for size in (100, 3000, 20_000, 150_000):
                await put(store, contents, f"cold-{size}", size, COLD)
                await put(store, contents, f"warm-{size}", size, "STANDARD")
            found = kept(store)
            assert found[1] == found[0] > 2
            assert len(objects_in(tmp_path / "cold")) == found[1]
            await contents.check(store)
            assert store.objects.lookup(BUCKET, "cold-3000").attributes.storage_class == COLD
            assert (await fsck(store))["clean"]
            held = holdings(store.state)
            assert held is not None
            told = (await operate(store, "pool-ls"))["pools"]
            assert sum(row["stored_bytes"] for row in told) == held.chunks.stored_bytes + held.packs.stored_bytes
            for key in list(contents.keys):
                await contents.delete(store, key)
            await collect(store)
            assert objects_in(tmp_path / "cold") == []
        async with opened(directories(tmp_path, 3)) as store:
            with pytest.raises(Invalid, match="no storage class 'DEEP_ARCHIVE' here; there are: STANDARD, GLACIER_IR"):
                await put(store, contents, "other", 10, "DEEP_ARCHIVE")

    asyncio.run(run())


def test_a_pass_moves_what_changed_its_class_and_the_hottest_reference_wins(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with with_pool(tmp_path) as store:
            for size in (3000, 20_000, 150_000):
                await put(store, contents, f"k{size}", size, "STANDARD")
            source = store.objects.lookup(BUCKET, "k150000")
            await store.objects.copy(source, BUCKET, "shared", Attributes(), owner="root")
            everything = kept(store)[0]
            for size in (3000, 20_000, 150_000):
                await set_class(store, f"k{size}", COLD)
            await tier(store)
            assert kept(store) == {0: 3, 1: everything - 3}  # three chunks are shared with an object on disks
            await store.objects.delete(BUCKET, "shared", owner="root")
            await tier(store)
            assert kept(store) == {1: everything}
            body = contents.body("k150000")
            assert await read(store, "k150000") == body
            for size in (3000, 20_000, 150_000):
                await set_class(store, f"k{size}", "STANDARD")
            await tier(store)
            assert kept(store) == {0: everything}
            assert await read(store, "k150000") == body
            await collect(store)
            assert objects_in(tmp_path / "cold") == []
            assert (await fsck(store))["clean"]

    asyncio.run(run())


def test_what_does_not_come_back_from_its_pool_is_not_forgotten_where_it_was(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with with_pool(tmp_path) as store:
            await put(store, contents, "k", 150_000, "STANDARD")
            before = kept(store)
            await set_class(store, "k", COLD)
            backend = store.pools.backend(1).backend
            write = backend.write

            async def lying(path: str, data: Any) -> str:
                return await write(path, bytes(data)[:-1] + b"?")

            backend.write = lying  # type: ignore[method-assign]
            await tier(store)
            assert kept(store) == before
            assert await read(store, "k") == contents.body("k")
            backend.write = write  # type: ignore[method-assign]
            await tier(store)
            assert kept(store) == {1: before[0]}
            assert await read(store, "k") == contents.body("k")

    asyncio.run(run())


def test_a_pool_that_leaves_is_emptied_and_gone_after_a_second_look(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with with_pool(tmp_path) as store:
            for size in (3000, 150_000):
                await put(store, contents, f"k{size}", size, COLD)
            count = kept(store)[1]
            assert (await operate(store, "pool-rm", name="cold"))["status"] == "leaving"
            with pytest.raises(Invalid, match="no storage class"):
                await put(store, contents, "late", 10, COLD)
            del contents.keys["late"]
            job = await tier(store)
            assert kept(store) == {0: count}
            await collect(store)
            await tier(store, job)
            assert [row["status"] for row in (await operate(store, "pool-ls"))["pools"]] == ["default", "leaving"]
            await tier(store, job)
            assert [row["name"] for row in (await operate(store, "pool-ls"))["pools"]] == ["disks"]
            await contents.check(store)
            with pytest.raises(Absent, match="no pool 'cold'"):
                await operate(store, "pool-rm", name="cold")
            assert (await fsck(store))["clean"]

    asyncio.run(run())


def test_objects_that_no_row_names_are_swept_once_their_writer_is_dead(tmp_path: Path, seed: int) -> None:
    async def run() -> None:
        async with with_pool(tmp_path) as store:
            mine = await store.pools.write(1, b"i" * 32, b"of a writer that lives", 22, 1)  # type: ignore[arg-type]
            dead = tmp_path / "cold" / path_of(b"deadbeef" + bytes(8))
            dead.parent.mkdir()
            dead.write_bytes(b"of one that died")
            (tmp_path / "cold" / "notes.txt").write_text("of somebody else")
            await tier(store)
            assert not dead.exists()
            assert (tmp_path / "cold" / path_of(mine.write_id)).exists()
            assert (tmp_path / "cold" / "notes.txt").exists()
        async with opened(directories(tmp_path, 3)) as store:
            await tier(store)
            assert objects_in(tmp_path / "cold") == [tmp_path / "cold" / "notes.txt"]

    asyncio.run(run())


def test_a_pool_that_is_away_is_unavailable_and_all_else_goes_on(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with with_pool(tmp_path) as store:
            await put(store, contents, "cold", 150_000, COLD)
        (tmp_path / "cold").rename(tmp_path / "away")
        async with opened(directories(tmp_path, 3)) as store:
            with pytest.raises((Unavailable, Corrupt)):
                await read(store, "cold")
            await put(store, contents, "warm", 150_000, "STANDARD")
            assert await read(store, "warm") == contents.body("warm")
            (tmp_path / "away").rename(tmp_path / "cold")
            await store.pools.forget(1)
            assert await read(store, "cold") == contents.body("cold")

    asyncio.run(run())


def test_a_cache_keeps_what_was_read_and_survives_a_restart(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with with_pool(tmp_path, cache=16 << 20) as store:
            await put(store, contents, "cold", 150_000, COLD)
            assert await read(store, "cold") == contents.body("cold")
            cache = store.pools.backend(1).cache
            assert cache is not None
            assert cache.misses
        async with opened(directories(tmp_path, 3)) as store:
            assert await read(store, "cold") == contents.body("cold")
            cache = store.pools.backend(1).cache
            assert cache is not None
            assert (cache.hits > 0, cache.misses) == (True, 0)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "storage_class", "match"),
    [
        ("Cold!", COLD, "no name for a pool"),
        ("disks", COLD, "no name for a pool"),
        ("warm", "STANDARD", "no class of a pool"),
        ("warm", "glacier", "no class of a pool"),
        ("warm", COLD, "is that of pool cold already"),
        ("cold", "DEEP_ARCHIVE", "is that of pool cold already"),
    ],
)
def test_bad_words_are_refused_and_nothing_is_made(tmp_path: Path, name: str, storage_class: str, match: str) -> None:
    async def run() -> None:
        async with with_pool(tmp_path) as store:
            place = tmp_path / "warm"
            place.mkdir()
            with pytest.raises((Invalid, Refused), match=match):
                await add(store, place, name, storage_class)
            assert list(place.iterdir()) == []
            assert len((await operate(store, "pool-ls"))["pools"]) == 2

    asyncio.run(run())


def test_a_place_is_one_pool_of_one_store(tmp_path: Path) -> None:
    async def run() -> None:
        async with with_pool(tmp_path) as store:
            first = await add(store, tmp_path / "cold")  # given again
            assert first["number"] == 1
            full = tmp_path / "full"
            full.mkdir()
            (full / "photo").write_bytes(b"")
            with pytest.raises(Refused, match="not empty"):
                await add(store, full, "warm", "STANDARD_IA")
        (tmp_path / "other").mkdir()
        async with opened([tmp_path / "other" / "disk"]) as other:
            with pytest.raises(Refused, match="belongs to store"):
                await add(other, tmp_path / "cold")

    asyncio.run(run())
