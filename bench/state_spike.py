"""How the state is kept on m+1 disks: the spike of ENGINE 5, to be asked again.

    python bench/state_spike.py [--rows 1000000] [--seconds 2] [--directory DIR]

Compared, on three copies that hold a million rows of 80 + 250 bytes, three rows to a mutation (random keys, as the
rows of a PUT are), for one and two writing processes, with 0 and 2 ms added to each sync:

  lmdb     three LMDB environments, each committed synchronously; the copy that readers use commits last
  log      what Ostraka does: one synced log record on each copy in parallel, LMDB as an unsynced index
  log-pw   the same with LMDB writing its pages by pwrite instead of through a writable map

CPU is that of the writing processes, all threads, per mutation. Every line waits for stable storage on three copies.
"""

import argparse
import contextlib
import fcntl
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb

from ostraka.host import File, Host, SystemFiles
from ostraka.limits import GIB, LIMITS
from ostraka.state import Copy, Mutation, Put, open_owner, open_shared
from ostraka.state.ordered import LmdbMap
from ostraka.state.rows import row_hash
from ostraka.state.seed import format_copy
from ostraka.state.snapshot import SnapshotHeader, StagedFile, snapshot_name, write_snapshot

STORE = b"a store to bench"
LMDB_SYNCS_PER_COMMIT = 2  # its data pages, then its meta page
LIMITS_HERE = replace(LIMITS, state_index_size_max=16 * GIB)


def rows_of(count: int) -> list[tuple[bytes, bytes]]:
    chance = random.Random(1)
    return sorted((chance.randbytes(40).hex().encode(), chance.randbytes(125).hex().encode()) for _ in range(count))


def mutations_of(chance: random.Random, count: int) -> list[Mutation]:
    rows = [Put(chance.randbytes(40).hex().encode(), b"v" * 250) for _ in range(3 * count)]
    return [Mutation((), tuple(rows[n * 3 : n * 3 + 3])) for n in range(count)]


class SlowFile:
    """A file whose sync takes longer."""

    def __init__(self, file: File, delay: float) -> None:
        self._file, self._delay = file, delay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync_data(self) -> None:
        self._file.sync_data()
        time.sleep(self._delay)


class SlowFiles(SystemFiles):
    def __init__(self, delay: float) -> None:
        self._delay = delay

    def open(self, path: Path, **how: Any) -> File:
        return SlowFile(super().open(path, **how), self._delay)  # type: ignore[return-value]


class PwriteMap(LmdbMap):
    """LMDB without the writable map."""

    def __init__(self, path: Path, size_max: int) -> None:
        real = lmdb.open

        def unmapped(*args: Any, **how: Any) -> Any:
            how["writemap"] = False
            return real(*args, **how)

        lmdb.open = unmapped  # type: ignore[assignment]
        try:
            super().__init__(path, size_max)
        finally:
            lmdb.open = real


# -- the rivals: each gives a function that makes one batch durable


@contextlib.contextmanager
def lmdb_writer(root: Path, delay: float) -> Iterator[Any]:
    envs = [lmdb.open(str(root / f"lmdb{n}"), map_size=8 * GIB, max_readers=512) for n in range(3)]
    lock = os.open(root / "lmdb.lock", os.O_RDWR | os.O_CREAT)
    threads = [ThreadPoolExecutor(1) for _ in envs]

    def one(env: Any, rows: list[tuple[bytes, bytes]]) -> None:
        with env.begin(write=True) as txn:
            for key, value in rows:
                txn.put(key, value)
        if delay:
            time.sleep(LMDB_SYNCS_PER_COMMIT * delay)

    def commit(mutations: list[Mutation]) -> None:
        rows = sorted((op.key, op.value) for m in mutations for op in m.operations if isinstance(op, Put))
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            for future in [threads[n].submit(one, envs[n], rows) for n in (1, 2)]:
                future.result()
            threads[0].submit(one, envs[0], rows).result()
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    yield commit
    for thread in threads:
        thread.shutdown()
    for env in envs:
        env.close()


@contextlib.contextmanager
def log_writer(root: Path, delay: float, open_map: Any = LmdbMap) -> Iterator[Any]:
    state = open_shared(Host(files=SlowFiles(delay)), STORE, root / "index", limits=LIMITS_HERE, open_map=open_map)
    yield state.apply
    state.close_now()


@contextlib.contextmanager
def pwrite_writer(root: Path, delay: float) -> Iterator[Any]:
    with log_writer(root, delay, PwriteMap) as commit:
        yield commit


WRITERS = {"lmdb": lmdb_writer, "log": log_writer, "log-pw": pwrite_writer}


def work(
    rival: str, root: str, delay: float, batch: int, seconds: float, seed: int, barrier: Any, results: Any
) -> None:
    chance = random.Random(seed)
    with WRITERS[rival](Path(root), delay) as commit:
        commit(mutations_of(chance, batch))
        batches = [mutations_of(chance, batch) for _ in range(300)]
        times = []
        barrier.wait()
        cpu, start = time.process_time(), time.perf_counter()
        while time.perf_counter() - start < seconds and len(times) < len(batches):
            before = time.perf_counter()
            commit(batches[len(times)])
            times.append(time.perf_counter() - before)
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    results.put((len(times) * batch, elapsed, cpu, sorted(times)))


