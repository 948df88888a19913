"""Reading stripes: straight from the shards that a range touches, or computed from others when one cannot be had.

What is read was verified by its disk, or computed from k shards that were. A shard that cannot be had is computed
from the same bytes of k others. Lost and unreachable are told apart: with fewer than k good shards the answer is
Corrupt if no disk that is away could change that, else Unavailable.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from ostraka.errors import Absent, Corrupt, Unavailable
from ostraka.limits import Limits
from ostraka.nodes.types import Members
from ostraka.pools import layout
from ostraka.pools.buffers import Buffers
from ostraka.pools.erasure import codec
from ostraka.pools.lanes import Hung, Lanes
from ostraka.pools.types import Stripe

T = TypeVar("T")

COMPUTE_INLINE_MAX: Final = 512 << 10  # encoded on the loop: cheaper than to hand it to a thread
_READ_WHOLE_MAX: Final = 64 << 10  # from this size on a read goes into pooled memory


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
    moved_shards: int = 0


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
        self._counters = counters
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
            self._counters.reads += 1
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
        self._counters.reads += 1
        self._lanes.tend_soon()
        parts = list(layout.slices(offset, length, stripe.shard_size))
        if len(parts) == 1 and length < _READ_WHOLE_MAX:
            index, start, size, _ = parts[0]
            disk = self._members.disk(stripe.disks[index])
            if disk is not None:
                try:
                    return await self._lanes.of(disk).reads.call(
                        partial(disk.read, stripe.write_id, index, start, size)
                    )
                except (Absent, Corrupt, OSError) as e:  # below, once more, with all that can be done about it
                    await self._hangs(stripe, disk.number, e)
        if length < _READ_WHOLE_MAX:
            into = memoryview(bytearray(length))
        else:
            into = await self._buffers.lend(length)
        outcome = Outcome()
        wanted = [self._read_part(stripe, i, start, into[at : at + size], outcome) for i, start, size, at in parts]
        failed = [part for part, good in zip(parts, await all_of(wanted), strict=True) if not good]
        if failed:
            self._counters.degraded_reads += 1
            bad = {index for index, _, _, _ in failed}
            for index, start, size, at in failed:
                await self.reconstruct(stripe, [index], start, [into[at : at + size]], bad, outcome)
        return into

    async def _read_part(self, stripe: Stripe, index: int, start: int, into: memoryview, outcome: Outcome) -> bool:
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
            await self._lanes.of(disk).reads.call(partial(disk.read_into, stripe.write_id, index, start, into))
        except (Absent, Corrupt) as e:
            outcome.lost.append(e.message)
            if isinstance(e, Absent):
                self._counters.absent_shards += 1
            else:
                self._counters.corrupt_shards += 1
            if self.on_damage is not None:
                self.on_damage(stripe, index)
            return False
        except (OSError, Unavailable) as e:
            outcome.away.append(f"disk {number}: {e}")
            self._counters.read_errors += 1
            await self._hangs(stripe, number, e)
            return False
        return True

    async def _hangs(self, stripe: Stripe, number: int, error: Exception) -> None:
        """A disk that hangs is recorded as down, so that the next read does not wait for it; one bad sector is not
        that, nor a long queue, nor the only disk."""
        if isinstance(error, Hung) and stripe.m:
            with contextlib.suppress(Unavailable):  # no majority is left; what can be read still is
                await self._members.failed(number, error)

    def _scratch(self, size: int) -> memoryview:
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
            scratch = {i: self._scratch(size) for i in more}
            good = await all_of([self._read_part(stripe, i, start, scratch[i], outcome) for i in more])
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
        self._counters.reconstructed_bytes += size * len(wanted)

    async def shards(self, stripe: Stripe, into: Mapping[int, memoryview]) -> None:
        """Fill these (index to memory of shard_size bytes) with whole shards, verified or computed from others."""
        outcome = Outcome()
        good = await all_of([self._read_part(stripe, i, 0, view, outcome) for i, view in into.items()])
        bad = [index for index, read in zip(into, good, strict=True) if not read]
        if bad:
            await self.reconstruct(stripe, bad, 0, [into[i] for i in bad], set(bad), outcome)


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
