"""`ostraka rm`: objects are deleted."""

import itertools
from collections.abc import Iterable, Iterator

import click

from ostraka.cli import reach
from ostraka.cli.grammar import Location, location, where
from ostraka.cli.options import (
    dry_run_option,
    filter_options,
    json_option,
    quiet_option,
    recursive_option,
    store_option,
)
from ostraka.cli.telling import Teller
from ostraka.client.actions import DELETE
from ostraka.client.types import Client, entries, place
from ostraka.client.walk import Filter
from ostraka.errors import Absent, Invalid

AT_ONCE = 1000  # keys in one request

Named = tuple[str, str]  # key, version id or ""


@click.command()
@click.argument("locations", nargs=-1, required=True, metavar="s3://BUCKET/KEY...")
@recursive_option
@filter_options
@click.option("--version-id", default="", metavar="ID", help="only this version, for good (see ls --versions)")
@click.option("--all-versions", is_flag=True, help="every version and delete marker, for good")
@click.option("--incomplete", is_flag=True, help="abort uploads that were begun and not completed, instead")
@click.option("-f", "--force", is_flag=True, help="what is not there is no error")
@dry_run_option
@quiet_option
@json_option
@store_option
@click.pass_context
def rm(
    ctx: click.Context,
    locations: tuple[str, ...],
    recursive: bool,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    version_id: str,
    all_versions: bool,
    incomplete: bool,
    force: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    stores: tuple[str, ...],
) -> None:
    """Delete objects; with --recursive, all whose keys begin with the prefix, as a folder.

    In a bucket that keeps versions, the object is hidden by a delete marker and its versions stay: --version-id and
    --all-versions delete them for good.

    \b
    ostraka rm s3://photos/a.jpg s3://photos/b.jpg
    ostraka rm -r s3://photos/2019 --dry-run
    ostraka rm -r s3://logs --exclude '*' --include '*.tmp'
    ostraka rm -r --incomplete s3://photos
    """
    if version_id and (recursive or all_versions or incomplete or len(locations) > 1):
        raise Invalid("--version-id is of one object: name one, and nothing else", reason="version")
    if all_versions and incomplete:
        raise Invalid("--all-versions and --incomplete delete different things: give one", reason="rm")
    named = [location(word, key=None if recursive else True) for word in locations]
    teller = Teller(as_json=as_json, quiet=quiet, dry_run=dry_run)
    chosen = Filter(exclude, include)
    with reach.client(where(stores)) as client:
        work = _Removal(client, teller, chosen, dry_run)
        for found in named:
            if incomplete:
                work.uploads(found, recursive)
            elif all_versions:
                work.keys(found, _versions(client, found, recursive), force)
            elif recursive:
                work.keys(found, ((e.key, "") for e in entries(client, found.bucket, found.folder)), force)
            else:
                work.keys(found, _one(client, found, version_id), force)
    teller.summary()
    ctx.exit(teller.status)


def _one(client: Client, found: Location, version_id: str) -> Iterator[Named]:
    """S3 deletes what is not there; a person who names it has mistyped it."""
    if version_id:
        if any(v.version_id == version_id and v.key == found.key for v in client.versions(found.bucket, found.key)):
            yield found.key, version_id
        return
    try:
        client.head(found.bucket, found.key)
    except Absent as e:
        if e.reason == "bucket":
            raise
        return
    yield found.key, ""


def _versions(client: Client, found: Location, recursive: bool) -> Iterator[Named]:
    for v in client.versions(found.bucket, found.folder if recursive else found.key):
        if recursive or v.key == found.key:
            yield v.key, v.version_id


class _Removal:
    """Deletes, and tells of it."""

    def __init__(self, client: Client, teller: Teller, chosen: Filter, dry_run: bool) -> None:
        self._client = client
        self._teller = teller
        self._chosen = chosen
        self._dry_run = dry_run

    def keys(self, found: Location, named: Iterable[Named], force: bool) -> None:
        """Delete those that the filter takes. Absent if there are none at all, unless ``force``."""
        empty = True
        meant = ((key, v) for key, v in named if self._chosen(_below(found, key)))
        while batch := list(itertools.islice(meant, AT_ONCE)):
            empty = False
            failures = [None] * len(batch) if self._dry_run else self._client.delete(found.bucket, batch)
            for (key, version), failure in zip(batch, failures, strict=True):
                source = place(found.bucket, key) + (f" (version {version})" if version else "")
                if failure is None:
                    self._teller.did(DELETE, source)
                else:
                    self._teller.trouble(failure, source)
        if empty and not force:
            self._client.check_bucket(found.bucket)
            raise Absent(f"there is no object {found}, or none that was meant: `ostraka ls` shows what there is")

    def uploads(self, found: Location, recursive: bool) -> None:
        """Abort what is under way there."""
        for upload in self._client.uploads(found.bucket, found.folder if recursive else found.key):
            if (recursive or upload.key == found.key) and self._chosen(_below(found, upload.key)):
                if not self._dry_run:
                    self._client.abort(upload)
                self._teller.did("abort", f"{place(found.bucket, upload.key)} (upload {upload.upload_id})")


def _below(found: Location, key: str) -> str:
    """A key as filters see it: from the folder on."""
    return key[len(found.folder) :] if found.folder and key.startswith(found.folder) else key
