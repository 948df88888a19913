"""What is asked again and what is not, and what is said when it cannot be known (law 7)."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ostraka.backends import (
    Backend,
    BreakerState,
    LocalBackend,
    MemoryBackend,
    Operation,
    Resilience,
    ResilientBackend,
    from_config,
)
from ostraka.errors import (
    Absent,
    Conflict,
    Corrupt,
    Forbidden,
    Full,
    Invalid,
    NotSupported,
    OstrakaError,
    PreconditionFailed,
    Unavailable,
)
from ostraka.host import Buffer, Host
from ostraka.testing.backends import CASES, Case, Fault, Faults, FaultyBackend


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def time(self) -> float:
        return 1e9 + self.now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Rig:
    """A store, what goes wrong with it, and who asks it again."""

    def __init__(self, inner: Backend | None = None, seed: int = 0, **settings: object) -> None:
        self.clock = FakeClock()
        self.faults = Faults(seed, self.clock.sleep)
        self.store = inner or MemoryBackend()
        self.changes: list[tuple[BreakerState, BreakerState]] = []
        self.backend = ResilientBackend(
            FaultyBackend(self.store, self.faults),
            Resilience(**settings),  # type: ignore[arg-type]
            host=Host(clock=self.clock),
            sleep=self.clock.sleep,
            on_change=lambda before, after: self.changes.append((before, after)),
        )

    @property
    def calls(self) -> int:
        return self.faults.calls.total()


def error(kind: type[OstrakaError], reason: str = "") -> Callable[[], OstrakaError]:
    return lambda: kind("as ordered", reason=reason)


async def pieces(*parts: Buffer) -> AsyncIterator[Buffer]:
    for part in parts:
        yield part


# -- which errors


@pytest.mark.parametrize("reason", ["connection", "throttled", "timeout", "service", ""])
def test_trouble_is_asked_again_until_it_is_over(reason: str) -> None:
    async def main() -> None:
        rig = Rig()
        rig.faults.order("write", Fault.BEFORE, times=3, error=error(Unavailable, reason))
        await rig.backend.write("a", b"x")
        assert rig.faults.calls["write"] == 4
        rig.faults.order("stat", Fault.BEFORE, times=4, error=error(Unavailable, reason))
        with pytest.raises(Unavailable) as raised:
            await rig.backend.stat("a")
        assert raised.value.reason == reason
        assert rig.faults.calls["stat"] == 4
        assert rig.backend.statistics().retries == 6

    asyncio.run(main())


def test_a_rival_is_no_trouble_and_leaves_nothing_in_doubt() -> None:
    async def main() -> None:
        rig = Rig(failures_max=1)
        etag = await rig.store.write("a", b"1")
        rig.faults.order("write-if", Fault.BEFORE, times=2, error=error(Conflict, "rival"))
        await rig.backend.write_if("a", b"2", match=etag)
        rig.faults.order("write-if", Fault.BEFORE, error=error(Conflict, "rival"))
        with pytest.raises(PreconditionFailed):
            await rig.backend.write_if("a", b"3", match=etag)
        assert rig.backend.state is BreakerState.CLOSED

    asyncio.run(main())


ANSWERS = [
    *(error(Absent, "path"), error(PreconditionFailed, "changed"), error(Invalid, "path"), error(Forbidden, "access")),
    *(
        error(Conflict, "path"),
        error(Full, "disk"),
        error(Corrupt),
        error(NotSupported),
        lambda: ValueError("a defect"),
    ),
    *(error(Unavailable, "closed"),),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: repr(answer()))
def test_an_answer_is_neither_asked_again_nor_held_against_the_store(answer: Callable[[], BaseException]) -> None:
    async def main() -> None:
        rig = Rig(failures_max=1)
        for name, call in {
            "stat": lambda: rig.backend.stat("a"),
            "read": lambda: rig.backend.read("a"),
            "write": lambda: rig.backend.write("a", b"x"),
            "write-stream": lambda: rig.backend.write_stream("a", lambda: pieces(b"x")),
        }.items():
            rig.faults.order(name, Fault.BEFORE, times=10, error=answer)
            with pytest.raises(type(answer())):
                await call()
            assert rig.faults.calls[name] == 1
            rig.faults.heal()
        assert rig.backend.state is BreakerState.CLOSED
        assert rig.backend.statistics().breaker.failures == 0

    asyncio.run(main())


def test_waits_grow_are_bounded_and_differ() -> None:
    async def main() -> None:
        waits = []
        for _ in range(30):
            rig = Rig(attempts_max=8, delay_seconds=1.0, delay_seconds_max=10.0, seconds_max=1000.0, failures_max=99)
            rig.faults.order("stat", Fault.BEFORE, times=8)
            with pytest.raises(Unavailable):
                await rig.backend.stat("a")
            waits.append(rig.clock.slept)
        for number, most in enumerate([1, 2, 4, 8, 10, 10, 10]):
            column = [wait[number] for wait in waits]
            assert max(column) <= most
            assert max(column) > most / 2  # of thirty; all below would be one chance in 2^30
            assert len(set(column)) == 30

    asyncio.run(main())


def test_no_attempt_is_begun_after_the_time_is_over() -> None:
    async def main() -> None:
        rig = Rig(attempts_max=1000, delay_seconds=4.0, delay_seconds_max=4.0, seconds_max=20.0, failures_max=2000)
        rig.faults.order("stat", Fault.BEFORE, times=1000)
        with pytest.raises(Unavailable):
            await rig.backend.stat("a")
        assert 16.0 < rig.clock.now - 1000.0 <= 20.0

    asyncio.run(main())


# -- writing


def test_a_source_that_comes_once_is_never_replayed() -> None:
    async def main() -> None:
        for fault in (Fault.RESET, Fault.AFTER):
            rig = Rig()
            await rig.store.write("a", b"before")
            rig.faults.order("write-stream", fault)
            with pytest.raises(Unavailable):
                await rig.backend.write_stream("a", pieces(b"1", b"2", b"3", b"4", b"5"))
            assert rig.faults.calls["write-stream"] == 1
            assert await rig.store.read("a") == (b"before" if fault is Fault.RESET else b"12345")

    asyncio.run(main())


def test_a_source_that_was_not_touched_is_used_in_the_next_attempt() -> None:
    async def main() -> None:
        rig = Rig()
        rig.faults.order("write-stream", Fault.BEFORE, times=2)
        await rig.backend.write_stream("a", pieces(b"1", b"2"), 2)
        assert await rig.store.read("a") == b"12"

    asyncio.run(main())


def test_a_source_that_can_begin_anew_is_replayed_from_its_beginning() -> None:
    async def main() -> None:
        rig = Rig(attempts_max=10, failures_max=10)
        begun = 0

        def source() -> AsyncIterator[Buffer]:
            nonlocal begun
            begun += 1
            return pieces(*[bytes([n]) * 1000 for n in range(20)])

        for fault in (Fault.RESET, Fault.AFTER, Fault.RESET):
            rig.faults.order("write-stream", fault)
        etag = await rig.backend.write_stream("a", source, 20_000)
        data, stat = await rig.store.read_with_stat("a")
        assert (data, stat.etag) == (b"".join(bytes([n]) * 1000 for n in range(20)), etag)
        assert begun == 4

    asyncio.run(main())


def test_what_a_source_raises_is_its_own_affair() -> None:
    async def main() -> None:
        rig = Rig(failures_max=1)

        async def source() -> AsyncIterator[Buffer]:
            yield b"x"
            raise Unavailable("the other store is away", reason="connection")

        with pytest.raises(Unavailable, match="the other store"):
            await rig.backend.write_stream("a", source)
        assert rig.faults.calls["write-stream"] == 1
        assert rig.backend.state is BreakerState.CLOSED
        assert await rig.store.stat("a") is None

    asyncio.run(main())


def test_appending_is_begun_again_only_before_a_piece_was_taken(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(LocalBackend(tmp_path))
        rig.faults.order("append", Fault.BEFORE)
        assert await rig.backend.append("a", "t", 0, lambda: pieces(b"12")) == 2
        rig.faults.order("append", Fault.AFTER)
        with pytest.raises(Unavailable):
            await rig.backend.append("a", "t", 2, lambda: pieces(b"34"))
        partial = await rig.backend.partial("a", "t")
        assert partial is not None
        assert partial.length == 4
        await rig.backend.close()

    asyncio.run(main())


def test_a_promotion_whose_answer_was_lost_is_found_by_its_bytes(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(LocalBackend(tmp_path))
        digest = hashlib.sha256(b"12").hexdigest()
        await rig.backend.append("a", "t", 0, pieces(b"12"))
        rig.faults.order("promote", Fault.AFTER)
        etag = await rig.backend.promote("a", "t", size=2, sha256=digest)
        stat = await rig.store.stat("a")
        assert stat is not None
        assert stat.etag == etag
        with pytest.raises(Absent):  # nothing was lost here: there is no such upload
            await rig.backend.promote("a", "t", size=2, sha256=digest)
        await rig.backend.append("a", "t", 0, pieces(b"12"))
        rig.faults.order("promote", Fault.AFTER)
        rig.faults.order("read", Fault.BEFORE, error=error(Absent, "path"))  # somebody deletes it in between
        with pytest.raises(Unavailable) as raised:
            await rig.backend.promote("a", "t", size=2, sha256=digest)
        assert raised.value.reason == "unknown"
        await rig.backend.close()

    asyncio.run(main())


# -- conditions


def test_a_condition_whose_answer_was_lost_is_unknown_and_not_failed() -> None:
    async def main() -> None:
        rig = Rig()
        etag = await rig.store.write("a", b"1")
        calls: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("write-if", lambda: rig.backend.write_if("a", b"2", match=etag)),
            ("write-if", lambda: rig.backend.write_if("new", b"2", match=None)),
            ("copy", lambda: rig.backend.copy("a", "copy", if_absent=True)),
        ]
        for name, call in calls:
            rig.faults.order(name, Fault.AFTER)
            with pytest.raises(Unavailable) as raised:
                await call()
            assert raised.value.reason == "unknown"
        assert rig.backend.statistics().unknown == 3
        assert await rig.store.read("a") == b"2"  # it had happened, as it turns out

    asyncio.run(main())


def test_a_condition_that_was_never_tried_is_tried_and_one_that_fails_at_once_has_failed() -> None:
    async def main() -> None:
        rig = Rig()
        etag = await rig.store.write("a", b"1")
        rig.faults.order("write-if", Fault.BEFORE, times=2)
        await rig.backend.write_if("a", b"2", match=etag)
        with pytest.raises(PreconditionFailed):
            await rig.backend.write_if("a", b"3", match=etag)
        rig.faults.order("write-if", Fault.BEFORE, times=2, error=error(Unavailable, "throttled"))
        with pytest.raises(PreconditionFailed):  # a store that throttles did not begin: this is another's doing
            await rig.backend.write_if("a", b"3", match=etag)
        rig.faults.order("write-if", Fault.BEFORE, times=9)
        with pytest.raises(Unavailable) as raised:  # for all that we know it happened
            await rig.backend.write_if("a", b"3", match=etag)
        assert raised.value.reason == "unknown"

    asyncio.run(main())


def test_a_deletion_under_a_condition_whose_answer_was_lost_is_done() -> None:
    async def main() -> None:
        rig = Rig()
        etag = await rig.store.write("a", b"1")
        rig.faults.order("delete-if", Fault.AFTER)
        await rig.backend.delete_if("a", match=etag)
        assert await rig.store.stat("a") is None

    asyncio.run(main())


def test_counting_over_a_store_that_loses_answers_loses_and_invents_nothing(seed: int) -> None:
    async def main() -> None:
        rig = Rig(seed=seed, failures_max=10**6, attempts_max=3)
        rig.faults.chance(0.3, {Fault.BEFORE, Fault.AFTER})
        await rig.store.write("counter", b"0")
        done = unknown = 0

        async def count() -> None:
            nonlocal done, unknown
            for _ in range(40):
                try:
                    data, stat = await rig.backend.read_with_stat("counter")
                    await rig.backend.write_if("counter", b"%d" % (int(data) + 1), match=stat.etag)
                    done += 1
                except PreconditionFailed:
                    continue
                except Unavailable as error:
                    unknown += error.reason == "unknown"

        await asyncio.gather(*[count() for _ in range(8)])
        counted = int(await rig.store.read("counter"))
        assert done <= counted <= done + unknown
        assert done > 20
        assert unknown > 5

    asyncio.run(main())


# -- reading


def test_a_reading_that_breaks_off_goes_on_and_gives_each_byte_once(seed: int) -> None:
    async def main() -> None:
        rig = Rig(seed=seed)
        data = bytes(range(256)) * 1000
        etag = await rig.store.write("a", data)
        rig.faults.chance(0.7, {Fault.RESET, Fault.TRUNCATE, Fault.BEFORE}, [Operation.READ])
        broken = 0
        for offset, size in ((0, None), (1000, None), (7, 100_000), (0, 0), (len(data), None), (255_000, 10**6)):
            got = bytearray()
            try:
                async with rig.backend.open("a", offset=offset, size=size) as reading:
                    assert reading.stat.etag == etag
                    async for piece in reading.pieces:
                        got.extend(piece)
            except Unavailable:
                broken += 1
            wanted = data[offset:] if size is None else data[offset : offset + size]
            assert bytes(got) == wanted[: len(got)]
            assert len(got) == len(wanted) or broken
        assert broken < 4

    asyncio.run(main())


def test_attempts_are_counted_anew_when_bytes_have_passed() -> None:
    async def main() -> None:
        rig = Rig(attempts_max=2, failures_max=100)
        await rig.store.write("a", bytes(1_000_000))
        rig.faults.order("read", Fault.RESET, times=12)
        assert len(await rig.backend.read("a")) == 1_000_000
        assert rig.backend.statistics().resumed == 12

    asyncio.run(main())


def test_what_was_replaced_in_the_middle_is_not_continued_with_another_version() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.store.write("a", b"old" * 1000)
        rig.faults.order("read", Fault.RESET)
        got = bytearray()
        with pytest.raises(PreconditionFailed) as raised:
            async with rig.backend.open("a") as reading:
                await rig.store.write("a", b"new" * 1000)
                async for piece in reading.pieces:
                    got.extend(piece)
        assert raised.value.reason == "changed"
        assert bytes(got) == (b"old" * 1000)[: len(got)]
        assert rig.backend.state is BreakerState.CLOSED

    asyncio.run(main())


class ReplacedOnce(MemoryBackend):
    """Its path is replaced after it was opened, the first time."""

    replaced = False

    @asynccontextmanager
    async def open(self, path, **options):  # type: ignore[no-untyped-def]
        async with super().open(path, **options) as reading:
            if not self.replaced:
                self.replaced = True
                await self.write(path, b"new" * 1000)
            yield reading


def test_a_whole_read_begins_again_when_it_was_replaced_in_the_middle() -> None:
    async def main() -> None:
        rig = Rig(ReplacedOnce())
        await rig.store.write("a", b"old" * 1000)
        rig.faults.order("read", Fault.RESET)
        assert await rig.backend.read("a") == b"new" * 1000

    asyncio.run(main())


def test_a_sink_that_breaks_is_not_the_stores_fault() -> None:
    async def main() -> None:
        rig = Rig(failures_max=1)
        await rig.store.write("a", b"x")

        async def sink(piece: Buffer) -> None:
            raise Unavailable("the other store is away", reason="connection")

        with pytest.raises(Unavailable, match="the other store"):
            await rig.backend.read_to("a", sink)
        assert rig.calls == 1
        assert rig.backend.state is BreakerState.CLOSED

    asyncio.run(main())


def test_a_listing_that_breaks_off_goes_on_after_its_last_path(seed: int) -> None:
    async def main() -> None:
        rig = Rig(seed=seed, attempts_max=20, failures_max=1000)
        paths = [f"{n // 50:02d}/{n:04d}" for n in range(1500)]
        for path in paths:
            await rig.store.write(path, b"x")
        rig.faults.chance(0.8, {Fault.RESET, Fault.BEFORE}, [Operation.LIST, Operation.LIST_DIRECTORIES])
        assert [path async for path in rig.backend.list()] == paths
        assert [entry.path async for entry in rig.backend.list_entries("", start_after=paths[100])] == paths[101:]
        assert [d async for d in rig.backend.list_directories()] == sorted(
            {p.split("/")[0] for p in paths}, key=lambda d: d + "/"
        )
        assert rig.backend.statistics().resumed > 5

    asyncio.run(main())


def test_of_a_batch_only_what_failed_is_sent_again() -> None:
    async def main() -> None:
        rig = Rig(attempts_max=20)
        paths = [f"{n:03d}" for n in range(100)]
        for path in paths:
            await rig.store.write(path, b"")
        rig.faults.order("delete-batch", Fault.PARTIAL_BATCH, times=3)
        failures = await rig.backend.delete_batch([*paths, "../bad"])
        assert [failure.path for failure in failures] == ["../bad"]
        assert [path async for path in rig.store.list()] == []
        assert rig.faults.calls["delete-batch"] == 4

    asyncio.run(main())


# -- time limits, hedges


def test_what_does_not_answer_in_time_is_asked_again() -> None:
    async def main() -> None:
        rig = Rig(timeout_seconds=60.0, timeouts={"stat": 0.02, "write": 0.02, "read": 0.02})
        await rig.store.write("a", b"x")
        for name, call in {
            "stat": lambda: rig.backend.stat("a"),
            "write": lambda: rig.backend.write("a", b"x"),
            "read": lambda: rig.backend.read("a"),
        }.items():
            rig.faults.order(name, Fault.HANG)
            await call()
            assert rig.faults.calls[name] == 2
        assert rig.backend.statistics().timeouts == 3
        rig.faults.order("stat", Fault.HANG, times=4)
        with pytest.raises(Unavailable) as raised:
            await rig.backend.stat("a")
        assert raised.value.reason == "timeout"
        with pytest.raises(Invalid, match="no such"):
            Rig(timeouts={"no such": 1.0})

    asyncio.run(main())


class Stubborn(MemoryBackend):
    """Does not let itself be cancelled, as a thread on a dead disk."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = asyncio.Event()

    async def stat(self, path):  # type: ignore[no-untyped-def]
        while not self.alive.is_set():
            try:
                await self.alive.wait()
            except asyncio.CancelledError:
                continue
        return await super().stat(path)


