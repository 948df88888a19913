"""What readers found: journaled in the state, so that healing hears of it from every process and after a restart.

A read that met a bad shard was answered from the others; nothing tells the user, and nothing must be forgotten. Telling
is cheap and never waits. What is told while the table of those under way is full is dropped: the next read, or fsck,
finds it again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection

from ostraka.chunks.rows import owner_of
from ostraka.chunks.types import Entry
from ostraka.errors import OstrakaError
from ostraka.host import Clock, SystemClock
from ostraka.jobs.records import BY_WRITE_ID, HurtRow, encode, hurt_key
from ostraka.nodes.local import LocalDisk
from ostraka.pools.types import Owner, Stripe
from ostraka.segments.format import segment_seed
from ostraka.segments.reader import read_header
from ostraka.state.types import Ensure, Mutation, State

log = logging.getLogger("ostraka.jobs")

_UNDER_WAY_MAX = 256


class DamageJournal:
    """Hears of damage from pool and chunks of this process: `stripe` is a pool's on_damage, `entry` a ChunkStore's."""

    def __init__(self, state: State, clock: Clock | None = None) -> None:
        self._state = state
        self._clock: Clock = clock or SystemClock()
        self._under_way: dict[bytes, asyncio.Task[None]] = {}

    def stripe(self, stripe: Stripe, index: int) -> None:
        """A shard of this stripe is missing or damaged. On the loop thread."""
        self._tell(hurt_key(BY_WRITE_ID, stripe.write_id), HurtRow(stripe=stripe, since=self._clock.time()))

    def entry(self, entry: Entry, error: OstrakaError) -> None:
        """What this entry names could not be read at all."""
        owner, owner_id = owner_of(entry)
        self._tell(hurt_key(owner, owner_id), HurtRow(since=self._clock.time()))

    async def owner(self, owner: int, owner_id: bytes) -> None:
        """As `entry`, and durable when it returns."""
        await self.owners({(owner, owner_id)})

    async def owners(self, found: Collection[tuple[int, bytes]]) -> None:
        """As `owner`, of many."""
        row = encode(HurtRow(since=self._clock.time()))
        await self._state.commit_many([Mutation((), [Ensure(hurt_key(*one), row)]) for one in sorted(found)])

    def _tell(self, key: bytes, row: HurtRow) -> None:
        if key in self._under_way or len(self._under_way) >= _UNDER_WAY_MAX:
            return
        self._under_way[key] = asyncio.get_running_loop().create_task(self._write(key, row))

    async def _write(self, key: bytes, row: HurtRow) -> None:
        try:
            await self._state.commit(Mutation((), [Ensure(key, encode(row))]))
        except OstrakaError as error:
            log.warning("damage could not be journaled: %s", error.message)
        finally:
            del self._under_way[key]

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._under_way:
            with contextlib.suppress(OstrakaError):
                await asyncio.gather(*self._under_way.values())


def owner_on(disk: LocalDisk, write_id: bytes, index: int) -> tuple[Owner, bytes] | None:
    """Under whose name a disk keeps a shard, from the header of its record; None if it cannot say. Blocking."""
    try:
        for extent in disk.index.copies(write_id, index):
            descriptor = disk.descriptors.take(extent.segment)
            try:
                header = read_header(descriptor.file, segment_seed(disk.identity, extent.segment), extent.offset)
            finally:
                disk.descriptors.give(descriptor)
            if header is not None and header.write_id == write_id and header.owner in tuple(Owner):
                return Owner(header.owner), header.owner_id
    except OSError:
        pass
    return None
