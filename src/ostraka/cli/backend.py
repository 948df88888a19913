"""`ostraka backend`: byte stores addressed by path, by their URLs: files, S3, Azure. No Ostraka store is needed."""

from collections.abc import Awaitable, Callable
from typing import Final

import click

from ostraka.backends import Address, Backend, DeletesBatches, Stat, address, require
from ostraka.backends.iterators import ended
from ostraka.backends.proving import Finding, Proof
from ostraka.cli.backend_cp import cp
from ostraka.cli.backend_running import Row, listing, nothing_begins, nothing_there, of_path, pour, run
from ostraka.cli.options import dry_run_option, json_option, quiet_option, recursive_option
from ostraka.cli.output import human_size, human_time, printable, show_json, show_rows
from ostraka.cli.telling import Teller
from ostraka.client.actions import DELETE
from ostraka.errors import Invalid
from ostraka.s3.auth.times import extended

AT_ONCE: Final = 1000  # paths of one batch deletion
LISTED: Final = ("size", "modified", "etag")
CLAIMS: Final = {
    "create only": "conditional_writes",
    "write if match": "conditional_writes",
    "delete if match": "conditional_deletes",
}
WORKS: Final = {True: "yes", False: "no", None: "-"}

url_argument = click.argument("url", metavar="URL")


@click.group()
def backend() -> None:
    """Work on any byte store by its URL: files, S3, Azure.

    \b
    file:///data/photos/a.jpg                                files of this machine; file:a.jpg is one right here
    s3://BUCKET/PATH[?endpoint=http://HOST:PORT&region=R]    S3, or what speaks as it does
    az://CONTAINER/PATH[?account=NAME]                       Azure Blob Storage
    memory:PATH                                              this command's memory

    Credentials come from the environment, from profiles or from the machine, as with the tools of AWS and Azure, and
    are never written in a URL. S3 and Azure need the extra `remote`: pip install "ostraka[remote]". Try a store first:

    \b
    export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...
    ostraka backend check 's3://photos/?endpoint=http://127.0.0.1:9000'
    """


backend.add_command(cp)


@backend.command("ls")
@url_argument
@click.option("-d", "--directories", is_flag=True, help="only the directories right below URL, which ends in /")
@json_option
def ls(url: str, directories: bool, as_json: bool) -> None:
    """List what begins with URL, in byte order.

    A prefix is a string: s3://photos/20 finds s3://photos/2019/a.jpg and s3://photos/20.txt.

    \b
    ostraka backend ls s3://photos/2024/
    ostraka backend ls --directories az://backups/
    """
    named = address(url)

    async def listed(opened: Backend) -> None:
        shown = False
        async with ended(listing(opened, named.path, directories=directories)) as rows:
            async for row in rows:
                shown = True
                _show(row, as_json)
        if not shown and named.path:
            raise nothing_begins(url)

    run(named, listed)


def _show(row: Row, as_json: bool) -> None:
    name, stat = row
    if as_json:
        show_json({"path": name, **_facts(stat)} if stat else {"directory": name})
    elif stat:
        click.echo(f"{human_time(stat.modified)}  {human_size(stat.size):>10}  {printable(name)}")
    else:
        click.echo(f"{'':19}  {'':>10}  {printable(name)}/")


def _facts(stat: Stat) -> dict[str, object]:
    return {"size": stat.size, "modified": extended(stat.modified), "etag": stat.etag}


@backend.command("stat")
@url_argument
@json_option
def stat(url: str, as_json: bool) -> None:
    """Say size, time and ETag of what is at URL.

    Exit status 3 if nothing is.

    \b
    ostraka backend stat s3://photos/2024/a.jpg
    """
    named = of_path(url)
    found = run(named, lambda opened: opened.stat(named.path))
    if found is None:
        raise nothing_there(url)
    show_rows([{"path": named.path, **_facts(found)}], ["path", *LISTED], as_json=as_json)


@backend.command("cat")
@url_argument
def cat(url: str) -> None:
    """Write what is at URL to standard output.

    \b
    ostraka backend cat s3://logs/2024/a.gz | zcat
    """
    named = of_path(url)
    run(named, lambda opened: pour(opened, named.path))


