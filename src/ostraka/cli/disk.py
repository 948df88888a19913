"""`ostraka disk`: the disks of a store, seen and changed."""

import itertools
import os
import time
from typing import Any

import click

from ostraka.cli.grammar import Where, where
from ostraka.cli.options import json_option, store_option, store_words
from ostraka.cli.output import human_size, show_rows
from ostraka.cli.reach import perform
from ostraka.config import parse_geometry
from ostraka.errors import InUse, Unavailable

_ATTEMPTS_MAX = 60  # at reaching a server that opens its store anew
_PAUSE_SECONDS = 1.0

wait_option = click.option("--wait", is_flag=True, help="Return when all data is where it belongs, not before.")


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
        for name in ("free", "holds"):
            row[name] = row[name] if as_json or row[name] is None else human_size(row[name])
    show_rows(rows, ["number", "status", "state", "holds", "free", "size", "path"], as_json=as_json)


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


@disk.command("add")
@click.argument("directory", metavar="DIR")
@wait_option
@store_option
@json_option
def add(directory: str, wait: bool, stores: tuple[str, ...], as_json: bool) -> None:
    """Adopt the empty directory DIR as one more disk, and move its share of the data there.

    It gets new data at once. A server moves what it should hold of the old in the background; where none runs, this
    command does.

    \b
    ostraka disk add /disk7 --store /disk1
    ostraka disk add /disk7 --store /disk1 --wait
    """
    result = _change(stores, "disk-add", {"new": os.path.abspath(directory)}, "disk add", wait=wait, as_json=as_json)
    if not as_json:
        click.echo(
            f"{result['path']} is disk {result['new']} now; {_rest(result)}. From now on name it too when you start."
        )


@disk.command("drain")
@click.argument("name", metavar="DISK")
@click.option("--cancel", is_flag=True, help="Keep the disk after all.")
@wait_option
@store_option
@json_option
def drain(name: str, cancel: bool, wait: bool, stores: tuple[str, ...], as_json: bool) -> None:
    """Move everything off DISK, a number or a directory, and take it out of the store when it is empty.

    It gets nothing new, and can be read until it is empty. `ostraka disk ls` shows how much it still holds; when it is
    no longer listed, its directory may go.

    \b
    ostraka disk drain 2 --store /disk1
    ostraka disk drain /disk3 --store /disk1 --wait
    ostraka disk drain 2 --cancel --store /disk1
    """
    arguments = {"disk": name if name.isdigit() else os.path.abspath(name), "cancel": cancel}
    result = _change(stores, "disk-drain", arguments, "disk drain", wait=wait, as_json=as_json)
    if as_json:
        return
    if cancel:
        click.echo(f"disk {result['disk']} stays; {_rest(result)}")
    elif result["left"]:
        click.echo(f"{result['path']} is empty and has left the store: it may be removed")
    else:
        click.echo(
            f"disk {result['disk']} is being drained: `ostraka disk ls` shows what it still holds. When it is no "
            f"longer listed, {result['path']} may be removed."
        )


@disk.command("geometry")
@click.argument("ec", metavar="K+M")
@click.option("--convert", is_flag=True, help="Rewrite the data that is there as well.")
@wait_option
@store_option
@json_option
def geometry(ec: str, convert: bool, wait: bool, stores: tuple[str, ...], as_json: bool) -> None:
    """Write new data with K data shards and M of parity, so that any M disks may be lost.

    Data that is there keeps its geometry, and bears what that bears, until it is converted.

    \b
    ostraka disk geometry 4+2 --store /disk1
    ostraka disk geometry 4+2 --convert --store /disk1
    """
    k, m = parse_geometry(ec)
    arguments = {"k": k, "m": m, "convert": convert}
    result = _change(stores, "disk-geometry", arguments, "disk geometry", wait=wait, as_json=as_json)
    if not as_json:
        old = f"; older data is {', '.join(result['old'])} still" if result["old"] else ""
        click.echo(f"new data is written as {result['k']}+{result['m']}{old}; {_rest(result)}")


def _change(
    stores: tuple[str, ...], command: str, arguments: dict[str, Any], name: str, *, wait: bool, as_json: bool
) -> dict[str, Any]:
    """Carry out a command that moves data; with ``wait``, to the end of that."""
    store = where(stores)
    result = perform(store, command, arguments, name=name, as_json=as_json)
    if wait and not result["done"]:
        result |= _wait(store, {"disk": result.get("disk")}, name, as_json=as_json)
    if as_json:
        show_rows([result], [], as_json=True)
    return result


def _wait(store: Where, arguments: dict[str, Any], name: str, *, as_json: bool) -> dict[str, Any]:
    """Until the data has moved; a server may open its store anew meanwhile, or be started again."""
    for attempt in itertools.count():
        try:
            return perform(store, "disk-wait", arguments, name=name, as_json=as_json)
        except (InUse, Unavailable) as error:
            if attempt >= _ATTEMPTS_MAX or (isinstance(error, Unavailable) and error.reason != "server"):
                raise
        time.sleep(_PAUSE_SECONDS)
    raise AssertionError


def _rest(result: dict[str, Any]) -> str:
    """What became of the data."""
    if result["done"]:
        return f"{result['moved']} stripes were changed"
    return "data moves in the background: see `ostraka job ls`"


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
