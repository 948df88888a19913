"""What jobs cost those who are served meanwhile, and how fast jobs are when nobody is.

    python bench/jobs.py [--rounds N] [--seconds S] [--data MIB] [--dir DIR]

Six directories at 4+2 behind `ostraka serve` with one worker. Two clients, one that writes bodies of 10 KiB and one
that reads bodies of 1 MiB it has not read lately, each with a connection of its own, one request after the other.
Windows without and with each job take turns within each round, so that a busy machine is busy for all; told are the
medians over the rounds of p50 and p99, and the ratio of p99 to that without a job. Then the scrub alone, in bytes a
second of all disks, beside what plain reading of the same files gives past the page cache.
"""

import argparse
import mmap
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ostraka.errors import OstrakaError
from ostraka.server.asking import ask
from ostraka.testing.processes import ServerProcess

BUCKET = "bench"
SMALL, LARGE = 10 << 10, 1 << 20
REPLACE = "disk replace"
JOBS = ("", "scrub", "collect", "compact", REPLACE)
DELETED = 300  # bodies that die for each window of collection or compaction


def quiet(*told: object) -> None:
    """Nobody listens."""


class Client:
    """Requests, one after the other, until it is told to stop."""

    def __init__(self, work: Callable[[int], Any]) -> None:
        self._work = work
        self._ended = threading.Event()
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            began = time.perf_counter()
            self._work(number)
            self.times.append(time.perf_counter() - began)
            number += 1

    def end(self) -> list[float]:
        self._ended.set()
        self._thread.join()
        return self.times


class Job:
    """A job that is wanted again and again."""

    def __init__(self, disks: Sequence[Path], name: str) -> None:
        self._ended = threading.Event()
        self.bytes = 0
        self._thread = threading.Thread(target=self._run, args=(disks, name), daemon=True)
        if name:
            self._thread.start()

    def _run(self, disks: Sequence[Path], name: str) -> None:
        while not self._ended.is_set():
            try:
                done = ask(disks, "job-run", {"name": name}, quiet) or {}
            except OstrakaError:
                continue
            self.bytes += done["bytes"]
            self._ended.wait(0.05)

    def end(self, disks: Sequence[Path]) -> None:
        self._ended.set()
        if self._thread.is_alive():
            try:
                ask(disks, "job-cancel", {"name": "scrub"}, quiet)
            except OstrakaError:
                pass
            self._thread.join()


class Replacing:
    """A disk is taken away, and rebuilt on an empty directory."""

    def __init__(self, server: ServerProcess, disks: list[Path], turn: str) -> None:
        lost = disks.pop()
        lost.rename(lost.with_name(f"lost-{turn}"))
        client = server.client()
        number = 0
        while all(disk["status"] == "up" for disk in (ask(disks, "disk-ls", {}, quiet) or {})["disks"]):
            client.put_object(Bucket=BUCKET, Key=f"noticed/{turn}/{number}", Body=os.urandom(LARGE))
            number += 1
        new = lost.with_name(f"new-{turn}")
        arguments = {"old": "", "new": str(new)}
        self._thread = threading.Thread(target=ask, args=(tuple(disks), "disk-replace", arguments, quiet), daemon=True)
        self._thread.start()
        disks.append(new)

    def end(self, disks: Sequence[Path]) -> None:
        self._thread.join()


def percentile(times: Sequence[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3


def window(
    server: ServerProcess, disks: Sequence[Path], job: str, count: int, seconds: float, turn: str
) -> list[float]:
    """(p50, p99) of writes and of reads, in ms."""
    writer, reader = server.client(), server.client()
    small = os.urandom(SMALL)
    if job in ("collect", "compact"):
        for number in range(DELETED):
            writer.put_object(Bucket=BUCKET, Key=f"dying/{number}", Body=os.urandom(200 << 10))
        for number in range(DELETED):
            writer.delete_object(Bucket=BUCKET, Key=f"dying/{number}")
    running = Replacing(server, disks, turn) if job == REPLACE else Job(disks, job)
    clients = [
        Client(lambda n: writer.put_object(Bucket=BUCKET, Key=f"small/{turn}/{n}", Body=small)),
        Client(lambda n: reader.get_object(Bucket=BUCKET, Key=f"large/{n * 7 % count}")["Body"].read()),
    ]
    time.sleep(seconds)
    writes, reads = (client.end() for client in clients)
    running.end(disks)
    return [percentile(times, share) for times in (writes, reads) for share in (0.5, 0.99)]


def raw_speed(disks: Sequence[Path]) -> float:
    """Bytes a second of reading the segments past the page cache, a thread for each disk."""
    done = [0] * len(disks)

    def read(number: int) -> None:
        memory = mmap.mmap(-1, 4 << 20)
        for path in sorted((disks[number] / "segments").iterdir()):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            at = 0
            while size := os.preadv(fd, [memory], at):
                at += size
                if size % 4096:
                    break
            os.close(fd)
            done[number] += at

    began = time.perf_counter()
    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(disks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--data", type=int, default=1024, metavar="MIB")
    parser.add_argument("--dir", default="/var/tmp")
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="ostraka-bench-jobs-", dir=asked.dir))
    disks = [work / f"disk{number}" for number in range(6)]
    try:
        with ServerProcess(disks, "--workers", "1") as server:
            client = server.client()
            client.create_bucket(Bucket=BUCKET)
            for number in range(asked.data):
                client.put_object(Bucket=BUCKET, Key=f"large/{number}", Body=os.urandom(LARGE))
            told: dict[str, list[list[float]]] = {job: [] for job in JOBS}
            for turn in range(asked.rounds):
                for job in JOBS[turn % len(JOBS) :] + JOBS[: turn % len(JOBS)]:
                    told[job].append(
                        window(server, disks, job, asked.data, asked.seconds, f"{turn}-{job or 0}".replace(" ", "-"))
                    )
            base = [statistics.median(column) for column in zip(*told[""], strict=True)]
            print("| job | PUT p50 ms | PUT p99 ms | ratio | GET p50 ms | GET p99 ms | ratio |")
            print("| --- | --- | --- | --- | --- | --- | --- |")
            for job, rows in told.items():
                put50, put99, get50, get99 = (statistics.median(column) for column in zip(*rows, strict=True))
                print(
                    f"| {job or 'none'} | {put50:.1f} | {put99:.1f} | {put99 / base[1]:.2f} "
                    f"| {get50:.1f} | {get99:.1f} | {get99 / base[3]:.2f} |"
                )
            while any(job["status"] == "working" for job in (ask(disks, "job-ls", {}, quiet) or {})["jobs"]):
                time.sleep(0.5)
            for _ in range(3):
                began = time.perf_counter()
                done = ask(disks, "job-run", {"name": "scrub"}, quiet) or {}
                rate, raw = done["bytes"] / (time.perf_counter() - began), raw_speed(disks)
                print(f"scrub alone: {rate / 1e6:.0f} MB/s of {raw / 1e6:.0f} MB/s that plain reading gives")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
