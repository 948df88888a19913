"""The erasure pool: bodies become stripes over the disks of a store, and stripes become bodies again.

What is durable when: ``write`` returns after every one of the k+m shards was synced by its disk (ENGINE 1). A disk
that fails meanwhile is first reported, and recorded as down, through ``Members.failed``; its shard then goes to
another disk, or the body into a narrower stripe, so that a write does not fail because one disk did.

Belongs to one event loop; disks are called in the threads of lanes.py. Reading is in reading.py.
"""

import asyncio
import mmap
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

import msgspec

from ostraka.errors import Absent, Corrupt, Full, Unavailable
from ostraka.host import Buffer, Host
from ostraka.limits import Limits
from ostraka.metrics import Board
from ostraka.nodes import ring
from ostraka.nodes.types import Disk, Members, ShardWrite
from ostraka.pools import layout
from ostraka.pools.buffers import Buffers, PooledBuffer
from ostraka.pools.erasure import codec
from ostraka.pools.lanes import Lanes
from ostraka.pools.metrics import Counters, Meter
from ostraka.pools.reading import COMPUTE_INLINE_MAX, Outcome, StripeReader, all_of
from ostraka.pools.types import Owner, ShardHealth, Stripe, StripeBuffer
from ostraka.shared import InFlight, SharedWords

_WRITE_IDS: Final = 256


