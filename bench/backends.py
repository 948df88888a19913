"""Every backend beside the bare library beneath it, and the memory of a stream that is larger than memory.

    python bench/backends.py [--quick] [--only NAME] [--json] [--dir DIR]
    python bench/backends.py --memory GIB [--dir DIR]

Local: beside plain files that are published as durably (staging name, fsync, rename, fsync of the directory), in
threads. S3, on `ostraka serve` with one worker, and Azure, on Azurite: beside the same signed requests through
pyreqwest, and beside obstore. Each body is compared when it is read. All of them take turns within each round, so that
a busy machine is busy for all; the median of the rounds is told, and its ratio to the bare library's of the same run.
"us CPU" is of this process, for one operation or one MB; "foreign" is what others took of a core, servers included.

--memory sends that many GiB as one stream of unknown size and reads it back: what the process held at most, and the
same for a tenth of it. A backend's memory does not grow with what passes through it.
"""

import argparse
import asyncio
import hashlib
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from load import inside
from load.bare import KEYS, BareAzure, BareS3, ThreadedFiles, Through, azurite, obstore_azure, obstore_s3
from load.inside import Round
from load.machine import Meter, describe
from load.report import HEAD, Figure, as_json, line
from load.target import BUCKET, Target, ostraka
from load.wrk import WrongAnswers

from ostraka.backends import Backend, LocalBackend, MemoryBackend, ResilientBackend
from ostraka.backends.azure import AzureBackend, AzureConfig
from ostraka.backends.azure.signing import Access
from ostraka.backends.s3 import S3Backend, S3Config

T = TypeVar("T")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SMALL = 4 * KIB


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    rounds: int
    seconds: float
    large: int  # bytes of a large body
    patience: float  # seconds that are waited for a quiet moment


FULL = Plan(7, 3.0, 64 * MIB, 5.0)
QUICK = Plan(3, 1.0, 64 * MIB, 0.0)
TINY = Plan(1, 0.1, 9 * MIB, 0.0)  # for a test that it runs


@dataclass(frozen=True)
class Rival:
    """One way to a store. ``beside``: the way that it is compared with; "" for that itself."""

    name: str
    place: Any
    beside: str


class Bench:
    """One run."""

    def __init__(self, plan: Plan, only: str) -> None:
        self.plan = plan
        self.only = only
        self.figures: dict[tuple[str, str], Figure] = {}

    async def measure(self, rivals: list[Rival]) -> None:
        """All of them in turns, in another order each round."""
        body, large = os.urandom(SMALL), os.urandom(self.plan.large)
        for number in range(self.plan.rounds):
            for tasks in (1, 32):
                for rival in _turned(rivals, number):
                    await self._small(rival, body, tasks, f"{number}-{tasks}-{rival.name.replace(' ', '')}")
            for tasks in (1, 4):
                for rival in _turned(rivals, number):
                    await self._large(rival, large, tasks, f"large-{rival.name.replace(' ', '')}")

    def _figure(self, rival: Rival, name: str, unit: str) -> Figure:
        return self.figures.setdefault((rival.name, name), Figure(rival.name, name, unit, limit=rival.beside))

    async def _measured(self, work: Awaitable[T], figure: Figure) -> T:
        """Await what returns a Round, alone or before something else, and note it. ``foreign`` holds the server too."""
        meter = Meter(patience=self.plan.patience)
        meter.wait_for_quiet()
        with meter.measure() as spent:
            result = await work
        found: Round = result[0] if isinstance(result, tuple) else result  # type: ignore[assignment]
        figure.add(found.rate, found.cpu, spent.foreign, found.p50, found.p99)
        return result

    async def _small(self, rival: Rival, body: bytes, tasks: int, name: str) -> None:
        words = f"4 KiB, {tasks} task{'s' if tasks > 1 else ''}"
        if self.only.lower() not in f"{rival.name}, {words}".lower():
            return
        put, get = self._figure(rival, f"write {words}", "op/s"), self._figure(rival, f"read {words}", "op/s")
        _, keys = await self._measured(inside.put_for(rival.place, name, body, tasks, self.plan.seconds), put)
        await self._measured(inside.get_for(rival.place, keys, body, tasks, self.plan.seconds), get)

    async def _large(self, rival: Rival, body: bytes, tasks: int, name: str) -> None:
        words = f"{len(body) // MIB} MiB, {tasks} task{'s' if tasks > 1 else ''}"
        if self.only.lower() not in f"{rival.name}, {words}".lower():
            return
        put, get = self._figure(rival, f"write {words}", "MB/s"), self._figure(rival, f"read {words}", "MB/s")
        size, keys = len(body) * tasks, [f"{name}-{n}" for n in range(tasks)]
        await self._measured(inside.together([rival.place.put(key, body) for key in keys], size), put)
        _, found = await self._measured(inside.together([rival.place.get(key) for key in keys], size), get)
        if any(one != body for one in found):
            raise WrongAnswers("what was read is not what was written")

    def finish(self) -> list[Figure]:
        """All figures; the ratio to the bare library's is the median of the rounds' ratios."""
        for figure in self.figures.values():
            beside = self.figures.get((figure.limit, figure.name))
            if beside is not None:
                pairs = zip(figure.rates, beside.rates, strict=True)
                figure.limit_rate = figure.rate / statistics.median(one / other for one, other in pairs)
        return list(self.figures.values())


