"""fsck finds what is damaged at rest, mends what can be mended, and calls nothing damage that is none."""

import asyncio
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import BUCKET, SMALL, Contents, directories, flip, fsck, opened, operate, read

from ostraka.chunks.rows import CHUNK_COUNTERS, CHUNKS, decode_chunk
from ostraka.errors import Corrupt
from ostraka.nodes.types import ShardWrite
from ostraka.pools.types import Owner
from ostraka.state import Delete, Mutation, Put, counter, counter_value, prefix_end, totals
from ostraka.store.holdings import holdings
from ostraka.store.store import Store


def kinds(result: dict[str, Any]) -> set[str]:
    return {finding["kind"] for finding in result["findings"]}


def test_a_healthy_store_is_clean_and_everything_is_counted(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with opened(directories(tmp_path, 4)) as store:
            await contents.fill(store, 3)
            result = await fsck(store)
            assert result["clean"]
            assert not result["findings"]
            assert result["stripes"] > 0
            assert result["shards"] == 4 * result["stripes"]
            assert result["orphans"] == result["orphan_bytes"] == 0
            assert result["rows"] >= len(contents.keys) * 2

    asyncio.run(run())


@pytest.mark.parametrize("disks", [1, 4])
def test_bits_that_flipped_in_segments_are_found_and_mended_from_other_shards(
    tmp_path: Path, seed: int, disks: int
) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, disks)
    rng = random.Random(seed)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 2)
            rows = store.state.scan(CHUNKS, prefix_end(CHUNKS), 1000)
            for _, value in rng.sample(rows, 4):
                stripe = decode_chunk(value).stripe
                index = rng.randrange(len(stripe.disks))
                disk = store.disks[stripe.disks[index]]
                extent = disk.index.get(stripe.write_id, index)
                assert extent is not None
                name = next(
                    p
                    for p in disk.directory.iterdir()
                    if p.name.startswith(extent.segment[:16].hex())
                    and p.name.endswith(f"{extent.segment[16:].hex()}.segment")
                )
                flip(name, extent.offset + extent.header.data_offset + rng.randrange(extent.header.shard_size))
        async with opened(paths) as store:
            found = await fsck(store)
            assert not found["clean"]
            assert kinds(found) == {"shard"}
            repaired = await fsck(store, repair=True)
            if disks == 1:  # there is nothing to mend it from: said so, and nothing else is touched
                assert not repaired["clean"]
                wrong = 0
                for key in contents.keys:
                    try:
                        assert await read(store, key) == contents.body(key)
                    except Corrupt:
                        wrong += 1
                assert wrong > 0
            else:
                assert repaired["clean"]
                assert repaired["repaired"] == len(found["findings"])
                again = await fsck(store)
                assert again["clean"]
                assert not again["findings"]
                await contents.check(store)

    asyncio.run(run())


@pytest.mark.parametrize("what", ["superblock", "keys.json", "keys.json gone"])
def test_a_damaged_superblock_or_keys_file_is_found_and_written_anew(tmp_path: Path, seed: int, what: str) -> None:
    contents = Contents(seed)

    async def run() -> None:
        paths = directories(tmp_path, 4)
        async with opened(paths) as store:
            await contents.fill(store, 1)
            if what == "keys.json gone":
                (paths[1] / "keys.json").unlink()
            else:
                flip(paths[1] / what, 40)
            found = await fsck(store)
            assert not found["clean"]
            assert len(found["findings"]) == 1
            assert (await fsck(store, repair=True))["clean"]
            assert not (await fsck(store))["findings"]

    asyncio.run(run())