class ErasurePool:
    """Implements pools.types.Pool over the disks of a store."""

    def __init__(
        self,
        members: Members,
        host: Host,
        limits: Limits,
        executor: Executor | None = None,
        in_flight: InFlight | None = None,
        board: Board | None = None,
    ) -> None:
        """``executor`` is where large bodies are encoded; without one the pool has threads of its own for that.
        ``in_flight`` is told of each write, from before its disks are chosen until its stripe is decided. ``board``:
        where pools/metrics.py is declared."""
        self._members = members
        self._in_flight = in_flight or InFlight(lambda: 0, SharedWords(1, 1), 0)
        self._host = host
        self._limits = limits
        self._lanes = Lanes(host, limits, executor)
        self._background: set[asyncio.Future[Any]] = set()
        self.buffers = Buffers(limits)
        self.counters = Counters()
        self._reading = StripeReader(members, limits, self._lanes, self.buffers, self.counters)
        if board is not None:
            self._lanes.on_call = Meter(board, self.counters).on_call
        self._write_ids = b""
        self._write_ids_of = 0

    # -- writing

    async def buffer(self, size: int) -> PooledBuffer:
        return await self.buffers.acquire(size, layout.capacity(size, self._members.k, self._members.m))

    def scarce(self, size: int) -> bool:
        return self.buffers.scarce(size, layout.capacity(size, self._members.k, self._members.m))

    def scratch(self, size: int) -> memoryview:
        return self.buffers.lend_beyond(size)

    def spare(self, size: int) -> PooledBuffer:
        return self.buffers.acquire_beyond(size, layout.capacity(size, self._members.k, self._members.m))

    async def write(
        self, owner: Owner, owner_id: bytes, body: StripeBuffer | Buffer, length: int, pool: int = 0
    ) -> Stripe:
        token = self._in_flight.enter()
        try:
            stripe = await self._write(owner, owner_id, body, length)
        except BaseException:
            self._in_flight.leave(token)
            raise
        self._in_flight.named(token, stripe.write_id)
        return stripe

    async def _write(self, owner: Owner, owner_id: bytes, body: StripeBuffer | Buffer, length: int) -> Stripe:
        if not isinstance(body, PooledBuffer | Buffer):
            body = body.view  # memory of another pool: as good as any other buffer
        avoid: dict[int, bool] = {}  # disks that did not take a shard of this body: True if only for want of room
        while True:
            usable = {disk.number: disk for disk in self._members.up() if disk.number not in avoid}
            k, m = self._geometry(len(usable), any(avoid.values()))
            write_id = self._write_id()
            chosen = self._order(write_id, usable)[: k + m]
            size = layout.shard_size(length, k, self._limits)
            stripe = Stripe(write_id, k, m, length, size, tuple(chosen))
            shards = await self._encode(body, length, k, m, size)
            placed = await self._place(owner, owner_id, stripe, shards, body, avoid)
            if placed is not None:
                self.counters.writes += 1
                self.counters.bytes_written += length
                if k < self._members.k:
                    self.counters.narrowed_stripes += 1
                return placed

    def _write_id(self) -> bytes:
        """16 random bytes, never given twice. Drawn many at a time: while threads work, a system call on the loop
        waits for the interpreter's lock. A fork must not inherit what is left."""
        if not self._write_ids or self._write_ids_of != os.getpid():
            self._write_ids, self._write_ids_of = self._host.random(16 * _WRITE_IDS), os.getpid()
        write_id, self._write_ids = self._write_ids[:16], self._write_ids[16:]
        return write_id

    def _geometry(self, count: int, some_full: bool) -> tuple[int, int]:
        k, m = self._members.k, self._members.m
        if count >= k + m:
            return k, m
        if count - m >= 1:
            return count - m, m
        if some_full:
            raise Full(
                f"{count} disks have room left, {m + 1} are needed: delete objects, or replace disks by larger ones",
                reason="disks",
            )
        raise Unavailable(f"{count} disks can be written, {m + 1} are needed", reason="disks")

    def _order(self, write_id: bytes, disks: dict[int, Disk]) -> list[int]:
        if len(disks) == 1:
            return list(disks)
        return ring.order(write_id, [(number, float(disk.free()[1])) for number, disk in disks.items()])

    async def _encode(self, body: PooledBuffer | Buffer, length: int, k: int, m: int, size: int) -> list[list[Buffer]]:
        """The pieces of all k+m shards."""
        if k == 1:
            return layout.cut(body, length, 1, 0, size) * (1 + m)
        if isinstance(body, PooledBuffer) and k * size <= len(body.whole) < (k + m) * size:
            shards = layout.cut(body, length, k, 0, size)  # a narrower stripe needs more parity than was planned
            beyond = memoryview(mmap.mmap(-1, m * size, flags=mmap.MAP_PRIVATE))
            shards += [[beyond[i * size : (i + 1) * size]] for i in range(m)]
        else:
            shards = layout.cut(body, length, k, m, size)
        if m:
            single = [layout.single(pieces) for pieces in shards]
            parity = [memoryview(p) for p in single[k:]]
            if k * size <= COMPUTE_INLINE_MAX:
                codec(k, m).encode(single[:k], parity)
            else:
                await self._lanes.compute(partial(codec(k, m).encode, single[:k], parity), body)
        return shards

    async def _place(
        self,
        owner: Owner,
        owner_id: bytes,
        stripe: Stripe,
        shards: list[list[Buffer]],
        body: PooledBuffer | Buffer,
        avoid: dict[int, bool],
    ) -> Stripe | None:
        """Write all shards; the stripe as it was placed, or None if it cannot be completed on the disks that are left
        (what was written of it is given up)."""
        places = dict(enumerate(stripe.disks))
        written: dict[int, int] = {}
        missing = list(places)
        try:
            while missing:
                futures = {
                    i: self._write_shard(places[i], owner, owner_id, stripe, i, shards[i], body) for i in missing
                }
                missing, failures = await self._collect(stripe, places, futures, written)
                for number, error in failures.items():
                    avoid[number] = isinstance(error, Full)
                    if isinstance(error, OSError):
                        self.counters.write_errors += 1
                        await self._members.failed(number, error)
                if missing and not self._replace(stripe, places, missing, avoid):
                    self.give_up(stripe, written)
                    return None
        except BaseException:
            self.give_up(stripe, written)
            raise
        return msgspec.structs.replace(stripe, disks=tuple(places[i] for i in range(stripe.k + stripe.m)))

    def _write_shard(
        self,
        number: int,
        owner: Owner,
        owner_id: bytes,
        stripe: Stripe,
        index: int,
        pieces: list[Buffer],
        body: PooledBuffer | Buffer,
    ) -> "asyncio.Future[None]":
        disk = self._members.disk(number)
        if disk is None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(Unavailable(f"disk {number} went down", reason="disks"))
            return future
        shard = ShardWrite(stripe.write_id, index, stripe.k, stripe.m, owner, owner_id, stripe.length, pieces)
        done = None
        if isinstance(body, PooledBuffer):
            body.pin()
            done = body.unpin
        return self._lanes.of(disk).writes.write(shard, stripe.shard_size, done)

    async def _collect(
        self,
        stripe: Stripe,
        places: dict[int, int],
        futures: dict[int, "asyncio.Future[None]"],
        written: dict[int, int],
    ) -> tuple[list[int], dict[int, Exception]]:
        """Wait for all of them. (indexes that are not written, disk number to what its failure was)."""
        try:
            await asyncio.wait(futures.values())
        except BaseException:
            for index, future in futures.items():  # cancelled: whatever still arrives is given up as it arrives
                self._forget(future)
                future.add_done_callback(partial(self._orphan, stripe, places[index], index))
            raise
        missing: list[int] = []
        failures: dict[int, Exception] = {}
        fatal: BaseException | None = None
        for index, future in futures.items():
            error = future.exception()
            if error is None:
                written[index] = places[index]
            elif isinstance(error, OSError | Full | Unavailable):
                missing.append(index)
                failures[places[index]] = error
            else:
                fatal = error
        if fatal is not None:
            raise fatal
        return missing, failures

    def _replace(self, stripe: Stripe, places: dict[int, int], missing: list[int], avoid: dict[int, bool]) -> bool:
        """Give each missing shard a disk that the stripe does not use yet; False if there are not enough."""
        used = {places[i] for i in places if i not in missing}
        usable = {d.number: d for d in self._members.up() if d.number not in used and d.number not in avoid}
        spare = self._order(stripe.write_id, usable)
        if len(spare) < len(missing):
            return False
        for index, number in zip(missing, spare, strict=False):
            places[index] = number
            self.counters.replaced_shards += 1
        return True

    def _orphan(self, stripe: Stripe, number: int, index: int, future: "asyncio.Future[None]") -> None:
        if not future.cancelled() and future.exception() is None:
            self.give_up(stripe, {index: number})

    def _forget(self, future: "asyncio.Future[Any]") -> None:
        """Own a call whose outcome changes nothing (a disk that fails now is found out by the next write)."""
        self._background.add(future)
        future.add_done_callback(self._background.discard)
        future.add_done_callback(lambda f: f.cancelled() or f.exception())

    # -- reading

    def read_now(self, stripe: Stripe, offset: int, length: int) -> memoryview | None:
        return self._reading.read_now(stripe, offset, length)

    async def read(self, stripe: Stripe, offset: int, length: int) -> memoryview:
        return await self._reading.read(stripe, offset, length)

    @property
    def on_damage(self) -> Callable[[Stripe, int], None] | None:
        """Called on the loop when a read found this shard missing or damaged; set it to queue a repair."""
        return self._reading.on_damage

    @on_damage.setter
    def on_damage(self, told: Callable[[Stripe, int], None] | None) -> None:
        self._reading.on_damage = told

    # -- what becomes of stripes

    def settle(self, stripes: Iterable[Stripe]) -> None:
        for stripe in stripes:
            self._in_flight.decided((stripe.write_id,))
            for number in set(stripe.disks):
                disk = self._members.disk(number)
                if disk is not None:
                    disk.settle((stripe.write_id,))
                elif self.on_damage is not None and self._members.gone(number):
                    # given up for good while this write was under way: who healed behind it has not seen the stripe
                    self.on_damage(stripe, stripe.disks.index(number))

    async def release(self, stripes: Sequence[tuple[Owner, bytes, Stripe]]) -> None:
        by_disk: dict[int, list[tuple[bytes, int]]] = {}
        self._in_flight.decided(stripe.write_id for _, _, stripe in stripes)
        for _, _, stripe in stripes:
            for index, number in enumerate(stripe.disks):
                by_disk.setdefault(number, []).append((stripe.write_id, index))
        futures = []
        for number, shards in by_disk.items():
            disk = self._members.disk(number)
            if disk is not None:  # one that is away is asked what it still holds when it comes back
                futures.append(self._lanes.of(disk).writes.call(partial(disk.release, shards)))
        if futures:
            await asyncio.gather(*futures, return_exceptions=True)

    async def verify(self, stripe: Stripe) -> list[ShardHealth]:
        states = await all_of([self._state(stripe, index) for index in range(stripe.k + stripe.m)])
        return [ShardHealth(i, stripe.disks[i], state) for i, state in enumerate(states)]

    async def _state(self, stripe: Stripe, index: int) -> str:
        number = stripe.disks[index]
        disk = self._members.disk(number)
        if disk is None:
            return "missing" if self._members.gone(number) else "unreachable"
        try:
            await self._lanes.of(disk).reads.call(partial(disk.verify, stripe.write_id, index))
        except Absent:
            return "missing"
        except Corrupt:
            return "damaged"
        except (OSError, Unavailable):
            return "unreachable"
        return "good"

    async def repair(self, owner: Owner, owner_id: bytes, stripe: Stripe) -> Stripe | None:
        """See pools.types. Raises Unavailable when nothing can be improved with the disks that are up, Corrupt when
        fewer than k shards are good, Full. Settle what is returned, once it is committed or given up."""
        health = await self.verify(stripe)
        bad = [h for h in health if h.state != "good"]
        if not bad:
            return None
        targets = self._targets(stripe, bad)
        if not targets:
            raise Unavailable(f"stripe {stripe.write_id.hex()}: no disk to rebuild on", reason="disks")
        shards = await self._rebuild(stripe, health, sorted(targets))
        written = await self._write_anew(owner, owner_id, stripe, targets, shards)
        self.counters.repaired_shards += len(written)
        return _with(stripe, written)

    async def _write_anew(
        self,
        owner: Owner,
        owner_id: bytes,
        stripe: Stripe,
        targets: Mapping[int, int],
        shards: Mapping[int, memoryview],
    ) -> dict[int, int]:
        """Write shards (index to disk) of a stripe that is there already; which of them were. Raises what kept all of
        them from being written."""
        places = dict(enumerate(stripe.disks)) | dict(targets)
        written: dict[int, int] = {}
        try:
            futures = {
                i: self._write_shard(places[i], owner, owner_id, stripe, i, [shards[i]], shards[i]) for i in targets
            }
            missing, failures = await self._collect(stripe, places, futures, written)
            for number, error in failures.items():
                if isinstance(error, OSError):
                    self.counters.write_errors += 1
                    await self._members.failed(number, error)
        except BaseException:  # also where a shard was to go that the stripe does not name yet
            self.settle([stripe, msgspec.structs.replace(stripe, disks=tuple(places.values()))])
            raise
        if missing and not written:
            raise next(iter(failures.values()))
        return written

    def _targets(self, stripe: Stripe, bad: list[ShardHealth]) -> dict[int, int]:
        """Where each bad shard is written anew: its own disk if that is up and answers, else one that has none. What
        is lost comes first: a disk that is merely away may come back with its shard."""
        up = {disk.number: disk for disk in self._members.up()}
        spare = self._order(stripe.write_id, {n: disk for n, disk in up.items() if n not in stripe.disks})
        targets: dict[int, int] = {}
        for shard in sorted(bad, key=lambda shard: shard.state == "unreachable"):
            if shard.disk in up and shard.state != "unreachable":
                targets[shard.index] = shard.disk
            elif spare:
                targets[shard.index] = spare.pop(0)
        return targets

    async def _rebuild(self, stripe: Stripe, health: list[ShardHealth], wanted: list[int]) -> dict[int, memoryview]:
        """Whole shards, computed from k that are good."""
        outcome = Outcome()
        for h in health:
            if h.state == "unreachable":
                outcome.away.append(f"disk {h.disk} is away")
            elif h.state != "good":
                outcome.lost.append(f"shard {h.index} on disk {h.disk} is {h.state}")
        made = {index: await self.buffers.lend(stripe.shard_size) for index in wanted}
        bad = {h.index for h in health if h.state != "good"}
        await self._reading.reconstruct(stripe, wanted, 0, [made[index] for index in wanted], bad, outcome)
        return made

    # -- shards that move

    def geometry(self) -> tuple[int, int]:
        """(k, m) that a stripe would be written with now. Raises Unavailable."""
        return self._geometry(len(self._members.up()), some_full=False)

    def order(self, write_id: bytes) -> list[int]:
        """Disks that may get new shards, in the order in which the stripe of this write id would be given them."""
        return self._order(write_id, {disk.number: disk for disk in self._members.up()})

    async def move(self, owner: Owner, owner_id: bytes, stripe: Stripe, targets: Mapping[int, int]) -> Stripe:
        """Write shards (index to disk) of a stripe on other disks as well, from bytes that verify or were computed.

        Returns the stripe that the caller commits in place of the old one; a shard that its new disk did not take
        stays where it was. Then it settles that one, and gives up what lies where it is not named any more. Raises
        Unavailable, Corrupt, Full and OSError when nothing was moved.
        """
        shards = {index: await self.buffers.lend(stripe.shard_size) for index in targets}
        await self._reading.shards(stripe, shards)
        written = await self._write_anew(owner, owner_id, stripe, targets, shards)
        self.counters.moved_shards += len(written)
        return _with(stripe, written)

    def give_up(self, stripe: Stripe, places: Mapping[int, int]) -> "list[asyncio.Future[None]]":
        """Shards (index to disk) that no row names any more, or ever will: dead bytes. Who may write them there again
        waits for the calls that this begins; their outcome changes nothing."""
        calls: list[asyncio.Future[None]] = []
        for index, number in places.items():
            disk = self._members.disk(number)
            if disk is not None:
                calls.append(self._lanes.of(disk).writes.call(partial(disk.release, [(stripe.write_id, index)])))
                self._forget(calls[-1])
        return calls

    async def close(self) -> None:
        """Wait for what is under way and end the threads. Closes no disks: they belong to the members."""
        while self._background:
            await asyncio.wait(self._background)
            await asyncio.sleep(0)  # what was given up just now adds calls of its own
        await self._reading.close()
        await self._lanes.close()
        self.buffers.close()


def _with(stripe: Stripe, places: Mapping[int, int]) -> Stripe:
    """The stripe with these shards (index to disk) elsewhere."""
    disks = (places.get(index, number) for index, number in enumerate(stripe.disks))
    return msgspec.structs.replace(stripe, disks=tuple(disks))
