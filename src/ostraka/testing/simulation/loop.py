"""An event loop on virtual time: asyncio's own, with a strand in the place of its selector.

Callbacks run in the order in which they became ready, as asyncio promises; what varies by seed is when threads, disks
and other processes answer. ``run_in_executor`` without an executor starts a strand, as `asyncio.to_thread` does a
thread.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any

from greenlet import GreenletExit

from ostraka.testing.simulation.threads import Future, ThreadPoolExecutor, Threads, Waiters

_RESOLUTION = 1e-6


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop of one simulated process; `serve` is what its first strand runs."""

    def __init__(self, threads: Threads) -> None:
        super().__init__()
        self._threads = threads
        self._scheduler = threads.scheduler
        self._default = threads.ThreadPoolExecutor(16, "to_thread")
        self._woken = False
        self._sleeping = Waiters(threads.scheduler)
        self._clock_resolution = _RESOLUTION
        self._selector = self
        self.failures: list[dict[str, Any]] = []
        self.dead = False  # its process is gone
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def serve(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run until main has ended, in the current strand; what it returned. Raises what it raised."""
        self._scheduler.current().loop = self
        self._scheduler.begin_loop(self)
        task = self.create_task(main)
        while not task.done():
            if self.dead:
                raise GreenletExit
            self._run_once()  # type: ignore[attr-defined]
        return task.result()

    # -- what BaseEventLoop asks of a loop

    def time(self) -> float:
        return self._scheduler.now

    def select(self, timeout: float | None) -> list[Any]:
        """In the place of a selector's: until somebody wakes the loop, or the time is up."""
        if timeout is not None and timeout <= 0:
            self._scheduler.pause()
        elif not self._woken:
            self._sleeping.wait(timeout)
        self._woken = False
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        self._woken = True
        self._sleeping.wake_one()

    def _check_closed(self) -> None:
        pass

    def run_in_executor(  # type: ignore[override]
        self, executor: ThreadPoolExecutor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        future = self.create_future()

        def answer(done: Future) -> None:
            self.call_soon_threadsafe(tell, done)

        def tell(done: Future) -> None:
            if future.done():
                return
            error = done.exception()
            if error is None:
                future.set_result(done.result())
            else:
                future.set_exception(error)

        (executor or self._default).submit(func, *args).add_done_callback(answer)
        return future


@contextlib.contextmanager
def generators_are_closed_by_their_loops() -> Iterator[None]:
    """As a running loop sees to it: an asynchronous generator that nobody finishes is closed by a task of its loop."""

    def begun(generator: AsyncGenerator[Any, Any]) -> None:
        loop = asyncio.events._get_running_loop()
        if isinstance(loop, SimulatedLoop):
            loops[id(generator)] = loop

    def forgotten(generator: AsyncGenerator[Any, Any]) -> None:
        loop = loops.pop(id(generator), None)
        if loop is not None and not loop.dead:
            loop.call_soon_threadsafe(loop.create_task, generator.aclose())

    loops: dict[int, SimulatedLoop] = {}
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(begun, forgotten)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*before)
