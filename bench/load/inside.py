"""A store in this process, and plain files that are as durable: the same bodies under the same names, by tasks.

Both answer to `Place`. The files stand for what a program would write without a store: a staging name, fsync, rename,
fsync of the directory, so that a file is there whole or not at all and outlives a power cut. They keep one copy,
verify nothing, list nothing and know no metadata.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from load.report import quantile
from load.wrk import WrongAnswers


class Place(Protocol):
    """Where bodies are put and found again."""

    async def put(self, key: str, body: bytes) -> object:
        """The body is on stable storage when it returns."""
        ...

    async def get(self, key: str) -> bytes: ...


class Files:
    """Plain files in one directory. Writes wait in threads, one for each task; reads come from the page cache, and
    are made at once: a thread would cost more than the read."""

    def __init__(self, directory: Path, tasks: int) -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._threads = ThreadPoolExecutor(tasks)

    async def put(self, key: str, body: bytes) -> object:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._write, key, body)

    def _write(self, key: str, body: bytes) -> None:
        path, staging = f"{self._directory}/{key}", f"{self._directory}/.{key}"
        fd = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            rest = memoryview(body)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(staging, path)
        os.fsync(self._handle)

    async def get(self, key: str) -> bytes:
        return self._read(key)

    def _read(self, key: str) -> bytes:
        with open(f"{self._directory}/{key}", "rb", buffering=0) as file:
            return file.read()

    def close(self) -> None:
        self._threads.shutdown()
        os.close(self._handle)


@dataclass(frozen=True)
class Round:
    """What one round came to: operations or bytes a second, microseconds of this process's CPU for each operation or
    MB, latencies in seconds."""

    rate: float
    cpu: float
    p50: float = 0.0
    p99: float = 0.0


async def put_for(place: Place, name: str, body: bytes, tasks: int, seconds: float) -> tuple[Round, list[str]]:
    """Put the body under fresh keys for that long; the keys."""
    keys: list[str] = []

    async def one(_: int) -> None:
        key = f"{name}-{len(keys):08d}"
        keys.append(key)
        await place.put(key, body)

    return await repeat(one, tasks, seconds), keys


async def get_for(place: Place, keys: Sequence[str], body: bytes, tasks: int, seconds: float) -> Round:
    """Get those keys over and over for that long, each answer compared."""

    async def one(number: int) -> None:
        if await place.get(keys[number % len(keys)]) != body:
            raise WrongAnswers("what was read is not what was written")

    return await repeat(one, tasks, seconds)


async def repeat(one: Callable[[int], Awaitable[None]], tasks: int, seconds: float) -> Round:
    """``one(number)``, by so many tasks until the time is over."""
    spent: list[float] = []
    clock = time.perf_counter
    end = clock() + seconds

    async def task(number: int) -> None:
        before = clock()
        while before < end:
            await one(number)
            after = clock()
            spent.append(after - before)
            before = after
            number += tasks

    began, cpu = clock(), time.process_time()
    await asyncio.gather(*(task(n) for n in range(tasks)))
    lasted, cpu = clock() - began, time.process_time() - cpu
    return Round(len(spent) / lasted, cpu / len(spent) * 1e6, quantile(spent, 0.5), quantile(spent, 0.99))


async def together(work: Sequence[Awaitable[Any]], size: int) -> tuple[Round, list[Any]]:
    """All of it at once, of ``size`` bytes together: MB/s, and the results."""
    began, cpu = time.perf_counter(), time.process_time()
    results = await asyncio.gather(*work)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Round(size / 1e6 / seconds, cpu / size * 1e12), results