def _turned(rivals: list[Rival], number: int) -> list[Rival]:
    begin = number % len(rivals)
    return rivals[begin:] + rivals[:begin]


# -- what is measured


async def local(bench: Bench, where: Path) -> None:
    files = ThreadedFiles(where / "files", 32)
    async with (
        LocalBackend(where / "local") as backend,
        ResilientBackend(LocalBackend(where / "resilient")) as resilient,
        MemoryBackend() as memory,
    ):
        rivals = [
            Rival("plain files", files, ""),
            Rival("local", Through(backend), "plain files"),
            Rival("local, resilient", Through(resilient), "plain files"),
            Rival("memory", Through(memory), ""),
        ]
        await bench.measure(rivals)
    files.close()


async def s3(bench: Bench, served: Target) -> None:
    keys = KEYS
    bare = BareS3(served.url, BUCKET, keys)
    rivals = [Rival("pyreqwest to S3", bare, "")]
    if (other := obstore_s3(served.url, BUCKET, keys)) is not None:
        rivals.append(Rival("obstore to S3", other, "pyreqwest to S3"))
    config = S3Config(bucket=BUCKET, endpoint=served.url, region="us-east-1")
    async with S3Backend(config, keys=keys) as backend, S3Backend(config, keys=keys) as inner:
        rivals.append(Rival("S3", Through(backend), "pyreqwest to S3"))
        rivals.append(Rival("S3, resilient", Through(ResilientBackend(inner)), "pyreqwest to S3"))
        await bench.measure(rivals)
    await bare.close()


async def azure(bench: Bench, access: Access) -> None:
    bare = BareAzure(access, BUCKET)
    rivals = [Rival("pyreqwest to Azure", bare, "")]
    if (other := obstore_azure(access, BUCKET)) is not None:
        rivals.append(Rival("obstore to Azure", other, "pyreqwest to Azure"))
    async with AzureBackend(AzureConfig(container=BUCKET), access=access) as backend:
        rivals.append(Rival("Azure", Through(backend), "pyreqwest to Azure"))
        await bench.measure(rivals)
    await bare.close()


# -- memory


