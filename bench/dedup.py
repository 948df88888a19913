"""What cutting and compression save on a real corpus, and what they cost: how a new bucket's defaults were chosen.

    python bench/dedup.py ratios [--corpus DIR]                # several releases of some large packages, from PyPI
    python bench/dedup.py speed [--directory DIR] [--rounds 3] # PUT and GET of 64 MiB, in a store in this process

`ratios` fetches wheels (400 MB) into DIR, or into a temporary folder, and cuts them as the store would: as they are, as
tars without compression, and unpacked, every file an object. Sizes are those of the stored form, frame tables and all.

`speed` lets all ways take turns within each round, so that a busy machine is busy for all of them, and prints medians;
beside them what the libraries do that do the work, on one core, in the same run. Every acknowledgement is durable, no
two bodies are alike, and what is read is compared.
"""

import argparse
import asyncio
import hashlib
import io
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import lz4.block
import uvloop
import zstandard
from blake3 import blake3
from thresholds import Here, Md5
from xxhash import xxh3_64_intdigest

from ostraka.chunks import frames
from ostraka.chunks.cutting import Cutter, cutter
from ostraka.chunks.types import Cut, Recipe
from ostraka.limits import KIB, LIMITS, MIB
from ostraka.objects.recipes import changed, recipe_of
from ostraka.objects.types import Attributes, Storage
from ostraka.store.store import Store, open_here

RELEASES = {
    "botocore": ("1.35.90", "1.35.95", "1.35.99", "1.36.0", "1.36.5", "1.36.10"),
    "django": ("5.1", "5.1.1", "5.1.2", "5.1.3", "5.1.4"),
    "numpy": ("2.1.0", "2.1.1", "2.1.2", "2.1.3"),
    "pandas": ("2.2.0", "2.2.1", "2.2.2", "2.2.3"),
    "scipy": ("1.14.0", "1.14.1", "1.15.0", "1.15.1"),
}
CUTS = ("fixed", "fixed:1MiB", "cdc:2MiB", "cdc:1MiB", "cdc:512KiB", "cdc:256KiB", "cdc:128KiB")
CODECS = ("none", "lz4", "zstd")
BODY = 64 * MIB


# -- the corpus


def fetch(directory: Path) -> list[Path]:
    """The wheels, in the order of their releases; those that are there already are not fetched again."""
    wanted = [f"{name}=={version}" for name, versions in RELEASES.items() for version in versions]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", "3.11", "--dest", str(directory)]
    for platform in ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "any"):
        command += ["--platform", platform]
    for each in wanted:
        name, _, version = each.partition("==")
        if not any(path.name.lower().startswith(f"{name}-{version}-") for path in directory.glob("*.whl")):
            subprocess.run([*command, each], check=True)
    return sorted(directory.glob("*.whl"), key=lambda path: path.name.lower())


def as_they_are(wheels: list[Path]) -> Iterator[bytes]:
    for path in wheels:
        yield path.read_bytes()


def as_tars(wheels: list[Path]) -> Iterator[bytes]:
    for path in wheels:
        made = io.BytesIO()
        with zipfile.ZipFile(path) as archive, tarfile.open(fileobj=made, mode="w") as tar:
            for name in sorted(archive.namelist()):
                content = archive.read(name)
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        yield made.getvalue()


def unpacked(wheels: list[Path]) -> Iterator[bytes]:
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                content = archive.read(name)
                if content:
                    yield content


# -- ratios


class Kept:
    """What one way keeps of all bodies."""

    def __init__(self, words: str) -> None:
        self.how: Cutter = cutter(recipe_of(changed(Storage(), cut=words)).cut, LIMITS)
        self.seen: set[bytes] = set()
        self.plain = 0
        self.stored = dict.fromkeys(CODECS, 0)

    def take(self, body: bytes, codecs: dict[str, Recipe]) -> None:
        view, at = memoryview(body), 0
        while at < len(view):
            data = view[at : at + self.how.stops[-1]]
            size = self.how.cut(data, at + len(data) == len(view))
            chunk = blake3(data[:size]).digest()
            if chunk not in self.seen:
                self.seen.add(chunk)
                self.plain += size
                for name, recipe in codecs.items():
                    self.stored[name] += stored_size(data[:size], recipe)
            at += size