def test_a_call_that_cannot_be_cancelled_does_not_hold_its_caller() -> None:
    async def main() -> None:
        store = Stubborn()
        rig = Rig(store, timeout_seconds=0.02, attempts_max=1)
        with pytest.raises(Unavailable) as raised:
            await rig.backend.stat("a")
        assert raised.value.reason == "timeout"
        store.alive.set()
        await rig.backend.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


class Slow(MemoryBackend):
    """Takes a piece, and then nothing more."""

    async def write_stream(self, path, source, size=None):  # type: ignore[no-untyped-def]
        async for _ in source() if callable(source) else source:
            await asyncio.Event().wait()


def test_a_stream_is_given_up_when_the_store_stands_still_and_not_when_the_source_does() -> None:
    async def main() -> None:
        rig = Rig(timeout_seconds=0.05)

        async def slow_source() -> AsyncIterator[Buffer]:
            for _ in range(4):
                await asyncio.sleep(0.08)
                yield b"x"

        await rig.backend.write_stream("a", slow_source())
        rig = Rig(Slow(), timeout_seconds=0.02, attempts_max=2)
        with pytest.raises(Unavailable) as raised:
            await rig.backend.write_stream("a", lambda: pieces(b"x"))
        assert raised.value.reason == "timeout"
        assert rig.faults.calls["write-stream"] == 2

    asyncio.run(main())


