"""An event loop in a thread, for programs without asyncio: what is asynchronous runs there, and is waited for here.

Methods may be called from any thread. A wait that is interrupted (Ctrl-C) cancels what it waited for.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import uvloop

from ostraka.errors import Unavailable

T = TypeVar("T")
_END: Any = object()


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ostraka", daemon=True)
        self._thread.start()
        self._starting = threading.Lock()
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine there. Unavailable (reason "closed") if the loop is closed, before or meanwhile."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this would wait for its own thread: use the asynchronous interface there")
        with self._starting:
            if self._closed:
                work.close()
                raise Unavailable("what this belongs to was closed", reason="closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Unavailable("what this belongs to was closed meanwhile", reason="closed") from None
        except BaseException:
            if not future.done():
                future.cancel()
                concurrent.futures.wait([future])
            raise

    def iterate(self, items: AsyncIterator[T], *, at_once: int = 1) -> Iterator[T]:
        """The items of an asynchronous iterator, taken as they are asked for, up to ``at_once`` of them together."""

        async def some() -> tuple[list[T], bool]:
            taken: list[T] = []
            while len(taken) < batch:
                item = await anext(items, _END)
                if item is _END:
                    return taken, True
                taken.append(item)
            return taken, False

        batch = 1
        ended = False
        try:
            while not ended:
                found, ended = self.run(some())
                yield from found
                batch = min(2 * batch, at_once)
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                with contextlib.suppress(Unavailable):  # the loop was closed, and what waited there has ended
                    self.run(close())

    def close(self) -> None:
        """End the loop, and what still runs on it. May be called twice."""
        with self._starting:
            closed, self._closed = self._closed, True
        if not closed:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
