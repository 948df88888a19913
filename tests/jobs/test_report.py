"""What is told of jobs that nobody runs."""

import asyncio

import pytest

from ostraka.jobs.records import HEAL_KEY, REWRAP_KEY, SCRUB_KEY, HealRecord, ScrubRecord, encode
from ostraka.jobs.report import JobReport, recorded
from ostraka.state import MemoryState, Mutation, Put


def told(key: bytes, value: bytes) -> dict[str, JobReport]:
    async def main() -> list[JobReport]:
        state = MemoryState()
        await state.commit(Mutation((), [Put(key, value)]))
        return recorded(state)

    return {report.name: report for report in asyncio.run(main())}


def test_what_a_job_left_on_record_is_told() -> None:
    heal = told(HEAL_KEY, encode(HealRecord(healing=((4, 9),), examined=5)))["heal"]
    assert (heal.status, heal.done, heal.note) == ("not running", 5, "a pass was begun")
    scrub = told(SCRUB_KEY, encode(ScrubRecord(finished=1.5)))
    assert (scrub["scrub"].note, scrub["heal"].done, scrub["heal"].note) == ("finished before", 0, "")


@pytest.mark.parametrize(("key", "name"), [(HEAL_KEY, "heal"), (SCRUB_KEY, "scrub"), (REWRAP_KEY, "rewrap")])
def test_a_record_that_cannot_be_read_was_told_as_if_there_were_none(key: bytes, name: str) -> None:
    note = told(key, b"\xc1")[name].note
    assert "cannot be read" in note
    assert "ostraka fsck" in note
