"""Virtual time: waiting takes none, and everything else is asyncio's own."""

import asyncio

import pytest

from ostraka.testing.virtual_time import BEGIN, LoopClock, VirtualLoop, run


def test_hours_pass_at_once_and_in_order() -> None:
    async def main(loop: VirtualLoop) -> list[tuple[str, float]]:
        clock = LoopClock(loop)
        seen: list[tuple[str, float]] = []

        async def wake(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, clock.monotonic()))

        await asyncio.gather(wake("late", 7200.0), wake("early", 60.0), wake("now", 0.0))
        return seen

    assert run(main) == [("now", 0.0), ("early", 60.0), ("late", 7200.0)]


def test_clocks_differ_by_their_skew_and_go_together() -> None:
    async def main(loop: VirtualLoop) -> None:
        clocks = [LoopClock(loop), LoopClock(loop, skew=-300.0)]
        await asyncio.sleep(10)
        assert [clock.time() for clock in clocks] == [BEGIN + 10, BEGIN - 290]
        assert [clock.monotonic() for clock in clocks] == [10, 10]

    run(main)


def test_timeouts_and_threads_are_asyncios() -> None:
    async def main(loop: VirtualLoop) -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(lambda: 7)

    assert run(main) == 7


def test_what_a_run_raises_comes_out_and_its_tasks_end() -> None:
    async def main(loop: VirtualLoop) -> None:
        tasks.append(asyncio.ensure_future(asyncio.sleep(1e9)))
        await asyncio.sleep(1)
        raise KeyError("x")

    tasks: list[asyncio.Future[None]] = []
    with pytest.raises(KeyError):
        run(main)
    assert tasks[0].cancelled()
