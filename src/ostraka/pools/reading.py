"""Reading stripes: straight from the shards that a range touches, or computed from others when one cannot be had.

What is read was verified by its disk, or computed from k shards that were. A shard that cannot be had is computed
from the same bytes of k others. Lost and unreachable are told apart: with fewer than k good shards the answer is
Corrupt if no disk that is away could change that, else Unavailable.

A disk that takes too long is read around in the same way (hedging.py). The two answers never share memory: what the
slow disk still writes, it writes where nobody looks any more.
"""

import asyncio
import contextlib
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from ostraka.errors import Absent, Corrupt, Unavailable
from ostraka.limits import Limits
from ostraka.nodes.types import Members
from ostraka.pools import layout
from ostraka.pools.buffers import Buffers
from ostraka.pools.erasure import codec
from ostraka.pools.hedging import Hedges
from ostraka.pools.lanes import Hung, Lanes
from ostraka.pools.metrics import Counters
from ostraka.pools.types import Stripe

T = TypeVar("T")

COMPUTE_INLINE_MAX: Final = 512 << 10  # encoded on the loop: cheaper than to hand it to a thread
_READ_WHOLE_MAX: Final = 64 << 10  # from this size on a read goes into pooled memory


class Outcome:
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


class StripeReader:
    """Reads of one pool."""

    def __init__(self, members: Members, limits: Limits, lanes: Lanes, buffers: Buffers, counters: Counters) -> None:
        self._members = members
        self._limits = limits
        self._lanes = lanes
        self._buffers = buffers
        self.counters = counters
        self.hedges = Hedges(limits)
        self._left_behind: set[asyncio.Task[Any]] = set()  # answers that nobody waits for: they tell of the disk
        self.on_damage: Callable[[Stripe, int], None] | None = None

    def read_now(self, stripe: Stripe, offset: int, length: int) -> memoryview | None:
        if not 0 < length <= self._limits.read_now_bytes_max or offset + length > stripe.length:
            return None
        index, start = divmod(offset, stripe.shard_size)
        if start + length <= stripe.shard_size:
            found = self._shard_now(stripe, index, start, length)
        else:  # the shards of a pack are short: what lies in it often lies in two
            found = None
            whole = memoryview(bytearray(length))
            for part, begin, size, at in layout.slices(offset, length, stripe.shard_size):
                piece = self._shard_now(stripe, part, begin, size)
                if piece is None:
                    break
                whole[at : at + size] = piece
            else:
                found = whole
        if found is not None:
            self.counters.reads += 1
            self._lanes.tend_soon()
        return found

    def _shard_now(self, stripe: Stripe, index: int, start: int, length: int) -> memoryview | None:
        disk = self._members.disk(stripe.disks[index])
        return None if disk is None else disk.read_now(stripe.write_id, index, start, length)

    async def read(self, stripe: Stripe, offset: int, length: int) -> memoryview:
        if offset < 0 or length < 0 or offset + length > stripe.length:
            raise Corrupt(
                f"stripe {stripe.write_id.hex()} has {stripe.length} bytes; {offset}+{length} were asked for",
                reason="range",
            )
        if not length:
            return memoryview(b"")
        self.counters.reads += 1
        self._lanes.tend_soon()
        parts = [Part(*part) for part in layout.slices(offset, length, stripe.shard_size)]
        if len(parts) == 1 and length < _READ_WHOLE_MAX and not self.can_hedge(stripe):
            index, start, size, _ = parts[0]
            disk = self._members.disk(stripe.disks[index])
            if disk is not None:
                try:
                    return await self._lanes.of(disk).reads.call(
                        partial(disk.read, stripe.write_id, index, start, size)
                    )
                except (Absent, Corrupt, OSError) as e:  # below, once more, with all that can be done about it
                    await self._hangs(stripe, disk.number, e)
        return await Reading(self, stripe, parts, length).run()

    def can_hedge(self, stripe: Stripe) -> bool:
        """Whether there are disks enough to read around one."""
        if not stripe.m:
            return False
        up = sum(self._members.disk(number) is not None for number in stripe.disks)
        return up > stripe.k

    def silent(self, number: int) -> bool:
        """Whether a disk is asked for something, and says nothing."""
        disk = self._members.disk(number)
        return disk is not None and self._lanes.of(disk).reads.silent(self._limits.hedge_seconds_max)

    def _likely_late(self, number: int) -> bool:
        return self._members.disk(number) is None or self.silent(number)

    async def memory(self, length: int) -> memoryview:
        return memoryview(bytearray(length)) if length < _READ_WHOLE_MAX else await self._buffers.lend(length)

    def leave_behind(self, tasks: Iterable["asyncio.Task[Any]"]) -> None:
        """Nobody waits for these any more; a disk that hangs is still found out about."""
        for task in tasks:
            self._left_behind.add(task)
            task.add_done_callback(self._left_behind.discard)
            task.add_done_callback(lambda t: t.cancelled() or t.exception())

    async def close(self) -> None:
        """End what was left behind: before the lanes are closed."""
        for task in list(self._left_behind):
            task.cancel()
        if self._left_behind:
            await asyncio.wait(list(self._left_behind))

    async def read_part(self, stripe: Stripe, index: int, start: int, into: memoryview, outcome: Outcome) -> bool:
        """Fill ``into`` from one shard; False, with the reason noted, if that shard cannot give it."""
        number = stripe.disks[index]
        disk = self._members.disk(number)
        if disk is None:
            if self._members.gone(number):
                outcome.lost.append(f"disk {number} is gone for good")
            else:
                outcome.away.append(f"disk {number} is away")
            return False
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            await self._lanes.of(disk).reads.call(partial(disk.read_into, stripe.write_id, index, start, into))
            self.hedges.took(number, clock() - began)
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
            await self._hangs(stripe, number, e)
            return False
        return True

    async def _hangs(self, stripe: Stripe, number: int, error: Exception) -> None:
        """A disk that hangs is recorded as down, so that the next read does not wait for it; one bad sector is not
        that, nor a long queue, nor the only disk."""
        if isinstance(error, Hung) and stripe.m:
            with contextlib.suppress(Unavailable):  # no majority is left; what can be read still is
                await self._members.failed(number, error)

    def scratch(self, size: int) -> memoryview:
        """Who reconstructs holds memory already, so it may not wait for more; but what it takes is counted."""
        return memoryview(bytearray(size)) if size < _READ_WHOLE_MAX else self._buffers.lend_beyond(size)

    async def reconstruct(
        self,
        stripe: Stripe,
        wanted: Sequence[int],
        start: int,
        into: Sequence[memoryview],
        bad: set[int],
        outcome: Outcome,
        have: Mapping[int, memoryview] | None = None,
        late: Container[int] = (),
    ) -> None:
        """Fill ``into`` with the same range of each wanted shard, computed from that range of k others.

        ``bad`` are the shards that cannot be had; more of them may turn out. ``have``: that range of shards, as far as
        it is here already; ``late``: shards that are asked only where there are no others.
        """
        k, m, size = stripe.k, stripe.m, len(into[0])
        present: dict[int, memoryview] = dict(list((have or {}).items())[:k])
        others = [i for i in range(k + m) if i not in bad and i not in present]
        others.sort(key=lambda i: self._likely_late(stripe.disks[i]) or i in late)
        while len(present) < k:
            more, others = others[: k - len(present)], others[k - len(present) :]
            if not more:
                raise outcome.error(stripe)
            scratch = {i: self.scratch(size) for i in more}
            good = await all_of([self.read_part(stripe, i, start, scratch[i], outcome) for i in more])
            for i, ok in zip(more, good, strict=True):
                if ok:
                    present[i] = scratch[i]
                else:
                    bad.add(i)
        run = partial(codec(k, m).reconstruct, present, wanted, into)
        if size * k <= COMPUTE_INLINE_MAX:
            run()
        else:
            await self._lanes.compute(run)
        self.counters.reconstructed_bytes += size * len(wanted)

    async def shards(self, stripe: Stripe, into: Mapping[int, memoryview]) -> None:
        """Fill these (index to memory of shard_size bytes) with whole shards, verified or computed from others."""
        outcome = Outcome()
        good = await all_of([self.read_part(stripe, i, 0, view, outcome) for i, view in into.items()])
        bad = [index for index, read in zip(into, good, strict=True) if not read]
        if bad:
            await self.reconstruct(stripe, bad, 0, [into[i] for i in bad], set(bad), outcome)


