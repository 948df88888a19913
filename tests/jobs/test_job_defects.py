"""Defects of the jobs that were found by reviewing them, each by its name."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from store_rig import SMALL, Contents, directories, fsck, opened

from ostraka.chunks.rows import CHUNKS
from ostraka.jobs.collect import Collect
from ostraka.jobs.compact import Compact
from ostraka.jobs.damage import DamageJournal
from ostraka.jobs.ground import Budget, Job, Progress
from ostraka.jobs.heal import Heal
from ostraka.jobs.records import hurt_key
from ostraka.jobs.scheduler import Scheduler
from ostraka.jobs.stripes import Named, adopt, mend, read_named
from ostraka.pools.types import Owner
from ostraka.state import Mutation, Put, prefix_end
from ostraka.store.store import Store


def budget(store: Store) -> Budget:
    return Budget(store.host.clock, 60.0, 10_000)


def chunks(store: Store) -> list[Named]:
    return [read_named(key, value) for key, value in store.state.scan(CHUNKS, prefix_end(CHUNKS), 100)]


def seal(store: Store) -> None:
    for disk in store.disks.values():
        for writer in disk._writers:
            writer.seal()


def compact_of(store: Store) -> Compact:
    return Compact(store, DamageJournal(store.state).owner)


async def run_out(store: Store, *jobs: Job) -> None:
    for _ in range(100):
        if not any([(await job.run_once(budget(store))).more for job in jobs]):
            return
    raise AssertionError("the jobs come to no end")


async def delete_all_under(store: Store, contents: Contents) -> None:
    """Everything is deleted, collected, and gone from the disks."""
    for key in list(contents.keys):
        await contents.delete(store, key)
    await run_out(store, Collect(store))
    seal(store)
    await run_out(store, compact_of(store))


async def test_a_chunk_deleted_under_its_repair_is_gone_and_not_lost(tmp_path: Path, seed: int) -> None:
    """Healing said, and counted, that it was damaged beyond repair."""
    contents = Contents(seed)
    async with opened(directories(tmp_path, 4)) as store:
        await contents.put(store, "k", 30_000)
        (named,) = chunks(store)
        repair = store.pool.repair

        async def late(*arguments: Any) -> Any:
            if contents.keys:
                await delete_all_under(store, contents)
            return await repair(*arguments)

        store.pool.repair = late  # type: ignore[method-assign]
        assert (await mend(store, named)).outcome == "gone"


async def test_fsck_calls_nothing_damage_that_was_moved_and_deleted_under_it(tmp_path: Path, seed: int) -> None:
    """It looked twice; what moved before the first look and was deleted before the second was a finding."""
    contents = Contents(seed)
    async with opened(directories(tmp_path, 4)) as store:
        await contents.put(store, "k", 30_000)
        verify = store.pool.verify
        (named,) = chunks(store)
        step = 0

        async def late(stripe: Any) -> Any:
            nonlocal step
            step += 1
            if step == 1:  # as a rewrite of a damaged stripe does: the same chunk under another write id
                body = await store.pool.read(stripe, 0, stripe.length)
                new = await store.pool.write(named.owner, named.owner_id, body, stripe.length)
                assert await adopt(store, named, new)
                store.pool.settle([new])
                await run_out(store, Collect(store))
                seal(store)
                await run_out(store, compact_of(store))
            elif step == 2:
                await delete_all_under(store, contents)
            return await verify(stripe)

        store.pool.verify = late  # type: ignore[method-assign]
        result = await fsck(store)
        assert step == 2
        assert result["findings"] == []


async def test_a_damaged_row_that_the_journal_names_does_not_keep_others_from_being_healed(
    tmp_path: Path, seed: int
) -> None:
    """It raised Corrupt, and the job began with it again each time: no disk was ever healed."""
    contents = Contents(seed)
    async with opened(directories(tmp_path, 4)) as store:
        await contents.put(store, "k", 30_000)
        await contents.put(store, "l", 30_000)
        first, second = chunks(store)
        journal = DamageJournal(store.state)
        for named in (first, second):
            await journal.owner(Owner.CHUNK, named.owner_id)
        await store.state.commit(Mutation((), [Put(first.key, b"nonsense")]))
        mended: list[bytes] = []
        heal = Heal(store, lambda named, result: mended.append(named.owner_id))
        await heal.run_once(budget(store))
        assert mended == [second.owner_id]
        assert store.state.get(hurt_key(Owner.CHUNK, first.owner_id)) is not None
        assert store.state.get(hurt_key(Owner.CHUNK, second.owner_id)) is None


async def test_room_of_what_a_late_reader_brought_back_into_the_index_comes_back_too(tmp_path: Path, seed: int) -> None:
    """The index, asked for a dead shard, found it in the segment and counted it as alive until the next restart."""
    contents = Contents(seed)
    async with opened(directories(tmp_path, 1), SMALL) as store:
        await contents.put(store, "short", 20_000)
        (dead,) = chunks(store)
        await contents.put(store, "long", 60_000)
        seal(store)
        await contents.delete(store, "short")
        compact = compact_of(store)
        await run_out(store, Collect(store), compact)
        (disk,) = store.disks.values()
        before = {info.segment: info.live for info in disk.segments()}
        assert [shard.state for shard in await store.pool.verify(dead.stripe)] == ["good"]
        assert {info.segment: info.live for info in disk.segments()} != before
        await run_out(store, compact)
        assert {info.segment: info.live for info in disk.segments()} == before
        await contents.check(store)


class Mistaken(Job):
    """A job with a mistake of ours in it."""

    name = "mistaken"

    async def run_once(self, budget: Budget) -> Progress:
        raise ValueError("a mistake")


class Counting(Job):
    name = "counting"

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.pieces = 0

    async def run_once(self, budget: Budget) -> Progress:
        self.pieces += 1
        if self.pieces == 5:
            self.done.set()
        return Progress(self.pieces, more=True)


async def test_a_mistake_in_one_job_does_not_end_all_background_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The task of the jobs ended without a word: nothing was collected or healed any more."""
    async with opened(directories(tmp_path, 1)) as store:
        good = Counting()
        scheduler = Scheduler(store, [Mistaken(store), good])
        with caplog.at_level(logging.ERROR):
            await scheduler.start()
            await asyncio.wait_for(good.done.wait(), 30)
        await scheduler.stop()
        assert scheduler.progress()["mistaken"].note == "a mistake"
