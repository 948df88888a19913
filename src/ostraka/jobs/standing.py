"""What stands of a job in the state, whatever runs it: by whom it is paused and since when, and its last runs.

Held over restarts, and bounded: one row a job, ``RUNS_KEPT`` runs in it.
"""

import logging
from collections.abc import Callable

import msgspec

from ostraka.errors import Conflict, Corrupt
from ostraka.jobs.records import JobRow, Run, decode, encode, standing_key
from ostraka.state.types import Delete, Equals, Mutation, Operation, Put, Rejected, State

log = logging.getLogger("ostraka.jobs")

RUNS_KEPT = 5
BY_SIZE_MAX = 100
NOTE_SIZE_MAX = 500
_ATTEMPTS = 10


def standing(state: State, name: str) -> JobRow:
    """The row of a job; one that cannot be read holds nothing back."""
    value = state.get(standing_key(name))
    try:
        return _decoded(name, value)
    except Corrupt as error:
        log.warning("%s: it counts as none", error.message)
        return JobRow()


async def pause(state: State, name: str, by: str, now: float) -> JobRow:
    """Idempotent: who paused it first stays."""
    return await _change(
        state,
        name,
        lambda row: (
            row if row.paused_since else msgspec.structs.replace(row, paused_since=now, paused_by=by[:BY_SIZE_MAX])
        ),
    )


async def resume(state: State, name: str) -> JobRow:
    return await _change(state, name, lambda row: msgspec.structs.replace(row, paused_since=0.0, paused_by=""))


async def note(state: State, name: str, runs: list[Run]) -> None:
    """Put these behind the last runs of a job; the oldest go."""
    cut = tuple(msgspec.structs.replace(run, note=run.note[:NOTE_SIZE_MAX]) for run in runs)
    await _change(state, name, lambda row: msgspec.structs.replace(row, runs=(*row.runs, *cut)[-RUNS_KEPT:]))


async def _change(state: State, name: str, change: Callable[[JobRow], JobRow]) -> JobRow:
    key = standing_key(name)
    for _ in range(_ATTEMPTS):
        value = state.get(key)
        try:
            before = _decoded(name, value)
        except Corrupt:
            before = JobRow()
        row = change(before)
        if row == before:
            return row
        operation: Operation = Delete(key) if row == JobRow() else Put(key, encode(row))
        try:
            await state.commit(Mutation([Equals(key, value)], [operation]))
        except Rejected:
            continue
        return row
    raise Conflict(f"what stands of job {name} is changed by others again and again", reason="job")


def _decoded(name: str, value: bytes | None) -> JobRow:
    if value is None:
        return JobRow()
    row = decode(standing_key(name), value)
    assert isinstance(row, JobRow)
    return row
