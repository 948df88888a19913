"""The pages build into a site without a single warning, and what is generated from the code is what the code says."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DEAD = ("nowhere.md", "promise.md#no-such-heading", "#no-such-heading")


def build(source: Path, into: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(source), str(into)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    done = build(ROOT / "docs", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorial.html").exists()


def test_dead_links_and_anchors_fail_the_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    shutil.copy(ROOT / "docs/conf.py", source)
    (source / "promise.md").write_text("---\norphan: true\n---\n# Promise\n\n## A heading\n")
    (source / "index.md").write_text("# Index\n\n[fine](promise.md#a-heading)\n")
    assert build(source, tmp_path / "site").returncode == 0
    (source / "index.md").write_text("# Index\n\n" + "\n\n".join(f"[x]({link})" for link in DEAD))
    done = build(source, tmp_path / "site")
    assert done.returncode != 0
    assert done.stderr.count("WARNING") == len(DEAD), done.stderr


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "scripts/generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = generator()


@pytest.mark.parametrize("name", REFERENCE.PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    found = (ROOT / "docs/reference" / name).read_text()
    assert found == REFERENCE.page(name), "run .venv/bin/python scripts/generate_reference.py"


def test_nothing_else_lies_in_the_reference() -> None:
    assert {path.name for path in (ROOT / "docs/reference").iterdir()} == set(REFERENCE.PAGES)
