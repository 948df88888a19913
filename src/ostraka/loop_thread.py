"""An event loop in a thread, for programs without asyncio: what is asynchronous runs there, and is waited for here.

Methods may be called from any thread. A wait that is interrupted (Ctrl-C) cancels what it waited for. Once it is
closed, what still waits is cancelled, and nothing more begins: Unavailable(reason="closed").
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import uvloop

from ostraka.errors import Unavailable

T = TypeVar("T")
_END: Any = object()


class LoopThread:
    """An event loop in a thread of its own. ``what`` works there, and is what errors speak of."""

    def __init__(self, what: str = "this") -> None:
        self._what = what
        self._closed = False
        self._lock = threading.Lock()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ostraka", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine there. Unavailable (reason "closed") if all is closed, before or meanwhile."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this would wait for its own thread: use the asynchronous interface there")
        with self._lock:
            if self._closed:
                work.close()
                raise self._is_closed()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException as e:
            if not future.done():
                future.cancel()
                concurrent.futures.wait([future])
            if self._closed and isinstance(e, concurrent.futures.CancelledError):
                raise self._is_closed() from None
            raise

    def finish(self, work: Coroutine[Any, Any, object]) -> None:
        """Wait for what gives something back. Once all is closed there is nothing left to be given back."""
        try:
            self.run(work)
        except Unavailable as e:
            if e.reason != "closed":
                raise

    def _is_closed(self) -> Unavailable:
        return Unavailable(f"{self._what} is closed: open it again", reason="closed")

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
                self.finish(close())

    def close(self) -> None:
        """End the loop, and what still runs on it. May be called twice."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
