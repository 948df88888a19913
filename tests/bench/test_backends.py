"""The bench of backends measures what it says, and never errors: it is run here with tiny numbers."""

import json
from pathlib import Path

from bench_running import bench


def test_every_backend_is_measured_beside_the_library_beneath_it(tmp_path: Path) -> None:
    done = bench("backends.py", tmp_path, "--json", "--only", "1 task")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    found = {(figure["target"], figure["name"]) for figure in figures}
    for target in ("local", "local, resilient", "memory", "S3", "S3, resilient", "Azure"):
        for name in ("write 4 KiB", "read 4 KiB", "write 9 MiB", "read 9 MiB"):
            assert (target, f"{name}, 1 task") in found
    bare = {"plain files", "memory", "pyreqwest to S3", "pyreqwest to Azure"}
    for figure in figures:
        assert figure["rate"] > 0, figure
        assert figure["target"] in bare or figure["limit_rate"] > 0, figure
    assert list(tmp_path.iterdir()) == []
