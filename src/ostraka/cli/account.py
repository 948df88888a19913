"""`ostraka account`: who may sign requests, beside root."""

import sys
from pathlib import Path

import click

from ostraka.cli.grammar import where
from ostraka.cli.options import json_option, store_option, store_words
from ostraka.cli.output import show_json, show_rows
from ostraka.cli.reach import perform
from ostraka.config import secret_file


@click.group()
def account() -> None:
    """List, add and remove accounts. Each has one access key and owns the buckets that it makes; root may do all."""


@account.command("ls")
@store_words
@store_option
@json_option
def ls(words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """List the accounts of a store, root first.

    \b
    ostraka account ls /disk1 /disk2
    """
    rows = perform(where(stores, words), "account-ls", {}, name="account ls", as_json=as_json)["accounts"]
    show_rows(rows, ["name", "access_key", "buckets"], as_json=as_json)


@account.command("add")
@click.argument("name")
@click.option("--access-key", default="", metavar="KEY", help="made if it is not given")
@click.option("--secret-key-file", default="", metavar="FILE", help="that holds the secret key (- is standard input)")
@store_option
@json_option
def add(name: str, access_key: str, secret_key_file: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Add an account, and print its keys. It may sign requests at once, whether the store is served or not.

    \b
    ostraka account add ann
    ostraka account add backup --access-key BACKUP --secret-key-file /run/secrets/backup
    """
    secret = ""
    if secret_key_file == "-":
        secret = sys.stdin.readline().rstrip("\r\n")
    elif secret_key_file:
        secret = secret_file(str(Path(secret_key_file)), "--secret-key-file")
    arguments = {"name": name, "access_key": access_key, "secret_key": secret}
    show_keys(perform(where(stores), "account-add", arguments, name="account add", as_json=as_json), as_json)


@account.command("rm")
@click.argument("name")
@click.option("--force", is_flag=True, help="also if it owns buckets, which are root's to use then")
@store_option
@json_option
def rm(name: str, force: bool, stores: tuple[str, ...], as_json: bool) -> None:
    """Remove an account: its key signs nothing any more.

    \b
    ostraka account rm ann
    """
    arguments = {"name": name, "force": force}
    result = perform(where(stores), "account-rm", arguments, name="account rm", as_json=as_json)
    if as_json:
        show_json(result)
    else:
        click.echo(f"account {name} is removed")


def show_keys(result: dict[str, str], as_json: bool) -> None:
    """An account's keys, for who asked for them."""
    if as_json:
        show_json(result)
    else:
        click.echo(f"account     {result['name']}")
        click.echo(f"access key  {result['access_key']}")
        click.echo(f"secret key  {result['secret_key']}")
