"""The whole way of a large body, each feature on and off, beside the libraries that do the work; and the collector.

    python bench/pipeline.py [--rounds 5] [--geometries 1+0 4+2]
    python bench/pipeline.py --collect 1000000

PUT is cut, hashed, looked up, compressed, sealed, erasure coded, written and synced, in that order, by one client in
this process. Ways take turns within each round, so that what the machine does meanwhile falls on all of them; medians
count. The last column is the way's rate as a share of the slowest library it uses, on one core. The digest is left out
of the first tables (MD5 is the wall of a PUT over S3, at 0.8 GB/s), and in the others.
"""

import argparse
import hashlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import lz4.block
import uvloop
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyfastcdc import FastCDC
from xxhash import xxh3_64_intdigest

from ostraka.chunks.rows import ROW_VERSION, ChunkRow, Health, chunk_key, encode, zero_chunk_key
from ostraka.config import parse_geometry
from ostraka.host import Buffer, Host
from ostraka.limits import KIB, LIMITS, MIB
from ostraka.objects.recipes import changed
from ostraka.objects.types import Attributes, Digested, Storage
from ostraka.pools.erasure import codec
from ostraka.pools.types import Stripe
from ostraka.state import Mutation, Put
from ostraka.store.store import Store, open_here

BODY = 64 * MIB
BUCKET = "bench"
WAYS: dict[str, tuple[dict[str, str], bool, tuple[str, ...]]] = {  # words of the bucket, sealed, stages
    "nothing": ({"compression": "none", "cut": "fixed"}, False, ("BLAKE3", "XXH3")),
    "cdc": ({"compression": "none", "cut": "cdc"}, False, ("BLAKE3", "XXH3", "FastCDC")),
    "lz4": ({"compression": "lz4", "cut": "fixed"}, False, ("BLAKE3", "XXH3", "lz4")),
    "zstd": ({"compression": "zstd", "cut": "fixed"}, False, ("BLAKE3", "XXH3", "zstd")),
    "sealed": ({"compression": "none", "cut": "fixed"}, True, ("BLAKE3", "XXH3", "AES-256-GCM")),
    "all": ({"compression": "zstd", "cut": "cdc"}, True, ("BLAKE3", "XXH3", "FastCDC", "zstd", "AES-256-GCM")),
}


# -- bodies