class Counted(MemoryBackend):
    """How many of its readings are open."""

    opened = 0

    @asynccontextmanager
    async def open(self, path, **options):  # type: ignore[no-untyped-def]
        self.opened += 1
        try:
            async with super().open(path, **options) as reading:
                yield reading
        finally:
            self.opened -= 1


def test_a_read_that_is_late_is_asked_a_second_time_and_the_first_answer_counts() -> None:
    async def main() -> None:
        store = Counted()
        rig = Rig(store, hedge_seconds=0.01)
        await store.write("a", b"x" * 1000)
        for name, call in {"stat": lambda: rig.backend.stat("a"), "read": lambda: rig.backend.read("a")}.items():
            rig.faults.order(name, Fault.HANG)
            assert await call()
            assert rig.faults.calls[name] == 2
        assert (rig.backend.statistics().hedges, rig.backend.statistics().hedges_won) == (2, 2)
        rig.faults.order("read", Fault.HANG)
        rig.faults.order("read", Fault.BEFORE)
        patience = Resilience(hedge_seconds=0.01, timeout_seconds=0.05, attempts_max=1)
        impatient = ResilientBackend(rig.backend.inner, patience, sleep=rig.clock.sleep)
        with pytest.raises(Unavailable):  # the second fails and the first never comes: the whole is out of time
            await impatient.read("a")
        for _ in range(20):
            assert len(await rig.backend.read("a")) == 1000
        await rig.backend.close()
        assert store.opened == 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


