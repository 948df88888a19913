"""The command line: `ostraka serve`, `ostraka disk`, `ostraka fsck`. Thin: every command calls a room below.

Modules are imported when their command runs, so that `ostraka --help` answers at once.
"""

import contextlib
import importlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from ostraka import __version__, machine
from ostraka.cli.output import Terminated, friendly, show_log

COMMANDS = {
    "serve": ("ostraka.cli.serve", "serve"),
    "status": ("ostraka.cli.status", "status"),
    "bucket": ("ostraka.cli.bucket", "bucket"),
    "ls": ("ostraka.cli.ls", "ls"),
    "cp": ("ostraka.cli.cp", "cp"),
    "sync": ("ostraka.cli.sync", "sync"),
    "cat": ("ostraka.cli.cat", "cat"),
    "rm": ("ostraka.cli.rm", "rm"),
    "backend": ("ostraka.cli.backend", "backend"),
    "account": ("ostraka.cli.account", "account"),
    "key": ("ostraka.cli.key", "key"),
    "credentials": ("ostraka.cli.credentials", "credentials"),
    "disk": ("ostraka.cli.disk", "disk"),
    "pool": ("ostraka.cli.pool", "pool"),
    "job": ("ostraka.cli.job", "job"),
    "scrub": ("ostraka.cli.scrub", "scrub"),
    "fsck": ("ostraka.cli.fsck", "fsck"),
    "metadatadb": ("ostraka.cli.metadatadb", "metadatadb"),
    "doctor": ("ostraka.cli.doctor", "doctor"),
    "completion": ("ostraka.cli.completion", "completion"),
    "version": ("ostraka.cli.version", "version"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _ended():  # words are looked at, and perhaps completed
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _ended():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """Click would say "Aborted!" to Ctrl-C, and end with a status that says nothing when nobody reads its output."""
    try:
        yield
    except KeyboardInterrupt as e:
        raise Terminated.by(signal.SIGINT, e) from None
    except BrokenPipeError as e:
        raise Terminated.by(signal.SIGPIPE, e) from None


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: ostraka serve ./data",
)
@click.version_option(__version__, prog_name="ostraka")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Durable object storage: an S3 endpoint over the directories that you name."""
    if ctx.invoked_subcommand != "serve":  # it has a log of its own
        show_log("critical" if ctx.invoked_subcommand == "fsck" else "error")  # fsck's findings are its output


def main(args: list[str] | None = None, **extra: Any) -> None:
    """The entry point: runs a command; errors become one line and the exit status that output.py lists."""
    with friendly():
        machine.check()
        sys.exit(command.main(args=args, prog_name="ostraka", standalone_mode=False, **extra))
