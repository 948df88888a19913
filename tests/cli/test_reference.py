"""The page of commands is what the commands say, and each of them teaches by an example."""

from pathlib import Path

import click
import pytest
from page import commands, page

import ostraka.cli

ALL = {path: command for path, command, _ in commands(ostraka.cli.command)}
LISTINGS = ("ls", "status", "fsck", "doctor", "version", "show", "replace", "forget", "create", "cp", "sync", "rm")


def test_the_page_says_what_the_commands_say() -> None:
    written = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    assert written == page(), "run scripts/commands-page"


@pytest.mark.parametrize("path", ALL)
def test_help_teaches_by_an_example_that_is_one(path: str) -> None:
    text = ALL[path].help or ""
    examples = [line.strip() for line in text.split("\b\n")[-1].splitlines()] if "\b\n" in text else []
    if path == "ostraka version":
        return
    assert any(path in example for example in examples), text
    options = {name for parameter in ALL[path].params for name in parameter.opts}
    for example in examples:
        words = example.partition("#")[0].partition("|")[0].split()
        if path in example.partition("#")[0]:
            assert {word for word in words if word.startswith("--")} <= options, example


def test_every_command_that_lists_prints_json_on_demand() -> None:
    for path, command in ALL.items():
        if path.split()[-1] in LISTINGS:
            assert any("--json" in parameter.opts for parameter in command.params), path


def test_nouns_are_singular_and_options_mean_the_same_everywhere() -> None:
    assert not [
        path
        for path in ALL
        if path.split()[1].endswith("s")
        and path.split()[1] not in ("ls", "credentials")
        and "status" not in path
        and "cross" not in path
    ]
    meanings: dict[str, set[str]] = {}
    for command in ALL.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.opts[0] in ("--store", "--dry-run", "--quiet"):
                meanings.setdefault(parameter.opts[0], set()).add(str(parameter.metavar))
    assert all(len(kinds) == 1 for kinds in meanings.values()), meanings
