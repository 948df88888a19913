"""Room comes back: an hour of overwriting stays within a stated multiple of what is alive."""

import random
from dataclasses import replace
from pathlib import Path

from store_rig import SMALL, Contents, Turned, directories, flip, fsck, opened, read, segment_bytes

from ostraka.chunks.rows import chunk_key, decode_chunk
from ostraka.chunks.types import Kind
from ostraka.host import Host
from ostraka.jobs.collect import Collect
from ostraka.jobs.compact import Compact
from ostraka.jobs.damage import DamageJournal
from ostraka.jobs.ground import Budget, Job
from ostraka.jobs.heal import Heal
from ostraka.limits import KIB
from ostraka.objects.rows import VERSION, key_text, tail_end, version_of
from ostraka.pools.types import Owner, Stripe
from ostraka.state import prefix_end
from ostraka.store.store import Store


async def until_done(store: Store, *jobs: Job) -> None:
    """Let the jobs work until none has anything more to do at once."""
    for _ in range(200):
        results = [await job.run_once(Budget(store.host.clock, 60.0, 10_000)) for job in jobs]
        if not any(result.more for result in results):
            return
    raise AssertionError("the jobs come to no end")


def compact_of(store: Store) -> Compact:
    return Compact(store, DamageJournal(store.state).owner)


async def test_overwriting_again_and_again_keeps_the_disk_within_three_times_what_is_alive(
    tmp_path: Path, seed: int
) -> None:
    contents = Contents(seed)
    rng = random.Random(seed)
    async with opened(directories(tmp_path, 4)) as store:
        jobs = [Collect(store), compact_of(store)]
        live = 0
        peak = 0
        for _ in range(20):
            for _ in range(12):
                key = f"k{rng.randrange(40)}"
                await contents.put(store, key, rng.choice((1000, 3000, 60_000, 150_000)))
            await until_done(store, *jobs)
            sizes = sum(size for _, size in contents.keys.values())
            live = 2 * sizes  # 2+2: k+m shards of 1/k each
            peak = max(peak, segment_bytes(store) - 3 * live)
        # four segments a disk may be open at a time, and are not judged before they are sealed
        constant = 4 * 4 * SMALL.segment_size_max
        assert peak <= constant, f"{peak} bytes more than 3 x {live}"
        assert segment_bytes(store) > 0
        await contents.check(store)
        result = await fsck(store)
        assert result["clean"]
        assert result["orphans"] == 0


async def test_without_compaction_the_bound_would_not_hold(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 1)) as store:
        for _ in range(60):
            await contents.put(store, "k", 150_000)
        before = segment_bytes(store)
        assert before > 3 * 150_000 + 4 * SMALL.segment_size_max
        await until_done(store, Collect(store), compact_of(store))
        assert segment_bytes(store) <= 3 * 150_000 + 4 * SMALL.segment_size_max
        await contents.check(store)


async def test_shards_that_a_crashed_write_left_are_taken_away_after_a_restart(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)
    async with opened(paths) as store:
        await contents.fill(store, 2)
        for number in range(20):
            await store.pool.write(Owner.CHUNK, bytes([number]) * 32, b"%20d" % number * 3000, 60_000)
        assert (await fsck(store))["orphans"] == 80
        await until_done(store, Collect(store), compact_of(store))
        assert (await fsck(store))["orphans"] == 80  # they might be committed yet
    async with opened(paths) as store:
        await until_done(store, Collect(store), compact_of(store))
        result = await fsck(store)
        assert result["clean"]
        assert result["orphans"] == 0
        await contents.check(store)


async def test_a_segment_with_a_damaged_live_shard_waits_for_its_repair(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)
    async with opened(paths) as store:
        await contents.put(store, "stays", 60_000)
        for number in range(12):
            await contents.put(store, f"goes{number}", 60_000)
    turned = Turned()
    async with opened(paths, host=Host(clock=turned)) as store:
        survivor, stripe = a_chunk(store)
        for key in list(contents.keys):
            if key != survivor:
                await contents.delete(store, key)
        disk = store.disks[stripe.disks[0]]
        extent = disk.index.get(stripe.write_id, 0)
        assert extent is not None
        name = f"{extent.segment[:16].hex()}-{extent.segment[16:].hex()}.segment"
        flip(disk.directory / name, extent.offset + extent.header.data_offset + 5)
        compact, heal = compact_of(store), Heal(store)
        await until_done(store, Collect(store), compact)
        assert (disk.directory / name).exists()
        await until_done(store, heal)
        turned.now += 100
        await until_done(store, compact)
        assert not (disk.directory / name).exists()
        result = await fsck(store)
        assert result["clean"]
        assert not result["findings"]
        await contents.check(store)


def a_chunk(store: Store) -> tuple[str, Stripe]:
    """A key of one chunk, and the stripe that it lies in."""
    for row, value in store.state.scan(VERSION, prefix_end(VERSION), 100):
        for entry in version_of(value).entries:
            if entry.kind == Kind.CHUNK:
                found = store.state.get(chunk_key(entry.id))
                assert found is not None
                return key_text(row[9 : tail_end(row)]), decode_chunk(found).stripe
    raise AssertionError("no chunk")


async def test_readers_in_flight_keep_what_they_read(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 4), replace(SMALL, read_piece_max=16 * KIB)) as store:
        await contents.put(store, "read", 500_000)
        for number in range(10):
            await contents.put(store, f"other{number}", 60_000)
        body = contents.body("read")
        reader = store.objects.open("bucket", "read")
        pieces = reader.read()
        first = bytes(await anext(pieces))
        for key in list(contents.keys):
            await contents.delete(store, key)
        await until_done(store, Collect(store), compact_of(store))
        rest = b"".join([bytes(piece) async for piece in pieces])
        assert first + rest == body
        reader.close()
        await until_done(store, Collect(store), compact_of(store))
        assert (await fsck(store))["stripes"] == 0


async def test_nothing_is_read_twice_by_a_store_that_is_at_rest(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 2)) as store:
        await contents.fill(store, 2)
        compact = compact_of(store)
        await until_done(store, Collect(store), compact)
        done = compact.segments_done
        for _ in range(3):
            assert not (await compact.run_once(Budget(store.host.clock, 60.0, 1000))).more
        assert compact.segments_done == done
        assert await read(store, next(iter(contents.keys))) is not None


async def test_segments_of_the_smallest_shards_are_not_rewritten_for_ever(tmp_path: Path, seed: int) -> None:
    """Bodies a few bytes longer than a chunk leave tails of a few bytes, whose records are no larger than what the
    footer says of them: of a segment of such tails little more than half ever counted as alive, dead or not."""
    contents = Contents(seed)
    limits = replace(SMALL, segment_records_max=8, direct_shard_size_min=16 * KIB)  # large shards lie elsewhere
    async with opened(directories(tmp_path, 4), limits) as store:
        for number in range(24):
            await contents.put(store, f"k{number}", limits.chunk_size + 5)
        for disk in store.disks.values():
            for writer in disk._writers:
                writer.seal()
        compact = compact_of(store)
        await compact.run_once(Budget(store.host.clock, 60.0, 50))
        assert compact.segments_done == 0
        for number in range(20):
            await contents.delete(store, f"k{number}")
        await until_done(store, Collect(store), compact)
        assert compact.segments_done > 0, "what is really dead is taken away as before"
        await contents.check(store)
