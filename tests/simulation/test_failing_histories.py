"""The object interface beside a dictionary, while power, processes and disks fail: it never holds anything else.

Hypothesis looks for the shortest history that breaks it; long ones come from seeds (`python
tests/simulation/failing_history.py` runs one again); and one history has the power cut at each of its calls.
"""

import gc
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator

import failing_history
import pytest
from failing_history import FailingHistory, begun, run_long
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ostraka.testing.simulation.running import parse_geometry

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is said of processes that die in the midst of something."""
    logging.disable(logging.CRITICAL)
    yield
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    with warnings.catch_warnings(action="ignore"):
        gc.collect()
    logging.disable(logging.NOTSET)


class OnOneDisk(FailingHistory):
    geometry = parse_geometry("1+0/1")


@pytest.mark.parametrize("kind", [FailingHistory, OnOneDisk])
def test_whatever_fails_the_store_holds_what_the_dictionary_holds(kind: type[FailingHistory]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        kind, settings=settings(max_examples=15, stateful_step_count=30, suppress_health_check=list(HealthCheck))
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FailingHistory, OnOneDisk])
def test_whatever_fails_in_thousands_of_histories(kind: type[FailingHistory]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        kind, settings=settings(max_examples=3000, stateful_step_count=50, suppress_health_check=list(HealthCheck))
    )


def run_in_its_own_process(geometry: str, first: int, count: int) -> None:
    command = [sys.executable, failing_history.__file__, "--geometry", geometry, "--seeds", f"{first}-{first + count}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("geometry", "count"), [("1+0/1", 8), ("4+2/6", 5)])
def test_long_histories(geometry: str, count: int, seed: int) -> None:
    run_in_its_own_process(geometry, seed, count)


@pytest.mark.slow
@pytest.mark.parametrize("geometry", ["1+0/1", "2+1/3", "4+2/7"])
def test_thousands_of_long_histories(geometry: str, seed: int) -> None:
    run_in_its_own_process(geometry, seed, 5000)


def test_a_seed_reproduces_a_history_to_the_last_call(seed: int) -> None:
    geometry = parse_geometry("2+1/3")
    assert run_long(geometry, seed, 30) == run_long(geometry, seed, 30) != run_long(geometry, seed + 1, 30)


def a_bit_of_everything(history: FailingHistory) -> None:
    largest = len(history.body_sizes) - 1
    history.versioning("two", "Enabled")
    for bucket in history.buckets:
        for size in (3, 4, largest):
            history.put(bucket, "a", size, True, False, "")
    history.copy(0, "one", "a/b")
    history.create_upload("two", "a/b")
    for number in (1, 2):
        history.put_part(0, number, largest, False)
    history.complete(3)
    history.delete("one", "a")
    history.delete("two", "a")
    history.collect(20)
    history.delete_version(1)
    history.delete_many("one", 1)
    history.collect(20)


def steps_with_a_power_cut(geometry: str, seed: int, calls: int) -> bool:
    """The same steps in every run, and the power goes before that call; whether there were as many calls."""
    history = begun(parse_geometry(geometry), seed)
    try:
        history.the_power_will_go(calls, [])
        a_bit_of_everything(history)
        came = history.machine.boot > 1
    except BaseException:
        history.close()
        raise
    history.teardown()
    return came


def test_the_power_may_go_at_every_call(seed: int) -> None:
    """At every fortieth, here: which of them, is by seed."""
    calls = seed % 40 + 1
    while steps_with_a_power_cut("1+0/1", seed, calls):
        calls += 40
    assert calls > 200, "the history hardly makes a call"


@pytest.mark.slow
@pytest.mark.parametrize("geometry", ["1+0/1", "2+1/3", "4+2/6"])
@pytest.mark.parametrize("number", range(5))
def test_the_power_may_go_at_every_single_call(geometry: str, number: int) -> None:
    calls = 1
    while steps_with_a_power_cut(geometry, number, calls):
        calls += 1
