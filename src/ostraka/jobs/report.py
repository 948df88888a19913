"""What background work is doing, for people: of the process that does it, or what was recorded when nobody does."""

from typing import Any

import msgspec

from ostraka.errors import OstrakaError
from ostraka.jobs.ground import Progress
from ostraka.jobs.records import (
    HEAL_KEY,
    HURT,
    REBALANCE_KEY,
    SCRUB_KEY,
    HealRecord,
    RebalanceRecord,
    ScrubRecord,
    decode,
)
from ostraka.state.types import State, prefix_end

HURT_COUNTED_MAX = 10_000

PURPOSES = {
    "collect": "frees what nothing refers to any more",
    "checkpoint": "puts a snapshot in the place of the state's log",
    "heal": "makes stripes whole that lost a shard",
    "rebalance": "moves shards to where they belong as disks come and go",
    "compact": "rewrites segments that are mostly dead",
    "scrub": "verifies every byte of the state",
    "tier": "moves what belongs in another pool",
}
RECORDS = {"heal": HEAL_KEY, "rebalance": REBALANCE_KEY, "scrub": SCRUB_KEY}


class JobReport(msgspec.Struct, frozen=True):
    """One job. ``status``: working, waiting (for ``again_in`` seconds at most), idle (until something changes), failed,
    or not running. ``done`` of ``total`` (None: unknown) units in this pass."""

    name: str
    status: str
    purpose: str
    done: int = 0
    total: int | None = None
    again_in: float | None = None
    note: str = ""


def running(name: str, progress: Progress, *, failed: bool, due_in: float | None) -> JobReport:
    """A job of this process."""
    status = "failed" if failed else "working" if progress.more else "idle" if due_in is None else "waiting"
    again_in = None if due_in is None else max(0.0, round(due_in, 1))
    purpose = PURPOSES.get(name, "")
    return JobReport(name, status, purpose, progress.done, progress.total, again_in, progress.note)


def recorded(state: State) -> list[JobReport]:
    """Jobs that nobody runs now, with what they left on record."""
    reports = []
    for name, purpose in PURPOSES.items():
        done, note = _on_record(state, RECORDS[name]) if name in RECORDS else (0, "")
        reports.append(JobReport(name, "not running", purpose, done, note=note))
    return reports


def _on_record(state: State, key: bytes) -> tuple[int, str]:
    """Units done, and a note. A record that cannot be read is told as that: it is not the same as none."""
    value = state.get(key)
    if value is None:
        return 0, ""
    try:
        record = decode(key, value)
    except OstrakaError as e:
        return 0, f"{e.message}: see `ostraka fsck`"
    match record:
        case HealRecord(healing=healing, gone=gone, examined=examined):
            return examined, "a pass was begun" if healing or gone else ""
        case RebalanceRecord(layout=layout, ended=ended, examined=examined) if layout is not None:
            return examined, "" if ended else "a pass was begun"
        case ScrubRecord(finished=finished) if finished:
            return 0, "finished before"
    return 0, ""


def hurt(state: State) -> int:
    """How many stripes wait to be made whole, as far as readers met them; at most `HURT_COUNTED_MAX` are counted."""
    return len(state.scan(HURT, prefix_end(HURT), HURT_COUNTED_MAX))


def rows(reports: list[JobReport]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(report) for report in reports]
