"""`ostraka backend cp`: copies between byte stores, that go on after an interruption."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import click

from ostraka.backends import Address, Backend, Capability, Copies, Stat, address, require
from ostraka.backends.copying import Copier, Place, beside
from ostraka.backends.iterators import ended
from ostraka.backends.paths import check_path
from ostraka.cli.backend_running import (
    Row,
    listing,
    nothing_begins,
    nothing_there,
    of_path,
    opened,
    pour,
    run,
    standard_input,
)
from ostraka.cli.options import dry_run_option, json_option, quiet_option, recursive_option
from ostraka.cli.output import Meter
from ostraka.cli.telling import STREAM, Teller
from ostraka.client.actions import COPY
from ostraka.errors import Absent, Invalid, OstrakaError
from ostraka.host import Buffer
from ostraka.limits import LIMITS

MEMORY: Final = "memory"


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@recursive_option
@click.option("-u", "--update", is_flag=True, help="leave out what TARGET has: of the same size, and not older")
@click.option("--no-resume", is_flag=True, help="begin anew; if it breaks off, leave nothing to go on with")
@dry_run_option
@quiet_option
@json_option
@click.pass_context
def cp(
    ctx: click.Context,
    source: str,
    target: str,
    recursive: bool,
    update: bool,
    no_resume: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy SOURCE to TARGET: URLs, or - for a stream.

    - is standard input or output. A TARGET that ends in / takes the source's name. With --recursive, all that begins
    with SOURCE goes below TARGET; both end in /. The copy of a large file that was interrupted (by Ctrl-C, a crash, the
    network) goes on where it was when the same command is given again; until it is done, nothing of it is under the
    target's name. Add --update to go on with a recursive one.

    \b
    ostraka backend cp file:backup.tar s3://archive/
    ostraka backend cp -r s3://photos/2024/ file:///mnt/photos/2024/
    ostraka backend cp -r --update az://photos/ 's3://photos/?endpoint=http://127.0.0.1:9000'
    tar c /etc | ostraka backend cp - az://backups/etc.tar
    """
    teller = Teller(as_json=as_json, quiet=quiet, dry_run=dry_run)
    with Meter(shown=not quiet and not as_json) as meter:
        if STREAM in (source, target):
            if source == target or recursive or update or dry_run:
                raise Invalid("- stands for one file, on one side, and is copied whole", reason="config")
            _poured(source) if target == STREAM else _streamed(target, meter, teller)
            return
        origin, goal = _checked(source, target, recursive)
        copier = Copier(meter.add, None if no_resume else state_directory())
        _Copying(origin, goal, copier, meter, teller, dry_run=dry_run).run(recursive=recursive, update=update)
    teller.summary()
    ctx.exit(teller.status)