# -- all of it


@pytest.mark.parametrize("case", CASES, ids=str)
def test_over_a_store_in_trouble_it_is_as_over_any_other(case: Case, seed: int) -> None:
    if case.name == "its_configuration_makes_it_again":
        return  # a store in trouble has none

    @asynccontextmanager
    async def troubled() -> AsyncIterator[Backend]:
        rig = Rig(seed=seed, attempts_max=12, failures_max=10**6)
        rig.faults.chance(
            0.2,
            {Fault.BEFORE, Fault.PARTIAL_BATCH, Fault.LATENCY},
            set(Operation) - {Operation.WRITE_IF, Operation.DELETE_IF},
        )
        rig.faults.chance(0.2, {Fault.RESET, Fault.TRUNCATE}, [Operation.READ, Operation.LIST])
        async with rig.backend as backend:
            yield backend

    asyncio.run(case(troubled))


def test_its_configuration_carries_the_inner_one(tmp_path: Path) -> None:
    settings = Resilience(attempts_max=7, timeouts={"stat": 2.5}, hedge_seconds=0.5, timeout_seconds=None)
    config = ResilientBackend(LocalBackend(tmp_path), settings).to_config()
    again = from_config(config)
    assert isinstance(again, ResilientBackend)
    assert again.to_config() == config
    assert config["backend"] == {"type": "local", "root": str(tmp_path), "create": True}
    for bad in ({"attempts_max": 0}, {"timeout_seconds": -1}, {"more": 1}, {"timeouts": {"nothing": 1.0}}):
        with pytest.raises(Invalid):
            from_config({"type": "resilient", "backend": {"type": "memory"}, "resilience": bad})
    with pytest.raises(Invalid):
        from_config({"type": "resilient", "backend": {"type": "no such"}})
