"""How the command line speaks: one line for an error, tables or JSON for lists, a bar for long work."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
import msgspec

from ostraka.errors import Invalid, OstrakaError


@contextlib.contextmanager
def friendly() -> Iterator[None]:
    """Turn the errors that people can do something about into one line and an exit status, without a traceback."""
    try:
        yield
    except OstrakaError as e:
        click.echo(f"ostraka: {e.message}", err=True)
        sys.exit(2 if isinstance(e, Invalid) else 1)
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        click.echo("ostraka: interrupted", err=True)
        sys.exit(130)
    except OSError as e:
        name = f"{e.filename}: " if e.filename else ""
        click.echo(f"ostraka: {name}{e.strerror or e}", err=True)
        sys.exit(1)


def show_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows: one JSON object a line, or a table with those columns."""
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row))
        return
    cells = [[c.replace("_", " ") for c in columns], *([_text(r.get(c)) for c in columns] for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for line in cells:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def human_size(size: float) -> str:
    """1536 as "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


class Bar:
    """A progress bar on a terminal; nothing elsewhere; JSON lines if asked for."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bar":
        if not self._json and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, step: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` units of this step are behind us."""
        if self._json:
            click.echo(msgspec.json.encode({"progress": step, "done": done, "total": total}))
        elif self._progress is not None:
            if step not in self._tasks:
                self._tasks[step] = self._progress.add_task(step, total=total)
            self._progress.update(self._tasks[step], completed=done, total=total)
