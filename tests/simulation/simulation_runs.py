"""Running schedules in a process of their own: what they replace concerns no other test, and their hashes are fixed."""

import json
import subprocess
import sys
from typing import Any


def run(geometry: str, first: int, count: int, *more: str) -> tuple[dict[str, Any], str]:
    """The sum of the schedules, and what was printed of those that failed."""
    command = [sys.executable, "-m", "ostraka.testing.simulation", "--json", "--geometry", geometry]
    command += ["--seeds", f"{first}-{first + count}", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *failures, summary = done.stdout.splitlines() or [done.stderr]
    try:
        return json.loads(summary), "\n".join(failures)
    except ValueError:
        raise AssertionError(
            f"the simulation ended with status {done.returncode}: {done.stdout}{done.stderr}"
        ) from None
