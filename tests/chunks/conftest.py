"""A rig for the tests of this room: chunks on a real state and a real pool, a clock that the test turns."""

import asyncio
import inspect
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from ostraka.chunks import ChunkStore, Entry, Placed
from ostraka.chunks.keyring import Keyring
from ostraka.chunks.types import RECIPE
from ostraka.host import Host
from ostraka.limits import KIB, LIMITS, MIB, Limits
from ostraka.state import Mutation, Operation, Precondition, Rejected
from ostraka.state.memory import MemoryState
from ostraka.state.types import SEQUENCE_MAX
from ostraka.testing.memory_pool import MemoryPool

SMALL = replace(
    LIMITS,
    pack_size_max=4 * KIB,
    chunk_size=64 * KIB,
    frame_size=8 * KIB,
    pack_bytes_max=32 * KIB,
    pack_slots_max=16,
    pack_waiting_bytes_max=256 * KIB,
    read_piece_max=16 * KIB,
    buffers_bytes_max=1 * MIB,
    commit_wait_seconds_max=5.0,
)
SEED = 20261120
MASTER = b"m" * 32


class TurnedClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return 1.7e9 + self.now

    def monotonic(self) -> float:
        return self.now


class Rig:
    """What most tests need; open inside the test's own loop."""

    def __init__(self, limits: Limits = SMALL) -> None:
        self.limits = limits
        self.clock = TurnedClock()
        self.host = Host(clock=self.clock)
        self.random = random.Random(SEED)
        self.pinned = SEQUENCE_MAX
        self.damage: list[tuple[Entry, Exception]] = []
        self.state: Any = MemoryState(limits)
        self.pool: Any = MemoryPool(limits, self.host)
        self.recipe = RECIPE
        self.keyring = self.ring(MASTER)
        self.chunks = self.another()

    def ring(self, *masters: bytes) -> Keyring:
        """The store's keys, as a process has them that was given these master keys."""
        return Keyring(self.state, b"s" * 32, masters, host=self.host, limits=self.limits)

    def another(self, keyring: Keyring | None = None) -> ChunkStore:
        """As another process has it: the same state and pool, nothing else in common."""
        return ChunkStore(
            self.pool,
            self.state,
            b"k" * 32,
            host=self.host,
            limits=self.limits,
            pinned_before=lambda: self.pinned,
            on_damage=lambda entry, error: self.damage.append((entry, error)),
            keyring=keyring or self.keyring,
        )

    async def __aenter__(self) -> "Rig":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.chunks.close()

    # -- bodies

    def noise(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def text(self, size: int) -> bytes:
        words = [b"%x" % self.random.randrange(1 << 20) for _ in range(50)]
        return b" ".join(self.random.choice(words) for _ in range(size // 3 + 2))[:size]

    # -- what objects does with chunks

    async def place(self, body: bytes, chunks: ChunkStore | None = None) -> Placed:
        chunks = chunks or self.chunks
        if len(body) <= self.limits.pack_size_max:
            return await chunks.place_small(body, self.recipe)
        buffer = await chunks.buffer()
        buffer.view[: len(body)] = body
        return await chunks.place(buffer, len(body), self.recipe)

    async def commit(self, *placements: Placed, extra: Iterable[Precondition] = ()) -> None:
        """One commit for all of them, trying anew as long as only a chunk changed under it."""
        current = list(placements)
        while True:
            preconditions: list[Precondition] = list(extra)
            operations: list[Operation] = []
            for placed in current:
                preconditions += placed.preconditions
                operations += placed.operations
            try:
                await self.state.commit(Mutation(preconditions, operations))
                break
            except Rejected as rejected:
                if rejected.tag != "chunk":
                    raise
                current = [await placed.again() for placed in current]
        for placed in current:
            placed.release()

    async def store(self, body: bytes) -> Entry:
        placed = await self.place(body)
        await self.commit(placed)
        return placed.entry

    async def refer(self, *entries: Entry) -> None:
        await self.state.commit(Mutation(*self.chunks.reference(entries)))

    async def drop(self, *entries: Entry) -> None:
        await self.state.commit(Mutation(*await self.chunks.dismantle(entries)))

    async def read(self, entry: Entry, offset: int = 0, length: int | None = None) -> bytes:
        length = entry.length - offset if length is None else length
        return b"".join([bytes(piece) async for piece in self.chunks.read(entry, offset, length)])

    def hold_commits(self) -> asyncio.Event:
        """Commits queue up, in order, until the event is set."""
        gate, turn, commit = asyncio.Event(), asyncio.Lock(), self.state.commit

        async def queued(mutation: Mutation) -> Any:
            async with turn:
                await gate.wait()
                return await commit(mutation)

        self.state.commit = queued
        return gate

    async def until(self, condition: Callable[[], object]) -> None:
        """Let others run until they have brought it about."""
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def sweep_all(self) -> int:
        """Sweep past the grace until nothing is left to settle."""
        total = await self.chunks.sweep(1000)
        for _ in range(6):  # a rewritten pack leaves a stripe, to be settled after another grace
            self.clock.now += self.limits.collect_grace_seconds + 1
            total += await self.chunks.sweep(1000)
        return total

    def rows(self, table: bytes = b"") -> dict[bytes, bytes]:
        return dict(self.state.scan(table, None if not table else table + b"\xff" * 80, 10_000))


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Coroutine tests run in a loop of their own, and what they were given is opened and closed in it."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters}

    async def main() -> None:
        rigs = [a for a in arguments.values() if isinstance(a, Rig)]
        for opened in rigs:
            await opened.__aenter__()
        try:
            await function(**arguments)
        finally:
            for opened in rigs:
                await opened.__aexit__()

    asyncio.run(main())
    return True
