"""What is counted of a backend, and on which board."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ostraka.backends import (
    LocalBackend,
    MemoryBackend,
    MeteredBackend,
    Resilience,
    ResilientBackend,
    from_config,
    metrics_for,
)
from ostraka.errors import Absent, Invalid, OstrakaError, PreconditionFailed, Unavailable
from ostraka.host import Buffer
from ostraka.metrics import Board
from ostraka.testing.backends import Fault, Faults, FaultyBackend


class FakeClock:
    now = 0.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Slow(MemoryBackend):
    """Every call takes a second of the fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock

    def _check_open(self) -> None:
        self.clock.now += 1.0


def rendered(board: Board) -> dict[str, float]:
    lines = [line for line in board.render().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def pieces(*parts: Buffer) -> AsyncIterator[Buffer]:
    for part in parts:
        yield part


def test_calls_bytes_times_and_errors_are_counted() -> None:
    async def main() -> dict[str, float]:
        clock = FakeClock()
        backend = MeteredBackend(Slow(clock), "photos", clock=clock)
        await backend.write("a", b"12345")

        async def slow_source() -> AsyncIterator[Buffer]:
            clock.now += 100.0
            yield memoryview(b"12345678").cast("I")
            clock.now += 100.0

        await backend.write_stream("b", slow_source())
        async with backend.open("a", offset=1) as reading:
            async for _ in reading.pieces:
                clock.now += 100.0
        with pytest.raises(Absent):
            await backend.read("nothing")
        with pytest.raises(PreconditionFailed):
            await backend.write_if("a", b"x", match=None)
        with pytest.raises(Invalid):
            await backend.stat("../a")
        assert [path async for path in backend.list()] == ["a", "b"]
        return rendered(backend.board)

    numbers = asyncio.run(main())
    assert numbers['ostraka_backend_seconds_count{backend="photos",operation="write"}'] == 1
    assert numbers['ostraka_backend_seconds_count{backend="photos",operation="read"}'] == 2
    assert numbers['ostraka_backend_seconds_count{backend="photos",operation="list"}'] == 1
    assert numbers['ostraka_backend_bytes_total{backend="photos",direction="written"}'] == 13
    assert numbers['ostraka_backend_bytes_total{backend="photos",direction="read"}'] == 4
    assert numbers['ostraka_backend_errors_total{backend="photos",operation="read",error="absent"}'] == 1
    assert numbers['ostraka_backend_errors_total{backend="photos",operation="write-if",error="precondition"}'] == 1
    assert numbers['ostraka_backend_errors_total{backend="photos",operation="stat",error="invalid"}'] == 1
    assert sum(value for name, value in numbers.items() if "errors" in name) == 3
    sums = [value for name, value in numbers.items() if name.startswith("ostraka_backend_seconds_sum")]
    assert max(sums) < 20.0  # neither the source's 200 seconds nor the reader's 100 are the store's
    assert numbers['ostraka_backend_seconds_sum{backend="photos",operation="write"}'] >= 1.0


def test_what_is_not_the_stores_doing_is_not_counted_against_it() -> None:
    async def main() -> dict[str, float]:
        faults = Faults()
        backend = MeteredBackend(FaultyBackend(MemoryBackend(), faults), "b")
        await backend.write("a", b"x")

        async def broken() -> AsyncIterator[Buffer]:
            yield b"x"
            raise Unavailable("the other store is away", reason="connection")

        with pytest.raises(Unavailable):
            await backend.write_stream("b", broken())
        with pytest.raises(ValueError, match="a sink"):
            async with backend.open("a") as reading:
                async for _ in reading.pieces:
                    raise ValueError("a sink")
        faults.order("stat", Fault.HANG)
        task = asyncio.create_task(backend.stat("a"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        faults.order("stat", Fault.BEFORE)
        with pytest.raises(Unavailable):
            await backend.stat("a")
        faults.order("read", Fault.RESET)
        with pytest.raises(Unavailable):
            await backend.read("a")
        return rendered(backend.board)

    numbers = asyncio.run(main())
    errors = {name: value for name, value in numbers.items() if "errors" in name}
    assert errors == {
        'ostraka_backend_errors_total{backend="b",operation="stat",error="unavailable"}': 1,
        'ostraka_backend_errors_total{backend="b",operation="read",error="unavailable"}': 1,
    }
    assert numbers['ostraka_backend_seconds_count{backend="b",operation="stat"}'] == 1


def test_backends_share_a_board_which_shows_their_circuits(tmp_path: Path) -> None:
    async def main() -> None:
        board = Board(metrics_for("hot", "cold"), rows=1)
        faults = Faults()
        resilient = ResilientBackend(
            FaultyBackend(MemoryBackend(), faults), Resilience(failures_max=1, attempts_max=1, open_seconds=1000.0)
        )
        async with (
            MeteredBackend(LocalBackend(tmp_path), "hot", board) as hot,
            MeteredBackend(resilient, "cold", board) as cold,
        ):
            await hot.write("a", b"x")
            await cold.write("a", b"x")
            assert rendered(board)['ostraka_backend_circuit{backend="cold",state="closed"}'] == 1
            faults.order("stat", Fault.BEFORE)
            for reason in ("connection", "circuit"):
                with pytest.raises(Unavailable) as error:
                    await cold.stat("a")
                assert error.value.reason == reason
            numbers = rendered(board)
            assert numbers['ostraka_backend_circuit{backend="cold",state="open"}'] == 1
            assert not [name for name in numbers if "closed" in name]
            assert numbers['ostraka_backend_errors_total{backend="cold",operation="stat",error="circuit"}'] == 1
            for backend in ("hot", "cold"):
                assert numbers[f'ostraka_backend_seconds_count{{backend="{backend}",operation="write"}}'] == 1
            text = board.render().decode()
            assert len(re.findall("# TYPE ostraka_backend_seconds histogram", text)) == 1

    asyncio.run(main())


def test_a_name_that_is_no_label_is_refused() -> None:
    for name in ("", 'a"b', "a\nb", "x" * 101):
        with pytest.raises(Invalid):
            MeteredBackend(MemoryBackend(), name)
        with pytest.raises(OstrakaError):
            from_config({"type": "metered", "name": name, "backend": {"type": "memory"}})