def state_file(path: Path, kind: str) -> Path:
    """The largest log or snapshot of a copy."""
    files = [
        p for p in (path / "state").iterdir() if (".log" in p.name or "log" in p.name.split("-")[0]) == (kind == "log")
    ]
    return max(files, key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("kind", ["log", "snapshot"])
@pytest.mark.parametrize("disks", [1, 4])
def test_a_damaged_copy_of_the_state_is_found_and_made_anew(tmp_path: Path, seed: int, kind: str, disks: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        paths = directories(tmp_path, disks)
        async with opened(paths) as store:
            await contents.fill(store, 2)
            if kind == "snapshot":
                await store.state.checkpoint()
            file = state_file(paths[0], kind)
            flip(file, min(3000, file.stat().st_size // 2))
            found = await fsck(store)
            assert not found["clean"]
            assert kinds(found) == {"state-copy"}, found
            repaired = await fsck(store, repair=True)
            assert repaired["clean"], repaired
            assert not (await fsck(store))["findings"]
        async with opened(paths) as store:
            await contents.check(store)

    asyncio.run(run())


def test_damage_in_the_states_index_is_found_and_the_index_built_anew(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        paths = directories(tmp_path, 4)
        async with opened(paths) as store:
            await contents.fill(store, 4)
            key, value = next(iter(store.state.scan(CHUNKS, None, 1)))
            index = next(Path(store.recovered.index).glob("*.mdb"))  # noqa: ASYNC240
            with index.open("rb") as file:  # sparse, and larger than memory
                pages = file.read(4 << 20)
            places = [match.end() for match in re.finditer(re.escape(key), pages)]
            assert places
            for at in places:  # older pages hold it as well
                flip(index, at + len(value) // 2)
            found = await fsck(store)
            assert not found["clean"]
            assert "state-index" in kinds(found)
            assert (await fsck(store, repair=True))["clean"]
            assert not (await fsck(store))["findings"]
            await contents.check(store)

    asyncio.run(run())


def test_shards_that_a_crashed_write_left_are_counted_and_no_damage(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with opened(directories(tmp_path, 4)) as store:
            await contents.fill(store, 1)
            stripe = await store.pool.write(Owner.CHUNK, b"x" * 32, b"body" * 5000, 20_000)
            store.disks[0].write([ShardWrite(b"w" * 16, 1, 2, 2, Owner.PACK, b"p" * 16, 100, [b"s" * 56])])
            result = await fsck(store)
            assert result["clean"]
            assert not result["findings"]
            assert result["orphans"] == stripe.k + stripe.m + 1
            assert result["orphan_bytes"] > 4 * stripe.shard_size

    asyncio.run(run())


async def _chunk_counter(store: Store) -> tuple[bytes, bytes]:
    return store.state.scan(CHUNK_COUNTERS, prefix_end(CHUNK_COUNTERS), 1)[0]


@pytest.mark.parametrize("change", ["more", "gone", "row"])
def test_counters_that_do_not_fit_are_found_and_set_right(tmp_path: Path, seed: int, change: str) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with opened(directories(tmp_path, 1)) as store:
            await contents.fill(store, 2)
            key, value = await _chunk_counter(store)
            if change == "more":
                await store.state.commit(Mutation((), [Put(key, counter_value(counter(value) + 1))]))
            elif change == "gone":
                await store.state.commit(Mutation((), [Delete(key)]))
            else:  # the chunk itself: nothing can bring it back
                await store.state.commit(Mutation((), [Delete(CHUNKS + key[1:])]))
            found = await fsck(store)
            assert not found["clean"]
            repaired = await fsck(store, repair=True)
            assert repaired["clean"] == (change != "row")
            if change == "row":
                assert "missing" in kinds(repaired)
            else:
                assert not (await fsck(store))["findings"]

    asyncio.run(run())


def test_rows_that_do_not_decode_are_found(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)

    async def run() -> None:
        async with opened(directories(tmp_path, 1)) as store:
            await contents.fill(store, 1)
            bucket = store.objects.bucket(BUCKET)
            await store.state.commit(
                Mutation(
                    (),
                    [
                        Put(b"akKEY", b"an account"),
                        Put(b"z??", b"no queue row"),
                        Put(b"j??", b""),
                        Put(b"\xfe", b"of no table"),
                    ],
                )
            )
            result = await fsck(store)
            assert [f["kind"] for f in result["findings"]].count("row") == 3, (result, bucket)

    asyncio.run(run())


def test_a_store_that_is_written_all_the_while_shows_no_false_findings(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    rng = random.Random(seed)

    async def run() -> None:
        async with opened(directories(tmp_path, 4)) as store:
            await contents.fill(store, 2)
            done = asyncio.Event()
            collector = store.objects.collector(lambda incarnation: incarnation in store.live_incarnations())

            async def churn(number: int) -> None:
                turn = 0
                while not done.is_set():
                    turn += 1
                    key = f"churn{number}-{rng.randrange(5)}"
                    if key in contents.keys and rng.random() < 0.3:
                        await contents.delete(store, key)
                    else:
                        await contents.put(store, key, rng.choice((50, 2000, 3000, 30_000)))
                    if turn % 5 == 0:
                        await collector.collect(50)

            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(churn(number))
                try:
                    for _ in range(3):
                        result = await fsck(store)
                        assert result["clean"], result["findings"]
                finally:
                    done.set()
            await contents.check(store)
            await store.objects.settle()
            assert (await fsck(store))["clean"]

    asyncio.run(run())


def test_a_lost_disk_is_told_once_and_not_for_every_shard(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 2)
        async with opened(paths[:3]) as store:
            result = await fsck(store, repair=True)
            assert not result["clean"]
            assert [f["kind"] for f in result["findings"]].count("disk") == 2  # missing, and how many shards with it
            assert (await operate(store, "disk-ls"))["disks"][3]["status"] == "missing"
        async with opened(paths, SMALL) as store:
            assert (await fsck(store, repair=True))["clean"]

    asyncio.run(run())


def test_totals_that_are_wrong_are_found_and_mended_and_right_ones_follow_every_change(
    tmp_path: Path, seed: int
) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 3)
            held = holdings(store.state)
            assert held is not None
            assert held.objects == len(contents.keys)
            assert held.bytes == sum(len(contents.body(key)) for key in contents.keys)
            assert held.chunks.count == len(store.state.scan(CHUNKS, prefix_end(CHUNKS), 1000))
            assert held.chunks.disk_bytes > held.chunks.stored_bytes > 0
            assert held.packs.slots
            key = totals.TOTALS + CHUNKS
            value = store.state.get(key)
            assert value is not None
            await store.state.commit(Mutation((), [Put(key, value[:7] + b"\x7f" + value[8:])]))
            assert kinds(await fsck(store)) == {"totals"}
            assert (await fsck(store, repair=True))["clean"]
            assert holdings(store.state) == held
            assert not (await fsck(store))["findings"]

    asyncio.run(run())


def test_a_store_of_an_older_program_is_counted_when_it_is_opened(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)

    async def run() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 3)
            held = holdings(store.state)
            store.state.weighed = {}
            for key, _ in store.state.scan(totals.TOTALS, prefix_end(totals.TOTALS), 100):
                await store.state.commit(Mutation((), [Delete(key)]))
            assert holdings(store.state) is None
        async with opened(paths) as store:
            assert holdings(store.state) == held
            assert not (await fsck(store))["findings"]

    asyncio.run(run())
