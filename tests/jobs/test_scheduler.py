"""An idle store is idle; work is found, shared out, paused and stopped."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from store_rig import SMALL, Contents, directories, fsck, opened, segment_bytes

from ostraka.jobs.ground import Budget, Job, Progress
from ostraka.jobs.scheduler import Scheduler


async def until(condition: Callable[[], bool]) -> None:
    """Let the scheduler run until that holds."""
    while not condition():  # noqa: ASYNC110 - what is waited for tells no event
        await asyncio.sleep(0.001)


async def settled(scheduler: Scheduler) -> None:
    """Until two looks in a row found nothing to do."""
    for _ in range(400):
        before = scheduler.pieces, scheduler.looks
        scheduler._woken.set()
        while scheduler.looks < before[1] + 2:
            scheduler._woken.set()
            await asyncio.sleep(0.005)
        if scheduler.pieces == before[0]:
            return
    raise AssertionError("the scheduler does not come to rest")


async def test_an_idle_store_has_no_piece_of_work_done_whatever_it_is_looked_at(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 2)) as store:
        await contents.fill(store, 1)
        scheduler = Scheduler(store)
        await scheduler.start()
        await settled(scheduler)
        pieces, sequence = scheduler.pieces, store.state.sequence
        for _ in range(20):
            looks = scheduler.looks
            scheduler._woken.set()
            await until(lambda looks=looks: scheduler.looks != looks)  # type: ignore[misc]
        assert (scheduler.pieces, store.state.sequence) == (pieces, sequence)
        await scheduler.stop()


async def test_sleep_grows_to_its_bound_while_nothing_happens(tmp_path: Path) -> None:
    async with opened(directories(tmp_path, 1)) as store:
        scheduler = Scheduler(store, [])
        slept: list[float] = []
        enough = asyncio.Event()

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 8:
                enough.set()
                await asyncio.Event().wait()
            await asyncio.sleep(0)

        scheduler._sleep = sleep  # type: ignore[method-assign]
        await scheduler.start()
        await enough.wait()
        assert slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
        await scheduler.stop()


async def test_what_is_deleted_is_collected_and_its_room_comes_back(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 2)) as store:
        for number in range(12):
            await contents.put(store, f"k{number}", 150_000)
        scheduler = Scheduler(store)
        await scheduler.start()
        for key in list(contents.keys)[1:]:
            await contents.delete(store, key)
        await settled(scheduler)
        await scheduler.stop()
        assert segment_bytes(store) <= 3 * 2 * 150_000 + 2 * 4 * SMALL.segment_size_max
        assert (await fsck(store))["clean"]
        await contents.check(store)


async def test_the_log_of_the_state_is_checkpointed_when_it_has_grown(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    limits = replace(SMALL, log_bytes_before_checkpoint=20_000)
    async with opened(directories(tmp_path, 1), limits) as store:
        await contents.fill(store, 12)
        assert store.state.checkpoint_due
        scheduler = Scheduler(store)
        await scheduler.start()
        await settled(scheduler)
        await scheduler.stop()
        assert not store.state.checkpoint_due
        assert store.state.meta().snapshot_commit > 0


class Endless(Job):
    """Always more to do; tells when it has begun, and fails if told to."""

    name = "endless"

    def __init__(self) -> None:
        self.pieces = 0
        self.begun = asyncio.Event()
        self.failing = False

    async def run_once(self, budget: Budget) -> Progress:
        self.pieces += 1
        self.begun.set()
        await asyncio.sleep(0)
        if self.failing:
            raise OSError("a disk that fails")
        return Progress(self.pieces, more=True)


async def test_a_job_that_never_ends_leaves_the_others_their_turn_and_can_be_paused(tmp_path: Path) -> None:
    async with opened(directories(tmp_path, 1)) as store:
        first, second = Endless(), Endless()
        scheduler = Scheduler(store, [first, second])
        await scheduler.start()
        await until(lambda: first.pieces >= 5)
        assert abs(first.pieces - second.pieces) <= 1
        await scheduler.pause(["endless"], "a tester")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pieces = first.pieces + second.pieces
        for _ in range(50):
            await asyncio.sleep(0)
        assert first.pieces + second.pieces <= pieces + 1
        await scheduler.resume(["endless"])
        await until(lambda: first.pieces + second.pieces >= pieces + 5)
        await scheduler.stop()
        await scheduler.stop()


async def test_a_job_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    async with opened(directories(tmp_path, 1)) as store:
        bad, good = Endless(), Endless()
        bad.failing = True
        scheduler = Scheduler(store, [bad, good])
        await scheduler.start()
        await until(lambda: good.pieces >= 20)
        assert bad.pieces == 1  # and is tried again after a while
        assert "fails" in scheduler.progress()["endless"].note or good.pieces
        await scheduler.stop()


@pytest.mark.parametrize("disks", [4])
async def test_a_changed_membership_wakes_the_healing(tmp_path: Path, seed: int, disks: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, disks)) as store:
        await contents.fill(store, 1)
        scheduler = Scheduler(store)
        await scheduler.start()
        await settled(scheduler)
        await asyncio.to_thread(store.membership.evict, 1, "it was pulled out")
        for _ in range(400):
            if sum(d.state and d.up for d in store.membership.epoch.members) == 3:
                break
            await asyncio.sleep(0.01)
        carriers = [d.number for d in store.membership.epoch.members if d.state and d.up]
        assert carriers == [0, 2, 3]  # the copy that was lost with the disk was made anew
        await settled(scheduler)
        assert {p.disk for p in store.state.meta().copies} == {
            d.disk_id for d in store.membership.epoch.members if d.number in carriers
        }
        await scheduler.stop()
        await contents.check(store)
