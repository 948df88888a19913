"""What `ostraka serve` does on this machine, each figure beside a limit of the machine measured in the same run.

    python bench/serve.py [--quick] [--only NAME] [--disks 1|6] [--workers N] [--json] [--dir DIR]

Real servers on temporary directories of a real disk; every acknowledgement is durable and nothing is relaxed. Small
requests are signed beforehand and sent by wrk; bodies of 64 MiB go through plain sockets. Every kind of answer is
compared with what it must be (status, ETag, body), and one wrong answer ends the run: errors are never measured.

Rounds of all kinds are interleaved and the median is told, with the share of a core that other programs took meanwhile
("foreign"; each round waits a little for a quiet moment). "us CPU" is what the server's processes, the kernel on
their behalf included, spent for one request, or for one MB of a large body.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from load import bounds, fill, listing, streams
from load.machine import Meter, describe
from load.report import HEAD, Figure, as_json, line
from load.small import Rig, bare_http
from load.target import BUCKET, Target, drop_cached, moto, ostraka

MIB = 1 << 20


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    rounds: int
    seconds: float
    keys: int  # that are read again
    large: int  # bytes of a large body
    large_rounds: int
    listed: int  # keys of the bucket that is listed
    idle_seconds: float
    patience: float  # seconds that are waited for a quiet moment
    limit_seconds: float


FULL = Plan(3, 5.0, 20_000, 64 * MIB, 3, 1_000_000, 5.0, 15.0, 1.0)
QUICK = Plan(1, 2.0, 4_000, 64 * MIB, 1, 50_000, 2.0, 3.0, 0.5)
TINY = Plan(1, 1.0, 200, 2 * MIB, 1, 2_000, 0.5, 0.0, 0.1)  # for a test that it runs


class Bench:
    """One run: what was measured so far, and what it is compared with."""

    def __init__(self, plan: Plan, where: Path, only: str, tell: bool) -> None:
        self.plan = plan
        self.where = where
        self.only = only
        self.tell = tell
        self.limits: dict[str, float] = {}
        self.figures: dict[tuple[str, str], Figure] = {}
        self._told: set[tuple[str, str]] = set()

    def wanted(self, *names: str) -> bool:
        return any(self.only.lower() in name.lower() for name in names)

    def figure(self, target: str, name: str, unit: str, limit: str) -> Figure:
        found = self.figures.get((target, name))
        if found is None:
            found = self.figures[target, name] = Figure(target, name, unit, limit=limit)
            found.limit_rate = self.limits.get(limit, 0.0)
        return found

    def say(self, text: str) -> None:
        if self.tell:
            print(text, flush=True)

    def say_new(self) -> None:
        """Print what was measured since the last time."""
        for name, figure in self.figures.items():
            if name not in self._told:
                self._told.add(name)
                self.say(line(figure))

    # -- the machine

    def measure_limits(self, disks: list[int]) -> None:
        plan, limits, meter = self.plan, self.limits, Meter(patience=self.plan.patience)
        seconds = plan.limit_seconds
        meter.wait_for_quiet()
        limits["MD5 of one core, MB/s"] = bounds.md5_rate(seconds) / 1e6
        limits["loopback, MB/s"] = bounds.loopback_rate(plan.large * 16) / 1e6
        limits["page cache, MB/s"] = bounds.cached_read_rate(self.where, plan.large * 4) / 1e6
        written, read = bounds.disk_rates(self.where, plan.large * 16)
        limits["O_DIRECT write, MB/s"], limits["O_DIRECT read, MB/s"] = written / 1e6, read / 1e6
        for count in disks:
            for batch, size in ((1, 4), (16, 4), (64, 4), (16, 100), (64, 100)):
                rate = bounds.sync_rate(self.where, batch, size << 10, seconds, count)
                limits[_sync_name(count, batch, size)] = rate
        with tempfile.TemporaryDirectory(dir=self.where) as made:
            for size in (4, 100):
                for name, rate, cpu in bare_http(Path(made), size << 10, plan.limit_seconds):
                    limits[name] = rate
                    limits[f"{name}, us CPU"] = cpu
        for name, rate in limits.items():
            self.say(f"{name:58} {rate:12,.0f}")

    # -- small requests

    def small(self, target: Target, deletes: bool = True) -> None:
        plan = self.plan
        meter = Meter(target.processes, patience=plan.patience)
        disks = max(1, len(target.directories))
        with tempfile.TemporaryDirectory(dir=self.where) as made:
            rig = Rig(target, Path(made), meter)
            for number in range(plan.rounds):
                for size in (4, 100):
                    self._small_round(rig, target, number, size, disks, deletes)
        self.say_new()

    def _small_round(self, rig: Rig, target: Target, number: int, size: int, disks: int, deletes: bool) -> None:
        plan, bytes_ = self.plan, size << 10
        keys = plan.keys if size == 4 else plan.keys // 5
        if not number and self.wanted(*(f"GET {size} KiB, {c} connections" for c in (32, 128))):
            rig.prepare(bytes_, keys)
        for connections in (32, 128):
            name = f"PUT {size} KiB, {connections} connections"
            if self.wanted(name):
                limit = _sync_name(disks, connections // 2, size)
                figure = self.figure(target.name, name, "op/s", limit)
                rig.put(bytes_, connections, plan.seconds, figure)
            name = f"GET {size} KiB, {connections} connections"
            if self.wanted(name):
                limit = f"bare HTTP GET {size} KiB, op/s"
                rig.get(bytes_, connections, plan.seconds, self.figure(target.name, name, "op/s", limit))
        if size == 4 and deletes and self.wanted("DELETE"):
            figure = self.figure(target.name, "DELETE, 32 connections", "op/s", _sync_name(disks, 16, 4))
            rig.delete(plan.keys, 32, plan.seconds, figure)

    # -- large bodies

    def large(self, target: Target) -> None:
        plan = self.plan
        meter = Meter(target.processes, patience=plan.patience)
        kinds = [
            (clients, content, signed)
            for clients in (1, 4)
            for content, signed in (("random", True), ("random", False), ("text", True), ("text", False))
        ]
        for number in range(plan.large_rounds):
            for clients, content, signed in kinds:
                words = f"{clients} client{'s' if clients > 1 else ''}, {content}"
                put = f"PUT 64 MiB, {words}, {'signed' if signed else 'unsigned'}"
                gets = [f"GET 64 MiB, {words}, {how}" for how in ("cold", "cached")]
                if not self.wanted(put, *(gets if not signed else [])):
                    continue
                path = f"/{BUCKET}/large-{content}-{clients}-{int(signed)}-{number}"
                jobs = [
                    streams.Job("PUT", f"{path}-{n}", plan.large, content, streams.new_seed(), signed)
                    for n in range(clients)
                ]
                limit = "MD5 of one core, MB/s" if clients == 1 else "O_DIRECT write, MB/s"
                self._stream(target, meter, jobs, put, limit)
                if signed:
                    continue
                reads = [streams.Job("GET", j.path, j.size, j.content, j.seed) for j in jobs]
                if self.wanted(gets[0]):
                    drop_cached(target.directories)
                    limit = "O_DIRECT read, MB/s"
                    self._stream(target, meter, reads, gets[0], limit)
                if self.wanted(gets[1]):
                    streams.run(target.host, target.port, reads)  # twice, so that it is in the cache if it may be
                    self._stream(target, meter, reads, gets[1], "loopback, MB/s")
        self.say_new()

    def _stream(self, target: Target, meter: Meter, jobs: list[streams.Job], name: str, limit: str) -> None:
        meter.wait_for_quiet()
        with meter.measure() as spent:
            seconds = streams.run(target.host, target.port, jobs)
        size = sum(job.size for job in jobs) / 1e6
        figure = self.figure(target.name, name, "MB/s", limit)
        figure.add(size / seconds, spent.server / size * 1e6, spent.foreign)

    # -- the rest

    def listing(self, workers: int | None) -> None:
        plan = self.plan
        with tempfile.TemporaryDirectory(prefix="ostraka-bench-list-", dir=self.where) as made:
            store = Path(made) / "disk0"
            began = time.monotonic()
            fill.fill([store], plan.listed)
            spent = time.monotonic() - began
            self.say(f"a bucket of {plan.listed:,} keys was made in {spent:.0f} s ({plan.listed / spent:,.0f}/s)")
            with ostraka(self.where, 1, workers, store) as target:
                meter = Meter(target.processes, patience=plan.patience)
                cuts = [fill.key(plan.listed * n // 4 - 1) for n in range(1, 4)]
                for _ in range(plan.rounds):
                    for ranges in ([("", "")], list(zip(["", *cuts], [*cuts, ""], strict=True))):
                        name = f"LIST {plan.listed:,} keys, {len(ranges)} client{'s' if len(ranges) > 1 else ''}"
                        meter.wait_for_quiet()
                        with meter.measure() as cost:
                            count, seconds = listing.list_all(target.host, target.port, ranges)
                        if count != plan.listed:
                            raise SystemExit(f"{name}: {count} keys were listed")
                        figure = self.figure(target.name, name, "keys/s", "")
                        figure.add(count / seconds, cost.server / count * 1e6, cost.foreign)
                self.say_new()

    def rest(self, target: Target, when: str) -> None:
        """Memory of every process, and what they do while nobody asks for anything."""
        plan = self.plan
        if not self.wanted("memory", "idle"):
            return
        time.sleep(plan.idle_seconds / 2)
        meter = Meter(target.processes)
        with meter.measure() as spent:
            time.sleep(plan.idle_seconds)
        idle = self.figure(target.name, f"idle CPU, {when}", "% of a core", "")
        idle.add(100 * spent.server / spent.seconds, 0.0, spent.foreign)
        memory = sorted(target.processes.anonymous().values())
        most = self.figure(target.name, f"memory of the largest process, {when}", "MiB", "")
        most.add(memory[-1] / MIB, 0.0, 0.0)
        each = " ".join(f"{size / MIB:.0f}" for size in memory)
        self.say(f"{target.name}: RssAnon of each process, {when}: {each} MiB")
        self.say_new()


def _sync_name(disks: int, batch: int, size: int) -> str:
    each = f" on each of {disks}" if disks > 1 else ""
    return f"fdatasync of {batch} x {size} KiB{each}, op/s"


@contextmanager
def prepared(bench: Bench, disks: int, workers: int | None) -> Iterator[Target]:
    with ostraka(bench.where, disks, workers) as target:
        target.make_bucket()
        yield target


def run(bench: Bench, layouts: list[int], workers: list[int | None], beside: bool) -> None:
    bench.say(HEAD)
    for disks in layouts:
        for count in workers:
            with prepared(bench, disks, count) as target:
                bench.rest(target, "fresh")
                bench.small(target)
                if bench.wanted("64 MiB"):
                    bench.large(target)
                bench.rest(target, "after load")
    if bench.wanted("LIST"):
        bench.listing(workers[0])
    if beside and bench.wanted("moto", "PUT 4 KiB", "GET 4 KiB", "PUT 100 KiB", "GET 100 KiB", "DELETE"):
        with moto() as target:
            if target is None:
                bench.say("moto_server is not installed (scripts/install): not compared")
            else:
                target.make_bucket()
                if "moto" in bench.only.lower():
                    bench.only = ""
                bench.small(target)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="one short round of everything")
    options.add_argument("--tiny", action="store_true", help="only to see that it runs")
    options.add_argument("--only", default="", help="what has this in its name, such as 'PUT 4 KiB', LIST, idle, moto")
    options.add_argument("--disks", type=int, choices=(1, 6), help="one directory, or 4+2 on six; both by default")
    options.add_argument("--workers", type=int, help="worker processes; by default both as many as cores, and one")
    options.add_argument("--no-moto", action="store_true", help="leave moto_server out")
    options.add_argument("--json", action="store_true", help="print one JSON document at the end, and nothing else")
    options.add_argument("--dir", default="/var/tmp", help="a directory on the disk that is measured")
    chosen = options.parse_args()
    plan = TINY if chosen.tiny else QUICK if chosen.quick else FULL
    layouts = [chosen.disks] if chosen.disks else [1, 6]
    workers: list[int | None] = [chosen.workers] if chosen.workers else [None, 1]
    bench = Bench(plan, Path(chosen.dir), chosen.only, tell=not chosen.json)
    about = describe()
    bench.say(" ".join(f"{name} {value}," for name, value in about.items()).rstrip(","))
    bench.measure_limits(layouts)
    run(bench, layouts, workers, not chosen.no_moto)
    if chosen.json:
        print(as_json(about, bench.limits, list(bench.figures.values())))
    if not bench.figures:
        sys.exit(f"nothing has {chosen.only!r} in its name")


if __name__ == "__main__":
    main()
