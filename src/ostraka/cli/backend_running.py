"""What the commands of `ostraka backend` share: a backend is opened by its address, work is done in a loop, and signals
end it in order."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from ostraka.backends import Backend, ListsDirectories, ResilientBackend, Stat, address, require
from ostraka.backends.iterators import ended
from ostraka.backends.paths import RESERVED, check_path
from ostraka.backends.urls import Address
from ostraka.cli.output import Terminated
from ostraka.errors import Absent, Invalid
from ostraka.host import Buffer

T = TypeVar("T")
Row = tuple[str, Stat | None]  # a path and what is said of it; a directory and None

READ_BYTES: Final = 1 << 20
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def of_path(url: str) -> Address:
    """The address of a URL that names a path. Invalid if it names only a place."""
    named = address(url)
    check_path(named.path)
    return named


def nothing_there(url: str) -> Absent:
    return Absent(f"{url.partition('?')[0]}: nothing is there", reason="path")


def nothing_begins(url: str) -> Absent:
    return Absent(f"{url.partition('?')[0]}: nothing begins so", reason="path")


def run(named: Address, work: Callable[[Backend], Awaitable[T]], *, resilient: bool = True, writes: bool = False) -> T:
    """What the work makes of the backend, which is closed after it."""

    async def running() -> T:
        async with opened(named, resilient=resilient, writes=writes) as backend:
            return await work(backend)

    return run_orderly(running())


@contextlib.asynccontextmanager
async def opened(named: Address, *, resilient: bool = True, writes: bool = False) -> AsyncIterator[Backend]:
    """The backend. Only who writes makes a directory that is not there."""
    if named.config["type"] == "local" and not writes:
        named = Address({**named.config, "create": False}, named.path)
    inner = named.open()
    async with ResilientBackend(inner) if resilient else inner as backend:
        yield backend


def run_orderly(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` with `output.orderly` for its whole life: a signal cancels the work, and is raised when that has
    ended. What a handler raises in a loop would be told and forgotten; and asyncio's own for Ctrl-C cancels between any
    two steps of the interpreter, so that a future may be cancelled while it is given its result."""
    came: list[int] = []

    async def working() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end(number: int) -> None:
            came.append(number)
            task.cancel()  # nothing, once it is done

        for number in SIGNALS:
            loop.add_signal_handler(number, end, number)
        return await work

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with asyncio.Runner() as runner:  # whose loop, when it is closed, lets go of the signals
            try:
                return runner.run(working())
            finally:
                signal.set_wakeup_fd(-1)  # the loop closes it before it lets go of the signals
    except asyncio.CancelledError as e:
        if came:
            raise Terminated.by(came[0], e) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def listing(backend: Backend, prefix: str, *, directories: bool = False) -> AsyncIterator[Row]:
    """What begins with the prefix, in byte order; or the directories right below it."""
    if directories:
        async with ended(require(backend, ListsDirectories).list_directories(prefix)) as names:
            async for name in names:
                yield name, None
        return
    async with ended(backend.list_entries(prefix)) as entries:
        async for entry in entries:
            if f"/{RESERVED}/" not in entry.path:  # of a backend whose root is further down
                yield entry.path, entry.stat


async def standard_input() -> AsyncIterator[Buffer]:
    """What comes from there. A pipe or a terminal is waited for in the loop: a thread that waits could not be ended."""
    if sys.stdin is None:
        raise Invalid("standard input is closed, and something should come from it", reason="config")
    descriptor, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    ready = asyncio.Event()
    while True:
        try:
            loop.add_reader(descriptor, ready.set)
        except PermissionError:  # a file, which is always ready
            ready.set()
        try:
            await ready.wait()
        finally:
            loop.remove_reader(descriptor)
        ready.clear()
        piece = os.read(descriptor, READ_BYTES)
        if not piece:
            return
        yield piece


async def pour(backend: Backend, path: str) -> None:
    """What is at the path, to standard output."""

    async def sink(piece: Buffer) -> None:
        await asyncio.to_thread(sys.stdout.buffer.write, piece)

    await backend.read_to(path, sink)
    await asyncio.to_thread(sys.stdout.buffer.flush)
