"""Every command teaches by an example, and all of them speak one grammar."""

from collections.abc import Iterator

import click
import pytest

import ostraka.cli


def commands(command: click.Command, path: str = "ostraka") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its words."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command, info_name=path)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, f"{path} {name}")


ALL = dict(commands(ostraka.cli.command))
WITHOUT_JSON = {  # what they print is somebody's bytes, a script, or nothing
    "ostraka cat",
    "ostraka backend cat",
    "ostraka completion",
    "ostraka metadatadb set",
}


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


def test_every_command_prints_json_on_demand() -> None:
    without = {p for p, command in ALL.items() if not any("--json" in parameter.opts for parameter in command.params)}
    assert without == WITHOUT_JSON


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
