"""What the page on installation says of the extras is true: who uses them, and that nobody does where it says so."""

import ast
import re
import tomllib

from installing import ROOT


def extras() -> dict[str, list[str]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, list[str]] = tomllib.load(file)["project"]["optional-dependencies"]
    return found


def rooms_that_import(package: str) -> set[str]:
    found = set()
    for path in (ROOT / "src/ostraka").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.split(".")[0] == package for name in names):
                found.add(f"ostraka.{path.relative_to(ROOT / 'src/ostraka').parts[0]}")
    return found


def test_the_extras_are_the_ones_that_the_page_lists_and_used_as_it_says() -> None:
    page = (ROOT / "docs/installation.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", page, re.M))
    assert rows.keys() == extras().keys() - {"all"}
    for name, users in rows.items():
        packages = [re.match(r"[a-z0-9-]+", line)[0] for line in extras()[name]]  # type: ignore[index]
        used = set().union(*map(rooms_that_import, packages))
        said = set(re.findall(r"`([\w.]+)`", users))
        assert said == used, f"the extra {name}: used by {used or 'nothing'}; the page says {users!r}"


def test_all_is_all() -> None:
    (line,) = extras()["all"]
    assert set(re.findall(r"\w+", line)) - {"ostraka"} == extras().keys() - {"all"}
