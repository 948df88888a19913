"""docs/metadatadb.md: every program on it is run, in order, in one directory, and prints what its comments say."""

import asyncio
import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ostraka.cli import main

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
            assert commands(text) == "4\n"
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            asyncio.run(within(text, names)) if "running event loop" in text else exec(text, names)
        assert out.getvalue().splitlines() == SAID.findall(text), text


async def within(text: str, names: dict[str, Any]) -> None:
    exec(text, names)


def commands(text: str) -> str:
    """What the last of these commands prints."""
    out = io.StringIO()
    for line in text.splitlines():
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
            main(shlex.split(line)[1:])
        assert not ended.value.code, line
    return out.getvalue()
