"""Memory for bodies: page-aligned, reused, and never more of it than limits.buffers_bytes_max.

Who finds no room waits, first come first served, until a deadline. Memory that nobody uses is kept for the next body
for a few seconds only: an idle process gives all of it back. Belongs to one event loop; only `Lent` memory may be
let go from another thread (the garbage collector decides where).
"""

import asyncio
import contextlib
import mmap
from collections import deque
from typing import Final

from ostraka.errors import Overloaded, TooLarge
from ostraka.limits import Limits
from ostraka.pools._isal_abi import ffi

PAGE: Final = 4096
_HUGE_PAGE: Final = 2 << 20
_CLASS_MIN: Final = 64 << 10
_IDLE_SECONDS: Final = 5.0


def size_class(size: int) -> int:
    """What is really allocated for ``size`` bytes: a quarter of a power of two, so at most a fifth is wasted."""
    if size <= _CLASS_MIN:
        return _CLASS_MIN
    step = 1 << ((size - 1).bit_length() - 3)
    return -(-size // step) * step


def _pages(size: int) -> mmap.mmap:
    """Fresh memory, of huge pages as far as whole ones fit into ``size``: filling it costs a third, writing it from
    there to a disk a fourth. What lies behind ``size`` is only there so that the kernel aligns the mapping, and is
    never touched."""
    huge = size // _HUGE_PAGE * _HUGE_PAGE
    if not huge:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
    memory = mmap.mmap(-1, -(-size // _HUGE_PAGE) * _HUGE_PAGE, flags=mmap.MAP_PRIVATE)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE, 0, huge)
    return memory


class PooledBuffer:
    """Memory of one body. ``view`` is what was asked for; ``whole`` the pages behind it, with room to pad and encode.

    Writes to disk go on in threads when a request is cancelled: they hold a pin, and the memory is only reused when
    it was released and the last pin is gone.
    """

    __slots__ = ("_owner", "_pins", "_released", "view", "whole")

    def __init__(self, owner: "Buffers", memory: memoryview, size: int) -> None:
        self._owner = owner
        self._pins = 0
        self._released = False
        self.whole = memory
        self.view = self.whole[:size]

    def pin(self) -> None:
        self._pins += 1

    def unpin(self) -> None:
        self._pins -= 1
        if self._released and self._pins == 0:
            self._owner._give(self.whole)

    def release(self) -> None:
        """Give the memory back; the view must not be used afterwards. Idempotent."""
        if not self._released:
            self._released = True
            if self._pins == 0:
                self._owner._give(self.whole)


class Buffers:
    """The buffers of one process."""

    def __init__(self, limits: Limits) -> None:
        self._bytes_max = limits.buffers_bytes_max
        self._wait_seconds_max = limits.buffers_wait_seconds_max
        self._free: dict[int, list[memoryview]] = {}
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._used_lately = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.bytes_used = 0  # lent out
        self.bytes_kept = 0  # free, kept for reuse
        self.waits = 0  # how often somebody had to wait

    def scarce(self, size: int, capacity: int = 0) -> bool:
        """Whether `acquire` would have to wait."""
        return bool(self._waiting) or self.bytes_used + size_class(max(size, capacity)) > self._bytes_max

    async def acquire(self, size: int, capacity: int = 0) -> PooledBuffer:
        """``size`` bytes (and as much behind them as makes ``capacity``). Raises Overloaded at the deadline, TooLarge
        for what could never fit."""
        rounded = size_class(max(size, capacity))
        if rounded > self._bytes_max:
            raise TooLarge(f"a body of {size} bytes does not fit into limits.buffers_bytes_max")
        if self._waiting or self.bytes_used + rounded > self._bytes_max:
            await self._wait(rounded)
        else:
            self.bytes_used += rounded
        return PooledBuffer(self, self._take(rounded), size)

    def acquire_beyond(self, size: int, capacity: int = 0) -> PooledBuffer:
        """At once, the limit notwithstanding: for what a body that already has its buffer needs to be finished."""
        rounded = size_class(max(size, capacity))
        self.bytes_used += rounded
        return PooledBuffer(self, self._take(rounded), size)

    async def lend(self, size: int) -> memoryview:
        """``size`` bytes that come back by themselves when nobody refers to the view any more."""
        return self._lent(await self.acquire(size), size)

    def lend_beyond(self, size: int) -> memoryview:
        """As `lend`, at once, the limit notwithstanding: it is counted, so that others wait for it to come back."""
        return self._lent(self.acquire_beyond(size), size)

    def _lent(self, buffer: PooledBuffer, size: int) -> memoryview:
        loop = asyncio.get_running_loop()
        memory = ffi.gc(ffi.from_buffer("unsigned char[]", buffer.whole), lambda _: _let_go(loop, buffer))
        return memoryview(ffi.buffer(memory, size))

    def _take(self, rounded: int) -> memoryview:
        self._used_lately = True
        free = self._free.get(rounded)
        if free:
            self.bytes_kept -= rounded
            return free.pop()
        if self.bytes_kept and self.bytes_used + self.bytes_kept > self._bytes_max:
            self._drop_free()
        return memoryview(_pages(rounded))[:rounded]

    def _give(self, memory: memoryview) -> None:
        size = len(memory)
        self.bytes_used -= size
        self.bytes_kept += size
        self._free.setdefault(size, []).append(memory)
        self._wake()
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._tick)
            except RuntimeError:  # no loop runs: nobody will come for it
                self._drop_free()

    def _tick(self) -> None:
        """Once nothing was used for a while, give everything back; no timer stays behind."""
        self._timer = None
        if self._used_lately:
            self._used_lately = False
            self._timer = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._tick)
        else:
            self._drop_free()

    def _drop_free(self) -> None:
        self._free.clear()  # unmapped when the last reference goes
        self.bytes_kept = 0

    async def _wait(self, rounded: int) -> None:
        """Our turn has come when this returns: the bytes are counted already."""
        self.waits += 1
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (rounded, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await turn
        except BaseException as e:
            if turn.done() and not turn.cancelled():
                self.bytes_used -= rounded  # it came in the same moment
            else:
                with contextlib.suppress(ValueError):  # whoever woke the next has passed over us already
                    self._waiting.remove(entry)
            self._wake()
            if isinstance(e, TimeoutError):
                raise Overloaded("no room for another body: limits.buffers_bytes_max", reason="buffers") from None
            raise

    def _wake(self) -> None:
        while self._waiting and self.bytes_used + self._waiting[0][0] <= self._bytes_max:
            rounded, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self.bytes_used += rounded
            turn.set_result(None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._drop_free()


def _let_go(loop: asyncio.AbstractEventLoop, buffer: PooledBuffer) -> None:
    try:
        if asyncio._get_running_loop() is loop:
            buffer.release()
        else:
            loop.call_soon_threadsafe(buffer.release)
    except RuntimeError:  # the loop is closed: nobody counts any more
        pass
