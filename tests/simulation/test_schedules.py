"""The whole store in one simulated process: whatever is drawn, nothing acknowledged is lost, and everything fits.

Each part is a number of schedules from one seed on. A schedule that fails prints the command that runs it again.
"""

import pytest
import simulation_runs


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize(("geometry", "count"), [("1+0/1", 150), ("2+1/3", 70), ("4+2/6", 40)])
def test_nothing_acknowledged_is_lost_and_everything_fits(geometry: str, count: int, part: int, seed: int) -> None:
    summary, failures = simulation_runs.run(geometry, seed, count)
    assert summary["failed"] == 0, failures
    assert summary["schedules"] == count
    assert summary["answered"] > 20 * count, "clients were hardly answered"
    assert summary["recoveries"] > 2 * count, "the store was hardly ever recovered"


@pytest.mark.timeout(600)
def test_disks_come_and_go_and_the_geometry_changes_meanwhile(seed: int) -> None:
    summary, failures = simulation_runs.run("2+1/4~", seed, 40)
    assert summary["failed"] == 0, failures
    assert summary["answered"] > 20 * 40, "clients were hardly answered"


@pytest.mark.slow
@pytest.mark.parametrize(
    "geometry",
    ["1+0/1", "2+1/3", "2+1/4", "4+2/6", "4+2/7", "1+0/2~", "1+1/3~", "2+1/4~", "2+2/5~", "4+2/6~"],
)
def test_thousands_of_schedules(geometry: str, seed: int) -> None:
    summary, failures = simulation_runs.run(geometry, seed, 20_000)
    assert summary["failed"] == 0, failures


@pytest.mark.timeout(600)
def test_a_seed_reproduces_a_run_to_the_last_call(seed: int) -> None:
    first, _ = simulation_runs.run("4+2/6", seed, 4)
    again, _ = simulation_runs.run("4+2/6", seed, 4)
    other, _ = simulation_runs.run("4+2/6", seed + 1000, 4)
    del first["seconds"], again["seconds"]
    assert first == again
    assert other["digest"] != first["digest"]
