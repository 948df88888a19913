"""Random histories of the whole interface beside a dictionary that knows S3's rules (objects_history)."""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from objects_history import History, random_step
from objects_rig import Rig, real_rig


class RealHistory(History):
    """The same over real chunks, on a pool in memory."""

    body_sizes = (0, 1, 64, 65, 1024, 1025, 4096, 4097, 12288, 12289, 20_000, 50_000)  # of REAL

    async def make_rig(self) -> Rig:
        return (await real_rig("one", "two"))[0]

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        self.rig.clock.now += seconds


def test_random_histories_over_real_chunks_keep_them_too() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        RealHistory,
        settings=settings(max_examples=50, stateful_step_count=40, suppress_health_check=list(HealthCheck)),
    )


def test_random_histories_keep_the_rules_of_s3_and_exact_counts() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        History,
        settings=settings(max_examples=40, stateful_step_count=50, suppress_health_check=list(HealthCheck)),
    )


@pytest.mark.parametrize("kind", [History, RealHistory])
@pytest.mark.parametrize("number", range(4))
def test_long_random_histories_keep_the_rules_of_s3_and_exact_counts(kind: type[History], number: int) -> None:
    rnd = random.Random(number)
    history = kind()
    for _ in range(500):
        random_step(history, rnd)
        history.tables_agree()
        history.rig.clock.now += 1
    history.teardown()
