"""Write docs/reference/: what the code itself says of its commands, settings, errors, bounds, metrics and operations.

    python scripts/generate_reference.py            # rewrite the pages
    python scripts/generate_reference.py --check    # exit 1 if they are not what the code says

Nothing is told here that is not taken from where it is decided: help texts, tables, comments, docstrings.
"""

import argparse
import ast
import doctest
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

import ostraka
from ostraka import config, errors, limits
from ostraka.cli import COMMANDS, command, grammar, output
from ostraka.library import aio, blocking
from ostraka.library.chunks import AsyncChunks
from ostraka.library.disks import AsyncDisks
from ostraka.library.pools import AsyncPools
from ostraka.library.uploads import AsyncUpload
from ostraka.metadatadb.metrics import METRICS as METADATADB_METRICS
from ostraka.metrics import Metric
from ostraka.s3 import errors as s3_errors
from ostraka.s3.model import OPERATIONS
from ostraka.s3.ops.registry import HANDLERS
from ostraka.server.observe import METRICS as SERVER_METRICS
from ostraka.store.store import METRICS as STORE_METRICS

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Written by scripts/generate_reference.py; do not edit. -->"
WIDTH = 100


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def first_sentence(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


# -- commands


def commands() -> str:
    parts = [
        "# Commands",
        "What `ostraka COMMAND --help` says. Every error is one line on standard error, and the exit status tells what "
        "kind it is of:",
        code(_statuses()),
        "## How things are addressed",
        _grammar(),
    ]
    for name, found in _commands(command, "ostraka"):
        parts += [f"## {name}", code(_help(found, name))]
    return "\n\n".join(parts)


def _grammar() -> str:
    """The docstring of ostraka.cli.grammar, its blocks of code in Markdown's way."""
    _, _, rest = inspect.cleandoc(grammar.__doc__ or "").partition("\n\n")
    return rest.replace("::", ":").replace("``", "`")


def _statuses() -> str:
    block = re.search(r"\n\n((?:    \d+ .*\n(?:      +.*\n)*)+)", f"{output.__doc__}\n")
    assert block, "the exit statuses are not where they were: the docstring of ostraka.cli.output"
    return textwrap.dedent(block[1])


def _commands(group: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name=path)
    yield path, group
    if isinstance(group, click.Group):
        names = COMMANDS if group is command else group.list_commands(context)
        for name in names:
            found = group.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _commands(found, f"{path} {name}")


def _help(found: click.Command, path: str) -> str:
    settings: dict[str, Any] = {"max_content_width": WIDTH, "terminal_width": WIDTH}
    parent = click.Context(command, info_name="", **settings, help_option_names=["-h", "--help"])
    context = click.Context(found, info_name=path, parent=None, **settings, help_option_names=parent.help_option_names)
    return found.get_help(context)


# -- settings


def settings() -> str:
    defaults = config.ServeConfig()
    rows = []
    for setting in config.SERVE:
        flag = "" if setting.secret else f"`--{setting.name}`"
        variable = f"`{setting.variable}`" + (f", `{setting.variable}_FILE`" if setting.secret else "")
        rows.append([flag, variable, _default(getattr(defaults, setting.field)), setting.help])
    intro = inspect.cleandoc(config.__doc__ or "").split("\n\n", 1)[1]
    return "\n\n".join(
        [
            "# Settings of the server",
            intro.replace("``", "`"),
            "Secrets have no flag, since flags show in `ps`. The key in the file is the flag's name.",
            table(["flag", "variable", "default", "what"], rows),
            "Other variables: `OSTRAKA_CONFIG` names the file, `OSTRAKA_STORE` the store for commands on one.",
        ]
    )


def _default(value: object) -> str:
    return f"`{value}`" if value not in ("", (), None, False, 0) else ""


# -- errors


def kinds() -> Iterator[tuple[type[errors.OstrakaError], int]]:
    """Every kind with its depth, in the order of errors.py."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.OstrakaError) and kind is not errors.OstrakaError:
            yield kind, len(kind.__mro__) - len(errors.OstrakaError.__mro__) - 1


def errors_page() -> str:
    rows = []
    for kind, _ in kinds():
        answer = s3_errors.from_error(kind(""))
        status = output.status_of(kind(""))
        name = f"`{kind.__name__}`"
        retry = "yes" if kind.retry else ""
        rows.append([name, first_sentence(kind.__doc__ or ""), retry, f"{answer.status} `{answer.code}`", str(status)])
    codes = [[f"`{name}`", str(status), text] for name, (status, text) in sorted(s3_errors.CODES.items())]
    return "\n\n".join(
        [
            "# Errors",
            "The library raises the kinds of `ostraka.errors`; `ostraka.StoreInUse` is `InUse`. The server answers\n"
            "with S3's codes, and the command line ends with a status. Where a kind has several S3 codes, by its\n"
            '`reason`, the table has the one for any other reason. "Retry": the same call may succeed later, without\n'
            "anybody's help.",
            table(["kind", "when", "retry", "S3", "exit"], rows),
            "## S3 error codes",
            "Every code that the server may answer with; a message can be more exact than the one here.",
            table(["code", "status", "message"], codes),
        ]
    )


# -- limits


def limits_page() -> str:
    source = inspect.getsource(limits.Limits)
    parts, rows = [], []
    for line in source.splitlines():
        heading = re.match(r"    # -- ([^:;]*)", line)
        field = re.match(r"    (\w+): (\w+) = .*?(?:  # (.*))?$", line)
        if heading:
            parts, rows = _closed(parts, rows)
            parts.append(f"## {heading[1][0].upper()}{heading[1][1:]}")
        elif field:
            rows.append([f"`{field[1]}`", _amount(field[1], getattr(limits.LIMITS, field[1])), field[3] or ""])
    parts, _ = _closed(parts, rows)
    intro = (
        "Every bound of the system (`src/ostraka/limits.py`). None of them is a setting. Over a bound there is "
        "backpressure until a deadline, then a typed error: `TooLarge`, `Overloaded` or `Full`."
    )
    return "\n\n".join(["# Limits", intro, *parts])


def _closed(parts: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    return ([*parts, table(["bound", "value", "of what"], rows)], []) if rows else (parts, rows)


def _amount(name: str, value: float) -> str:
    if "seconds" in name:
        return f"{value:g} s"
    if isinstance(value, int) and value >= limits.KIB and value % limits.KIB == 0 and not name.endswith(_COUNTS):
        for unit, word in ((limits.TIB, "TiB"), (limits.GIB, "GiB"), (limits.MIB, "MiB"), (limits.KIB, "KiB")):
            if value % unit == 0:
                return f"{value // unit} {word}"
    return f"{value:,}"


_COUNTS = ("_queue_max", "connections_max", "keys_max", "records_max", "rows_max", "signing_keys_max", "key_bytes_max")


# -- metrics


def metrics() -> str:
    def rows(metrics: Iterable[Metric]) -> list[list[str]]:
        return [[f"`{m.name}`", m.kind, ", ".join(f"`{n}`" for n in m.labels), m.help] for m in metrics]

    head = ["metric", "type", "labels", "what"]
    intro = (
        "`GET /-/metrics` answers without credentials in Prometheus' text format, the sums over all processes. "
        "`/-/health/live` and `/-/health/ready` answer 200 or 503."
    )
    return "\n\n".join(
        [
            "# Metrics",
            intro,
            table(head, rows([*SERVER_METRICS, *STORE_METRICS])),
            "## The metadata database",
            "`store.metrics()` of a program gives these, in the same format: all namespaces of the replica together.",
            table(head, rows(METADATADB_METRICS)),
        ]
    )


# -- S3 operations


def operations() -> str:
    built = [name for name in OPERATIONS if name in HANDLERS]
    not_built = [name for name in OPERATIONS if name not in HANDLERS]
    intro = (
        "The operations of S3's service model. What is not built answers 501 `NotImplemented` and stores nothing. Some "
        "that read a configuration are built where the one that sets it is not: they answer, truthfully, that there is "
        "none."
    )
    return "\n\n".join(["# S3 operations", intro, "## Built", _names(built), "## Not built", _names(not_built)])


def _names(names: list[str]) -> str:
    return textwrap.fill(", ".join(f"`{name}`" for name in sorted(names)), 120, break_long_words=False)


# -- library


def library() -> str:
    parts = [
        "# Library",
        "`ostraka.open(*directories, ec=None, memory=False)` opens the store in these directories, or makes one, for\n"
        "an ordinary program; `ostraka.open_async` is the same for asyncio, with every method a coroutine or an\n"
        "asynchronous iterator. Both are context managers. Here are the names as an ordinary program calls them.",
        f"`ostraka` exports {', '.join(f'`{name}`' for name in ostraka.__all__)}. Errors are in [errors](errors.md).",
        _example(ostraka.library.__doc__ or ""),
    ]
    for waiting, described in (
        (blocking.Store, aio.AsyncStore),
        (blocking.Bucket, aio.AsyncBucket),
        (blocking.Reader, aio.AsyncReader),
        (blocking.Upload, AsyncUpload),
        (blocking.Chunks, AsyncChunks),
        (blocking.Disks, AsyncDisks),
        (blocking.Pools, AsyncPools),
    ):
        parts += [f"## {waiting.__name__}", f"For asyncio: `{described.__name__}`. {_prose(described.__doc__)}"]
        for method in ast.parse(inspect.getsource(waiting)).body[0].body:  # type: ignore[attr-defined]
            told = getattr(described, getattr(method, "name", ""), None)
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and told is not None:
                parts += [f"### {waiting.__name__}.{method.name}", _signature(method), _prose(told.__doc__)]
    return "\n\n".join(parts)


def _signature(method: ast.FunctionDef) -> str:
    """As it stands in the source, without ``self``."""
    given = ast.unparse(method.args).removeprefix("self").removeprefix(", ")
    returned = f" -> {ast.unparse(method.returns)}" if method.returns else ""
    shown = (
        method.name
        if any(isinstance(d, ast.Name) and d.id == "property" for d in method.decorator_list)
        else (f"{method.name}({given})")
    )
    return code("\n".join(textwrap.wrap(shown + returned, WIDTH, subsequent_indent="    ")))


def _example(text: str) -> str:
    """The program in a docstring, which a test runs, and what it prints."""
    found = doctest.DocTestParser().get_examples(text)
    imports = "".join(each.source for each in found if each.source.startswith("import "))
    program = "".join(each.source for each in found if not each.source.startswith("import "))
    printed = "".join(each.want for each in found)
    return f"```python\n{imports}\n{program}```\n\nprints\n\n{code(printed.rstrip())}"


def _prose(text: str | None) -> str:
    return inspect.cleandoc(text or "").replace("``", "`")


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "settings.md": settings,
    "errors.md": errors_page,
    "limits.md": limits_page,
    "metrics.md": metrics,
    "operations.md": operations,
    "library.md": library,
}


def page(name: str) -> str:
    return f"{NOTE}\n\n{PAGES[name]()}\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="write nothing")
    check = options.parse_args().check
    REFERENCE.mkdir(exist_ok=True)
    stale = [name for name in PAGES if not (REFERENCE / name).exists() or (REFERENCE / name).read_text() != page(name)]
    if check and stale:
        sys.exit(f"not what the code says: {', '.join(stale)}; run scripts/generate_reference.py")
    for name in stale:
        (REFERENCE / name).write_text(page(name))


if __name__ == "__main__":
    main()
