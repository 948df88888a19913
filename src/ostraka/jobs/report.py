"""What background work is doing, for people: of the process that does it, or what was recorded when nobody does."""

from typing import Any

import msgspec

from ostraka.errors import OstrakaError
from ostraka.jobs import standing
from ostraka.jobs.catalogue import JOBS
from ostraka.jobs.ground import Job, Progress
from ostraka.jobs.heal import queue
from ostraka.jobs.records import JobRow, Run
from ostraka.state.types import State


class JobReport(msgspec.Struct, frozen=True):
    """One job. ``status``: working, waiting (for ``again_in`` seconds at most), idle (until something changes), failed,
    paused, or not running. ``done`` of ``total`` (None: unknown) units in this pass, which will take ``left`` seconds
    more (None: unknown). ``runs``: the last ones, the newest last."""

    name: str
    status: str
    purpose: str
    done: int = 0
    total: int | None = None
    again_in: float | None = None
    left: float | None = None
    note: str = ""
    paused_since: float = 0.0
    paused_by: str = ""
    paused_means: str = ""
    runs: tuple[Run, ...] = ()


def running(
    job: Job,
    row: JobRow,
    progress: Progress,
    *,
    failed: bool,
    due_in: float | None,
    left: float | None = None,
    last: Run | None = None,
) -> JobReport:
    """A job of this process. ``last``: a run that is not on record yet."""
    status = "failed" if failed else "working" if progress.working else "idle" if due_in is None else "waiting"
    return JobReport(
        job.name,
        "paused" if row.paused_since else status,
        job.purpose,
        progress.done,
        progress.total,
        None if due_in is None or row.paused_since else max(0.0, round(due_in, 1)),
        None if left is None or row.paused_since else round(left, 1),
        progress.note,
        row.paused_since,
        row.paused_by,
        job.paused_means if row.paused_since else "",
        row.runs if last is None else (*row.runs, last)[-standing.RUNS_KEPT :],
    )


def recorded(state: State) -> list[JobReport]:
    """Jobs that nobody runs now, with what they left on record. A record that cannot be read is told as that: it is
    not the same as none."""
    reports = []
    for job in JOBS:
        row = standing.standing(state, job.name)
        try:
            done, note = job.recorded(state)
        except OstrakaError as e:
            done, note = 0, f"{e.message}: see `ostraka fsck`"
        reports.append(
            JobReport(
                job.name,
                "paused" if row.paused_since else "not running",
                job.purpose,
                done,
                note=note,
                paused_since=row.paused_since,
                paused_by=row.paused_by,
                paused_means=job.paused_means if row.paused_since else "",
                runs=row.runs,
            )
        )
    return reports


def hurt(state: State) -> int:
    """How many stripes wait to be made whole; at most heal.QUEUE_COUNTED_MAX are counted."""
    return queue(state)[0]


def rows(reports: list[JobReport]) -> list[dict[str, Any]]:
    """As JSON has them: a line each, without what only `job show` tells."""
    return [{**shown(report), "runs": len(report.runs)} for report in reports]


def shown(report: JobReport) -> dict[str, Any]:
    """All of one."""
    told: dict[str, Any] = msgspec.to_builtins(report)
    told["runs"] = [dict(zip(Run.__struct_fields__, run, strict=True)) for run in told["runs"]]
    return told
