"""Background work by an operator's word: listed, shown, paused, resumed, cancelled, run now.

Where this process runs the jobs it is told to them at once; what must hold over restarts is kept in the state either
way, so that all of it can be said to a store that nobody serves as well.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from ostraka.errors import Absent, Unavailable
from ostraka.jobs import report, standing
from ostraka.jobs.catalogue import JOBS, NAMES
from ostraka.jobs.ground import Job
from ostraka.jobs.ground import Progress as Piece
from ostraka.jobs.ground import Tell as Progress
from ostraka.jobs.report import JobReport
from ostraka.jobs.scheduler import Scheduler
from ostraka.store.store import Store


def jobs_of(store: Store) -> list[JobReport]:
    """What the jobs do, where this process runs them; else what they left on record."""
    return store.jobs.report() if store.jobs is not None else report.recorded(store.state)


async def ls(store: Store, progress: Progress) -> dict[str, Any]:
    return {"jobs": report.rows(jobs_of(store))}


async def show(store: Store, progress: Progress, *, name: str) -> dict[str, Any]:
    """All that is known of one job."""
    job = _job(store, name)
    found = next(one for one in jobs_of(store) if one.name == name)
    return {**report.shown(found), "details": job.details()}


async def pause(store: Store, progress: Progress, *, names: Sequence[str], by: str = "") -> dict[str, Any]:
    """``names``: none are all. ``by``: who does it, for who wonders later."""
    chosen = _chosen(names)
    _check_writable(store)
    if store.jobs is not None:
        await store.jobs.pause(chosen, by)
    else:
        for name in chosen:
            await standing.pause(store.state, name, by, store.host.clock.time())
    return {"jobs": [row for row in report.rows(jobs_of(store)) if row["name"] in chosen]}


async def resume(store: Store, progress: Progress, *, names: Sequence[str]) -> dict[str, Any]:
    """``names``: none are all."""
    chosen = _chosen(names)
    _check_writable(store)
    if store.jobs is not None:
        await store.jobs.resume(chosen)
    else:
        for name in chosen:
            await standing.resume(store.state, name)
    return {"jobs": [row for row in report.rows(jobs_of(store)) if row["name"] in chosen]}


async def cancel(store: Store, progress: Progress, *, name: str) -> dict[str, Any]:
    """Raises Refused for what nobody began."""
    return {"name": name, "cancelled": await _job(store, name).cancel()}


async def run(store: Store, progress: Progress, *, name: str, dry_run: bool = False) -> dict[str, Any]:
    """All that the job can do now, whether it is due or not. A job that is begun is not ended by it that whoever asked
    has gone. ``dry_run``: only what it would do."""
    job = _job(store, name)
    if dry_run:
        return {"name": name, "dry_run": True, **await job.preview(progress)}
    if store.jobs is not None:
        return await _run(store.jobs, name, progress)
    own = Scheduler(store, [job])
    await own.start()
    try:
        return await _run(own, name, progress)
    finally:
        await own.stop()


async def _run(scheduler: Scheduler, name: str, progress: Progress) -> dict[str, Any]:
    progress(name, 0, None)
    done = 0

    def tell(piece: Piece) -> None:
        nonlocal done
        done += piece.did
        if piece.total is not None:
            progress(name, piece.done, piece.total)
        else:
            progress(name, done, None)

    found = await scheduler.run(name, tell)
    return {"name": name, **dict(zip(found.__struct_fields__, msgspec.structs.astuple(found), strict=True))}


def _job(store: Store, name: str) -> Job:
    if store.jobs is not None:
        return store.jobs.job(name)
    for kind in JOBS:
        if kind.name == name:
            return kind(store)
    raise Absent(f"there is no job {name!r}: there are {', '.join(NAMES)}", reason="job")


def _chosen(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in NAMES:
            raise Absent(f"there is no job {name!r}: there are {', '.join(NAMES)}", reason="job")
    return list(names or NAMES)


def _check_writable(store: Store) -> None:
    if store.membership.read_only:
        raise Unavailable(store.membership.read_only, reason="read-only")
