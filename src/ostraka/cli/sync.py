"""`ostraka sync`: a target gets what a source has."""

import os
from pathlib import Path

import click

from ostraka.cli import reach
from ostraka.cli.grammar import is_location, location, where
from ostraka.cli.options import dry_run_option, filter_options, json_option, quiet_option, store_option
from ostraka.cli.output import Meter, orderly
from ostraka.cli.telling import Teller, carry_out
from ostraka.client.actions import Actions
from ostraka.client.crew import Crew
from ostraka.client.sync import CHECKSUM, SIZE_ONLY, Comparison, DiskSide, StoreSide, Sync
from ostraka.client.transfer import Transfer
from ostraka.client.types import Client
from ostraka.client.walk import Filter
from ostraka.errors import Invalid
from ostraka.host import Host


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("--delete", is_flag=True, help="delete what the target has and the source has not, once all else is done")
@click.option("--size-only", is_flag=True, help="what has the same size is the same")
@click.option("--checksum", is_flag=True, help="compare the bytes, by their checksums, and not the times")
@filter_options
@dry_run_option
@quiet_option
@json_option
@store_option
@click.pass_context
def sync(
    ctx: click.Context,
    source: str,
    target: str,
    delete: bool,
    size_only: bool,
    checksum: bool,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    stores: tuple[str, ...],
) -> None:
    """Make a target have what a source has: a directory and a prefix, either way, or two prefixes.

    Only what the target lacks or has otherwise is copied: where the size differs, or the source is newer. So it goes on
    where it was interrupted when it is given again. What the target has beyond that stays, unless --delete is given;
    what --exclude leaves out is neither copied nor deleted.

    \b
    ostraka sync ./pictures s3://photos
    ostraka sync s3://photos/2024 ./2024 --delete --dry-run
    ostraka sync s3://photos s3://archive/photos --checksum
    """
    if size_only and checksum:
        raise Invalid("--size-only and --checksum are two ways to compare: give one", reason="sync")
    comparison: Comparison = SIZE_ONLY if size_only else CHECKSUM if checksum else ""
    _check(source, target)
    teller = Teller(as_json=as_json, quiet=quiet, dry_run=dry_run)
    host = Host()
    with orderly(), reach.client(where(stores)) as client, Meter(shown=not quiet and not as_json) as meter:
        with Crew(client, meter.add) as crew:
            sides = (
                _side(source, client, host, teller, may_lack=False),
                _side(target, client, host, teller, may_lack=True),
            )
            actions = Actions(client, Transfer(client, crew, host))
            work = Sync(*sides, actions, Filter(exclude, include), comparison, teller.trouble)
            carry_out(crew, work.actions(), teller, meter, dry_run=dry_run)
            if delete and teller.failed:
                teller.problem("nothing is deleted, for not everything could be copied", teller.status)
            elif delete:
                carry_out(crew, work.deletions(), teller, meter, dry_run=dry_run)
        teller.summary(unchanged=work.unchanged)
    ctx.exit(teller.status)


def _check(source: str, target: str) -> None:
    for word in (source, target):
        if is_location(word):
            location(word)
        elif word == "-":
            raise Invalid("a stream is no directory: ostraka cp - s3://BUCKET/KEY stores one", reason="source")
    if not is_location(source) and not is_location(target):
        raise Invalid(
            f"{source} and {target} are both directories: write what is in the store as s3://BUCKET/PREFIX",
            reason="location",
        )
    for word in (source, target):
        if not is_location(word) and os.path.exists(word) and not os.path.isdir(word):
            raise Invalid(
                f"{word} is a file: sync is of directories; one file is copied with ostraka cp", reason="file"
            )
    if is_location(source) and is_location(target):
        one, other = location(source), location(target)
        if one.bucket == other.bucket and (other.folder.startswith(one.folder) or one.folder.startswith(other.folder)):
            raise Invalid(f"{one} and {other} lie in each other: name two that do not", reason="location")


def _side(word: str, client: Client, host: Host, teller: Teller, *, may_lack: bool) -> StoreSide | DiskSide:
    if is_location(word):
        found = location(word)
        client.check_bucket(found.bucket)
        return StoreSide(client, found.bucket, found.folder, host)
    if not may_lack:
        os.stat(word)
    return DiskSide(Path(word), host, teller.problem, may_lack=may_lack)