def words(size: int) -> bytes:
    """Text that compresses by about three."""
    dice = random.Random(7)
    known = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(2, 9))) for _ in range(5000)]
    block = " ".join(dice.choices(known, k=400_000)).encode()
    return (block * (size // len(block) + 1))[:size]


def anew(body: bytearray, number: int) -> bytes:
    """The same with no chunk that was there before, however it is cut."""
    for at in range(0, len(body), 64 * KIB):
        body[at : at + 12] = number.to_bytes(4, "big") + at.to_bytes(8, "big")
    return bytes(body)


class Body:
    """A body as it comes from a socket: 256 KiB at a time."""

    def __init__(self, body: bytes) -> None:
        self.length: int | None = len(body)
        self._left = memoryview(body)

    async def read_into(self, view: memoryview) -> int:
        count = min(len(view), len(self._left), 256 * KIB)
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def read_now(self) -> Buffer | None:
        return None


class Digest:
    """MD5, or nothing."""

    def __init__(self, with_md5: bool) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None

    def update(self, data: Buffer) -> None:
        if self._md5 is not None:
            self._md5.update(data)

    def finish(self) -> Digested:
        return Digested(self._md5.hexdigest() if self._md5 is not None else "0" * 32)


# -- the libraries


def stages(body: bytes, k: int, m: int, directory: str | None) -> dict[str, float]:
    """MB/s of each stage alone, on one thread, over pieces as the store gives them to it."""
    frames = [body[at : at + LIMITS.frame_size] for at in range(0, 16 * MIB, LIMITS.frame_size)]
    chunks = [body[at : at + LIMITS.chunk_size] for at in range(0, 16 * MIB, LIMITS.chunk_size)]
    zstd, cipher = zstandard.ZstdCompressor(level=1), AESGCM(os.urandom(32))
    out = bytearray(LIMITS.frame_size + 16)
    cdc = FastCDC(avg_size=MIB, min_size=MIB // 4, max_size=4 * MIB)
    work: dict[str, tuple[list[bytes], Callable[[bytes], object]]] = {
        "MD5": (chunks, lambda piece: hashlib.md5(piece, usedforsecurity=False)),
        "FastCDC": ([body[: 16 * MIB]], lambda piece: list(cdc.cut_buf(piece))),
        "BLAKE3": (chunks, lambda piece: blake3(piece, key=bytes(32)).digest()),
        "XXH3": (frames, xxh3_64_intdigest),
        "lz4": (frames, lambda piece: lz4.block.compress(piece, store_size=False)),
        "zstd": (frames, zstd.compress),
        "AES-256-GCM": (frames, lambda piece: cipher.encrypt_into(bytes(12), piece, None, out)),
    }
    if k > 1:
        size = LIMITS.chunk_size // k
        parity = [memoryview(bytearray(size)) for _ in range(m)]
        work[f"encode {k}+{m}"] = (
            chunks,
            lambda piece: codec(k, m).encode([memoryview(piece)[n * size : (n + 1) * size] for n in range(k)], parity),
        )
    found = {name: _rate(pieces, each) for name, (pieces, each) in work.items()}
    found["write and sync"] = _disk(body, directory) * k / (k + m)
    return found


def _rate(pieces: list[bytes], each: Callable[[bytes], object]) -> float:
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        for piece in pieces:
            each(piece)
        best = max(best, sum(map(len, pieces)) / (time.perf_counter() - began) / 1e6)
    return best


def _disk(body: bytes, directory: str | None) -> float:
    """Chunks appended to a file, each synced: what one thread gets of the disk."""
    best = 0.0
    with tempfile.TemporaryDirectory(dir=directory) as place:
        for turn in range(3):
            file = Host().files.open(Path(place) / str(turn), write=True, create=True)
            began = time.perf_counter()
            for at in range(0, BODY, LIMITS.chunk_size):
                file.pwritev([memoryview(body)[at : at + LIMITS.chunk_size]], at)
                file.sync_data()
            best = max(best, BODY / (time.perf_counter() - began) / 1e6)
            file.close()
    return best


# -- the store


async def put_and_get(store: Store, body: bytes, number: int, with_md5: bool) -> tuple[float, float, float, float]:
    """(PUT MB/s, its us of CPU a MB, GET MB/s, its us of CPU a MB)."""
    key, megabytes = f"k{number % 4}", len(body) / 1e6
    began, cpu = time.perf_counter(), time.process_time()
    await store.objects.put(BUCKET, key, Body(body), Digest(with_md5), Attributes(), owner="root")
    put, put_cpu = time.perf_counter() - began, time.process_time() - cpu
    began, cpu = time.perf_counter(), time.process_time()
    reader = store.objects.open(BUCKET, key)
    try:
        async for _ in reader.read():
            pass
    finally:
        reader.close()
    get, get_cpu = time.perf_counter() - began, time.process_time() - cpu
    return megabytes / put, put_cpu * 1e6 / megabytes, megabytes / get, get_cpu * 1e6 / megabytes


async def compare(arguments: argparse.Namespace, geometry: tuple[int, int], kind: str, with_md5: bool) -> None:
    k, m = geometry
    body = bytearray(os.urandom(BODY) if kind == "random" else words(BODY))
    alone = stages(bytes(body), k, m, arguments.directory)
    print(f"\n{k}+{m}, {kind}{', MD5 too' if with_md5 else ''}; alone, MB/s:")
    print("  " + ", ".join(f"{name} {rate:,.0f}" for name, rate in alone.items()))
    async with AsyncExitStack() as stack:
        made = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
        paths = [made / str(number) for number in range(k + m)]
        store = await stack.enter_async_context(open_here(paths, ec=geometry, masters=[os.urandom(32)]))
        await store.prepare_keys()
        await store.objects.start()
        await store.objects.create_bucket(BUCKET, "root", "us-east-1")
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in WAYS}
        number = 0
        for turn in range(arguments.rounds + 1):  # the first warms up
            for name, (said, sealed, _) in WAYS.items():
                storage = replace_storage(said, sealed)
                await store.objects.update_bucket(BUCKET, lambda bucket, s=storage: replace(bucket, storage=s))  # type: ignore[misc]
                number += 1
                rates = await put_and_get(store, anew(body, number), number, with_md5)
                if turn:
                    found[name].append(rates)
        tell(found, alone, geometry, with_md5)


def replace_storage(said: Mapping[str, str], sealed: bool) -> Storage:
    words: dict[str, Any] = {**said, "encryption": "AES256" if sealed else "none"}
    return changed(Storage(), **words)


def tell(
    found: dict[str, list[tuple[float, ...]]], alone: dict[str, float], geometry: tuple[int, int], with_md5: bool
) -> None:
    k, m = geometry
    print(f"  {'':8}{'PUT MB/s':>10}{'us CPU':>8}{'GET MB/s':>10}{'us CPU':>8}   {'slowest alone':24}{'share':>6}")
    for name, rows in found.items():
        put, put_cpu, get, get_cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        stage_names = [*WAYS[name][2], "write and sync", *([f"encode {k}+{m}"] if k > 1 else [])]
        if with_md5:
            stage_names.append("MD5")
        slowest = min(stage_names, key=alone.__getitem__)
        share = put / alone[slowest]
        print(
            f"  {name:8}{put:10,.0f}{put_cpu:8,.0f}{get:10,.0f}{get_cpu:8,.0f}   "
            f"{f'{slowest} {alone[slowest]:,.0f}':24}{share:6.0%}"
        )


# -- the collector


async def collect(count: int, directory: str | None) -> None:
    """Chunks that nothing refers to, deleted: each by a commit of its own that looks once more."""
    limits = replace(LIMITS, collect_grace_seconds=0.0)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        async with open_here([Path(place) / "disk"], limits=limits) as store:
            await store.objects.start()
            began = time.perf_counter()
            for start in range(0, count, 5000):
                rows = [
                    Put(key, value, stamp_value=stamp)
                    for n in range(start, min(start + 5000, count))
                    for key, value, stamp in _rows(n)
                ]
                await store.state.commit_many([Mutation((), rows[at : at + 200]) for at in range(0, len(rows), 200)])
            print(f"{count:,} chunks made in {time.perf_counter() - began:.1f} s")
            collector = store.objects.collector(lambda incarnation: True)
            began, cpu, done = time.perf_counter(), time.process_time(), 0
            while settled := await collector.collect(limits.collect_batch_rows_max):
                done += settled
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            each = f"{done / took:,.0f}/s, {cpu / done * 1e6:.0f} us CPU each"
            print(f"{done:,} collected in {took:.1f} s ({each})")


def _rows(number: int) -> list[tuple[bytes, bytes, bool]]:
    chunk = hashlib.sha256(number.to_bytes(8, "big")).digest()
    stripe = Stripe(chunk[:16], 1, 0, 70_000, 70_000, (0,))
    row = ChunkRow(ROW_VERSION, Health.GOOD, 69_000, LIMITS.frame_size, 128, stripe)
    return [(chunk_key(chunk), encode(row), False), (zero_chunk_key(chunk), b"", True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--geometries", nargs="+", default=["1+0", "4+2"])
    parser.add_argument("--directory", default=None, help="where stores are made; a disk, not a tmpfs")
    parser.add_argument("--collect", type=int, default=0, metavar="N", help="have N chunks collected, and nothing else")
    arguments = parser.parse_args()
    if arguments.collect:
        uvloop.run(collect(arguments.collect, arguments.directory))
        return
    for with_md5 in (False, True):
        for geometry in map(parse_geometry, arguments.geometries):
            for kind in ("random", "words"):
                uvloop.run(compare(arguments, geometry, kind, with_md5))


if __name__ == "__main__":
    main()
