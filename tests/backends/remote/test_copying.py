"""Copies between stores: whole, and going on after an interruption with what was sent before."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from remote_services import Account, Served

from ostraka.backends import Backend, LocalBackend
from ostraka.backends.azure import AzureBackend
from ostraka.backends.copying import Copier, Place
from ostraka.backends.journal import Journal
from ostraka.backends.s3 import S3Backend
from ostraka.errors import Absent, Forbidden, PreconditionFailed, Unavailable
from ostraka.host import Host
from ostraka.limits import LIMITS, MIB

SMALL = replace(
    LIMITS,
    remote_multipart_size_min=6 * MIB,
    remote_part_size=5 * MIB,
    remote_range_size=MIB,
    copy_resume_size_min=2 * MIB,
    remote_parts_at_once_max=1,
)
BODY = bytes(range(256)) * (22 * MIB // 256)
Stores = Callable[[str], Backend]


@pytest.fixture(params=["s3", "azure", "local"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Makes backends of one kind, that share what they hold."""
    if request.param == "s3":
        served: Served = request.getfixturevalue("own")
        return lambda prefix: S3Backend(served.config(prefix=f"{tmp_path.name}/{prefix}"), limits=SMALL)
    if request.param == "azure":
        account: Account = request.getfixturevalue("azure")
        return lambda prefix: AzureBackend(account.config(prefix=f"{tmp_path.name}/{prefix}"), limits=SMALL)
    return lambda prefix: LocalBackend(tmp_path / "other" / prefix)