def stored_size(plain: memoryview, recipe: Recipe) -> int:
    table = frames.table_size(len(plain), LIMITS.frame_size)
    room = memoryview(bytearray(table) + plain)
    return frames.build(room, table, len(plain), LIMITS.frame_size, recipe).length


def ratios(arguments: argparse.Namespace) -> None:
    codecs = {name: recipe_of(changed(Storage(), name)) for name in arguments.codecs.split(",")}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as made:
        wheels = fetch(Path(arguments.corpus or made))
        for form, bodies in (("wheels", as_they_are), ("tars", as_tars), ("files above 128 KiB", unpacked)):
            kept = {words: Kept(words) for words in CUTS}
            total = 0
            for body in bodies(wheels):
                if len(body) > LIMITS.pack_size_max:
                    total += len(body)
                    for way in kept.values():
                        way.take(body, codecs)
            print(f"\n{form}: {total / 1e6:.0f} MB")
            print(f"{'':12}{'dedup':>8}{'rows/GB':>9}" + "".join(f"{name:>9}" for name in codecs))
            for words, way in kept.items():
                saved = "".join(f"{total / way.stored[name]:9.2f}" for name in codecs)
                print(f"{words:12}{total / way.plain:8.3f}{len(way.seen) / total * 1e9:9.0f}{saved}", flush=True)
        small(unpacked(wheels))


def small(bodies: Iterator[bytes]) -> None:
    """What deduplication of whole small bodies would save, by size."""
    bounds = [LIMITS.inline_size_max, 16 * KIB, 64 * KIB, LIMITS.pack_size_max]
    seen: set[bytes] = set()
    count, total, again, again_bytes = ([0] * len(bounds) for _ in range(4))
    packed, packed_again = [0] * len(bounds), [0] * len(bounds)
    compress = frames.compressor(Recipe())
    for body in bodies:
        if len(body) > bounds[-1]:
            continue
        at = next(n for n, bound in enumerate(bounds) if len(body) <= bound)
        size = min(len(body), len(compress(body)))
        count[at] += 1
        total[at] += len(body)
        packed[at] += size
        name = blake3(body).digest()
        if name in seen:
            again[at] += 1
            again_bytes[at] += len(body)
            packed_again[at] += size
        seen.add(name)
    print("\nfiles up to 128 KiB, whole\n  up to      files       MB   repeated      MB  stored MB  repeated of them")
    for n, bound in enumerate(bounds):
        print(
            f"{bound // KIB:5} KiB{count[n]:11}{total[n] / 1e6:9.1f}{again[n]:11}{again_bytes[n] / 1e6:8.1f}"
            f"{packed[n] / 1e6:11.1f}{packed_again[n] / 1e6:18.1f}"
        )


# -- speed