def measure(rival: str, root: Path, workers: int, delay: float, batch: int, seconds: float) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(workers), spawn.Queue()
    running = [
        spawn.Process(target=work, args=(rival, str(root), delay, batch, seconds, 100 + n, barrier, results))
        for n in range(workers)
    ]
    for process in running:
        process.start()
    found = [results.get() for _ in running]
    for process in running:
        process.join()
    rate = sum(count / elapsed for count, elapsed, _, _ in found)
    cpu = sum(c for _, _, c, _ in found) / sum(count for count, _, _, _ in found)
    times = sorted(t for *_, ts in found for t in ts)
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    print(
        f"| {rival:7} | {workers} | {delay * 1e3:.0f} | {batch:3} | {rate:9,.0f} | {cpu * 1e6:6.1f} "
        f"| {p50 * 1e3:6.2f} | {p99 * 1e3:6.2f} |",
        flush=True,
    )


def prepare(root: Path, rows: list[tuple[bytes, bytes]]) -> None:
    for n in range(3):
        (root / f"lmdb{n}").mkdir(parents=True)
        env = lmdb.open(str(root / f"lmdb{n}"), map_size=8 * GIB)
        with env.begin(write=True) as txn:
            txn.cursor().putmulti(rows, append=True)
        env.close()
    host = Host()
    copies = [Copy(bytes([n]) * 16, root / f"copy{n}") for n in range(3)]
    digest = sum(row_hash(k, v) for k, v in rows) % 2**128
    start = time.perf_counter()
    for copy in copies:
        format_copy(host, STORE, copy, 0)
    staged = [StagedFile(host.files, copy.path, snapshot_name(1), "bench") for copy in copies]
    size, _ = write_snapshot(SnapshotHeader(STORE, 0, 1, 1, digest), rows, staged)
    for file in staged:
        file.publish()
    seconds = time.perf_counter() - start
    print(f"snapshot of {len(rows):,} rows, {size / 1e6:.0f} MB on 3 copies: {seconds:.2f} s")
    owner = open_owner(host, STORE, copies, root / "index", limits=LIMITS_HERE)
    assert owner.recovery is not None
    seconds = owner.recovery.seconds
    print(f"index built from it: {seconds:.2f} s, {len(rows) / seconds:,.0f} rows/s")
    import asyncio

    start = time.perf_counter()
    report = asyncio.run(owner.verify_index())
    assert report.whole
    print(f"index verified in a process of its own: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    found = 0
    key = b""
    while page := owner.scan(key, None, 1000):
        found += len(page)
        key = page[-1][0] + b"\0"
    print(f"scan, pages of 1000, verified: {found / (time.perf_counter() - start):,.0f} rows/s")
    chance = random.Random(2)
    keys = [chance.choice(rows)[0] for _ in range(100_000)]
    start = time.perf_counter()
    for key in keys:
        owner.get(key)
    print(f"get, verified: {(time.perf_counter() - start) / len(keys) * 1e6:.2f} us")
    owner.close_now()
    start = time.perf_counter()
    owner = open_owner(host, STORE, copies, root / "index", limits=LIMITS_HERE)
    assert owner.recovery is not None
    assert owner.recovery.clean
    print(f"opened after a clean stop: {time.perf_counter() - start:.2f} s")
    owner.recovery = None
    owner.close_now()


def steady(rows: list[tuple[bytes, bytes]], directory: Path | None) -> None:
    """One copy, one process that has touched most of its index already: what a server comes to after a while."""
    print("| steady, one copy | batch | us each | CPU us each |")
    print("| --- | --- | --- | --- |")
    digest = sum(row_hash(k, v) for k, v in rows) % 2**128
    for name, open_map in (("log", LmdbMap), ("log-pw", PwriteMap)):
        root = Path(tempfile.mkdtemp(prefix="ostraka-spike-", dir=directory))
        host, copy = Host(), Copy(b"a" * 16, root / "copy")
        host.files.mkdir(copy.path)
        staged = StagedFile(host.files, copy.path, snapshot_name(1), "bench")
        write_snapshot(SnapshotHeader(STORE, 0, 1, 1, digest), rows, [staged])
        staged.publish()
        state = open_owner(host, STORE, [copy], root / "index", limits=LIMITS_HERE, open_map=open_map)
        chance = random.Random(5)
        for _ in range(400):
            state.apply(mutations_of(chance, 256))
        for batch in (16, 64):
            batches = [mutations_of(chance, batch) for _ in range(300)]
            start, cpu = time.perf_counter(), time.process_time()
            for mutations in batches:
                state.apply(mutations)
            count = batch * len(batches)
            elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
            print(f"| {name} | {batch} | {elapsed / count * 1e6:.1f} | {cpu / count * 1e6:.1f} |", flush=True)
        state.recovery = None
        state.close_now()
        shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="ostraka-spike-", dir=arguments.directory))
    try:
        rows = rows_of(arguments.rows)
        steady(rows, arguments.directory)
        prepare(root, rows)
        print("| rival | processes | ms added | batch | mutations/s | CPU us each | p50 ms a batch | p99 |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for delay in (0.0, 0.002):
            for workers in (1, 2):
                for batch in (16, 64):
                    for rival in WRITERS:
                        measure(rival, root, workers, delay, batch, arguments.seconds)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
