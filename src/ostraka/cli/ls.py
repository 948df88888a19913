"""`ostraka ls`: buckets, and what is in them."""

from collections.abc import Iterator, Mapping

import click

from ostraka.cli import reach
from ostraka.cli.grammar import Location, location, where
from ostraka.cli.options import json_option, recursive_option, store_option
from ostraka.cli.output import human_size, human_time, printable, show_json
from ostraka.client.types import Client, Entry, Page
from ostraka.errors import Absent, Invalid
from ostraka.s3.auth.times import extended


@click.command()
@click.argument("locations", nargs=-1, metavar="[s3://BUCKET[/PREFIX]...]")
@recursive_option
@click.option("--versions", is_flag=True, help="every version and delete marker, newest first within a key")
@click.option("--incomplete", is_flag=True, help="uploads that were begun and neither completed nor aborted")
@json_option
@store_option
def ls(
    locations: tuple[str, ...],
    recursive: bool,
    versions: bool,
    incomplete: bool,
    as_json: bool,
    stores: tuple[str, ...],
) -> None:
    """List buckets, or objects whose keys begin with a prefix.

    Keys that share what is up to the next / are shown as one line that ends in it, as a folder would be; --recursive
    shows each object. A prefix is what the keys begin with: s3://photos/20 shows 2023/ and 2024/.

    \b
    ostraka ls
    ostraka ls s3://photos/
    ostraka ls -r s3://photos/2024/ --json
    ostraka ls --versions s3://photos/a.jpg
    """
    if versions and incomplete:
        raise Invalid("--versions and --incomplete show different things: give one", reason="ls")
    named = [location(word) for word in locations]
    with reach.client(where(stores)) as client:
        if not named:
            for bucket in client.buckets():
                _show(
                    {"bucket": bucket.name, "created": extended(bucket.created)},
                    bucket.created,
                    "",
                    bucket.name,
                    as_json,
                )
        for place in named:
            if versions:
                _versions(client, place, as_json)
            elif incomplete:
                _incomplete(client, place, as_json)
            else:
                _objects(client, place, recursive, as_json)


def _buckets(client: Client, as_json: bool) -> None:
    for bucket in client.buckets():
        facts = {"bucket": bucket.name, "created": extended(bucket.created)}
        _show(facts, bucket.created, "bucket", bucket.name, as_json)


def _objects(client: Client, place: Location, recursive: bool, as_json: bool) -> None:
    shown = False
    for page in _pages(client, place, "" if recursive else "/"):
        rows: list[tuple[str, Entry | None]] = [(e.key, e) for e in page.entries]
        rows += [(prefix, None) for prefix in page.prefixes]
        for key, entry in sorted(rows, key=lambda row: row[0]):
            shown = True
            if entry is None:
                _show({"prefix": key}, None, "", key, as_json)
            else:
                facts = {"key": key, "size": entry.size, "modified": extended(entry.modified), "etag": entry.etag}
                _show(facts, entry.modified, human_size(entry.size), key, as_json)
    if not shown and place.key:
        raise Absent(f"there is nothing that begins with {place}", reason="key")


def _pages(client: Client, place: Location, delimiter: str) -> Iterator[Page]:
    after = None
    while True:
        page = client.page(place.bucket, place.key, delimiter=delimiter, after=after)
        yield page
        if page.next is None:
            return
        after = page.next


def _versions(client: Client, place: Location, as_json: bool) -> None:
    for v in client.versions(place.bucket, place.key):
        facts = {
            "key": v.key,
            "version_id": v.version_id,
            "latest": v.latest,
            "delete_marker": v.delete_marker,
            "size": v.size,
            "modified": extended(v.modified),
        }
        size = "deleted" if v.delete_marker else human_size(v.size)
        _show(facts, v.modified, size, f"{v.key}  {v.version_id}{'  (latest)' if v.latest else ''}", as_json)


def _incomplete(client: Client, place: Location, as_json: bool) -> None:
    for upload in client.uploads(place.bucket, place.key):
        facts = {"key": upload.key, "upload_id": upload.upload_id, "begun": extended(upload.begun)}
        _show(facts, upload.begun, "upload", f"{upload.key}  {upload.upload_id}", as_json)


def _show(facts: Mapping[str, object], moment: float | None, size: str, name: str, as_json: bool) -> None:
    if as_json:
        show_json(facts)
    else:
        click.echo(f"{human_time(moment) if moment is not None else '':19}  {size:>10}  {printable(name)}")