def text(corpus: str, size: int) -> bytes:
    """Sources and programs as they are in the corpus, or words if there is none."""
    wheels = sorted(Path(corpus).glob("*.whl")) if corpus else []
    if not wheels:
        dice = random.Random(1)
        words = [b"%x" % dice.randrange(1 << 20) for _ in range(5000)]
        some = b" ".join(dice.choices(words, k=MIB))
        return (some * (size // len(some) + 1))[:size]
    found = bytearray()
    for body in as_tars([wheels[0], wheels[-1]]):
        found += body
    return bytes((found * (size // len(found) + 1))[:size])


def anew(body: bytes, dice: random.Random) -> bytes:
    """Other bytes that compress as well: each value is another one."""
    values = list(range(256))
    dice.shuffle(values)
    return body.translate(bytes(values))


async def put_and_get(store: Store, body: bytes, clients: int) -> tuple[float, ...]:
    """MB/s of storing, of reading and of storing again, and what each took of the CPU in us a MB; ``clients`` at once,
    none alike."""
    objects, names = store.objects, [os.urandom(8).hex() for _ in range(clients)]
    dice = random.Random(os.urandom(8))
    bodies = {name: anew(body, dice) for name in names}

    async def put(name: str) -> None:
        await objects.put("bench", name, Here(bodies[name]), Md5(), Attributes(), owner="root")

    async def get(name: str) -> None:
        reader, wanted, at = objects.open("bench", name), memoryview(bodies[name]), 0
        async for piece in reader.read():
            assert wanted[at : at + len(piece)] == piece, "other bytes than were stored"
            at += len(piece)
        reader.close()
        assert at == len(wanted)

    async def again(name: str) -> None:
        await objects.put("bench", f"{name}-again", Here(bodies[name]), Md5(), Attributes(), owner="root")

    found: list[float] = []
    for work in (put, get, again):
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(work, names))
        size = clients * len(body) / 1e6
        found += [size / (time.perf_counter() - began), (time.process_time() - cpu) / size * 1e6]
    for name in names:
        await objects.delete("bench", name)
        await objects.delete("bench", f"{name}-again")
    return tuple(found)


def libraries(name: str, body: bytes) -> None:
    """What does the work, alone, on one core: MB/s."""
    view = memoryview(body)
    pieces = [view[at : at + LIMITS.frame_size] for at in range(0, len(body), LIMITS.frame_size)]
    zstd = zstandard.ZstdCompressor(level=1).compress
    how = cutter(Cut(1 * MIB, True), LIMITS)

    def cut() -> None:
        at = 0
        while at < len(view):
            at += how.cut(view[at : at + how.stops[-1]], True)

    stages: dict[str, Callable[[], Any]] = {
        "MD5": lambda: hashlib.md5(view, usedforsecurity=False).digest(),
        "BLAKE3": lambda: blake3(view).digest(),
        "XXH3": lambda: [xxh3_64_intdigest(piece) for piece in pieces],
        "FastCDC": cut,
        "zstd": lambda: [zstd(piece) for piece in pieces],
        "lz4": lambda: [lz4.block.compress(piece, store_size=False) for piece in pieces],
    }
    told = []
    for stage, work in stages.items():
        times = []
        for _ in range(3):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        told.append(f"{stage} {len(body) / statistics.median(times) / 1e6:.0f}")
    print(f"one core, {name}, MB/s: {', '.join(told)}", flush=True)


async def speed(arguments: argparse.Namespace) -> None:
    noise, words = os.urandom(arguments.size), text(arguments.corpus, arguments.size)
    cuts = [{"compression": "zstd", "cut": cut} for cut in CUTS]
    codecs = [{"compression": codec, "cut": cut} for cut in ("fixed", "cdc") for codec in CODECS]
    for name, body, ways in (("random", noise, cuts), ("text", words, codecs)):
        libraries(name, body)
        for disks, geometry in ((1, (1, 0)), (6, (4, 2))):
            print(f"\n{geometry[0]}+{geometry[1]}, {name}, by {arguments.clients}")
            columns = "".join(f"{what:>10}{'share':>7}{'us CPU':>8}" for what in ("PUT MB/s", "GET MB/s", "PUT again"))
            print(f"{'':22}{columns}")
            async with AsyncExitStack() as stack:
                made = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
                store = await stack.enter_async_context(open_here([made / f"{n}" for n in range(disks)], ec=geometry))
                await store.objects.start()
                await store.objects.create_bucket("bench", "root", "us-east-1")
                await show(store, body, ways, arguments)


async def show(store: Store, body: bytes, ways: list[dict[str, str]], arguments: argparse.Namespace) -> None:
    rounds: dict[int, list[tuple[float, ...]]] = {n: [] for n in range(len(ways))}
    for turn in range(arguments.rounds + 1):  # the first warms up
        for n, way in enumerate(ways):
            storage = changed(Storage(), **way)
            await store.objects.update_bucket("bench", lambda bucket: replace(bucket, storage=storage))  # noqa: B023
            found = await put_and_get(store, body, arguments.clients)
            if turn:
                rounds[n].append(found)
    medians = [[statistics.median(column) for column in zip(*rounds[n], strict=True)] for n in range(len(ways))]
    for way, median in zip(ways, medians, strict=True):
        name = f"{way['cut']}, {way['compression']}"
        columns = "".join(f"{median[n]:10.0f}{median[n] / medians[0][n]:7.2f}{median[n + 1]:8.0f}" for n in (0, 2, 4))
        print(f"{name:22}{columns}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ratios", "speed"])
    parser.add_argument("--corpus", default="", help="where the wheels are, or are to be kept")
    parser.add_argument("--directory", default=None, help="where stores are made; a disk, not a tmpfs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--size", type=int, default=BODY, help="of a body, in bytes")
    parser.add_argument("--codecs", default=",".join(CODECS), help="of `ratios`")
    arguments = parser.parse_args()
    if arguments.what == "ratios":
        ratios(arguments)
    else:
        uvloop.run(speed(arguments))


if __name__ == "__main__":
    main()
