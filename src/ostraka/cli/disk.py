"""`ostraka disk`: the disks of a store, seen and changed."""

import os

import click

from ostraka.cli.grammar import where
from ostraka.cli.options import json_option, store_option, store_words
from ostraka.cli.output import human_size, show_rows
from ostraka.cli.reach import perform


@click.group()
def disk() -> None:
    """See and change the disks of a store, whether it is being served or not."""


@disk.command("ls")
@store_words
@store_option
@json_option
def ls(words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """List the disks of a store.

    \b
    ostraka disk ls /disk1 /disk2 /disk3
    """
    rows = perform(where(stores, words), "disk-ls", {}, name="disk ls", as_json=as_json)["disks"]
    for row in rows:
        row["size"] = row["total"] if as_json or row["total"] is None else human_size(row["total"])
        row["free"] = row["free"] if as_json or row["free"] is None else human_size(row["free"])
    show_rows(rows, ["number", "status", "state", "free", "size", "path"], as_json=as_json)


@disk.command("replace")
@click.argument("words", nargs=-1, required=True, metavar="[OLD] NEW")
@store_option
@json_option
def replace(words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """Adopt the empty directory NEW as a disk and rebuild the shards and state of a lost one onto it.

    OLD is the lost disk's number (see `ostraka disk ls`) or its directory; it may be left out when exactly one is lost.

    \b
    ostraka disk replace --store /disk1 --store /disk2 /disk3-new
    ostraka disk replace --store /disk1 --store /disk2 2 /disk3-new
    """
    if len(words) > 2:
        raise click.UsageError("give [OLD] NEW: at most two words")
    old = words[0] if len(words) == 2 else ""
    # a server has a working directory of its own: directories are sent in full
    arguments = {"old": old if not old or old.isdigit() else os.path.abspath(old), "new": os.path.abspath(words[-1])}
    result = perform(where(stores), "disk-replace", arguments, name="disk replace", as_json=as_json)
    if as_json:
        show_rows([result], [], as_json=True)
    else:
        click.echo(
            f"disk {result['old']} was replaced by disk {result['new']} ({result['path']}): {result['repaired']} of "
            f"{result['examined']} stripes rebuilt. From now on start with this directory in place of the lost one."
        )


@disk.command("forget")
@click.argument("number")
@store_option
@json_option
def forget(number: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Take a lost disk out of the store for good; what it held is rebuilt on the others.

    \b
    ostraka disk forget 2 --store /disk1 --store /disk2
    """
    result = perform(where(stores), "disk-forget", {"old": number}, name="disk forget", as_json=as_json)
    if as_json:
        show_rows([result], [], as_json=True)
    else:
        click.echo(f"disk {result['old']} is forgotten: {result['repaired']} of {result['examined']} stripes rebuilt")
