"""The tutorial and the how-tos, done as they stand there: every command, every port, every path."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, steps_of

HERE = Path(__file__).parent
NEEDS = {"how-to/nginx.md": "nginx", "how-to/systemd.md": "systemd-analyze"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a page a network and directories of its own")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES)
def test_a_reader_who_does_what_the_page_says_gets_there(page: str, tmp_path: Path) -> None:
    if page in NEEDS and shutil.which(NEEDS[page], path="/usr/sbin:/usr/bin:/bin") is None:
        pytest.skip(f"{NEEDS[page]} is not installed")
    alone = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*alone, sys.executable, str(HERE / "reader.py"), page, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_little_that_is_not_run(page: str) -> None:
    steps = list(steps_of(page))
    typed = [step for step in steps if step.what in ("type", "serve", "unit")]
    assert typed
    wanted = {step.what for step in steps} - {"show", "type", "serve"}
    assert wanted <= {"Ctrl-C", "the", "file", "append", "unit", "certificate", "run"}, wanted
