"""The erasure pool: bodies become stripes over the disks of a store, and stripes become bodies again.

What is durable when: ``write`` returns after every one of the k+m shards was synced by its disk (ENGINE 1). A disk
that fails meanwhile is first reported, and recorded as down, through ``Members.failed``; its shard then goes to
another disk, or the body into a narrower stripe, so that a write does not fail because one disk did.

What is read was verified by its disk, or computed from k shards that were. A shard that cannot be had is computed
from the same bytes of k others. Lost and unreachable are told apart: with fewer than k good shards the answer is
Corrupt if no disk that is away could change that, else Unavailable.

Belongs to one event loop; disks are called in the threads of lanes.py.
"""

import asyncio
import mmap
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from ostraka.errors import Absent, Corrupt, Full, Unavailable
from ostraka.host import Buffer, Host
from ostraka.limits import Limits
from ostraka.nodes import ring
from ostraka.nodes.types import Disk, Members, ShardWrite
from ostraka.pools import layout
from ostraka.pools.buffers import Buffers, PooledBuffer
from ostraka.pools.erasure import codec
from ostraka.pools.lanes import Lane
from ostraka.pools.types import Owner, ShardHealth, Stripe

T = TypeVar("T")

_INLINE_ENCODE_MAX: Final = 512 << 10  # encoded on the loop: cheaper than to hand it to a thread
_READ_WHOLE_MAX: Final = 64 << 10  # from this size on a read goes into pooled memory
_TEND_SECONDS: Final = 10.0


class Counters(msgspec.Struct):
    """What has happened since the start, for the metrics."""

    writes: int = 0
    bytes_written: int = 0
    reads: int = 0
    degraded_reads: int = 0
    reconstructed_bytes: int = 0
    corrupt_shards: int = 0
    absent_shards: int = 0
    read_errors: int = 0
    write_errors: int = 0
    replaced_shards: int = 0
    narrowed_stripes: int = 0
    repaired_shards: int = 0


class _Threads:
    """The lanes of one disk."""

    __slots__ = ("disk", "reads", "writes")

    def __init__(self, disk: Disk, host: Host, limits: Limits) -> None:
        self.disk = disk
        name = f"disk-{disk.number}"
        self.writes = Lane(f"{name}-w", disk, limits.disk_write_threads, host.clock, limits.disk_seconds_max)
        self.reads = Lane(f"{name}-r", disk, limits.disk_read_threads, host.clock, limits.disk_seconds_max)

    def close(self) -> None:
        self.writes.close()
        self.reads.close()


class _Outcome:
    """Why shards of one stripe could not be had: it decides between Corrupt and Unavailable."""

    __slots__ = ("away", "lost")

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.away: list[str] = []

    def error(self, stripe: Stripe) -> Exception:
        name = stripe.write_id.hex()
        if self.away:
            return Unavailable(f"stripe {name}: {'; '.join(self.away + self.lost)}", reason="disks")
        return Corrupt(f"stripe {name}: {'; '.join(self.lost)}", reason="stripe")


