"""Planted defects are found: those that take few schedules in every run, all of them in the soak."""

import json
import subprocess
import sys
from typing import Any

import planted
import pytest

FOUND_SOON = (
    "a_compaction_that_ignores_writers",
    "a_segment_that_is_not_synced",
    "a_log_that_is_not_synced",
    "an_overwrite_that_forgets_what_it_displaced",
    "a_completed_upload_that_does_not_count_its_parts",
)


def caught(schedules: int, *names: str) -> dict[str, dict[str, Any]]:
    """In a process of their own, whose hashes are fixed; what is planted concerns no other test."""
    command = [sys.executable, planted.__file__, *names, "--json", "--schedules", str(schedules)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


def test_defects_that_few_schedules_find_are_found() -> None:
    found = caught(30, *FOUND_SOON)
    assert {name for name in FOUND_SOON if not found[name]["caught"]} == set()


@pytest.mark.parametrize("name", planted.PLANTS)
def test_a_defect_has_a_place_in_the_code(name: str) -> None:
    """Who renames what a defect replaces hears of it, and does not plant nothing from then on."""
    with planted.planted(name):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", planted.PLANTS)
def test_every_planted_defect_is_found(name: str) -> None:
    assert caught(10_000, name)[name]["caught"], "no schedule found it"
