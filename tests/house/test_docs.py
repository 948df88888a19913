"""What the pages say is there: every link leads somewhere, every named file exists, every format page is decoded."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostraka.config import SERVE

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FORMATS = sorted(set((ROOT / "docs/format").glob("*.md")) - {ROOT / "docs/format/README.md"})
TOP = ("tests/", "scripts/", "docs/", "bench/", "src/", "ostraka/")  # where a path in a page may begin


def paths_named_in(text: str) -> Iterator[str]:
    for quoted in re.findall(r"`([^`\s]+)`", text):
        if quoted.startswith(TOP) and re.fullmatch(r"[\w./-]+", quoted):
            yield quoted


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors_of(target))


def anchors_of(page: Path) -> set[str]:
    """As forges make them of headings: small letters, words joined by dashes, other signs left out."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if not leads_somewhere(page, link)]
    missing += [p for p in paths_named_in(text) if not (ROOT / p).exists() and not (ROOT / "src" / p).exists()]
    assert not missing, f"{page.relative_to(ROOT)} points to {', '.join(missing)}"


@pytest.mark.parametrize("page", FORMATS, ids=lambda page: page.name)
def test_the_example_of_a_format_page_is_decoded_by_a_test(page: Path) -> None:
    tests = [t for t in (ROOT / "tests").rglob("test_format*.py") if page.name in t.read_text()]
    tests += [t for t in (ROOT / "tests").rglob("test_*.py") if f"docs/format/{page.name}" in t.read_text()]
    assert tests, f"no test reads {page.name}"
    assert f"({page.name})" in (ROOT / "docs/format/README.md").read_text(), "the layout does not name it"


def test_every_dependency_has_its_reason() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    lists = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    lists += project["dependency-groups"].values()
    lines = [line for some in lists for line in some if isinstance(line, str) and not line.startswith("ostraka[")]
    listed = {re.match(r"[a-z0-9-]+", line)[0] for line in lines}  # type: ignore[index]
    page = (ROOT / "docs/dependencies.md").read_text()
    assert len(listed) > 10
    assert not [name for name in listed if not re.search(rf"^\| [a-z0-9, -]*\b{name}\b[^|]*\|", page, re.M)]


def test_the_variables_that_the_readme_names_are_settings() -> None:
    named = set(re.findall(r"`(OSTRAKA_\w+)`", (ROOT / "README.md").read_text()))
    known = {s.variable for s in SERVE} | {s.variable + "_FILE" for s in SERVE if s.secret} | {"OSTRAKA_STORE"}
    assert named <= known, named - known
