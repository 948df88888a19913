"""Run schedules from the command line::

    python -m ostraka.testing.simulation --geometry 4+2/6 --seeds 0-1000
    python -m ostraka.testing.simulation --geometry 4+2/6 --seeds 123 --trace

Prints what failed, with the command that runs that schedule again, and ends with status 1 if anything did.
"""

import argparse
import json
import logging
import sys
import time
import zlib

from ostraka.testing.simulation.machine import Process
from ostraka.testing.simulation.running import parse_geometry, parse_seeds, quiet, with_fixed_hashes
from ostraka.testing.simulation.schedule import Director, Geometry, draw, run

GEOMETRY = "K+M/DISKS, as 4+2/6; with ~ behind it disks come and go"
TRACED = 400  # last events of a schedule that are printed


def _trace(seed: int, geometry: Geometry) -> None:
    """Run one schedule and print its last events."""
    plan, rng = draw(seed, geometry)
    director = Director(plan, rng)
    events: list[str] = []

    def called(process: Process, call: str, path: str, size: int) -> None:
        strand = director.scheduler.current().name
        events.append(
            f"{director.scheduler.now:.3f} {process.name}#{process.number} {strand}: {call} {path} {size or ''}"
        )

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            events.append(f"{director.scheduler.now:.3f} {record.levelname} {record.getMessage()}")

    director.machine.on_call = called
    logging.disable(logging.NOTSET)
    logging.getLogger("ostraka").addHandler(Handler())
    logging.getLogger("ostraka").setLevel(logging.INFO)
    print(plan)
    verdict = director.run()
    print("\n".join(events[-TRACED:]))
    print("\n".join(verdict.failures) or "all is well")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ostraka.testing.simulation", description="Run schedules.")
    parser.add_argument(
        "--geometry",
        type=parse_geometry,
        default=parse_geometry("4+2/6"),
        help=GEOMETRY,
    )
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("0-100"), help="FIRST-LAST, or one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no schedule after so long")
    parser.add_argument("--failures", type=int, default=5, help="stop after so many schedules that failed")
    parser.add_argument("--trace", action="store_true", help="print the last events of the (first) schedule")
    parser.add_argument("--json", action="store_true", help="print the sum as one line of JSON")
    arguments = parser.parse_args()
    geometry: Geometry = arguments.geometry
    quiet()
    if arguments.trace:
        _trace(arguments.seeds[0], geometry)
        return 0
    began, count, bad = time.monotonic(), 0, 0
    digest = 0
    totals = {"calls": 0, "turns": 0, "answered": 0, "recoveries": 0}
    for seed in arguments.seeds:
        if time.monotonic() - began > arguments.seconds or bad >= arguments.failures:
            break
        verdict = run(seed, geometry)
        count += 1
        digest = zlib.crc32(verdict.digest.encode(), digest)
        for name in totals:
            totals[name] += getattr(verdict, name)
        if verdict.failures:
            bad += 1
            print(f"-- {geometry} seed {seed} failed; again: {_again(geometry, seed)}")
            print("\n".join(verdict.failures[:10]), flush=True)
    seconds = time.monotonic() - began
    summary = {"schedules": count, "failed": bad, "seconds": round(seconds, 1), **totals, "digest": f"{digest:08x}"}
    if arguments.json:
        print(json.dumps(summary))
    else:
        rate = 60 * count / max(seconds, 0.01)
        print(f"{count} schedules of {geometry} in {seconds:.1f} s, {rate:.0f} a minute: {bad} failed")
    return bool(bad)


def _again(geometry: Geometry, seed: int) -> str:
    shape = f"{geometry.k}+{geometry.m}/{geometry.disks}{'~' if geometry.changes else ''}"
    return f"python -m ostraka.testing.simulation --geometry {shape} --seeds {seed} --trace"


if __name__ == "__main__":
    with_fixed_hashes(["-m", "ostraka.testing.simulation"])
    sys.exit(main())
