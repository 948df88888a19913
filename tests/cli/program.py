"""The real program, run as a person runs it: its words, its output, its exit status; and the three ways to a store."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zygote import Zygote

SECONDS_MAX = 100.0


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    status: int
    out: str
    err: str
    raw: bytes

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Program:
    """`ostraka` in a directory of its own, with an environment of its own. ``way``: the words that name the store."""

    def __init__(
        self,
        zygote: Zygote,
        directory: Path,
        way: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._zygote = zygote
        self.directory = directory
        self.way = way
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OSTRAKA_", "AWS_"))}
        self.environment = {**clean, **(environment or {})}

    def elsewhere(self, *way: str, **environment: str) -> "Program":
        """The same, with another store."""
        return Program(self._zygote, self.directory, way, {**self.environment, **environment})

    def start(self, *words: str, stdin: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Begin a command in an interpreter of its own; the store's words are added to it."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ostraka", *words, *self.way],
            cwd=self.directory,
            env=self.environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def __call__(self, *words: str, stdin: bytes = b"", nobody: bool = False, interrupt: int = 0) -> Done:
        """Run a command to its end; ``nobody`` and ``interrupt`` are told in zygote.py."""
        arguments = [*words, *self.way]
        status, out, err = self._zygote.run(
            arguments, self.directory, self.environment, stdin, SECONDS_MAX, nobody=nobody, interrupt=interrupt
        )
        return Done(status, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"), out)

    def well(self, *words: str, stdin: bytes = b"") -> Done:
        """Run a command that must succeed, and say nothing on standard error."""
        done = self(*words, stdin=stdin)
        assert (done.status, done.err) == (0, ""), f"{words}: {done}"
        return done


def one_line(done: Done, status: int, *says: str) -> None:
    """What a tired person is told: one line that names the thing and the way out, no traceback, no output."""
    lines = done.err.splitlines()
    assert done.status == status, done
    assert len(lines) == 1, done
    assert lines[0].startswith("ostraka: "), done
    for word in says:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
