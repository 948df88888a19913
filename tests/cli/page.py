"""docs/commands.md, made from the commands themselves: `scripts/commands-page` writes it, a test compares it."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

import ostraka.cli
from ostraka.cli import grammar, output

INTRODUCTION = """# Commands

Made by `scripts/commands-page` from the commands' own help; `ostraka COMMAND --help` says the same.
"""


def commands(command: click.Command, path: str = "ostraka") -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command that does something, with its words."""
    context = click.Context(command, info_name=path)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, f"{path} {name}")
    else:
        yield path, command, context


def _paragraphs(text: str) -> Iterator[str]:
    r"""A help text as Markdown: a paragraph after \b is code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.strip().splitlines()
        if lines and lines[0].strip() == "\b":
            yield "\n".join("    " + line for line in lines[1:])
        else:
            yield " ".join(lines)


def _options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names = ", ".join(f"`{name}`" for name in parameter.opts)
            takes = "" if parameter.is_flag else f" *{parameter.metavar or 'VALUE'}*"
            yield f"- {names}{takes.replace('|', ' or ')}: {parameter.help}"


def _grammar() -> str:
    """The docstring of cli/grammar.py, its code blocks in Markdown's way."""
    title, _, rest = inspect.cleandoc(grammar.__doc__ or "").partition("\n\n")
    return f"## Addresses\n\n{title}\n\n{rest.replace('::', ':').replace('``', '`')}"


def _statuses() -> str:
    text = inspect.cleandoc(output.__doc__ or "")
    rows = re.findall(r"^    (\d+) +(.*)$", text, re.M)
    table = "\n".join(f"| {status} | {meaning} |" for status, meaning in rows)
    return f"## Exit statuses\n\n| status | meaning |\n| --- | --- |\n{table}"


def page() -> str:
    parts = [INTRODUCTION.strip(), _grammar(), _statuses()]
    for path, command, context in commands(ostraka.cli.command):
        usage = " ".join(command.collect_usage_pieces(context))
        parts.append(f"## {path}")
        parts.append(f"    {path} {usage}")
        parts.extend(_paragraphs(command.help or ""))
        options = list(_options(command))
        if options:
            parts.append("\n".join(options))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
