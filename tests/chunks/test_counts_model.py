"""Random histories of storing, copying, dropping and sweeping, beside a model that only knows which names hold what.

After every step each name reads back its bytes; in the end, when all names are gone and swept, nothing is left.
"""

import asyncio
import random

import pytest

from ostraka.chunks import Entry
from ostraka.chunks.rows import CHUNKS, PACKS, ZERO, chunk_counter_key, decode, slot_counter_key
from ostraka.limits import KIB
from ostraka.state import Mutation, Rejected, counter, rows_under


class History:
    """Names and what they hold, and the steps that change them."""

    def __init__(self, rig, seed: int) -> None:
        self.rig = rig
        self.random = random.Random(seed)
        self.names: list[tuple[Entry, bytes]] = []
        self.stores = [rig.chunks, rig.another()]
        # few large bodies, so that they meet again; small ones are always new
        self.bodies = [rig.noise(5 * KIB) if n % 2 else rig.text(20 * KIB) for n in range(5)]

    async def store(self) -> None:
        small = self.random.random() < 0.6
        body = self.rig.noise(self.random.randrange(1, 3000)) if small else self.random.choice(self.bodies)
        placed = await self.rig.place(body, self.random.choice(self.stores))
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)
        if self.random.random() < 0.15:
            placed.abandon()
            return
        await self.rig.commit(placed)
        self.names.append((placed.entry, body))

    async def copy(self) -> None:
        if self.names:
            chosen = self.random.choices(self.names, k=self.random.randrange(1, 4))
            await self.rig.refer(*[entry for entry, _ in chosen])
            self.names += chosen

    async def drop(self) -> None:
        count = min(len(self.names), self.random.randrange(1, 6))
        gone = [self.names.pop(self.random.randrange(len(self.names))) for _ in range(count)]
        while gone:
            try:
                await self.rig.state.commit(Mutation(*await self.stores[0].dismantle([entry for entry, _ in gone])))
                return
            except Rejected as rejected:
                assert rejected.tag == "count"

    async def sweep(self) -> None:
        self.rig.clock.now += self.random.choice([1, 10, 31])
        await self.random.choice(self.stores).sweep(self.random.choice([1, 5, 100]))

    async def read(self) -> None:
        if self.names:
            entry, body = self.random.choice(self.names)
            offset = self.random.randrange(len(body))
            assert await self.rig.read(entry, offset) == body[offset:]

    async def check(self) -> None:
        """Every name reads back, and every count is the number of names."""
        held: dict[tuple[bytes, int], int] = {}
        for entry, body in self.names:
            held[entry.id, entry.slot] = held.get((entry.id, entry.slot), 0) + 1
            assert await self.rig.read(entry) == body
        for (name, slot), number in held.items():
            chunk = len(name) == 32
            value = self.rig.state.get(chunk_counter_key(name) if chunk else slot_counter_key(name, slot))
            assert (counter(value) if value is not None else 1 - chunk) == number
        for table in (CHUNKS, PACKS, ZERO):
            for key, value in rows_under(self.rig.state, table):
                decode(key, value)


@pytest.mark.parametrize("seed", range(6))
async def test_counts_agree_with_the_names_at_every_step_and_nothing_is_left_in_the_end(rig, seed: int) -> None:
    print(f"seed {seed}")
    history = History(rig, seed)
    steps = [history.store, history.store, history.copy, history.drop, history.drop, history.sweep]
    for _ in range(150):
        await history.random.choice(steps)()
        if history.random.random() < 0.2:
            await history.check()
    await finish(history)


@pytest.mark.parametrize("seed", range(6))
async def test_the_same_with_everything_at_once(rig, seed: int) -> None:
    print(f"seed {seed}")
    history = History(rig, seed)
    steps = [history.store] * 4 + [history.drop] * 3 + [history.sweep]
    for _ in range(25):
        await asyncio.gather(*(history.random.choice(steps)() for _ in range(8)))
        await history.check()
    await finish(history)


async def finish(history: History) -> None:
    for chunks in history.stores:
        await chunks.settled()
    await history.check()
    while history.names:
        await history.drop()
    for chunks in history.stores:
        await chunks.settled()
    await history.rig.sweep_all()
    assert history.rig.rows() == {}
    assert history.rig.pool.bodies() == {}
    assert history.rig.pool.buffers_bytes == 0
    assert history.rig.pool.unsettled == set()
