"""What an operator says to jobs: pause, resume, run, cancel; held over restarts, on a store that is served or not."""

import asyncio
from pathlib import Path

import pytest
from store_rig import Contents, Steps, directories, fsck, opened, operate

from ostraka.chunks.rows import CHUNKS, PACKS, ZERO
from ostraka.errors import Absent, Refused, Unavailable
from ostraka.jobs.ground import Budget, Job, Progress
from ostraka.jobs.records import Run, standing_key
from ostraka.jobs.scheduler import Scheduler
from ostraka.jobs.standing import RUNS_KEPT, note, standing
from ostraka.objects.rows import DEAD
from ostraka.state import Mutation, Put, prefix_end
from ostraka.store.store import Store


class Counted(Job):
    """Ten pieces of work each time it is begun."""

    name = "collect"
    purpose = "counts"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.left = 0
        self.pieces = 0
        self.begun = asyncio.Event()

    async def begin(self) -> None:
        self.left = 10

    async def run_once(self, budget: Budget) -> Progress:
        self.pieces += 1
        self.begun.set()
        await asyncio.sleep(0)
        if not self.left:
            return Progress(self.pieces)
        self.left -= 1
        return Progress(10 - self.left, 10, more=self.left > 0, did=1, bytes=100)


async def test_a_job_that_is_paused_does_nothing_until_it_is_resumed_whatever_process_runs_it(tmp_path: Path) -> None:
    paths = directories(tmp_path, 1)
    async with opened(paths) as store:
        (row,) = (await operate(store, "job-pause", names=["collect"], by="ann"))["jobs"]
        assert (row["name"], row["status"]) == ("collect", "paused")
    async with opened(paths) as store:  # the pause outlives the process
        job = Counted(store)
        job.left = 10
        store.jobs = Scheduler(store, [job])
        await store.jobs.start()
        looks = store.jobs.looks
        while store.jobs.looks < looks + 3:
            store.jobs.wake()
            await asyncio.sleep(0.001)
        assert job.pieces == 0
        shown = await operate(store, "job-show", name="collect")
        assert (shown["status"], shown["paused_by"]) == ("paused", "ann")
        with pytest.raises(Refused, match="paused by ann"):
            await operate(store, "job-run", name="collect")
        await operate(store, "job-resume", names=["collect"])
        await job.begun.wait()
        await store.jobs.stop()
        assert not standing(store.state, "collect").paused_since


async def test_a_pause_reaches_the_process_that_runs_jobs_at_once(tmp_path: Path) -> None:
    async with opened(directories(tmp_path, 1)) as store:
        job = Counted(store)
        job.left = 10**9
        store.jobs = Scheduler(store, [job])
        await store.jobs.start()
        await job.begun.wait()
        await operate(store, "job-pause", names=[], by="bob")  # all
        await asyncio.sleep(0.01)
        pieces = job.pieces
        await asyncio.sleep(0.01)
        assert job.pieces == pieces
        assert (await operate(store, "job-ls"))["jobs"][0]["status"] == "paused"
        await store.jobs.stop()


async def test_a_run_is_told_as_it_goes_and_put_on_record(tmp_path: Path) -> None:
    async with opened(directories(tmp_path, 1)) as store:
        job = Counted(store)
        store.jobs = Scheduler(store, [job])
        await store.jobs.start()
        await job.begun.wait()
        steps = Steps()
        told = await operate(store, "job-run", steps, name="collect")
        assert (told["outcome"], told["done"], told["bytes"], told["errors"]) == ("done", 10, 1000, 0)
        assert steps.seen[-1] == ("collect", 10, 10)
        assert [step[1] for step in steps.seen[1:]] == list(range(1, 11))
        (run,) = (await operate(store, "job-show", name="collect"))["runs"]
        assert run == {key: told[key] for key in run}
        await store.jobs.stop()


async def test_jobs_run_on_a_store_that_nobody_serves(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 2)
    async with opened(paths) as store:
        for number in range(6):
            await contents.put(store, f"k{number}", 150_000)
        for number in range(1, 6):
            await contents.delete(store, f"k{number}")
        chunks = rows_of(store, CHUNKS)
        foreseen = await operate(store, "job-run", name="collect", dry_run=True)
        assert rows_of(store, CHUNKS) == chunks
        assert (foreseen["bodies"] > 0, foreseen["body_bytes"]) == (True, 5 * 150_000)
        done = await operate(store, "job-run", name="collect")
        assert (done["outcome"], done["done"] > 0) == ("done", True)
        for _ in range(5):  # what one collection makes dead, the next one takes away
            await operate(store, "job-run", name="collect")
        assert rows_of(store, CHUNKS) < chunks
        after = await operate(store, "job-run", name="collect", dry_run=True)
        assert after["freed_bytes"] == after["bodies"] == 0
        assert standing(store.state, "collect").runs
        assert (await fsck(store))["clean"]
        await contents.check(store)


