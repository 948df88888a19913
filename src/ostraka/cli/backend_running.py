"""What the commands of `ostraka backend` share: a backend is opened by its address, and work is done with it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from ostraka.backends import Backend, ListsDirectories, ResilientBackend, Stat, address, require
from ostraka.backends.iterators import ended
from ostraka.backends.paths import RESERVED, check_path
from ostraka.backends.urls import Address
from ostraka.cli.running import run_orderly
from ostraka.errors import Absent, Invalid
from ostraka.host import Buffer

T = TypeVar("T")
Row = tuple[str, Stat | None]  # a path and what is said of it; a directory and None

READ_BYTES: Final = 1 << 20


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

    return run_orderly(running)


@contextlib.asynccontextmanager
async def opened(named: Address, *, resilient: bool = True, writes: bool = False) -> AsyncIterator[Backend]:
    """The backend. Only who writes makes a directory that is not there."""
    if named.config["type"] == "local" and not writes:
        named = Address({**named.config, "create": False}, named.path)
    inner = named.open()
    async with ResilientBackend(inner) if resilient else inner as backend:
        yield backend


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
