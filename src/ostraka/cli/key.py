"""`ostraka key`: the keys under which the store encrypts."""

import click

from ostraka.cli.grammar import where
from ostraka.cli.options import json_option, store_option, store_words
from ostraka.cli.output import human_time, show_json, show_rows
from ostraka.cli.reach import perform
from ostraka.errors import Invalid


@click.group()
def key() -> None:
    """List, make and rotate the keys that the store encrypts with: `default` (SSE-S3), and those with names (SSE-KMS).

    All are wrapped under the master key, OSTRAKA_MASTER_KEY, which is written nowhere: who loses it loses what is
    encrypted.
    """


@key.command("ls")
@store_words
@store_option
@json_option
def ls(words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """List the keys of a store.

    \b
    ostraka key ls /disk1 /disk2
    """
    rows = perform(where(stores, words), "key-ls", {}, name="key ls", as_json=as_json)["keys"]
    show_rows(rows, ["name", "version", "older_versions", "master_key", "usable"], as_json=as_json)


@key.command("show")
@click.argument("name", default="default", metavar="[NAME]")
@store_option
@json_option
def show(name: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Show a key: its versions, and the buckets that encrypt with it by themselves.

    \b
    ostraka key show kleio --store /disk1
    """
    result = perform(where(stores), "key-show", {"name": name}, name="key show", as_json=as_json)
    if as_json:
        show_json(result)
        return
    usable = "" if result["usable"] else "  (not given: what it seals cannot be read)"
    click.echo(f"key         {result['name']}")
    click.echo(f"id          {result['id']}")
    click.echo(f"master key  {result['master_key']}{usable}")
    for version in result["versions"]:
        current = "  current" if version["number"] == result["version"] else ""
        click.echo(f"version {version['number']:<3} {human_time(version['created'])}{current}")
    click.echo(f"buckets     {', '.join(result['buckets']) or 'none'}")


@key.command("create")
@click.argument("name")
@store_option
@json_option
def create(name: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Make a key, for requests and buckets that name it (SSE-KMS).

    \b
    ostraka key create kleio --store /disk1
    """
    result = perform(where(stores), "key-create", {"name": name}, name="key create", as_json=as_json)
    if as_json:
        show_json(result)
    else:
        click.echo(f"key {name} is made: x-amz-server-side-encryption-aws-kms-key-id: {name}")


@key.command("rotate")
@click.argument("name", default="", metavar="[NAME]")
@click.option("--master", is_flag=True, help="bring all keys under the first of the master keys")
@store_option
@json_option
def rotate(name: str, master: bool, stores: tuple[str, ...], as_json: bool) -> None:
    """Make a new version of a key, which seals all that is written from now on. No data is rewritten: a job wraps the
    data keys of what is there anew, and then the old version goes.

    --master instead: give the store a new master key in front of the old one (two lines in OSTRAKA_MASTER_KEY_FILE);
    this brings all keys under it, as every start does, and the old one may go.

    \b
    ostraka key rotate default --store /disk1
    ostraka key rotate --master --store /disk1
    """
    if bool(name) == master:
        raise Invalid("ostraka key rotate: name a key, or say --master", reason="usage")
    if master:
        result = perform(where(stores), "key-rotate-master", {}, name="key rotate", as_json=as_json)
        if result["complaint"]:
            raise Invalid(result["complaint"], reason="master-key")
        line = f"all keys are under master key {result['master_key']} ({result['rewrapped']} were brought under it)"
    else:
        result = perform(where(stores), "key-rotate", {"name": name}, name="key rotate", as_json=as_json)
        line = (
            f"key {name} is at version {result['version']}; a job wraps anew what it sealed, while the store is served"
        )
    if as_json:
        show_json(result)
    else:
        click.echo(line)