@backend.command("rm")
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@recursive_option
@dry_run_option
@quiet_option
@json_option
@click.pass_context
def rm(ctx: click.Context, urls: tuple[str, ...], recursive: bool, dry_run: bool, quiet: bool, as_json: bool) -> None:
    """Delete what is at each URL.

    With --recursive, all that begins with it. What is not there is an error.

    \b
    ostraka backend rm s3://photos/a.jpg s3://photos/b.jpg
    ostraka backend rm -r az://backups/2019/ --dry-run
    """
    named = [address(url) if recursive else of_path(url) for url in urls]
    for url, one in zip(urls, named, strict=True):
        if recursive and not one.path:
            raise Invalid(f"{url.partition('?')[0]}: all of it? Name what its paths begin with", reason="path")
    teller = Teller(as_json=as_json, quiet=quiet, dry_run=dry_run)
    for one in named:
        run(one, _all_removed(one, teller, dry_run) if recursive else _removed(one, teller, dry_run))
    teller.summary()
    ctx.exit(teller.status)


def _removed(named: Address, teller: Teller, dry_run: bool) -> Callable[[Backend], Awaitable[None]]:
    async def removed(opened: Backend) -> None:
        if not await opened.exists(named.path):  # a store deletes what is not there; who names it has mistyped it
            teller.trouble(nothing_there(named.url()))
            return
        if not dry_run:
            await opened.delete(named.path)
        teller.did(DELETE, named.url())

    return removed


def _all_removed(named: Address, teller: Teller, dry_run: bool) -> Callable[[Backend], Awaitable[None]]:
    async def removed(opened: Backend) -> None:
        batches, batch, found = require(opened, DeletesBatches), list[str](), False
        async with ended(listing(opened, named.path)) as rows:
            async for path, _ in rows:
                found = True
                batch.append(path)
                if len(batch) == AT_ONCE:
                    await _batch(batches, named, batch, teller, dry_run)
                    batch = []
        await _batch(batches, named, batch, teller, dry_run)
        if not found:
            raise nothing_begins(named.url())

    return removed


async def _batch(batches: DeletesBatches, named: Address, paths: list[str], teller: Teller, dry_run: bool) -> None:
    failures = [] if dry_run else await batches.delete_batch(paths)
    failed = {failure.path: failure.error for failure in failures}
    for path in paths:
        if path in failed:
            teller.trouble(failed[path], named.url(path))
        else:
            teller.did(DELETE, named.url(path))


@backend.command("check")
@url_argument
@json_option
@click.pass_context
def check(ctx: click.Context, url: str, as_json: bool) -> None:
    """Prove that a store works.

    It is written to, read, listed, asked for conditions and deleted from below a temporary path; nothing else in it is
    touched. Exit status 1 if something that should work does not. What S3 is not said to honour (conditional deletes)
    is tried as well: `yes` there means that the configuration may claim it.

    \b
    ostraka backend check 's3://photos/?endpoint=http://127.0.0.1:9000'
    """
    named = address(url)
    if named.path and not named.path.endswith("/"):
        message = f"{url.partition('?')[0]}: name a place, with / at its end: the check makes a path of its own there"
        raise Invalid(message, reason="path")
    unclaimed: set[str] = set()
    if named.config["type"] == "s3":
        claims = {"conditional_writes": True, "conditional_deletes": False} | dict(named.config)
        unclaimed = {name for name in CLAIMS.values() if not claims[name]}
        named = Address({**named.config, "conditional_writes": True, "conditional_deletes": True}, named.path)

    async def proved(opened: Backend) -> list[Finding]:
        async with ended(Proof(opened, named.path).findings()) as findings:
            return [_judged(finding, unclaimed) async for finding in findings]

    findings = run(named, proved, resilient=False, writes=True)
    rows = [{"what": f.what, "works": f.works if as_json else WORKS[f.works], "said": f.said} for f in findings]
    show_rows(rows, ["what", "works", "said"], as_json=as_json)
    ctx.exit(1 if any(f.works is False for f in findings) else 0)


def _judged(finding: Finding, unclaimed: set[str]) -> Finding:
    """What was tried though nobody claims it is no fault where it fails."""
    claim = CLAIMS.get(finding.what, "")
    if claim not in unclaimed:
        return finding
    if finding.works:
        return Finding(finding.what, True, f"not claimed so far: {claim}=true")
    return Finding(finding.what, None, f"not claimed, and not to be: {finding.said}")
