"""Many things at once, until all are done or somebody interrupts.

Two pools of threads: one for whole files, one for their parts, so that a file that waits for its parts never waits for
itself. What is under way is bounded, however long the list. After an interruption nothing new begins, calls to the
store end with an error, and everybody cleans up what was half done before `run` lets go.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from ostraka.client.types import Client, OnBytes

T = TypeVar("T")
W = TypeVar("W")

WIDTH = 8  # files at once, and parts at once


class Stopped(Exception):
    """Somebody interrupted: what was under way is to be undone."""


class Outcome(Generic[W]):
    """What became of one piece of work: done, or the error that kept it from being done."""

    __slots__ = ("error", "work")

    def __init__(self, work: W, error: Exception | None) -> None:
        self.work = work
        self.error = error


class Crew:
    """Threads that work for one command. A context manager."""

    def __init__(self, client: Client, on_bytes: OnBytes, width: int = WIDTH) -> None:
        self._client = client
        self._on_bytes = on_bytes
        self._width = width
        self._files = ThreadPoolExecutor(width, "file")
        self._parts = ThreadPoolExecutor(width, "part")
        self._stop = threading.Event()

    def tell(self, size: int) -> None:
        """So many bytes more went by. Raises Stopped after an interruption; negative counts are let pass."""
        self._on_bytes(size)
        if size >= 0:
            self.check()

    def check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def interrupt(self) -> None:
        """Begin nothing more, and let what is under way end."""
        self._stop.set()
        self._client.interrupt()

    def run(self, works: Iterable[W], do: Callable[[W], object]) -> Iterator[Outcome[W]]:
        """Do each, a few at a time; what became of it, as it ends. Errors of one piece are its own."""

        def attempt(work: W) -> Outcome[W]:
            try:
                self.check()
                do(work)
            except Exception as e:
                return Outcome(work, e)
            return Outcome(work, None)

        pending: set[Future[Outcome[W]]] = set()
        try:
            for work in works:
                while len(pending) >= 2 * self._width:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                pending.add(self._files.submit(attempt, work))
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException as error:
            self.interrupt()
            for future in wait(pending).done:  # what could not be cleaned up is told
                for note in getattr(future.result().error, "__notes__", ()):
                    error.add_note(note)
            raise

    def parts(self, works: Iterable[Callable[[], T]], at_once: int = 0) -> Sequence[T]:
        """Do the parts of one file; what each gave, in any order. The first error ends it, once all have let go."""
        pending: set[Future[T]] = set()
        results: list[T] = []
        try:
            for work in works:
                self.check()
                while len(pending) >= (at_once or self._width):
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    results += [future.result() for future in done]
                pending.add(self._parts.submit(work))
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                results += [future.result() for future in done]
        except BaseException:
            for future in pending:
                future.cancel()
            wait(pending)
            raise
        return results

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.interrupt()
        self._files.shutdown()
        self._parts.shutdown()
