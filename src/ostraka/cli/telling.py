"""Carrying out actions on many objects, and telling of each: a line, a JSON object, or nothing.

One object's own trouble (it changed, its key can be no file's name) is told, and the others go on; the exit status
remembers it. Trouble that all of them share (the server is gone, the disk is full, the credentials are wrong) ends the
command at once: the same line a thousand times would tell no more.
"""

import errno
from collections import Counter
from collections.abc import Iterable

import click

from ostraka import errors
from ostraka.cli.output import Meter, human_size, printable, show_json, status_of, told
from ostraka.client.actions import Action
from ostraka.client.crew import Crew, Stopped

STREAM = "-"  # standard input, or output

_SHARED = (errors.Unavailable, errors.Full, errors.Forbidden, errors.InUse, errors.Refused)
_SHARED_ERRNOS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE))


def is_shared(error: BaseException) -> bool:
    """Whether every other object would meet the same trouble."""
    if isinstance(error, errors.Absent):
        return error.reason == "bucket"
    if isinstance(error, OSError):
        return error.errno in _SHARED_ERRNOS
    return isinstance(error, _SHARED) and not isinstance(error, errors.Overloaded)


class Teller:
    """Says what was done, counts it, and knows the exit status."""

    def __init__(self, *, as_json: bool, quiet: bool, dry_run: bool = False) -> None:
        self._json = as_json
        self._quiet = quiet
        self._dry = dry_run
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self.failed = 0
        self._statuses: set[int] = set()

    @property
    def status(self) -> int:
        """0 if nothing failed; the one status of all failures, or 1."""
        if not self.failed:
            return 0
        return self._statuses.pop() if len(self._statuses) == 1 else 1

    def did(self, verb: str, source: str, target: str = "", size: int = 0) -> None:
        """It is done; or would be, on a dry run."""
        self.counts[verb] += 1
        self.bytes += size
        if self._quiet:
            return
        if self._json:
            row = {"action": verb, "source": source, "target": target or None, "size": size}
            show_json({**row, "dry_run": True} if self._dry else row)
            return
        way = f" to {target}" if target else ""
        click.echo(printable(f"{'(dry run) ' if self._dry else ''}{verb}: {source}{way}"))

    def trouble(self, error: Exception, about: str = "") -> None:
        """One object could not be dealt with. Raises it if it is everybody's trouble."""
        text = told(error)
        unnamed = bool(about) and printable(about) not in text
        if is_shared(error):
            if unnamed:
                error.add_note(f"it was met by {about}")
            raise error
        if unnamed:
            text = f"{printable(about)}: {text}"
        self.problem(text, status_of(error))

    def problem(self, text: str, status: int = 1) -> None:
        """Something is left undone."""
        self.failed += 1
        self._statuses.add(status)
        click.echo(f"ostraka: {printable(text)}", err=True)

    def summary(self, unchanged: int | None = None) -> None:
        """What it all came to, where it was more than one thing. ``unchanged``: so many had nothing to be done."""
        if self._json:
            counts = dict(sorted(self.counts.items()))
            total = {"done": counts, "bytes": self.bytes, "failed": self.failed, "dry_run": self._dry}
            show_json(total if unchanged is None else {**total, "unchanged": unchanged})
        elif not self._quiet and (self.counts.total() + self.failed > 1 or unchanged is not None):
            parts = [f"{count} {_PAST.get(verb, verb)}" for verb, count in sorted(self.counts.items())]
            parts += [f"{unchanged} unchanged"] if unchanged is not None else []
            words = ", ".join(parts) or "nothing done"
            size = f" ({human_size(self.bytes)})" if self.bytes else ""
            failed = f"; {self.failed} not" if self.failed else ""
            click.echo(f"{'(dry run) ' if self._dry else ''}{words}{size}{failed}")


_PAST = {"upload": "uploaded", "download": "downloaded", "copy": "copied", "delete": "deleted"}


def carry_out(crew: Crew, actions: Iterable[Action], teller: Teller, meter: Meter, *, dry_run: bool) -> None:
    """Do them, a few at a time, and tell of each."""
    if dry_run:
        for action in actions:
            teller.did(action.verb, action.source, action.target, action.size)
        return

    def expected() -> Iterable[Action]:
        for action in actions:
            meter.expect(action.size)
            yield action

    for outcome in crew.run(expected(), lambda action: action.do()):
        action, error = outcome.work, outcome.error
        if error is None:
            teller.did(action.verb, action.source, action.target, action.size)
        elif not isinstance(error, Stopped):
            teller.trouble(error, action.target if action.source == STREAM else action.source)
