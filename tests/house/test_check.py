"""Lint, format and types are tests like any other: they run beside the rest and decide with it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", ["ruff check .", "ruff format --check .", "mypy"])
def test_the_code_is_clean_by(step: str) -> None:
    tool, *arguments = step.split()
    assert step in (ROOT / "scripts/check").read_text().replace('"$bin/', "").replace('"', ""), "scripts/check differs"
    done = subprocess.run(
        [str(ROOT / ".venv/bin" / tool), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"