class Counts:
    """How many bytes a copier says are done."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, size: int) -> None:
        self.done += size


def failing(backend: Any, name: str, after: int, error: Exception) -> None:
    """Let a call of the backend fail from the given time on."""
    call, calls = getattr(backend, name), 0

    async def counted(*words: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        return await call(*words, **named)

    setattr(backend, name, counted)


def test_a_copy_to_any_store_is_whole_and_told_as_it_goes(other: Stores, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            LocalBackend(tmp_path / "here") as here,
            other("a") as there,
            LocalBackend(tmp_path / "back") as back,
        ):
            for body in (b"", b"small", BODY):
                counts = Counts()
                await here.write("x", body)
                etag = await Copier(counts, tmp_path / "state", limits=SMALL).copy(
                    Place(here, "x", "here x"), Place(there, "y", "there y")
                )
                stat = await there.stat("y")
                assert stat is not None
                assert (stat.size, stat.etag, counts.done) == (len(body), etag, len(body))
                copier = Copier(counts, tmp_path / "state", limits=SMALL)
                await copier.copy(Place(there, "y", "there y"), Place(back, "z", "back z"))
                assert await back.read("z") == body
            with pytest.raises(Absent):
                await Copier(counts).copy(Place(there, "nothing", ""), Place(back, "z", ""))
        assert list((tmp_path / "state").iterdir()) == []

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_parts_that_were_sent_are_not_sent_again(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, own: Served, azure: Account
) -> None:
    bucket = own.new_bucket()  # where the uploads stay that nobody ends

    def store() -> S3Backend | AzureBackend:
        if kind == "s3":
            return S3Backend(own.config(bucket=bucket), limits=SMALL)
        return AzureBackend(azure.config(prefix=f"{tmp_path.name}/again"), limits=SMALL)

    async def copied(state: Path | None, fail_after: int = 99) -> int:
        sent = 0
        async with LocalBackend(tmp_path / "here") as here, store() as there:
            failing(there, "write_part", fail_after, Forbidden("enough", reason="access"))
            write = there.write_part

            async def counted(*words: Any) -> str:
                nonlocal sent
                told = await write(*words)
                sent += 1
                return told

            there.write_part = counted  # type: ignore[method-assign]
            counts = Counts()
            try:
                copier = Copier(counts, state, limits=SMALL)
                await copier.copy(Place(here, "x", "here x"), Place(there, "y", "there y"))
                assert counts.done == len(BODY)
                assert await there.read("y") == BODY
            except Forbidden:
                assert await there.exists("y") is False
            return sent

    async def main() -> None:
        async with LocalBackend(tmp_path / "here") as here:
            await here.write("x", BODY)
        state = tmp_path / "state"
        assert await copied(state, fail_after=2) == 2
        assert await copied(state, fail_after=1) == 1
        assert await copied(state) == 2  # of five
        async with store() as there:
            await there.delete("y")
        assert await copied(state, fail_after=3) == 3
        async with LocalBackend(tmp_path / "here") as here:
            await here.write("x", BODY)  # equal bytes, and another version: another copy
        assert await copied(state) == 5
        async with store() as there:
            await there.delete("y")
        assert await copied(None) == 0  # sent as a stream, and nothing remembered

    asyncio.run(main())


def test_a_growing_copy_goes_on_where_it_was(own: Served, tmp_path: Path) -> None:
    async def copied(fail_after: int, state: Path) -> int:
        """How many ranges were read."""
        asked = 0
        async with (
            S3Backend(own.config(prefix="growing"), limits=SMALL) as source,
            LocalBackend(tmp_path / "t") as target,
        ):
            get = source._s3.get

            def counted(*words: Any, **named: Any) -> Any:
                nonlocal asked
                asked += 1
                if asked > fail_after:
                    raise Forbidden("enough", reason="access")
                return get(*words, **named)

            source._s3.get = counted  # type: ignore[method-assign]
            try:
                copier = Copier(Counts(), state, limits=SMALL)
                await copier.copy(Place(source, "x", "source x"), Place(target, "y", "target y"))
                assert await target.read("y") == BODY
                await target.delete("y")
            except Forbidden:
                assert [p async for p in target.list()] == []
            return asked

    async def main() -> None:
        async with S3Backend(own.config(prefix="growing")) as source:
            await source.write("x", BODY)
        await copied(10, tmp_path / "state")
        assert await copied(99, tmp_path / "state") <= 22 - 10 + 3  # what was fetched ahead is fetched again
        await copied(10, tmp_path / "state")
        for journal in (tmp_path / "state").iterdir():
            journal.unlink()
        assert await copied(99, tmp_path / "state") >= 22  # what is there is read again, to be sure of it
        await copied(10, tmp_path / "state")
        for part in (tmp_path / "t" / ".ostraka-staging" / "uploads").iterdir():
            part.write_bytes(b"damaged" + part.read_bytes()[7:])
        assert await copied(99, tmp_path / "state") >= 22  # begun anew

    asyncio.run(main())


def test_a_source_that_is_replaced_is_never_copied_by_halves(own: Served, tmp_path: Path) -> None:
    async def main() -> None:
        async with S3Backend(own.config(prefix="replaced"), limits=SMALL) as source, LocalBackend(tmp_path) as target:
            await source.write("x", BODY)
            replaced = False

            def progress(size: int) -> None:
                nonlocal replaced
                if size > 0 and not replaced:
                    replaced = True
                    own.client.put_object(Bucket=own.bucket, Key="replaced/x", Body=BODY[::-1])

            copier = Copier(progress, tmp_path / "state", limits=SMALL)
            with pytest.raises(PreconditionFailed):
                await copier.copy(Place(source, "x", "source x"), Place(target, "y", "target y"))
            assert await target.exists("y") is False
            await copier.copy(Place(source, "x", "source x"), Place(target, "y", "target y"))
            assert await target.read("y") == BODY[::-1]

    asyncio.run(main())


def test_an_upload_that_nobody_will_go_on_with_is_aborted(own: Served, tmp_path: Path) -> None:
    bucket = own.new_bucket()

    async def main() -> None:
        async with (
            S3Backend(own.config(prefix="changing"), limits=SMALL) as source,
            S3Backend(own.config(bucket=bucket), limits=SMALL) as target,
            LocalBackend(tmp_path / "t") as local,
        ):
            for there in (target, local):
                await source.write("x", BODY)
                replaced = False

                def progress(size: int) -> None:
                    nonlocal replaced
                    if size > 0 and not replaced:
                        replaced = True
                        own.client.put_object(Bucket=own.bucket, Key="changing/x", Body=BODY[::-1])

                with pytest.raises(PreconditionFailed):
                    copier = Copier(progress, tmp_path / "state", limits=SMALL)
                    await copier.copy(Place(source, "x", "source x"), Place(there, "y", "target y"))

    asyncio.run(main())
    assert own.client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    assert list((tmp_path / "state").iterdir()) == []
    assert list((tmp_path / "t" / ".ostraka-staging" / "uploads").iterdir()) == []


def test_trouble_on_the_way_is_met_again_and_each_byte_is_there_once(own: Served, tmp_path: Path) -> None:
    async def main() -> None:
        async with S3Backend(own.config(prefix="trouble"), limits=SMALL) as store, LocalBackend(tmp_path / "t") as here:
            await here.write("x", BODY)
            failures = iter([True, False, True, True] + [False] * 99)
            write = store.write_part

            async def troubled(*words: Any) -> str:
                if next(failures):
                    raise Unavailable("away", reason="connection")
                return await write(*words)

            store.write_part = troubled  # type: ignore[method-assign]
            counts = Counts()
            copier = Copier(counts, tmp_path / "state", limits=SMALL)
            await copier.copy(Place(here, "x", "here x"), Place(store, "y", "there y"))
            assert counts.done == len(BODY)
            assert await store.read("y") == BODY

    asyncio.run(main())


def test_a_journal_believes_no_torn_line_and_no_other_copys(tmp_path: Path) -> None:
    host = Host()
    journal = Journal(tmp_path / "state", ("a", 1), host)
    for number in range(3):
        journal.add(number, f"word {number}")
    journal.close()
    (path,) = (tmp_path / "state").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    again = Journal(tmp_path / "state", ("a", 1), host)
    assert again.steps == {0: "word 0", 1: "word 1"}
    again.add(2, "anew")
    again.close()
    assert Journal(tmp_path / "state", ("a", 1), host).steps == {0: "word 0", 1: "word 1", 2: "anew"}
    assert Journal(tmp_path / "state", ("a", "1 "), host).steps == {}
    (tmp_path / "file").write_bytes(b"")
    nowhere = Journal(tmp_path / "file", ("a", 1), host)  # no directory can be there: nothing is kept, nothing fails
    nowhere.add(1, "x")
    nowhere.forget()
