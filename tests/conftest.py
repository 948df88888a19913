"""What all tests share: fixed seeds that are printed, temporary directories on a real disk, and no silent skips.

Environment: ``OSTRAKA_TEST_SEED`` replaces the seed that every random test starts from;
``OSTRAKA_TEST_REQUIRE_ALL=1`` turns every skip into a failure (continuous integration sets it).
"""

import logging
import os
import signal
import subprocess
import tempfile
import zlib
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

SEED = int(os.environ.get("OSTRAKA_TEST_SEED", "20261120"))
REQUIRE_ALL = os.environ.get("OSTRAKA_TEST_REQUIRE_ALL") == "1"

# no example is judged by its time; the examples are the same in every run, and a failing one can be pasted
settings.register_profile("ostraka", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ostraka")


def pytest_configure(config: pytest.Config) -> None:
    """A file system in memory knows neither O_DIRECT nor a slow sync: leave it for /var/tmp. And a shell has what runs
    in its background ignore Ctrl-C, as would all that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    kind = subprocess.run(
        ["stat", "--file-system", "--format=%T", tempfile.gettempdir()], capture_output=True, text=True, check=False
    )
    if kind.stdout.strip() in ("tmpfs", "ramfs"):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/var/tmp")


def pytest_report_header(config: pytest.Config) -> str:
    return f"OSTRAKA_TEST_SEED={SEED}" + (", a skip is a failure" if REQUIRE_ALL else "")


# Rooms whose single tests take longest. They begin first, so that no process is left with a long one at the end.
LONG_FIRST = ("packaging", "crash", "simulation", "clients", "bench", "house", "state")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        room = item.path.relative_to(tests).parts[0]
        return LONG_FIRST.index(room) if room in LONG_FIRST else len(LONG_FIRST)

    items.sort(key=rank)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test, from the run's seed and its name; printed, and so shown if the test fails."""
    number = zlib.crc32(f"{SEED}/{request.node.nodeid}".encode())
    print(f"seed {number} (OSTRAKA_TEST_SEED={SEED})")
    return number


def _demand(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped, and OSTRAKA_TEST_REQUIRE_ALL is set: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _demand(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _demand(report)
    return report


@pytest.fixture(autouse=True)
def _log_as_before() -> Generator[None]:
    """A command that runs in the test's own process sets where our log goes: the next test reads it as if none had."""
    log = logging.getLogger("ostraka")
    handlers, propagate, level = log.handlers[:], log.propagate, log.level
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)
