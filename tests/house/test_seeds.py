"""docs/seeds.md is right: every place that a row names is there, and so is every test."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from ostraka.testing import backends, metadatadb

ROOT = Path(__file__).parents[2]
HEAD = "| system | name | where it lives in Ostraka | test file::test | note |"
CASES = {case.name for case in (*backends.CASES, *metadatadb.CASES)}
PLACE = re.compile(r"`([\w./-]+?)(?:::([\w.]+)(?:\[([\w-]+)\])?)?`")


def rows() -> list[list[str]]:
    lines = (ROOT / "docs/seeds.md").read_text().splitlines()
    table = lines[lines.index(HEAD) + 2 :]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line]


@cache
def names_in(path: Path) -> set[str]:
    """Functions, classes, and what is assigned or defined in classes, as Class.name."""
    if path.is_dir() or path.suffix != ".py":
        return set()
    found = set()

    def walk(body: list[ast.stmt], above: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(above + node.name)
            if isinstance(node, ast.ClassDef):
                walk(node.body, f"{above}{node.name}.")
            targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
            found.update(above + target.id for target in targets if isinstance(target, ast.Name))

    walk(ast.parse(path.read_text()).body, "")
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]} {row[1]}")
def test_what_a_row_names_is_there(row: list[str]) -> None:
    assert len(row) == 5
    where, test = PLACE.findall(row[2]), PLACE.findall(row[3])
    assert where, f"no place: {row[2]}"
    assert test, f"no test: {row[3]}"
    for path, name, _ in where + test:
        assert (ROOT / path).exists(), path
        assert not name or name in names_in(ROOT / path), f"{path} has no {name}"
    for path, name, case in test:
        assert path.startswith("tests/")
        assert name.startswith("test_")
        assert not case or case.partition("-")[0] in CASES, f"there is no case {case}"


def test_each_name_has_one_row_and_each_system_is_in_order() -> None:
    names = [(row[0], row[1]) for row in rows()]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert names == sorted(names, key=lambda name: name[0])
