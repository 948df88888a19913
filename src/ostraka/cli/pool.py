"""`ostraka pool`: places beside the store's disks, in which objects of other storage classes are kept."""

import click

from ostraka.cli.grammar import where
from ostraka.cli.options import json_option, store_option, store_words
from ostraka.cli.output import human_size, show_rows
from ostraka.cli.reach import perform
from ostraka.config import parse_size


@click.group()
def pool() -> None:
    """See and change the pools of a store: its own disks, and places in other stores for other storage classes."""


@pool.command("ls")
@store_words
@store_option
@json_option
def ls(words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """List the pools of a store, with what each of them holds.

    \b
    ostraka pool ls /disk1 /disk2 /disk3
    """
    rows = perform(where(stores, words), "pool-ls", {}, name="pool ls", as_json=as_json)["pools"]
    if not as_json:
        for row in rows:
            row["stored"] = human_size(row["stored_bytes"])
            row["cache"] = human_size(row["cache"]) if row["cache"] else None
    columns = ["name", "status", "storage_class", "chunks", "packs", "stored", "cache", "url"]
    show_rows(rows, columns, as_json=as_json)


@pool.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--storage-class", required=True, metavar="CLASS", help="of the objects that are kept there")
@click.option(
    "--cache", default="0", metavar="SIZE", help="keep what was read lately on a disk of the store, up to this"
)
@store_option
@json_option
def add(name: str, url: str, storage_class: str, cache: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Keep objects of a storage class at URL, an empty place in a directory, S3 or Azure.

    URL is written as for `ostraka backend`; credentials come from the server's environment, never from the URL. What is
    written with that class goes there; what has it already is moved there by the job `tier`.

    \b
    ostraka pool add cold s3://archive/ostraka --storage-class GLACIER_IR --store /disk1 --store /disk2
    ostraka pool add nas file:///mnt/nas/ostraka --storage-class STANDARD_IA --cache 20GiB --store /disk1
    """
    arguments = {"name": name, "url": url, "storage_class": storage_class, "cache_bytes": parse_size(cache)}
    result = perform(where(stores), "pool-add", arguments, name="pool add", as_json=as_json)
    if as_json:
        show_rows([result], [], as_json=True)
    else:
        click.echo(f"pool {result['name']} ({result['url']}) keeps objects of class {result['storage_class']}")


@pool.command("rm")
@click.argument("name")
@store_option
@json_option
def rm(name: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Let a pool go: nothing new is kept there, and what is there moves to the store's disks.

    The job `tier` moves it while the store is served; `ostraka pool ls` shows what is left.

    \b
    ostraka pool rm cold --store /disk1 --store /disk2
    """
    result = perform(where(stores), "pool-rm", {"name": name}, name="pool rm", as_json=as_json)
    if as_json:
        show_rows([result], [], as_json=True)
    else:
        left = f"{result['chunks']} chunks and {result['packs']} packs"
        click.echo(f"pool {result['name']} is leaving: {left} move to the store's disks")
