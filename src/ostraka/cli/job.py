"""`ostraka job`: background work, seen."""

import click

from ostraka.cli.grammar import where
from ostraka.cli.options import json_option, store_option, store_words
from ostraka.cli.output import show_rows
from ostraka.cli.reach import perform


@click.group()
def job() -> None:
    """See what a store does in the background."""


@job.command("ls")
@store_words
@store_option
@json_option
def ls(words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """List the jobs of a store: working, waiting for their time, idle until something changes, or failed.

    \b
    ostraka job ls /disk1 /disk2
    """
    rows = perform(where(stores, words), "job-ls", {}, name="job ls", as_json=as_json)["jobs"]
    show_rows(rows, ["name", "status", "done", "total", "again_in", "purpose", "note"], as_json=as_json)
