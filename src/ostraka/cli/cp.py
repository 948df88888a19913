"""`ostraka cp`: files to objects, objects to files, objects to objects."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ostraka.cli import reach
from ostraka.cli.grammar import Location, is_location, location, where
from ostraka.cli.options import (
    dry_run_option,
    filter_options,
    json_option,
    quiet_option,
    recursive_option,
    store_option,
)
from ostraka.cli.output import Meter, orderly
from ostraka.cli.telling import STREAM, Teller, carry_out
from ostraka.client.actions import UPLOAD, Action, Actions
from ostraka.client.crew import Crew
from ostraka.client.transfer import Transfer
from ostraka.client.types import Attributes, Client, Entry, entries
from ostraka.client.walk import Filter, files, path_in
from ostraka.errors import Absent, Invalid, OstrakaError
from ostraka.host import Host


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("target", metavar="TARGET")
@recursive_option
@filter_options
@click.option("--content-type", metavar="TYPE", default="", help="of what is uploaded; guessed from the name otherwise")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="kept with what is uploaded; may be repeated")
@dry_run_option
@quiet_option
@json_option
@store_option
@click.pass_context
def cp(
    ctx: click.Context,
    sources: tuple[str, ...],
    target: str,
    recursive: bool,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    content_type: str,
    metadata: tuple[str, ...],
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    stores: tuple[str, ...],
) -> None:
    """Copy files into the store, objects out of it, or objects within it.

    What is in the store is written s3://BUCKET/KEY; everything else is a file, and - is standard input or output. A
    target that ends in / (or a bucket, or a directory that is there) takes the source's name. With --recursive the
    source is a directory, or a prefix, and all that is in it goes under the target. Large ones go in parts beside each
    other; each is verified from end to end, and is there whole or not at all, also when this is interrupted.

    \b
    ostraka cp a.jpg s3://photos/2024/            # s3://photos/2024/a.jpg
    ostraka cp -r ./2024 s3://photos/2024         # ./2024/x/a.jpg becomes s3://photos/2024/x/a.jpg
    ostraka cp s3://photos/2024/a.jpg .
    ostraka cp -r s3://photos/2024 ./copy --exclude '*' --include '*.jpg'
    tar c /etc | ostraka cp - s3://backup/etc.tar
    ostraka cp s3://photos/a.jpg s3://archive/ --store http://127.0.0.1:9000
    """
    attributes = Attributes(content_type, {}, _pairs(metadata))
    chosen = Filter(exclude, include)
    _check(sources, target, recursive)
    teller = Teller(as_json=as_json, quiet=quiet, dry_run=dry_run)
    store = where(stores)
    with orderly(), reach.client(store) as client, Meter(shown=not quiet and not as_json) as meter:
        with Crew(client, meter.add) as crew:
            transfer = Transfer(client, crew, Host())
            if target == STREAM:
                _pour(client, transfer, location(sources[0], key=True))
                return
            plan = _Plan(client, Actions(client, transfer, attributes), transfer, chosen, teller)
            actions = plan.actions(sources, target, recursive)
            carry_out(crew, actions, teller, meter, dry_run=dry_run)
        teller.summary()
    ctx.exit(teller.status)


def _pairs(metadata: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for word in metadata:
        name, equals, value = word.partition("=")
        if not name or not equals or not name.isascii() or not name.isprintable():
            raise Invalid(f"--metadata {word}: give NAME=VALUE", reason="metadata")
        pairs[name.lower()] = value
    return pairs


def _check(sources: tuple[str, ...], target: str, recursive: bool) -> None:
    """What can be said of the words by themselves. Raises Invalid."""
    for word in (*sources, target):
        if is_location(word):
            location(word)
    if target == STREAM:
        if len(sources) > 1 or recursive or not is_location(sources[0]):
            raise Invalid("to standard output goes one object: ostraka cp s3://BUCKET/KEY -", reason="target")
        return
    if not is_location(target):
        for source in sources:
            if not is_location(source):
                raise Invalid(
                    f"{source} and {target} are both files: write what is in the store as s3://BUCKET/KEY (is a "
                    "s3:// missing?)",
                    reason="location",
                )
    if STREAM in sources:
        if len(sources) > 1 or recursive:
            raise Invalid("from standard input comes one object: ostraka cp - s3://BUCKET/KEY", reason="source")
        if not location(target).key or target.endswith("/"):
            raise Invalid(f"what comes from standard input has no name: write {target.rstrip('/')}/NAME", reason="key")
    if len(sources) > 1 and is_location(target) and location(target).key and not target.endswith("/"):
        raise Invalid(f"{target} is one object: several sources need a target that ends in /", reason="target")
    if recursive and len(sources) > 1:
        raise Invalid("--recursive takes one source: copy one directory after the other", reason="source")


def _pour(client: Client, transfer: Transfer, source: Location) -> None:
    transfer.pour(client.head(source.bucket, source.key), sys.stdout.buffer)


class _Plan:
    """From the words of `cp` to what is to be done."""

    def __init__(self, client: Client, actions: Actions, transfer: Transfer, chosen: Filter, teller: Teller) -> None:
        self._client = client
        self._actions = actions
        self._transfer = transfer
        self._chosen = chosen
        self._teller = teller

    def actions(self, sources: tuple[str, ...], target: str, recursive: bool) -> Iterator[Action]:
        if is_location(target):
            self._client.check_bucket(location(target).bucket)
        for source in sources:
            if recursive:
                yield from self._all(source, target)
                continue
            try:
                action = self._one(source, target, several=len(sources) > 1)
            except (OSError, OstrakaError) as e:
                if len(sources) == 1:
                    raise
                self._teller.trouble(e, source)
            else:
                yield action

    # -- one

    def _one(self, source: str, target: str, *, several: bool) -> Action:
        if not is_location(source):
            return self._upload(source, location(target))
        found = location(source, key=True)
        entry = self._entry(found)
        name = found.key.rstrip("/").rpartition("/")[2]
        if is_location(target):
            to = location(target)
            return self._actions.copy(found.bucket, entry, to.bucket, _named(to, name))
        into = target.endswith("/") or os.path.isdir(target)
        if several and not into:
            raise Invalid(f"{target} is no directory: several objects need one, or a name that ends in /")
        return self._actions.download(found.bucket, entry, path_in(Path(target), name) if into else Path(target))

    def _upload(self, source: str, to: Location) -> Action:
        if source == STREAM:
            attributes = self._actions.attributes_for(to.key)

            def do() -> None:
                self._transfer.upload_stream(sys.stdin.buffer, to.bucket, to.key, attributes)

            return Action(UPLOAD, STREAM, str(to), 0, do)
        size = os.stat(source).st_size
        if os.path.isdir(source):
            raise Invalid(f"{source} is a directory: to copy all that is in it, add --recursive", reason="directory")
        name = os.path.basename(source.rstrip("/"))
        return self._actions.upload(Path(source), size, to.bucket, _named(to, name))

    def _entry(self, found: Location) -> Entry:
        try:
            info = self._client.head(found.bucket, found.key)
        except Absent as e:
            if e.reason == "key" and self._client.page(found.bucket, found.folder).entries:
                raise Absent(f"{e.message}: there are objects that begin so, add --recursive", reason="key") from None
            raise
        return Entry(info.key, info.size, info.modified, info.etag)

    # -- all that is in it

    def _all(self, source: str, target: str) -> Iterator[Action]:
        if not is_location(source):
            to = location(target)
            if not os.path.isdir(source):
                os.stat(source)
                raise Invalid(f"{source} is a file: leave --recursive out", reason="source")
            for file in files(Path(source), self._teller.problem):
                if self._chosen(file.key):
                    yield self._actions.upload(Path(file.path), file.size, to.bucket, to.folder + file.key)
            return
        found = location(source)
        empty = True
        for entry in entries(self._client, found.bucket, found.folder):
            empty = False
            name = entry.key[len(found.folder) :]
            if not name or not self._chosen(name) or (name.endswith("/") and not entry.size):
                continue  # what others put there to show a folder is no file
            try:
                action = self._from_store(found.bucket, entry, name, target)
            except Invalid as e:
                self._teller.trouble(e, entry.key)
            else:
                yield action
        if empty:
            raise Absent(f"there is nothing in {Location(found.bucket, found.folder)}", reason="key")

    def _from_store(self, bucket: str, entry: Entry, name: str, target: str) -> Action:
        if is_location(target):
            to = location(target)
            return self._actions.copy(bucket, entry, to.bucket, to.folder + name)
        return self._actions.download(bucket, entry, path_in(Path(target), name))


def _named(to: Location, name: str) -> str:
    """The key under a target that is a folder, or the target's own."""
    return to.key + name if not to.key or to.key.endswith("/") else to.key