def rows_of(store: Store, table: bytes) -> int:
    return len(store.state.scan(table, prefix_end(table), 1000))


async def test_a_dry_run_of_collection_foresees_what_is_then_deleted(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 2)) as store:
        await contents.fill(store, 2)
        for key in list(contents.keys)[:-3]:
            await contents.delete(store, key)
        while store.state.first(DEAD) is not None:  # taken apart: chunks and packs are queued
            await store.objects.collector(lambda incarnation: True)._settle_dead(100)
        foreseen = await operate(store, "job-run", name="collect", dry_run=True)
        chunks, packs = rows_of(store, CHUNKS), rows_of(store, PACKS)
        assert (foreseen["bodies"], foreseen["chunks"] > 0, foreseen["packs"] > 0) == (0, True, True)
        while store.state.first(ZERO) is not None:
            await operate(store, "job-run", name="collect")
        assert chunks - rows_of(store, CHUNKS) == foreseen["chunks"]
        assert packs - rows_of(store, PACKS) == foreseen["packs"]
        await contents.check(store)


async def test_what_nobody_began_cannot_be_cancelled_and_the_way_out_is_told(tmp_path: Path) -> None:
    async with opened(directories(tmp_path, 1)) as store:
        for name in ("collect", "checkpoint", "heal", "compact", "scrub"):
            with pytest.raises(Refused, match=f"ostraka job pause {name}"):
                await operate(store, "job-cancel", name=name)
        with pytest.raises(Refused, match="--dry-run is for collect"):
            await operate(store, "job-run", name="heal", dry_run=True)


async def test_a_job_that_there_is_not_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    async with opened(directories(tmp_path, 1)) as store:
        for command, arguments in (
            ("job-show", {"name": "scurb"}),
            ("job-pause", {"names": ["scurb"], "by": ""}),
            ("job-resume", {"names": ["scurb"]}),
            ("job-cancel", {"name": "scurb"}),
            ("job-run", {"name": "scurb"}),
        ):
            with pytest.raises(Absent, match=r"no job 'scurb'.*checkpoint, heal"):
                await operate(store, command, **arguments)


async def test_a_paused_job_is_a_problem_of_the_store_with_its_way_out(tmp_path: Path) -> None:
    async with opened(directories(tmp_path, 1)) as store:
        assert not (await operate(store, "status"))["problems"]
        await operate(store, "job-pause", names=["collect", "checkpoint", "compact"], by="ann")
        problems = (await operate(store, "status"))["problems"]
        assert [p["way_out"] for p in problems] == [
            f"`ostraka job resume {name}`" for name in ("collect", "checkpoint", "compact")
        ]
        assert "paused, by ann" in problems[0]["what"]
        await operate(store, "job-resume", names=[])
        assert not (await operate(store, "status"))["problems"]


async def test_the_record_of_runs_is_bounded_and_a_damaged_one_holds_nothing_back(tmp_path: Path) -> None:
    async with opened(directories(tmp_path, 1)) as store:
        for number in range(3 * RUNS_KEPT):
            await note(store.state, "heal", [Run(float(number), number + 1.0, "done", note="n" * 5000)])
        row = standing(store.state, "heal")
        assert [run.began for run in row.runs] == [float(n) for n in range(2 * RUNS_KEPT, 3 * RUNS_KEPT)]
        assert len(store.state.get(standing_key("heal")) or b"") < 4096
        await store.state.commit(Mutation((), [Put(standing_key("heal"), b"\xc1")]))
        assert standing(store.state, "heal").runs == ()
        await operate(store, "job-pause", names=["heal"], by="ann")
        assert standing(store.state, "heal").paused_by == "ann"
        assert (await fsck(store))["clean"]


async def test_who_waits_for_a_rebalance_that_is_paused_is_told_so(tmp_path: Path, seed: int) -> None:
    """The command waited for ever, and said nothing of it."""
    paths = directories(tmp_path, 3)
    async with opened(paths, ec=(1, 1)) as store:
        await Contents(seed).fill(store, 1)
        store.jobs = Scheduler(store)
        await store.jobs.start()
        await operate(store, "job-pause", names=["rebalance"], by="ann")
        await operate(store, "disk-drain", disk="2")
        with pytest.raises(Unavailable, match=r"paused, by ann.*ostraka job resume rebalance"):
            await operate(store, "disk-wait", disk=2)
        await store.jobs.stop()
