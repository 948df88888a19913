"""`ostraka disk`: the disks of a store, seen and changed."""

import os

import click

from ostraka.cli.output import human_size, show_rows
from ostraka.cli.reach import perform


@click.group()
def disk() -> None:
    """See and change the disks of a store, whether it is being served or not."""


store_argument = click.argument("directories", nargs=-1, required=True, metavar="DIR [DIR...]", envvar="OSTRAKA_STORE")
store_option = click.option(
    "--store",
    "directories",
    multiple=True,
    required=True,
    type=click.Path(),
    metavar="DIR",
    envvar="OSTRAKA_STORE",
    help="a directory of the store; repeat it, once for each that is left  [OSTRAKA_STORE, separated by colons]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON, one object a line")


@disk.command("ls")
@store_argument
@json_option
def ls(directories: tuple[str, ...], as_json: bool) -> None:
    """List the disks of the store in these directories."""
    rows = perform(directories, "disk-ls", {}, as_json=as_json)["disks"]
    for row in rows:
        row["size"] = row["total"] if as_json or row["total"] is None else human_size(row["total"])
        row["free"] = row["free"] if as_json or row["free"] is None else human_size(row["free"])
    show_rows(rows, ["number", "status", "state", "free", "size", "path"], as_json=as_json)


@disk.command("replace")
@click.argument("words", nargs=-1, required=True, metavar="[OLD] NEW")
@store_option
@json_option
def replace(words: tuple[str, ...], directories: tuple[str, ...], as_json: bool) -> None:
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
    result = perform(directories, "disk-replace", arguments, as_json=as_json)
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
def forget(number: str, directories: tuple[str, ...], as_json: bool) -> None:
    """Take a lost disk out of the store for good; what it held is rebuilt on the others."""
    result = perform(directories, "disk-forget", {"old": number}, as_json=as_json)
    if as_json:
        show_rows([result], [], as_json=True)
    else:
        click.echo(f"disk {result['old']} is forgotten: {result['repaired']} of {result['examined']} stripes rebuilt")
