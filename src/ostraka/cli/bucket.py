"""`ostraka bucket`: buckets are listed, made and removed, and told how to keep what is written to them."""

import itertools

import click

from ostraka.cli import reach
from ostraka.cli.grammar import bucket_name, where
from ostraka.cli.options import Decorator, json_option, store_option, store_words
from ostraka.cli.output import human_size, human_time, show_json, show_rows
from ostraka.client.types import Client
from ostraka.errors import Exists
from ostraka.s3.auth.times import extended

AT_ONCE = 1000

compression_option: Decorator = click.option(
    "--compression", default="", metavar="WORD", help="zstd, zstd:LEVEL (1-22), lz4, lz4:LEVEL (1-12), none"
)
cut_option: Decorator = click.option(
    "--cut", default="", metavar="WORD", help="cdc, cdc:AVERAGE (such as 512KiB), fixed, fixed:SIZE"
)


@click.group()
def bucket() -> None:
    """List, make and remove buckets; say how they keep what is written to them."""


@bucket.command("ls")
@store_words
@store_option
@json_option
def ls(words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """List the buckets of a store.

    \b
    ostraka bucket ls /disk1 /disk2
    ostraka bucket ls http://127.0.0.1:9000 --json
    """
    with reach.client(where(stores, words)) as client:
        found = client.buckets()
    if as_json:
        for each in found:
            show_json({"name": each.name, "created": extended(each.created)})
    else:
        show_rows(
            [{"name": b.name, "created": human_time(b.created)} for b in found], ["name", "created"], as_json=False
        )


@bucket.command("create")
@click.argument("names", nargs=-1, required=True, metavar="BUCKET...")
@click.option("--exist-ok", is_flag=True, help="a bucket that is there already is no error")
@compression_option
@cut_option
@store_option
@json_option
def create(
    names: tuple[str, ...], exist_ok: bool, compression: str, cut: str, stores: tuple[str, ...], as_json: bool
) -> None:
    """Make buckets: 3 to 63 lower case letters, digits, dots and hyphens.

    \b
    ostraka bucket create photos backups --store /disk1
    ostraka bucket create releases --cut cdc
    """
    if compression or cut:
        from ostraka.objects.recipes import changed
        from ostraka.objects.types import Storage

        where(stores).only_directories("bucket create --compression --cut")
        changed(Storage(), compression, cut)  # nothing is made for words that mean nothing
    with reach.client(where(stores)) as client:
        for name in map(bucket_name, names):
            made = True
            try:
                client.create_bucket(name)
            except Exists:
                if not exist_ok:
                    raise
                made = False
            if as_json:
                show_json({"name": name, "created": made})
            else:
                click.echo(f"bucket {name} {'is made' if made else 'is there already'}")
    if compression or cut:
        for name in map(bucket_name, names):
            arguments = {"name": name, "compression": compression, "cut": cut}
            reach.perform(where(stores), "bucket-set-storage", arguments, name="bucket create", as_json=as_json)


@bucket.command("storage")
@click.argument("name", metavar="BUCKET")
@compression_option
@cut_option
@click.option("--encryption", default="", metavar="WORD", help="AES256, aws:kms, aws:kms:NAME (ostraka key), none")
@store_option
@json_option
def storage(name: str, compression: str, cut: str, encryption: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Show, or change, how a bucket keeps what is written to it. What is in it already stays as it is.

    --compression: frames and small bodies that do not shrink by a twentieth are kept as they are. --cut: cdc cuts a
    body where its content says, so that a later release of it shares the chunks that are the same; fixed cuts by size.
    --encryption: of writes that ask for none.

    \b
    ostraka bucket storage backups --store /disk1
    ostraka bucket storage backups --compression zstd:9 --cut cdc:512KiB
    ostraka bucket storage photos --compression none --cut fixed
    """
    arguments = {"name": bucket_name(name)}
    command = "bucket-storage"
    if compression or cut or encryption:
        words = {"compression": compression, "cut": cut, "encryption": encryption}
        command, arguments = "bucket-set-storage", {**arguments, **words}
    told = reach.perform(where(stores), command, arguments, name="bucket storage", as_json=as_json)
    if as_json:
        show_json(told)
        return
    level = f", level {told['level']}" if told["level"] else ""
    average = " on average" if told["cut"] == "cdc" else ""
    click.echo(f"compression  {told['compression']}{level}")
    click.echo(f"cut          {told['cut']}, chunks of {human_size(told['chunk_size'])}{average}")
    click.echo(f"encryption   {told['encryption'] or 'none'}")


@bucket.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="BUCKET...")
@click.option("--force", is_flag=True, help="delete all that is in it first, every version and unfinished upload")
@store_option
@json_option
def rm(names: tuple[str, ...], force: bool, stores: tuple[str, ...], as_json: bool) -> None:
    """Remove buckets that are empty.

    \b
    ostraka bucket rm photos
    ostraka bucket rm --force scratch
    """
    with reach.client(where(stores)) as client:
        for name in map(bucket_name, names):
            if force:
                _empty(client, name)
            try:
                client.delete_bucket(name)
            except Exists as e:
                way_out = f"`ostraka rm -r s3://{name}`, or --force to delete versions and unfinished uploads as well"
                raise Exists(f"{e.message}: {way_out}", reason=e.reason) from None
            if as_json:
                show_json({"name": name, "removed": True})
            else:
                click.echo(f"bucket {name} is removed")


def _empty(client: Client, name: str) -> None:
    for upload in client.uploads(name, ""):
        client.abort(upload)
    versions = ((v.key, v.version_id) for v in client.versions(name, ""))
    while batch := list(itertools.islice(versions, AT_ONCE)):
        for failure in client.delete(name, batch):
            if failure is not None:
                raise failure
