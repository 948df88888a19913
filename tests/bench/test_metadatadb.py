"""The bench of the metadata database measures what it says, and never errors: it is run here with tiny numbers."""

import json
from pathlib import Path

from bench_running import bench


def test_operations_are_measured_here_until_they_are_durable_and_until_others_see_them(tmp_path: Path) -> None:
    done = bench("metadatadb.py", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    figures = {(f["target"], f["name"]): f["rate"] for f in json.loads(done.stdout)["figures"]}
    for target in ("memory", "periodic"):
        for name in ("int.add", "int_map.add", "map.set", "int_map.get", "map.get"):
            assert figures[target, name] > 0
    for target in ("memory", "directory", "ostraka serve"):
        assert 1000 <= figures[target, "journal, 1 task, requests"] < 1050, "one PUT for each that is alone"
        assert figures[target, "journal, 32 tasks, requests"] < 100, "those that wait share one"
        assert figures[target, "periodic, flushed each second"] > 0
    for kind in ("journal", "periodic"):
        assert figures[kind, "convergence of 3 replicas"] > 0
        bound = 15_000 if kind == "journal" else 60_000
        assert figures[kind, "convergence of 3, virtual time"] < bound + 2000, (
            "one interval; two where syncs make it so"
        )
        assert figures[kind, "idle, one namespace"] <= 2 * 3600 / (15 if kind == "journal" else 30) / 0.9