class Part(NamedTuple):
    """Bytes of one shard, and where they are in what is asked for."""

    shard: int
    start: int
    size: int
    at: int


class Reading:
    """One read of a range of a stripe."""

    def __init__(self, reader: StripeReader, stripe: Stripe, parts: Sequence[Part], length: int) -> None:
        self._reader = reader
        self._stripe = stripe
        self._parts = parts
        self._length = length
        self._outcome = Outcome()

    async def run(self) -> memoryview:
        reader, stripe = self._reader, self._stripe
        into = await reader.memory(self._length)
        if not reader.can_hedge(stripe):
            good = await all_of([self._read(part, into) for part in self._parts])
            return await self._complete(into, dict(zip(self._parts, good, strict=True)))
        quiet = [part for part in self._parts if reader.silent(stripe.disks[part.shard])]
        if quiet:
            reader.counters.silent_reads += 1
            around = await self._around_quiet(into, quiet)
            if around is not None:
                return around
        return await self._race(into)

    def _read(self, part: Part, into: memoryview) -> Coroutine[Any, Any, bool]:
        view = into[part.at : part.at + part.size]
        return self._reader.read_part(self._stripe, part.shard, part.start, view, self._outcome)

    async def _complete(self, into: memoryview, done: Mapping[Part, bool]) -> memoryview:
        """Compute the parts that could not be had."""
        failed = [part for part, good in done.items() if not good]
        if failed:
            self._reader.counters.degraded_reads += 1
            bad = {part.shard for part in failed}
            have = [part for part in done if done[part]]
            for part in failed:
                known = _covering(part, have, into)
                view = into[part.at : part.at + part.size]
                await self._reader.reconstruct(
                    self._stripe, [part.shard], part.start, [view], bad, self._outcome, known
                )
        return into

    async def _around_quiet(self, into: memoryview, quiet: Sequence[Part]) -> memoryview | None:
        """Without the disks that say nothing; None where that cannot be: then they are waited for."""
        rest = [part for part in self._parts if part not in quiet]
        good = await all_of([self._read(part, into) for part in rest])
        done = dict(zip(rest, good, strict=True)) | dict.fromkeys(quiet, False)
        try:
            return await self._complete(into, done)
        except (Corrupt, Unavailable):
            return None

    async def _race(self, into: memoryview) -> memoryview:
        """All parts from their own shards; around those that are late, once they are."""
        reader, stripe = self._reader, self._stripe
        reading = {asyncio.ensure_future(self._read(part, into)): part for part in self._parts}
        try:
            delay = reader.hedges.delay(stripe.disks[part.shard] for part in self._parts)
            _, late = await asyncio.wait(reading, timeout=delay)
            if not late or not self._may_hedge(len(late) * max(1, stripe.k - (len(reading) - len(late)))):
                if late:
                    await asyncio.wait(late)
                return await self._complete(into, {part: task.result() for task, part in reading.items()})
            reader.counters.hedged_reads += 1
            return await self._around(reading, into)
        finally:  # what was asked of disks is left to them: it tells of them
            reader.leave_behind(reading)

    def _may_hedge(self, shards: int) -> bool:
        if self._reader.hedges.take(shards):
            return True
        self._reader.counters.hedges_denied += 1
        return False

    async def _around(self, reading: Mapping["asyncio.Task[bool]", Part], held: memoryview) -> memoryview:
        """All of it in memory of its own, each part from where it is had first."""
        into = await self._reader.memory(self._length)
        won = await all_of([self._either(task, part, reading, held, into) for task, part in reading.items()])
        self._reader.counters.hedges_won += any(won)
        return into

    async def _either(
        self,
        task: "asyncio.Task[bool]",
        part: Part,
        reading: Mapping["asyncio.Task[bool]", Part],
        held: memoryview,
        into: memoryview,
    ) -> bool:
        """One part: from its shard, which is being read, or computed; whether it was computed."""
        target = slice(part.at, part.at + part.size)
        if task.done() and task.result():
            into[target] = held[target]
            return False
        computing = asyncio.ensure_future(self._computed(part, reading, held))
        try:
            await asyncio.wait((task, computing), return_when=asyncio.FIRST_COMPLETED)
            if not (task.done() and task.result()):
                try:
                    into[target] = await computing
                    return True
                except (Corrupt, Unavailable):
                    if not await asyncio.shield(task):
                        raise
            into[target] = held[target]
            return False
        finally:  # not cancelled: it is paid for, and soon at its end; a cancelled one would keep its memory for long
            self._reader.leave_behind((computing,))

    async def _computed(self, part: Part, reading: Mapping["asyncio.Task[bool]", Part], held: memoryview) -> memoryview:
        """A part out of other shards: those that are here, then those that nobody waits for, then the late ones."""
        made = self._reader.scratch(part.size)
        good = [other for task, other in reading.items() if task.done() and task.result()]
        failed = {other.shard for task, other in reading.items() if task.done() and not task.result()}
        late = {other.shard for task, other in reading.items() if not task.done()}
        bad = failed | {part.shard}
        await self._reader.reconstruct(
            self._stripe, [part.shard], part.start, [made], bad, self._outcome, _covering(part, good, held), late
        )
        return made


def _covering(part: Part, good: Iterable[Part], held: memoryview) -> dict[int, memoryview]:
    """The same range of other shards, as far as what was read of them holds it."""
    return {
        other.shard: held[other.at + part.start - other.start : other.at + part.start - other.start + part.size]
        for other in good
        if other.start <= part.start and part.start + part.size <= other.start + other.size
    }


async def all_of(waits: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All of their answers; if one raises, so does this, and the others are cancelled first."""
    if len(waits) == 1:
        return [await waits[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(wait) for wait in waits]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