def state_directory() -> Path:
    """Where copies remember how far they came."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "ostraka" / "copies"


def _checked(source: str, target: str, recursive: bool) -> tuple[Address, Address]:
    origin, goal = address(source), address(target)
    if recursive and any(one.path and not one.path.endswith("/") for one in (origin, goal)):
        raise Invalid("with --recursive, SOURCE and TARGET end in /", reason="path")
    if not recursive:
        check_path(origin.path)
        goal = Address(goal.config, check_path(_under(goal.path, origin.path)))
    if origin == goal:
        raise Invalid(f"{goal.url()}: SOURCE and TARGET are the same", reason="path")
    return origin, goal


def _under(target: str, source: str) -> str:
    return target + source.rpartition("/")[2] if not target or target.endswith("/") else target


def _poured(source: str) -> None:
    named = of_path(source)
    run(named, lambda backend: pour(backend, named.path))


def _streamed(target: str, meter: Meter, teller: Teller) -> None:
    named, size = of_path(target), 0

    async def pieces() -> AsyncIterator[Buffer]:
        nonlocal size
        async with ended(standard_input()) as read:
            async for piece in read:
                yield piece
                size += len(piece)
                meter.add(len(piece))

    run(named, lambda backend: backend.write_stream(named.path, pieces()), writes=True)
    teller.did(COPY, STREAM, named.url(), size)


class _Copying:
    """One command's copies."""

    def __init__(
        self, origin: Address, goal: Address, copier: Copier, meter: Meter, teller: Teller, *, dry_run: bool
    ) -> None:
        self._origin = origin
        self._goal = goal
        self._copier = copier
        self._meter = meter
        self._teller = teller
        self._dry_run = dry_run

    def run(self, *, recursive: bool, update: bool) -> None:
        async def copied(source: Backend) -> None:
            async with opened(self._goal, writes=not self._dry_run) as target:
                if recursive:
                    await self._all(source, target, update)
                else:
                    await self._one(source, target, update)

        run(self._origin, copied)

    async def _one(self, source: Backend, target: Backend, update: bool) -> None:
        found = await source.stat(self._origin.path)
        if found is None:
            async with ended(source.list(f"{self._origin.path}/")) as below:
                if await anext(below, None) is not None:
                    message = f"{self._origin.url()}: there are files below it: end it in /, and add --recursive"
                    raise Absent(message, reason="path")
            raise nothing_there(self._origin.url())
        if not (update and _is_like(await target.stat(self._goal.path), found)):
            await self._copy(source, self._origin.path, found, target, self._goal.path)

    async def _all(self, source: Backend, target: Backend, update: bool) -> None:
        """A few at a time. One file's own trouble is told, and the others go on."""
        async with ended(listing(source, self._origin.path)) as rows:
            wanted = self._counted(rows)
            if update:
                wanted = self._lacking(wanted, target)

            turn = asyncio.Lock()

            async def one_more() -> Row | None:
                async with turn:
                    return await anext(wanted, None)

            async def work() -> None:
                while row := await one_more():
                    path, stat = row
                    assert stat is not None  # no directories were asked for
                    try:
                        await self._copy(source, path, stat, target, self._below(path))
                    except OstrakaError as error:
                        self._teller.trouble(error, self._origin.url(path))

            async with ended(wanted):
                await beside([work() for _ in range(LIMITS.copies_at_once_max)])

    def _below(self, path: str) -> str:
        return self._goal.path + path[len(self._origin.path) :]

    async def _counted(self, rows: AsyncIterator[Row]) -> AsyncIterator[Row]:
        empty = True
        async for row in rows:
            empty = False
            yield row
        if empty:
            raise nothing_begins(self._origin.url())

    async def _lacking(self, rows: AsyncIterator[Row], target: Backend) -> AsyncIterator[Row]:
        """Those that the target has not, or has otherwise. Both come in the same order."""
        async with ended(listing(target, self._goal.path)) as there:
            other = await anext(there, None)
            async for path, stat in rows:
                below = self._below(path)
                while other is not None and other[0].encode() < below.encode():
                    other = await anext(there, None)
                if other is None or other[0] != below or not _is_like(other[1], stat):
                    yield path, stat

    async def _copy(self, source: Backend, path: str, stat: Stat, target: Backend, below: str) -> None:
        url, to = self._origin.url(path), self._goal.url(below)
        if not self._dry_run:
            self._meter.expect(stat.size)
            if self._is_one_store(source):
                await require(source, Copies).copy(path, below)
                self._meter.add(stat.size)
            else:
                await self._copier.copy(Place(source, path, url), Place(target, below, to))
        self._teller.did(COPY, url, to, stat.size)

    def _is_one_store(self, source: Backend) -> bool:
        """Whether the store can copy by itself, without the bytes passing through here."""
        same = self._origin.config == self._goal.config and self._origin.config["type"] != MEMORY
        return same and Capability.COPY in source.capabilities


def _is_like(there: Stat | None, stat: Stat | None) -> bool:
    return there is not None and stat is not None and there.size == stat.size and there.modified >= stat.modified
