"""The queue before the committer: bounded, grouped, and clear about what was begun (law 10)."""

import asyncio
import threading
from dataclasses import replace

import pytest

from ostraka.errors import Overloaded, Unavailable
from ostraka.host import SystemClock
from ostraka.limits import LIMITS
from ostraka.state import Committed, Mutation, Outcome, Put
from ostraka.state.batch import Gather
from ostraka.state.committer import Committer


class Disk:
    """Takes batches, and can be held before its turn or in the midst of one."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.taken = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()

        self.asked = threading.Semaphore(0)
        self.turn = threading.Event()
        self.turn.set()

    def apply(self, gather: Gather) -> list[Outcome]:
        self.asked.release()
        assert self.turn.wait(30)
        mutations = gather()
        self.batches.append([m.id or b"" for m in mutations])
        self.taken.release()
        assert self.go.wait(30)
        return [Committed(n + 1) for n in range(len(mutations))]

    async def has_asked(self) -> None:
        assert await asyncio.to_thread(self.asked.acquire, True, 30)

    async def has_taken(self) -> None:
        assert await asyncio.to_thread(self.taken.acquire, True, 30)


def named(name: bytes, size: int = 0) -> Mutation:
    return Mutation((), (Put(b"k", b"v" * size),), name)


def test_what_waits_for_a_sync_becomes_one_batch_within_the_limits() -> None:
    async def main() -> None:
        disk = Disk()
        queue = Committer(disk.apply, replace(LIMITS, batch_mutations_max=4, batch_bytes_max=1000), SystemClock())
        disk.go.clear()
        first = asyncio.create_task(queue.commit([named(b"first")]))
        await disk.has_taken()
        rest = [asyncio.create_task(queue.commit([named(b"%d" % n)])) for n in range(6)]
        big = [asyncio.create_task(queue.commit([named(b"big%d" % n, 600)])) for n in range(2)]
        many = asyncio.create_task(queue.commit([named(b"m%d" % n) for n in range(6)]))
        await asyncio.sleep(0)
        disk.go.set()
        await asyncio.gather(first, *rest, *big)
        assert len(await many) == 6
        assert disk.batches == [
            [b"first"],
            [b"0", b"1", b"2", b"3"],
            [b"4", b"5", b"big0"],
            [b"big1"],
            [b"m0", b"m1", b"m2", b"m3"],
            [b"m4", b"m5"],
        ]
        await queue.close()

    asyncio.run(main())


def test_a_cancelled_commit_was_not_begun_or_is_finished() -> None:
    async def main() -> None:
        disk = Disk()
        queue = Committer(disk.apply, LIMITS, SystemClock())
        disk.go.clear()
        taken = asyncio.create_task(queue.commit([named(b"taken")]))
        await disk.has_taken()
        waiting = asyncio.create_task(queue.commit([named(b"waiting")]))
        other = asyncio.create_task(queue.commit([named(b"other")]))
        await asyncio.sleep(0)
        taken.cancel()
        waiting.cancel()
        await asyncio.wait([taken, waiting])
        disk.go.set()
        await other
        assert disk.batches == [[b"taken"], [b"other"]]
        await queue.close()

    asyncio.run(main())


def test_what_comes_before_the_turn_shares_its_batch_and_what_gives_up_is_not_begun() -> None:
    async def main() -> None:
        disk = Disk()
        queue = Committer(disk.apply, LIMITS, SystemClock())
        disk.turn.clear()
        first = asyncio.create_task(queue.commit([named(b"first")]))
        await disk.has_asked()
        rest = [asyncio.create_task(queue.commit([named(b"%d" % n)])) for n in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        rest[1].cancel()
        await asyncio.wait([first, rest[1]])
        disk.turn.set()
        await asyncio.gather(rest[0], rest[2])
        assert disk.batches == [[b"0", b"2"]]
        await queue.close()

    asyncio.run(main())


def test_a_turn_that_never_comes_is_told_to_all_who_wait_for_it() -> None:
    async def main() -> None:
        refused = threading.Event()

        def refuses(gather: Gather) -> list[Outcome]:
            assert refused.wait(30)
            raise Unavailable("the state has stopped", reason="stopped")

        queue = Committer(refuses, LIMITS, SystemClock())
        calls = [asyncio.create_task(queue.commit([named(b"")])) for _ in range(3)]
        await asyncio.sleep(0)
        refused.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [r.reason for r in results if isinstance(r, Unavailable)] == ["stopped"] * 3
        await queue.close()

    asyncio.run(main())


def test_a_full_queue_waits_until_the_deadline_and_then_refuses() -> None:
    async def main() -> None:
        disk = Disk()
        limits = replace(LIMITS, commit_queue_max=3, commit_wait_seconds_max=0.05)
        queue = Committer(disk.apply, limits, SystemClock())
        disk.go.clear()
        first = asyncio.create_task(queue.commit([named(b"first")]))
        await disk.has_taken()
        waiting = [asyncio.create_task(queue.commit([named(b"w")])) for _ in range(5)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(r, Overloaded) for r in results)
        disk.go.set()
        assert (await first)[0] == Committed(1)
        assert disk.batches == [[b"first"]]  # what was refused was never begun
        await queue.commit([named(b"again")])
        assert disk.batches[-1] == [b"again"]
        await queue.close()

    asyncio.run(main())


def test_room_in_the_queue_goes_to_those_who_wait_in_their_order() -> None:
    async def main() -> None:
        disk = Disk()
        queue = Committer(disk.apply, replace(LIMITS, commit_queue_max=2, batch_mutations_max=1), SystemClock())
        disk.go.clear()
        tasks = [asyncio.create_task(queue.commit([named(b"%d" % n)])) for n in range(8)]
        await disk.has_taken()
        disk.go.set()
        await asyncio.gather(*tasks)
        assert disk.batches == [[b"%d" % n] for n in range(8)]
        await queue.close()

    asyncio.run(main())


def test_closing_finishes_what_is_queued_and_refuses_what_comes() -> None:
    async def main() -> None:
        disk = Disk()
        queue = Committer(disk.apply, LIMITS, SystemClock())
        tasks = [asyncio.create_task(queue.commit([named(b"%d" % n)])) for n in range(5)]
        await asyncio.sleep(0)
        await queue.close()
        assert len(await asyncio.gather(*tasks)) == 5
        with pytest.raises(Unavailable):
            await queue.commit([named(b"late")])

    asyncio.run(main())


def test_a_failure_nobody_foresaw_is_unavailable_for_all_who_waited() -> None:
    def fails(gather: Gather) -> list[Outcome]:
        gather()
        raise RuntimeError("a bug")

    async def main() -> None:
        queue = Committer(fails, LIMITS, SystemClock())
        results = await asyncio.gather(*[queue.commit([named(b"")]) for _ in range(3)], return_exceptions=True)
        assert all(isinstance(r, Unavailable) for r in results)
        await queue.close()

    asyncio.run(main())
