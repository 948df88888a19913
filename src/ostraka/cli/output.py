"""How the command line speaks: one line for an error, tables or JSON for lists, a bar for long work; exit statuses.

Every error that people can do something about is one line on standard error that names the thing and the way out. The
exit status says which of the answers it is that must never be confused (law 3):

    0    done
    1    it could not be done, or damage was found that is left
    2    the command was not understood: a wrong word, name, path or setting
    3    what was named does not exist
    4    it cannot be reached now; the same command may succeed later
    5    bytes are damaged
    6    not allowed
    130  interrupted by Ctrl-C (143: by SIGTERM, 141: nobody reads the output any more)
"""

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import click
import msgspec

from ostraka import errors
from ostraka.errors import OstrakaError

STATUSES: dict[type[OstrakaError], int] = {
    errors.Invalid: 2,
    errors.Absent: 3,
    errors.Unavailable: 4,
    errors.Corrupt: 5,
    errors.Forbidden: 6,
}

_WAYS_OUT = {
    errno.ENOSPC: "make room there, and give the command again",
    errno.EDQUOT: "make room there, and give the command again",
    errno.EACCES: "change its owner or its mode, or be another user",
    errno.EPERM: "change its owner or its mode, or be another user",
    errno.EROFS: "mount it for writing, or name another place",
    errno.ENOENT: "is the path right?",
    errno.ENOTDIR: "a file is in the way of a directory: name another path",
    errno.EEXIST: "a file is in the way of a directory: name another path",
    errno.EISDIR: "name a file",
    errno.ENAMETOOLONG: "name it shorter",
    errno.EIO: "the disk fails: see the kernel's log (dmesg)",
    errno.EMFILE: "allow more open files (ulimit -n)",
}


class Terminated(BaseException):
    """A signal came that ends the program: what is under way is cleaned up first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @classmethod
    def by(cls, number: int, error: BaseException) -> "Terminated":
        """With what the error has to say beside."""
        ended = cls(number)
        ended.__notes__ = getattr(error, "__notes__", [])
        return ended


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """SIGTERM and SIGHUP let what is under way clean up, as Ctrl-C does, instead of ending the process at once."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show_log(level: str) -> None:
    """What the rooms below log from that level on goes to standard error, in our way of speaking; OSTRAKA_LOG_LEVEL
    sets another level."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("ostraka: %(levelname)s: %(message)s"))
    root = logging.getLogger("ostraka")
    root.handlers[:] = [handler]
    root.propagate = False
    wanted = os.environ.get("OSTRAKA_LOG_LEVEL", level).upper()
    root.setLevel(wanted if wanted in logging.getLevelNamesMapping() else level.upper())


def status_of(error: BaseException) -> int:
    """The exit status that says of which kind an error is."""
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 1)


def told(error: BaseException) -> str:
    """An error in one line: what it is about, and the way out."""
    if isinstance(error, OstrakaError):
        text = error.message
    elif isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        way_out = _WAYS_OUT.get(error.errno or 0)
        text = f"{name}{error.strerror or error}{f' ({way_out})' if way_out else ''}"
    else:
        text = f"{type(error).__name__}: {error}"
    notes = getattr(error, "__notes__", [])
    return printable("; ".join([text, *notes]))


@contextlib.contextmanager
def friendly() -> Iterator[None]:
    """Turn the errors that people can do something about into one line and an exit status, without a traceback."""
    try:
        yield
    except click.ClickException as e:
        _show_usage(e)
        sys.exit(e.exit_code)
    except (OstrakaError, OSError) as e:
        click.echo(f"ostraka: {told(e)}", err=True)
        sys.exit(status_of(e))
    except (KeyboardInterrupt, click.exceptions.Abort, Terminated) as e:  # Abort: what click makes of the first
        # Ctrl-C between the call of a coroutine and its await leaves one that nobody awaits: Python would tell that too
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        number = e.number if isinstance(e, Terminated) else signal.SIGINT
        if number == signal.SIGPIPE:
            _let_go_of_output()
            sys.exit(128 + number)
        by_hand = number == signal.SIGINT
        if by_hand and sys.stderr.isatty():
            click.echo(err=True)  # after the ^C that the terminal shows
        said = ["interrupted" if by_hand else "terminated", *getattr(e, "__notes__", [])]
        click.echo(f"ostraka: {'; '.join(said)}", err=True)
        sys.exit(128 + number)


def _show_usage(error: click.ClickException) -> None:
    """What is wrong with a command's words; all of its help if it was given none."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError) or context is None:
        error.show()
        return
    text = " ".join(error.format_message().split()).rstrip(".")
    click.echo(f"ostraka: {printable(text)}; `{context.command_path} --help` shows how", err=True)


def _let_go_of_output() -> None:
    """The interpreter flushes standard output at its end, and would tell again that nobody reads it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.close()


def printable(text: str) -> str:
    """Text with nothing in it that a terminal would obey: keys and file names may hold anything."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_json(row: object) -> None:
    """One JSON object on a line of its own."""
    click.echo(msgspec.json.encode(row))


def show_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows: one JSON object a line, or a table with those columns."""
    if as_json:
        for row in rows:
            show_json(row)
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
    return printable(str(value))


def human_size(size: float) -> str:
    """1536 as "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def human_span(seconds: float) -> str:
    """5400 as "1.5 h"."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def human_time(seconds: float) -> str:
    """A moment as this machine's clock on the wall had it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _progress(*columns: Any) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # lines go above the bar
    )


class Bar:
    """A progress bar on a terminal; nothing elsewhere; JSON lines if asked for."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bar":
        if not self._json and sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
            self._progress = _progress(*columns)
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, step: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` units of this step are behind us."""
        if self._json:
            show_json({"progress": step, "done": done, "total": total})
        elif self._progress is not None:
            if step not in self._tasks:
                self._tasks[step] = self._progress.add_task(step, total=total)
            self._progress.update(self._tasks[step], completed=done, total=total)


class Meter:
    """Bytes that go by: a bar with rate and remaining time on a terminal, nothing elsewhere. Any thread may add."""

    def __init__(self, *, shown: bool) -> None:
        self._lock = threading.Lock()
        self._done = self._total = 0
        self._progress: Any = None
        self._task: Any = None
        self._shown = shown and sys.stderr.isatty()

    def __enter__(self) -> "Meter":
        if self._shown:
            from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

            columns = [BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn()]
            self._progress = _progress(*columns)
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def expect(self, size: int) -> None:
        """So many bytes more are to come."""
        with self._lock:
            self._total += size
            if self._progress is not None:
                self._progress.update(self._task, total=self._total)

    def add(self, size: int) -> None:
        """So many went by; a negative number takes back what has to go by again."""
        with self._lock:
            self._done += size
            if self._progress is not None:
                self._progress.update(self._task, completed=self._done)
