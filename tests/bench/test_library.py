"""The bench of the library and of starts measures what it says, and never errors: it is run here with tiny numbers."""

import json
import shutil
from pathlib import Path

import pytest
from bench_running import bench

pytestmark = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


def test_every_kind_of_body_is_measured_in_process_through_http_and_beside_plain_files(tmp_path: Path) -> None:
    done = bench("library.py", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    found = {(figure["target"], figure["name"]) for figure in figures}
    small = [f"{method} 4 KiB, {tasks}" for method in ("PUT", "GET") for tasks in ("1 task", "32 tasks")]
    large = [f"{method} 64 MiB, {tasks}" for method in ("PUT", "GET") for tasks in ("1 task", "4 tasks")]
    for name in (*small, *large):
        assert found.issuperset((target, name) for target in ("in process", "through HTTP", "plain files"))
    starts = ("an empty program", "ostraka serve, new store", "ostraka serve, existing store", "ostraka.open")
    for target in (*starts, "ostraka.testing.serve"):
        assert (target, "start to first answer") in found
    for figure in figures:
        assert figure["rate"] > 0, figure
        assert figure["limit_rate"] > 0, figure
