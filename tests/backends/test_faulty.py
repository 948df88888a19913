"""The fault-injecting backend does what is ordered, nothing else, and the same by the same seed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ostraka.backends import Backend, MemoryBackend, Operation
from ostraka.errors import Unavailable
from ostraka.testing.backends import CASES, Case, Fault, Faults, FaultyBackend


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "its_configuration_makes_it_again"], ids=str)
def test_without_faults_it_is_the_backend_that_it_wraps(case: Case) -> None:
    @asynccontextmanager
    async def faulty() -> AsyncIterator[Backend]:
        async with FaultyBackend(MemoryBackend(), Faults()) as backend:
            yield backend

    asyncio.run(case(faulty))


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_an_error_comes_before_or_after_what_was_asked() -> None:
    async def main() -> None:
        faults = Faults()
        memory = MemoryBackend()
        backend = FaultyBackend(memory, faults)
        faults.order("write", Fault.BEFORE, skip=1)
        faults.order("write", Fault.AFTER)
        with pytest.raises(Unavailable):
            await backend.write("a", b"1")
        assert await memory.read("a") == b"1"
        with pytest.raises(Unavailable):
            await backend.write("a", b"2")
        assert await memory.read("a") == b"1"
        await backend.write("a", b"3")
        assert faults.log == [("write", "a", "after"), ("write", "a", "before")]
        assert faults.calls["write"] == 3
        faults.order("delete", Fault.BEFORE, error=lambda: ValueError("mine"))
        with pytest.raises(ValueError, match="mine"):
            await backend.delete("a")

    asyncio.run(main())


def test_streams_break_off_or_end_early_in_the_middle() -> None:
    async def main() -> None:
        faults = Faults(1)
        memory = MemoryBackend()
        backend = FaultyBackend(memory, faults)
        await memory.write("a", b"x" * 1000)
        faults.order("read", Fault.TRUNCATE)
        assert 0 < len(await backend.read("a")) < 1000
        faults.order("read", Fault.RESET)
        got = 0
        with pytest.raises(Unavailable):
            async with backend.open("a") as reading:
                async for piece in reading.pieces:
                    got += len(piece)
        assert 0 < got < 1000
        faults.order("write-stream", Fault.RESET)
        with pytest.raises(Unavailable):
            await backend.write_stream("a", pieces(*[b"y"] * 10))
        assert await memory.read("a") == b"x" * 1000
        for n in range(20):
            await memory.write(f"l/{n:02d}", b"")
        faults.order("list", Fault.RESET)
        seen = []
        with pytest.raises(Unavailable):
            async for path in backend.list("l/"):
                seen.append(path)
        assert seen == [f"l/{n:02d}" for n in range(len(seen))]
        assert len(seen) < 20

    asyncio.run(main())


def test_a_batch_is_partly_done_and_a_list_is_behind() -> None:
    async def main() -> None:
        faults = Faults(3)
        memory = MemoryBackend()
        backend = FaultyBackend(memory, faults)
        paths = [f"{n:02d}" for n in range(20)]
        for path in paths:
            await memory.write(path, b"")
        faults.order("delete-batch", Fault.PARTIAL_BATCH)
        failed = [failure.path for failure in await backend.delete_batch(paths)]
        assert 0 < len(failed) < 20
        assert [path async for path in memory.list()] == failed
        await backend.delete(failed[0])
        await backend.write("new", b"")
        now = [path async for path in memory.list()]
        stale = set()
        for _ in range(10):
            faults.order("list", Fault.STALE_LIST)
            stale.add(tuple([path async for path in backend.list()]))
            await backend.write("new", b"")
        assert any("new" not in listing for listing in stale)
        assert [path async for path in backend.list()] == now

    asyncio.run(main())


def test_the_same_seed_gives_the_same_faults() -> None:
    async def run(seed: int) -> list[tuple[str, str, str]]:
        faults = Faults(seed)
        faults.chance(0.3, {Fault.BEFORE, Fault.AFTER})
        faults.chance(0.5, {Fault.RESET}, [Operation.READ])
        backend = FaultyBackend(MemoryBackend(), faults)
        for n in range(100):
            for call in (backend.write(str(n % 7), b"x" * 100), backend.read(str(n % 7)), backend.delete(str(n % 5))):
                try:
                    await call
                except Exception:
                    continue
        return faults.log

    assert asyncio.run(run(1)) == asyncio.run(run(1))
    assert asyncio.run(run(1)) != asyncio.run(run(2))
