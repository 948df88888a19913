"""The circuit breaker: who is let through to a store that failed, and that no place is ever lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ostraka.backends import BreakerState, MemoryBackend, Resilience, ResilientBackend
from ostraka.backends.resilience.breaker import Breaker, Lease
from ostraka.backends.resilience.policy import Verdict
from ostraka.errors import Absent, Unavailable
from ostraka.host import Buffer, Host
from ostraka.testing.backends import Fault, Faults, FaultyBackend

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


class FakeClock:
    now = 100.0

    def time(self) -> float:
        return 5e8 + self.now

    def monotonic(self) -> float:
        return self.now


class Rig:
    def __init__(self, **settings: object) -> None:
        self.clock = FakeClock()
        self.changes: list[tuple[BreakerState, BreakerState]] = []
        values = {"failures_max": 3, "open_seconds": 30.0, "probes_max": 2, "probes_needed": 3, "probe_seconds": 60.0}
        self.resilience = Resilience(**(values | settings))  # type: ignore[arg-type]
        self.breaker = Breaker(self.resilience, self.clock, lambda *change: self.changes.append(change))

    def call(self, verdict: Verdict = Verdict.WELL) -> None:
        with self.breaker.enter() as lease:
            lease.report(verdict)

    def open(self) -> None:
        for _ in range(3):
            self.call(Verdict.ILL)
        assert self.breaker.state is OPEN

    def half_open(self) -> Lease:
        """Open, then waited; and a first probe that is under way."""
        self.open()
        self.clock.now += 30.0
        return self.breaker.enter()

    def rejects(self) -> None:
        with pytest.raises(Unavailable) as error:
            self.breaker.enter()
        assert error.value.reason == "circuit"


def test_it_opens_after_so_many_failures_one_after_the_other() -> None:
    rig = Rig()
    for _ in range(5):
        rig.call(Verdict.ILL)
        rig.call(Verdict.ILL)
        rig.call(Verdict.WELL)
        assert rig.breaker.state is CLOSED
    rig.call(Verdict.ILL)
    rig.call(Verdict.NOTHING)  # says nothing, and so does not begin the count anew
    rig.call(Verdict.ILL)
    assert rig.breaker.state is CLOSED
    rig.call(Verdict.ILL)
    assert rig.breaker.state is OPEN
    assert rig.changes == [(CLOSED, OPEN)]
    rig.rejects()


def test_it_stays_open_for_its_time_and_no_longer() -> None:
    rig = Rig()
    rig.open()
    rig.clock.now += 29.9
    rig.rejects()
    assert rig.breaker.statistics().closed_to_all_for == pytest.approx(0.1)
    rig.clock.now += 0.2
    assert rig.breaker.state is HALF_OPEN
    rig.call()
    assert rig.changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN)]


def test_half_open_lets_so_many_through_at_once_the_first_included() -> None:
    rig = Rig(probes_max=2)
    first = rig.half_open()
    second = rig.breaker.enter()
    rig.rejects()
    first.report(Verdict.WELL)
    third = rig.breaker.enter()
    rig.rejects()
    second.report(Verdict.WELL)
    third.report(Verdict.WELL)
    assert rig.breaker.state is CLOSED
    assert rig.changes[-1] == (HALF_OPEN, CLOSED)
    assert rig.breaker.statistics().failures == 0
    for _ in range(10):
        rig.breaker.enter()


def test_one_failure_opens_it_again_and_its_time_begins_anew() -> None:
    rig = Rig()
    first, second = rig.half_open(), rig.breaker.enter()
    first.report(Verdict.WELL)
    second.report(Verdict.ILL)
    assert rig.breaker.state is OPEN
    rig.clock.now += 29.0
    rig.rejects()
    rig.clock.now += 1.0
    for _ in range(3):
        rig.call()
    assert rig.breaker.state is CLOSED
    assert rig.breaker.statistics().opened == 2


def test_a_probe_without_a_verdict_gives_its_place_back() -> None:
    rig = Rig(probes_max=1)
    for _ in range(10):  # cancelled, or it never asked the store
        with rig.half_open() if rig.breaker.state is CLOSED else rig.breaker.enter():
            rig.rejects()
    assert rig.breaker.state is HALF_OPEN
    assert rig.breaker.statistics().probes == 0


def test_a_probe_that_never_ends_gives_its_place_back_in_time() -> None:
    rig = Rig(probes_max=1, probe_seconds=60.0)
    hung = rig.half_open()
    rig.clock.now += 59.0
    rig.rejects()
    rig.clock.now += 1.0
    rig.breaker.enter()
    hung.report(Verdict.ILL)  # too late: another has its place
    assert rig.breaker.state is HALF_OPEN


def test_what_was_let_through_before_the_last_change_says_nothing_of_now() -> None:
    rig = Rig()
    old = [rig.breaker.enter() for _ in range(6)]
    for lease in old[:3]:
        lease.report(Verdict.ILL)
    assert rig.breaker.state is OPEN
    old[3].report(Verdict.WELL)
    assert rig.breaker.state is OPEN
    rig.clock.now += 30.0
    rig.call()
    old[4].report(Verdict.ILL)
    assert rig.breaker.state is HALF_OPEN
    rig.call()
    rig.call()
    old[5].report(Verdict.ILL)
    assert rig.breaker.statistics().failures == 0


def test_a_verdict_counts_once() -> None:
    rig = Rig(probes_needed=2)
    lease = rig.half_open()
    for _ in range(5):
        lease.report(Verdict.WELL)
    assert rig.breaker.state is HALF_OPEN
    assert rig.breaker.statistics().successes == 1


def test_reset_closes_it_from_every_state() -> None:
    rig = Rig()
    rig.breaker.reset()
    assert rig.changes == []
    rig.open()
    rig.breaker.reset()
    assert rig.breaker.state is CLOSED
    late = rig.half_open()
    rig.breaker.reset()
    assert rig.breaker.state is CLOSED
    late.report(Verdict.ILL)
    assert rig.breaker.statistics().failures == 0
    rig.call(Verdict.ILL)
    assert rig.breaker.state is CLOSED


def test_who_is_told_of_changes_may_ask_and_change_it_and_may_fail() -> None:
    rig = Rig()
    told: list[tuple[BreakerState, BreakerState, BreakerState]] = []

    def on_change(before: BreakerState, after: BreakerState) -> None:
        told.append((before, after, breaker.state))
        if after is OPEN and len(told) == 1:
            breaker.reset()
        if len(told) == 3:
            raise ValueError("a defect of whoever is told")

    breaker = rig.breaker = Breaker(rig.resilience, rig.clock, on_change)
    for _ in range(3):
        rig.call(Verdict.ILL)
    assert told == [(CLOSED, OPEN, OPEN), (OPEN, CLOSED, CLOSED)]
    rig.open()
    assert breaker.state is OPEN
    rig.clock.now += 30.0
    rig.call()
    assert [change[:2] for change in told[2:]] == [(CLOSED, OPEN), (OPEN, HALF_OPEN)]


def test_statistics_tell_where_it_stands() -> None:
    rig = Rig()
    assert rig.breaker.statistics().last_failure is None
    rig.open()
    rig.rejects()
    rig.rejects()
    statistics = rig.breaker.statistics()
    assert (statistics.state, statistics.failures, statistics.opened, statistics.rejected) == (OPEN, 3, 1, 2)
    assert statistics.last_failure == rig.clock.time()
    assert statistics.closed_to_all_for == 30.0


# -- in a backend


class Backends:
    def __init__(self, **settings: object) -> None:
        self.clock = FakeClock()
        self.faults = Faults()
        values = {"attempts_max": 1, "failures_max": 2, "probes_needed": 1, "timeout_seconds": None}
        self.backend = ResilientBackend(
            FaultyBackend(MemoryBackend(), self.faults),
            Resilience(**(values | settings)),  # type: ignore[arg-type]
            host=Host(clock=self.clock),
        )

    async def open(self) -> None:
        self.faults.order("stat", Fault.BEFORE, times=2)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await self.backend.stat("a")
        assert self.backend.state is OPEN


def test_an_open_circuit_asks_the_store_nothing() -> None:
    async def main() -> None:
        rig = Backends()
        await rig.backend.write("a", b"x")
        await rig.open()
        asked = rig.faults.calls.total()
        calls = [
            lambda: rig.backend.read("a"),
            lambda: rig.backend.stat("a"),
            lambda: rig.backend.write("a", b"y"),
            lambda: rig.backend.write_if("a", b"y", match=None),
            lambda: anext(aiter(rig.backend.list())),
        ]
        for call in calls:
            with pytest.raises(Unavailable) as error:
                await call()
            assert error.value.reason == "circuit"
        assert rig.faults.calls.total() == asked
        rig.clock.now += 30.0
        assert await rig.backend.read("a") == b"x"
        assert rig.backend.state is CLOSED

    asyncio.run(main())


def test_a_cancelled_or_hanging_probe_does_not_wedge_it() -> None:
    async def main() -> None:
        rig = Backends(probes_max=1, probe_seconds=60.0)
        await rig.open()
        rig.clock.now += 30.0
        rig.faults.order("stat", Fault.HANG, times=2)
        probe = asyncio.create_task(rig.backend.stat("a"))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await rig.backend.read("a")
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        hanging = asyncio.create_task(rig.backend.stat("a"))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await rig.backend.read("a")
        rig.clock.now += 60.0
        with pytest.raises(Absent):
            await rig.backend.read("a")
        assert rig.backend.state is CLOSED
        hanging.cancel()
        await asyncio.wait([hanging])

    asyncio.run(main())


def test_what_never_reached_the_store_is_no_success_of_a_probe() -> None:
    async def main() -> None:
        rig = Backends(probes_max=1)
        await rig.open()
        rig.clock.now += 30.0

        async def source() -> AsyncIterator[Buffer]:
            raise ValueError("a defect of the source")
            yield b""

        with pytest.raises(ValueError, match="of the source"):
            await rig.backend.write_stream("a", source)
        assert rig.backend.state is HALF_OPEN
        assert rig.backend.statistics().breaker.probes == 0
        await rig.backend.stat("a")
        assert rig.backend.state is CLOSED

    asyncio.run(main())


def test_readings_that_break_off_open_it_too() -> None:
    async def main() -> None:
        rig = Backends(failures_max=3, attempts_max=2)
        await rig.backend.write("a", b"x" * 1000)
        rig.faults.order("read", Fault.RESET, times=100)
        rig.faults.order("read", Fault.BEFORE, times=100)
        got = 0
        with pytest.raises(Unavailable):
            async with rig.backend.open("a") as reading:
                async for piece in reading.pieces:
                    got += len(piece)
                    rig.faults.heal()
                    rig.faults.order("read", Fault.BEFORE, times=100)
        with pytest.raises(Unavailable):
            await rig.backend.read("a")
        assert rig.backend.state is OPEN

    asyncio.run(main())
