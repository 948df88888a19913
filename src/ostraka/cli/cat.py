"""`ostraka cat`: objects on standard output."""

import sys

import click

from ostraka.cli import reach
from ostraka.cli.grammar import location, where
from ostraka.cli.options import store_option
from ostraka.client.crew import Crew
from ostraka.client.transfer import Transfer
from ostraka.errors import Invalid
from ostraka.host import Host


@click.command()
@click.argument("locations", nargs=-1, required=True, metavar="s3://BUCKET/KEY...")
@click.option("--version-id", default="", metavar="ID", help="this version instead of the newest (see ls --versions)")
@store_option
def cat(locations: tuple[str, ...], version_id: str, stores: tuple[str, ...]) -> None:
    """Write objects to standard output, one after the other.

    What was written is held against the stored checksum; if it was damaged on the way, the exit status says so.

    \b
    ostraka cat s3://logs/2024/05.gz | zcat
    """
    named = [location(word, key=True) for word in locations]
    if version_id and len(named) > 1:
        raise Invalid("--version-id is of one object: name one", reason="version")
    with reach.client(where(stores)) as client, Crew(client, lambda size: None) as crew:
        transfer = Transfer(client, crew, Host())
        for place in named:
            transfer.pour(client.head(place.bucket, place.key, version_id), sys.stdout.buffer)
