"""docs/metadatadb.md: every program on it is run, in order, in one directory, and prints what its comments say."""

import asyncio
import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs/metadatadb.md"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"^ *print\(.*\) +# (.*)$", re.MULTILINE)


def test_every_program_on_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) >= 8
    for language, text in blocks:
        if language == "sh":
            commands(text)
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            asyncio.run(within(text, names)) if "running event loop" in text else exec(text, names)
        assert out.getvalue().splitlines() == SAID.findall(text), text


async def within(text: str, names: dict[str, Any]) -> None:
    exec(text, names)


def commands(text: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", text], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "4"
