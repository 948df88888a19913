"""Group commit for small bodies: what arrives while a pack is being written goes into the next one.

The path of every small PUT, so its cost counts in microseconds: one future a body, one task and one pool write a
pack. A body that comes alone is written at once, and alone.

A pack is sealed under one key: bodies wait for packs of their own domain's, and domains take turns.

All bodies of a pack carry the same operation, Ensure(the pack's row): whichever commit lands first writes it. A slot
without a counter row has exactly one reference, the one that comes with it. So a body whose commit is certainly
rejected must be buried in a row that its neighbours may have committed: that is done once all of the pack's
placements have ended, by the process that made them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from ostraka.chunks import packs
from ostraka.chunks.ground import Ground
from ostraka.chunks.references import bury
from ostraka.chunks.rows import PACK_ID_SIZE, ROW_VERSION, SLOT, PackRow, decode_pack, encode, pack_key
from ostraka.chunks.sealing import of_pack
from ostraka.chunks.types import Entry, Kind, Recipe
from ostraka.errors import Invalid, OstrakaError, Overloaded, TooLarge
from ostraka.host import Buffer
from ostraka.limits import KIB
from ostraka.pools.types import Owner, Stripe
from ostraka.state.types import Ensure, Mutation, Operation, Precondition, Rejected

BUILD_ON_LOOP_MAX = 64 * KIB  # a smaller pack is built faster than a thread takes it over (about 60 us)

_SLOT = Kind.SLOT.value


class _WrittenPack:
    """A pack on stable storage, and how its placements ended."""

    __slots__ = ("abandoned", "id", "operations", "packer", "preconditions", "slots", "stripe", "unsettled")

    def __init__(
        self, packer: "Packer", pack: bytes, stripe: Stripe, row: bytes, slots: int, gate: Sequence[Precondition]
    ) -> None:
        self.preconditions = gate
        self.packer = packer
        self.id = pack
        self.stripe = stripe
        self.operations = (Ensure(pack_key(pack), row),)
        self.slots = slots
        self.unsettled = slots
        self.abandoned: list[int] = []

    def settle(self) -> None:
        self.unsettled -= 1
        if not self.unsettled:
            self.packer.settle(self)


class PlacedSlot:
    """One small body on stable storage."""

    __slots__ = ("_ended", "_pack", "entry", "operations", "preconditions")

    def __init__(self, pack: _WrittenPack, slot: int, length: int) -> None:
        self.preconditions: Sequence[Precondition] = pack.preconditions
        self._pack = pack
        self._ended = False
        self.entry = Entry(_SLOT, pack.id, 0, length, slot)
        self.operations: Sequence[Operation] = pack.operations

    async def again(self) -> "PlacedSlot":
        # nothing that a slot's commit demands can change: while this lives its slot is live, and its pack stays
        return self

    def release(self) -> None:
        if not self._ended:
            self._ended = True
            self._pack.settle()

    def abandon(self) -> None:
        if not self._ended:
            self._ended = True
            self._pack.abandoned.append(self.entry.slot)
            self._pack.settle()


_Group = tuple[int, bytes]  # what shares a pack: the pool, and what it is sealed under
_Waiting = tuple[bytes, Recipe, "asyncio.Future[PlacedSlot]"]


class Packer:
    """Gathers small bodies into packs."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._waiting: dict[_Group, deque[_Waiting]] = {}  # by domain; those that wait longest for a turn first
        self._waiting_bytes = 0
        self._in_flight = 0
        self._scheduled = False
        self._room = asyncio.Event()

    async def place(self, body: Buffer, recipe: Recipe) -> PlacedSlot:
        """Returns when the pack that holds body is on stable storage."""
        size = len(body)
        limits = self._ground.limits
        if size > limits.pack_size_max:
            raise TooLarge(f"a body of {size} bytes is too large for a pack ({limits.pack_size_max})")
        if not size:
            raise Invalid("an empty body")
        if self._waiting_bytes + size > limits.pack_waiting_bytes_max:
            await self._wait_for_room(size)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[PlacedSlot] = loop.create_future()
        # bytes of our own: the caller may be cancelled and use its memory for something else while a thread reads it
        group = recipe.pool, b"" if recipe.domain is None else recipe.domain.group
        queue = self._waiting.get(group)
        if queue is None:
            queue = self._waiting[group] = deque()
        queue.append((body if type(body) is bytes else bytes(body), recipe, future))
        self._waiting_bytes += size
        if not self._scheduled and self._in_flight < limits.packs_in_flight_max:
            self._scheduled = True
            loop.call_soon(self._launch)  # at the end of this turn of the loop: with what else arrives in it
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().abandon()
            raise

    async def _wait_for_room(self, size: int) -> None:
        limits = self._ground.limits
        try:
            async with asyncio.timeout(limits.commit_wait_seconds_max):
                while self._waiting_bytes + size > limits.pack_waiting_bytes_max:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            raise Overloaded("too many small bodies wait to be written", reason="packs") from None

    def _launch(self) -> None:
        self._scheduled = False
        while self._waiting and self._in_flight < self._ground.limits.packs_in_flight_max:
            batch = self._take()
            if batch:
                self._in_flight += 1
                self._ground.tasks.spawn(self._write(batch))

    def _take(self) -> list[_Waiting]:
        """The next pack's bodies, within its bounds; those whose callers left are passed over."""
        limits, group = self._ground.limits, next(iter(self._waiting))
        waiting = self._waiting.pop(group)
        batch: list[_Waiting] = []
        size = packs.head_size(0)
        while waiting and len(batch) < limits.pack_slots_max:
            body, recipe, future = waiting[0]
            if batch and size + len(body) + SLOT.size > limits.pack_bytes_max:
                break
            waiting.popleft()
            self._waiting_bytes -= len(body)
            if not future.cancelled():
                batch.append((body, recipe, future))
                size += len(body) + SLOT.size
        if waiting:
            self._waiting[group] = waiting
        self._room.set()
        return batch

    async def _write(self, batch: list[_Waiting]) -> None:
        ground = self._ground
        try:
            bodies = [(body, recipe) for body, recipe, _ in batch]
            pack = ground.host.random(PACK_ID_SIZE)
            domain, where = bodies[0][1].domain, bodies[0][1].pool
            seal, key = domain.new(of_pack(pack), ground.host) if domain is not None else (None, None)
            if sum(len(body) for body, _ in bodies) <= BUILD_ON_LOOP_MAX:
                built = packs.build(bodies, pack, key)
            else:
                built = await ground.in_thread(packs.build, bodies, pack, key)
            stripe = await ground.pool.write(Owner.PACK, pack, built.body, len(built.body), where)
        except Exception as error:
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        finally:
            self._in_flight -= 1
            self._launch()
        row = encode(PackRow(ROW_VERSION, built.slots, stripe, seal))
        written = _WrittenPack(self, pack, stripe, row, len(batch), batch[0][1].gate)
        self._count(built)
        plain = sum(len(body) for body, _ in bodies)
        ground.counters.add("placed_bytes", plain)
        if seal is not None:
            ground.counters.add("sealed_bytes", plain)
        for number, (body, _, future) in enumerate(batch):
            placed = PlacedSlot(written, number, len(body))
            if future.done():
                placed.abandon()  # its caller left: nobody can name it
            else:
                future.set_result(placed)

    def _count(self, built: packs.BuiltPack) -> None:
        add = self._ground.counters.add
        add("packs")
        add("pack_slots", len(built.slots) // SLOT.size)
        add("pack_bytes", len(built.body))
        for codec, size, stored in built.compressed:
            self._ground.counters.compressed(codec, size, stored)

    def settle(self, pack: _WrittenPack) -> None:
        """All of the pack's placements have ended: bury what was abandoned, and tell the pool what became of it."""
        ground = self._ground
        if len(pack.abandoned) == pack.slots:  # none of its commits landed or ever will
            ground.give_back(Owner.PACK, pack.id, pack.stripe)
        elif pack.abandoned:
            ground.tasks.spawn(self._bury(pack))
        else:
            ground.settle(Owner.PACK, pack.id, pack.stripe)

    async def _bury(self, pack: _WrittenPack) -> None:
        ground, key = self._ground, pack_key(pack.id)
        try:
            await ground.state.commit(Mutation())  # what was queued before has landed or never will
            while (value := ground.state.get(key)) is not None:
                dead = bury(pack.id, value, decode_pack(value), pack.abandoned, ground.limits.compact_live_ratio)
                try:
                    await ground.state.commit(Mutation(*dead))
                    break
                except Rejected:
                    continue  # somebody changed the row: their commit was progress
        except OstrakaError:
            return  # the bytes stay until fsck finds them; nothing is wrong but room
        ground.settle(Owner.PACK, pack.id, pack.stripe)
