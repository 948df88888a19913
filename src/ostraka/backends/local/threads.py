"""Work that waits for a disk, in threads; and what becomes of it when the coroutine that asked for it is cancelled.

A thread cannot be stopped. What only reads may run out, and its result is given back. What changes something takes a
``Turn`` with it, which it claims right before the step that others can see: whoever is cancelled before that calls it
off, so that nothing happens any more; whoever is cancelled after it waits until it has happened.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ostraka.errors import Unavailable

T = TypeVar("T")


class CalledOff(Exception):
    """Nobody waits for this piece of work any more, and it must not change anything."""


class Turn:
    """Whether a piece of work may take its last step: claimed, or called off, and never both."""

    __slots__ = ("_mutex", "_state")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._state = ""

    def claim(self) -> None:
        """CalledOff if it was; may be claimed again by its owner."""
        with self._mutex:
            if self._state == "off":
                raise CalledOff
            self._state = "claimed"

    def call_off(self) -> bool:
        """False if it was claimed."""
        with self._mutex:
            if not self._state:
                self._state = "off"
            return self._state == "off"


class Steps:
    """An iterator that threads advance, one at a time, and close when none is at it."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._mutex = threading.Lock()

    def take(self, count: int) -> list[Any]:
        """The next ones; none only at the end."""
        with self._mutex:
            return list(itertools.islice(self._items, count))

    def close(self) -> None:
        """Let go of what the generator holds."""
        with self._mutex:
            if isinstance(self._items, Generator):
                self._items.close()


class Threads:
    """A few threads for one backend."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="ostraka-local")
        self._closed = False

    def start(self, work: Callable[[], T]) -> "Future[T]":
        """Begin it. Unavailable (reason "closed") after close."""
        try:
            if not self._closed:
                return self._pool.submit(work)
        except RuntimeError:  # the interpreter is shutting down
            pass
        raise Unavailable("the backend was closed", reason="closed")

    def later(self, work: Callable[[], object]) -> None:
        """Do it when there is time, also after close; nobody waits for it."""
        try:
            self._pool.submit(work)
        except RuntimeError:
            work()

    async def run(self, work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        """Its result. If we are cancelled, ``undo`` gets what nobody takes any more."""
        future = self.start(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if undo is not None:
                future.add_done_callback(lambda done: _undo(done, undo))
            raise

    async def change(self, work: Callable[[Turn], T]) -> T:
        """Its result. If we are cancelled, it either never takes its turn or is done when this returns."""
        turn = Turn()
        future = self.start(lambda: work(turn))
        outcome = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            outcome.add_done_callback(_look_away)
            while not turn.call_off() and not outcome.done():
                try:
                    await asyncio.wait([outcome])
                except asyncio.CancelledError:  # again, and still it is about to be done
                    continue
            raise

    async def finish(self, work: Callable[[], T]) -> T:
        """Its result; it is done also if we are cancelled, only not waited for."""
        outcome = asyncio.wrap_future(self.start(work))
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            outcome.add_done_callback(_look_away)
            raise

    def close(self) -> None:
        """Take no more; what runs runs out."""
        self._closed = True
        self._pool.shutdown(wait=False)


def _undo(future: "Future[T]", undo: Callable[[T], object]) -> None:
    if not future.cancelled() and future.exception() is None:
        undo(future.result())


def _look_away(future: "asyncio.Future[T]") -> None:
    """Nobody wants the outcome: have no warning about an exception that was never seen."""
    if not future.cancelled():
        future.exception()