async def streamed(backend: Backend, size: int) -> tuple[float, float]:
    """Send so many bytes, each MiB another, and read them back: MB/s of both. Raises WrongAnswers if they differ."""
    block = os.urandom(MIB)
    sent, read = hashlib.blake2b(), hashlib.blake2b()

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(size // MIB):
            piece = number.to_bytes(8, "big") + block[8:]
            sent.update(piece)
            yield piece

    began = time.perf_counter()
    await backend.write_stream("stream", pieces())
    middle = time.perf_counter()
    async with backend.open("stream") as reading:
        async for piece in reading.pieces:
            read.update(piece)
    end = time.perf_counter()
    await backend.delete("stream")
    if sent.digest() != read.digest():
        raise WrongAnswers("what was read is not what was sent")
    return size / 1e6 / (middle - began), size / 1e6 / (end - middle)


def in_a_process(work: Any) -> tuple[int, tuple[float, float]]:
    """What a process of its own held at most, in bytes, and what the work gave."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        rates = asyncio.run(work())
        os.write(theirs, repr((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, rates)).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    if os.waitpid(child, 0)[1] or not said:
        sys.exit("the stream failed")
    peak, write, read = (float(word) for word in said.strip("()").replace("(", "").replace(")", "").split(","))
    return int(peak), (write, read)


def memory(gib: float, where: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ostraka-bench-", dir=where) as made, ostraka(where, 1, 1) as served:
        served.make_bucket()
        keys = KEYS
        config = S3Config(bucket=BUCKET, endpoint=served.url, region="us-east-1")
        ways = {
            "local": lambda: LocalBackend(Path(made) / "store"),
            "S3, on ostraka serve": lambda: S3Backend(config, keys=keys),
        }
        for name, way in ways.items():
            for size in (int(gib * GIB / 10) // MIB * MIB, int(gib * GIB) // MIB * MIB):

                async def work(way: Any = way, size: int = size) -> tuple[float, float]:
                    async with way() as backend:
                        return await streamed(backend, size)

                peak, (write, read) = in_a_process(work)
                held = f"{peak / MIB:,.0f} MiB held at most"
                print(
                    f"{name:22} {size / GIB:6.2f} GiB  {held}, {write:,.0f} MB/s out, {read:,.0f} MB/s in", flush=True
                )


@contextmanager
def _directory(where: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="ostraka-bench-", dir=where))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="short rounds of everything")
    options.add_argument("--tiny", action="store_true", help="only to see that it runs")
    options.add_argument("--only", default="", help="what has this in its name, such as '4 KiB, 32 tasks'")
    options.add_argument("--stores", default="local,s3,azure", help="which of local,s3,azure")
    options.add_argument(
        "--memory", type=float, default=0.0, metavar="GIB", help="the stream's memory, and nothing else"
    )
    options.add_argument("--json", action="store_true", help="print one JSON document, and nothing else")
    options.add_argument("--dir", default="/var/tmp", help="a directory on the disk that is measured")
    chosen = options.parse_args()
    where = Path(chosen.dir)
    if chosen.memory:
        memory(chosen.memory, where)
        return
    bench = Bench(TINY if chosen.tiny else QUICK if chosen.quick else FULL, chosen.only)
    stores = chosen.stores.split(",")
    with ExitStack() as stack:
        made = stack.enter_context(_directory(where))
        if "local" in stores:
            asyncio.run(local(bench, made))
        if "s3" in stores:
            served = stack.enter_context(ostraka(where, 1, 1))
            served.make_bucket()
            asyncio.run(s3(bench, served))
        if "azure" in stores:
            access = stack.enter_context(azurite(made / "azurite", BUCKET))
            if access is not None:
                asyncio.run(azure(bench, access))
    figures = bench.finish()
    if not figures:
        sys.exit(f"nothing has {chosen.only!r} in its name")
    if chosen.json:
        print(as_json(describe(), {}, figures))
        return
    print(" ".join(f"{name} {value}," for name, value in describe().items()).rstrip(","))
    print(HEAD)
    for figure in figures:
        print(line(figure))


if __name__ == "__main__":
    main()
