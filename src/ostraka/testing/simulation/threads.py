"""What production code takes from `threading`, `queue` and `concurrent.futures`, played by strands.

Only what is used is here, with the meaning that the standard library gives it. Before a lock is taken, a queue is used
or a thread begins, the strand may be overtaken. A simulated process owns its strands: `Threads` is bound to one machine
(its scheduler), and finds out from the running strand whose thread it starts.
"""

import queue
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from ostraka.testing.simulation.scheduler import Scheduler, Strand

_Waiter = tuple[Strand, int]
OnDied = Callable[[Strand, BaseException], None]


class DoneAndNotDone(NamedTuple):
    """What `wait` answers."""

    done: set["Future"]
    not_done: set["Future"]


class Waiters:
    """Strands that wait for one thing, first come, first served."""

    __slots__ = ("_scheduler", "_waiting")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: deque[_Waiter] = deque()

    def wait(self, seconds: float | None = None) -> bool:
        ticket = self._scheduler.take_ticket()
        self._waiting.append((self._scheduler.current(), ticket))
        return self._scheduler.wait(seconds)

    def wake_one(self) -> None:
        while self._waiting:
            if self._scheduler.wake(*self._waiting.popleft()):
                return

    def wake_all(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            self._scheduler.wake(*waiter)


class Lock:
    """threading.Lock, and with ``again`` threading.RLock."""

    def __init__(self, scheduler: Scheduler, *, again: bool = False) -> None:
        self._scheduler = scheduler
        self._again = again
        self._holder: Strand | None = None
        self._depth = 0
        self._waiters = Waiters(scheduler)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self._scheduler.current()
        self._scheduler.pause()
        if self._again and self._holder is me:
            self._depth += 1
            return True
        until = self._scheduler.now + timeout if timeout >= 0 else None
        while self._holder is not None:
            if not blocking:
                return False
            left = None if until is None else until - self._scheduler.now
            if not self._waiters.wait(left):
                return False
        self._holder, self._depth = me, 1
        return True

    def release(self) -> None:
        if self._holder is None:
            raise RuntimeError("release of a lock that nobody holds")
        self._depth -= 1
        if not self._depth:
            self._holder = None
            self._waiters.wake_one()

    def locked(self) -> bool:
        return self._holder is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Condition:
    """threading.Condition."""

    def __init__(self, scheduler: Scheduler, lock: Lock | None = None) -> None:
        self._lock = lock or Lock(scheduler, again=True)
        self._waiters = Waiters(scheduler)

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        depth, self._lock._depth = self._lock._depth, 1
        self._lock.release()
        woken = self._waiters.wait(timeout)
        self._lock.acquire()
        self._lock._depth = depth
        return woken

    def notify(self, n: int = 1) -> None:
        for _ in range(n):
            self._waiters.wake_one()

    def notify_all(self) -> None:
        self._waiters.wake_all()


class Thread:
    """threading.Thread."""

    def __init__(
        self,
        threads: "Threads",
        target: Callable[..., object],
        name: str = "thread",
        args: Iterable[Any] = (),
        daemon: bool | None = None,
    ) -> None:
        self._threads = threads
        self._target = target
        self._arguments = tuple(args)
        self.name = name
        self._ended = False
        self._waiters = Waiters(threads.scheduler)

    def start(self) -> None:
        scheduler = self._threads.scheduler
        scheduler.spawn(scheduler.current().owner, self.name, self._run)
        scheduler.pause()

    def _run(self) -> None:
        try:
            self._target(*self._arguments)
        except Exception as error:
            self._threads.died(self._threads.scheduler.current(), error)
        self._ended = True
        self._waiters.wake_all()

    def join(self, timeout: float | None = None) -> None:
        if not self._ended:
            self._waiters.wait(timeout)

    def is_alive(self) -> bool:
        return not self._ended


class SimpleQueue:
    """queue.SimpleQueue."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._items: deque[Any] = deque()
        self._waiters = Waiters(scheduler)

    def put(self, item: object) -> None:
        self._items.append(item)
        self._waiters.wake_one()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        self._scheduler.pause()
        until = None if timeout is None else self._scheduler.now + timeout
        while not self._items:
            left = None if until is None else until - self._scheduler.now
            if not block or (left is not None and left <= 0) or not self._waiters.wait(left):
                raise queue.Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def empty(self) -> bool:
        return not self._items


class Future:
    """concurrent.futures.Future, as far as it is used."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = self._cancelled = self._running = False
        self._callbacks: list[Callable[[Future], object]] = []
        self._waiters = Waiters(scheduler)

    def run(self, call: Callable[[], Any]) -> None:
        """For the executor: make the call, unless it was cancelled."""
        if self._cancelled:
            return
        self._running = True
        try:
            self._result = call()
        except BaseException as error:
            self._error = error
        self._finish()

    def _finish(self) -> None:
        self._done = True
        self._waiters.wake_all()
        for callback in self._callbacks:
            callback(self)

    def cancel(self) -> bool:
        if self._running or self._done:
            return self._cancelled
        self._cancelled = True
        self._error = CancelledError()
        self._finish()
        return True

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._done

    def add_done_callback(self, callback: Callable[["Future"], object]) -> None:
        if self._done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        while not self._done:
            if not self._waiters.wait(timeout):
                raise TimeoutError
        return self._error

    def result(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._result


class ThreadPoolExecutor(Executor):
    """concurrent.futures.ThreadPoolExecutor: threads as they are needed, calls in the order they came."""

    def __init__(self, threads: "Threads", max_workers: int | None = None, thread_name_prefix: str = "pool") -> None:
        self._threads = threads
        self._workers_max = max_workers or 4
        self._name = thread_name_prefix
        self._calls: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._workers = 0
        self._closed = False

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future:  # type: ignore[override]
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = Future(self._threads.scheduler)
        self._calls.append((future, lambda: call(*arguments, **named)))
        if self._workers < self._workers_max:
            self._workers += 1
            self._threads.Thread(target=self._work, name=self._name).start()
        return future

    def _work(self) -> None:
        while self._calls:
            future, call = self._calls.popleft()
            future.run(call)
            del future, call
            self._threads.scheduler.pause()
        self._workers -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        assert not wait, "nobody in Ostraka waits for an executor"
        self._closed = True


class Threads:
    """The names of the standard library, bound to one machine. ``died`` is told of threads that end in an exception."""

    def __init__(self, scheduler: Scheduler, died: OnDied) -> None:
        self.scheduler = scheduler
        self.died = died
        self.Lock = partial(Lock, scheduler)
        self.RLock = partial(Lock, scheduler, again=True)
        self.Condition = partial(Condition, scheduler)
        self.Thread = partial(Thread, self)
        self.SimpleQueue = partial(SimpleQueue, scheduler)
        self.ThreadPoolExecutor = partial(ThreadPoolExecutor, self)

    def wait(
        self, futures: Iterable[Future], timeout: float | None = None, return_when: str = FIRST_COMPLETED
    ) -> DoneAndNotDone:
        """concurrent.futures.wait, until one of them is done."""
        assert return_when == FIRST_COMPLETED, "nobody in Ostraka waits for all of them"
        waiting = list(futures)
        anything = Waiters(self.scheduler)
        for future in waiting:
            future.add_done_callback(lambda _: anything.wake_all())
        if not any(future.done() for future in waiting):
            anything.wait(timeout)
        return DoneAndNotDone({f for f in waiting if f.done()}, {f for f in waiting if not f.done()})
