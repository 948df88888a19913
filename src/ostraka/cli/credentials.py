"""`ostraka credentials`: the keys of root and of other accounts."""

import click

from ostraka.cli.account import show_keys
from ostraka.cli.grammar import where
from ostraka.cli.options import json_option, store_option
from ostraka.cli.reach import perform


@click.group()
def credentials() -> None:
    """Show and change the keys that sign requests: root's, or those of an account that is named."""


@credentials.command("show")
@click.argument("name", default="root", metavar="[ACCOUNT]")
@store_option
@json_option
def show(name: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Print the access key and the secret key of an account, of root if none is named.

    \b
    ostraka credentials show --store /disk1
    ostraka credentials show ann --store /disk1 --json
    """
    result = perform(where(stores), "credentials-show", {"name": name}, name="credentials show", as_json=as_json)
    show_keys(result, as_json)


@credentials.command("rotate")
@click.argument("name", default="root", metavar="[ACCOUNT]")
@store_option
@json_option
def rotate(name: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Make new keys for an account, and print them: they are good at once, and the old ones are not any more.

    Requests that are under way are finished. Keys that were given to the server (by OSTRAKA_ROOT_ACCESS_KEY or
    OSTRAKA_ACCOUNTS) are changed where they were given.

    \b
    ostraka credentials rotate --store /disk1
    ostraka credentials rotate ann --store /disk1
    """
    result = perform(where(stores), "credentials-rotate", {"name": name}, name="credentials rotate", as_json=as_json)
    show_keys(result, as_json)