class ErasurePool:
    """Implements pools.types.Pool over the disks of a store."""

    def __init__(self, members: Members, host: Host, limits: Limits, executor: Executor | None = None) -> None:
        """``executor`` is where large bodies are encoded; without one the pool has threads of its own for that."""
        self._members = members
        self._host = host
        self._limits = limits
        self._lanes: dict[int, _Threads] = {}
        self._cpu = Lane("encode", None, 2, host.clock, limits.disk_seconds_max)
        self._executor = executor
        self._tending: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Future[Any]] = set()
        self.buffers = Buffers(limits)
        self.counters = Counters()
        self.on_damage: Callable[[Stripe, int], None] | None = None  # a read found this shard missing or damaged

    # -- writing

    async def buffer(self, size: int) -> PooledBuffer:
        return await self.buffers.acquire(size, layout.capacity(size, self._members.k, self._members.m))

    async def write(self, owner: Owner, owner_id: bytes, body: PooledBuffer | Buffer, length: int) -> Stripe:
        avoid: dict[int, bool] = {}  # disks that did not take a shard of this body: True if only for want of room
        while True:
            usable = {disk.number: disk for disk in self._members.up() if disk.number not in avoid}
            k, m = self._geometry(len(usable), any(avoid.values()))
            write_id = self._host.random(16)
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

    def _geometry(self, count: int, some_full: bool) -> tuple[int, int]:
        k, m = self._members.k, self._members.m
        if count >= k + m:
            return k, m
        if count - m >= 1:
            return count - m, m
        if some_full:
            raise Full(f"{count} disks have room left, {m + 1} are needed", reason="disks")
        raise Unavailable(f"{count} disks can be written, {m + 1} are needed", reason="disks")

    def _order(self, write_id: bytes, disks: dict[int, Disk]) -> list[int]:
        if len(disks) == 1:
            return list(disks)
        weights = []
        for number, disk in disks.items():
            try:
                weights.append((number, float(disk.free()[1])))
            except OSError:  # writing to it will tell
                weights.append((number, 1.0))
        return ring.order(write_id, weights)

    async def _encode(self, body: PooledBuffer | Buffer, length: int, k: int, m: int, size: int) -> list[list[Buffer]]:
        """The pieces of all k+m shards."""
        if k == 1:
            return layout.cut(body, length, 1, 0, size) * (1 + m)
        if isinstance(body, PooledBuffer) and k * size <= len(body.whole) < (k + m) * size:
            shards = layout.cut(body, length, k, 0, size)  # a narrower stripe needs more parity than was planned
            beyond = memoryview(mmap.mmap(-1, m * size))
            shards += [[beyond[i * size : (i + 1) * size]] for i in range(m)]
        else:
            shards = layout.cut(body, length, k, m, size)
        if m:
            single = [layout.single(pieces) for pieces in shards]
            parity = [memoryview(p) for p in single[k:]]
            if k * size <= _INLINE_ENCODE_MAX:
                codec(k, m).encode(single[:k], parity)
            else:
                await self._compute(partial(codec(k, m).encode, single[:k], parity), body)
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
                    self._give_up(stripe, written)
                    return None
        except BaseException:
            self._give_up(stripe, written)
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
        return self._threads(disk).writes.write(shard, stripe.shard_size, done)

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
            self._give_up(stripe, {index: number})

    def _give_up(self, stripe: Stripe, written: dict[int, int]) -> None:
        """Shards that nobody will name: dead bytes."""
        for index, number in written.items():
            disk = self._members.disk(number)
            if disk is not None:
                self._forget(self._threads(disk).writes.call(partial(disk.release, [(stripe.write_id, index)])))

    def _forget(self, future: "asyncio.Future[Any]") -> None:
        """Own a call whose outcome changes nothing (a disk that fails now is found out by the next write)."""
        self._background.add(future)
        future.add_done_callback(self._background.discard)
        future.add_done_callback(lambda f: f.cancelled() or f.exception())

    async def _compute(self, run: Callable[[], None], body: PooledBuffer | Buffer | None = None) -> None:
        """Run C code in a thread, its memory pinned until the thread is done."""
        done = None
        if isinstance(body, PooledBuffer):
            body.pin()
            done = body.unpin
        if self._executor is None:
            await self._cpu.call(run, done)
            return
        future = asyncio.get_running_loop().run_in_executor(self._executor, run)
        if done is not None:
            unpin = done
            future.add_done_callback(lambda _: unpin())
        await asyncio.shield(future)

    # -- reading

    def read_now(self, stripe: Stripe, offset: int, length: int) -> memoryview | None:
        if not 0 < length <= self._limits.read_now_bytes_max or offset + length > stripe.length:
            return None
        index, start = divmod(offset, stripe.shard_size)
        if start + length > stripe.shard_size:
            return None
        disk = self._members.disk(stripe.disks[index])
        if disk is None:
            return None
        found = disk.read_now(stripe.write_id, index, start, length)
        if found is not None:
            self.counters.reads += 1
            if self._tending is None:
                self._tend_later()
        return found

    async def read(self, stripe: Stripe, offset: int, length: int) -> memoryview:
        if offset < 0 or length < 0 or offset + length > stripe.length:
            raise Corrupt(
                f"stripe {stripe.write_id.hex()} has {stripe.length} bytes; {offset}+{length} were asked for",
                reason="range",
            )
        if not length:
            return memoryview(b"")
        self.counters.reads += 1
        if self._tending is None:
            self._tend_later()
        parts = list(layout.slices(offset, length, stripe.shard_size))
        if len(parts) == 1 and length < _READ_WHOLE_MAX:
            index, start, size, _ = parts[0]
            disk = self._members.disk(stripe.disks[index])
            if disk is not None:
                try:
                    return await self._threads(disk).reads.call(partial(disk.read, stripe.write_id, index, start, size))
                except (Absent, Corrupt, OSError):
                    pass  # below, once more, with all that can be done about it
        if length < _READ_WHOLE_MAX:
            into = memoryview(bytearray(length))
        else:
            into = await self.buffers.lend(length)
        outcome = _Outcome()
        wanted = [self._read_part(stripe, i, start, into[at : at + size], outcome) for i, start, size, at in parts]
        failed = [part for part, good in zip(parts, await _all(wanted), strict=True) if not good]
        if failed:
            self.counters.degraded_reads += 1
            bad = {index for index, _, _, _ in failed}
            for index, start, size, at in failed:
                await self._reconstruct(stripe, [index], start, [into[at : at + size]], bad, outcome)
        return into

    async def _read_part(self, stripe: Stripe, index: int, start: int, into: memoryview, outcome: _Outcome) -> bool:
        """Fill ``into`` from one shard; False, with the reason noted, if that shard cannot give it."""
        number = stripe.disks[index]
        disk = self._members.disk(number)
        if disk is None:
            if self._members.gone(number):
                outcome.lost.append(f"disk {number} is gone for good")
            else:
                outcome.away.append(f"disk {number} is away")
            return False
        try:
            await self._threads(disk).reads.call(partial(disk.read_into, stripe.write_id, index, start, into))
        except (Absent, Corrupt) as e:
            outcome.lost.append(e.message)
            if isinstance(e, Absent):
                self.counters.absent_shards += 1
            else:
                self.counters.corrupt_shards += 1
            if self.on_damage is not None:
                self.on_damage(stripe, index)
            return False
        except (OSError, Unavailable) as e:
            outcome.away.append(f"disk {number}: {e}")
            self.counters.read_errors += 1
            return False
        return True

    async def _reconstruct(
        self,
        stripe: Stripe,
        wanted: Sequence[int],
        start: int,
        into: Sequence[memoryview],
        bad: set[int],
        outcome: _Outcome,
    ) -> None:
        """Fill ``into`` with the same range of each wanted shard, computed from that range of k others.

        ``bad`` are the shards that cannot be had; more of them may turn out.
        """
        k, m, size = stripe.k, stripe.m, len(into[0])
        present: dict[int, memoryview] = {}
        others = [i for i in range(k + m) if i not in bad]
        others.sort(key=lambda i: self._members.disk(stripe.disks[i]) is None)
        while len(present) < k:
            more, others = others[: k - len(present)], others[k - len(present) :]
            if not more:
                raise outcome.error(stripe)
            scratch = {i: memoryview(bytearray(size)) for i in more}
            good = await _all([self._read_part(stripe, i, start, scratch[i], outcome) for i in more])
            for i, ok in zip(more, good, strict=True):
                if ok:
                    present[i] = scratch[i]
                else:
                    bad.add(i)
        run = partial(codec(k, m).reconstruct, present, wanted, into)
        if size * k <= _INLINE_ENCODE_MAX:
            run()
        else:
            await self._compute(run)
        self.counters.reconstructed_bytes += size * len(wanted)

    # -- what becomes of stripes

    def settle(self, stripes: Iterable[Stripe]) -> None:
        for stripe in stripes:
            for number in set(stripe.disks):
                disk = self._members.disk(number)
                if disk is not None:
                    disk.settle((stripe.write_id,))

    async def release(self, stripes: Sequence[tuple[Owner, bytes, Stripe]]) -> None:
        by_disk: dict[int, list[tuple[bytes, int]]] = {}
        for _, _, stripe in stripes:
            for index, number in enumerate(stripe.disks):
                by_disk.setdefault(number, []).append((stripe.write_id, index))
        futures = []
        for number, shards in by_disk.items():
            disk = self._members.disk(number)
            if disk is not None:  # one that is away is asked what it still holds when it comes back
                futures.append(self._threads(disk).writes.call(partial(disk.release, shards)))
        if futures:
            await asyncio.gather(*futures, return_exceptions=True)

    async def verify(self, stripe: Stripe) -> list[ShardHealth]:
        states = await _all([self._state(stripe, index) for index in range(stripe.k + stripe.m)])
        return [ShardHealth(i, stripe.disks[i], state) for i, state in enumerate(states)]

    async def _state(self, stripe: Stripe, index: int) -> str:
        number = stripe.disks[index]
        disk = self._members.disk(number)
        if disk is None:
            return "missing" if self._members.gone(number) else "unreachable"
        try:
            await self._threads(disk).reads.call(partial(disk.verify, stripe.write_id, index))
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
        places = dict(enumerate(stripe.disks)) | targets
        written: dict[int, int] = {}
        try:
            futures = {
                i: self._write_shard(places[i], owner, owner_id, stripe, i, [shards[i]], shards[i]) for i in targets
            }
            missing, failures = await self._collect(stripe, places, futures, written)
        except BaseException:
            self.settle([stripe])
            raise
        for number, error in failures.items():
            if isinstance(error, OSError):
                self.counters.write_errors += 1
                await self._members.failed(number, error)
        self.counters.repaired_shards += len(written)
        if missing and not written:
            raise next(iter(failures.values()))
        return msgspec.structs.replace(stripe, disks=tuple({**dict(enumerate(stripe.disks)), **written}.values()))

    def _targets(self, stripe: Stripe, bad: list[ShardHealth]) -> dict[int, int]:
        """Where each bad shard is written anew: its own disk if that is up and answers, else one that has none."""
        up = {disk.number: disk for disk in self._members.up()}
        spare = self._order(stripe.write_id, {n: disk for n, disk in up.items() if n not in stripe.disks})
        targets: dict[int, int] = {}
        for shard in bad:
            if shard.disk in up and shard.state != "unreachable":
                targets[shard.index] = shard.disk
            elif spare:
                targets[shard.index] = spare.pop(0)
        return targets

    async def _rebuild(self, stripe: Stripe, health: list[ShardHealth], wanted: list[int]) -> dict[int, memoryview]:
        """Whole shards, computed from k that are good."""
        outcome = _Outcome()
        for h in health:
            if h.state == "unreachable":
                outcome.away.append(f"disk {h.disk} is away")
            elif h.state != "good":
                outcome.lost.append(f"shard {h.index} on disk {h.disk} is {h.state}")
        made = {index: await self.buffers.lend(stripe.shard_size) for index in wanted}
        bad = {h.index for h in health if h.state != "good"}
        await self._reconstruct(stripe, wanted, 0, [made[index] for index in wanted], bad, outcome)
        return made

    # -- upkeep

    def _threads(self, disk: Disk) -> _Threads:
        threads = self._lanes.get(disk.number)
        if threads is None or threads.disk is not disk:
            if threads is not None:  # the disk was opened anew: let the old threads end by themselves
                threads.writes.close(0)
                threads.reads.close(0)
            threads = self._lanes[disk.number] = _Threads(disk, self._host, self._limits)
        return threads

    def _tend_later(self) -> None:
        self._tending = asyncio.get_running_loop().call_later(_TEND_SECONDS, self._tend)

    def _tend(self) -> None:
        """Let disks close files that are not used; again only while there are some, so that idle means idle."""
        self._tending = None
        more = False
        for threads in self._lanes.values():
            try:
                more = threads.disk.tend() or more
            except OSError:
                continue
        if more:
            self._tend_later()

    async def close(self) -> None:
        """Wait for what is under way and end the threads. Closes no disks: they belong to the members."""
        while self._background:
            await asyncio.wait(self._background)
            await asyncio.sleep(0)  # what was given up just now adds calls of its own
        if self._tending is not None:
            self._tending.cancel()
            self._tending = None
        loop = asyncio.get_running_loop()
        for threads in self._lanes.values():
            await loop.run_in_executor(None, threads.close)
        await loop.run_in_executor(None, self._cpu.close)
        self.buffers.close()


async def _all(waits: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All of their answers; if one raises, the others are cancelled first."""
    if len(waits) == 1:
        return [await waits[0]]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait) for wait in waits]
    return [task.result() for task in tasks]
