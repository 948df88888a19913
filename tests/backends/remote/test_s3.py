"""The S3 backend: what is its own, on real servers, and what they do on their bad days, on an endpoint of our own."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from remote_services import Served
from stub import Asked, Say, error, stub

from ostraka.backends import from_config
from ostraka.backends.s3.backend import S3Backend, S3Config
from ostraka.backends.s3.credentials import Anonymous
from ostraka.errors import (
    Absent,
    Conflict,
    Forbidden,
    Full,
    Invalid,
    NotSupported,
    OstrakaError,
    PreconditionFailed,
    TooLarge,
    Truncated,
    Unavailable,
)
from ostraka.host import Buffer
from ostraka.limits import LIMITS, MIB
from ostraka.sigv4 import Keys

SMALL = replace(LIMITS, remote_multipart_size_min=6 * MIB, remote_part_size=5 * MIB, remote_range_size=MIB)
MISLEADING = "404 NoSuchKey/NotFound 503 SlowDown"  # a key, and words, that name what did not happen


def unsigned(url: str, **fields: Any) -> S3Backend:
    """A backend on an endpoint of our own."""
    return S3Backend(S3Config(bucket="404", endpoint=url, credentials=Anonymous(), **fields))


async def source(*pieces: bytes) -> AsyncIterator[Buffer]:
    for piece in pieces:
        yield piece


# -- errors


@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (404, "NoSuchKey", Absent, "path"),
        (404, "NoSuchBucket", Invalid, "config"),
        (403, "AccessDenied", Forbidden, "access"),
        (403, "SignatureDoesNotMatch", Forbidden, "credentials"),
        (403, "RequestTimeTooSkewed", Forbidden, "credentials"),
        (400, "ExpiredToken", Forbidden, "credentials"),
        (400, "RequestTimeout", Unavailable, "timeout"),
        (400, "NoSuchThing", Invalid, "request"),
        (400, "KeyTooLongError", Invalid, "path"),
        (400, "EntityTooLarge", TooLarge, "size"),
        (400, "BadDigest", Unavailable, "connection"),
        (301, "PermanentRedirect", Invalid, "config"),
        (409, "ConditionalRequestConflict", Conflict, "rival"),
        (412, "PreconditionFailed", PreconditionFailed, "changed"),
        (416, "InvalidRange", Invalid, "range"),
        (429, "Whatever", Unavailable, "throttled"),
        (500, "InternalError", Unavailable, "service"),
        (501, "NotImplemented", NotSupported, "service"),
        (502, "", Unavailable, "service"),
        (503, "SlowDown", Unavailable, "throttled"),
        (504, "", Unavailable, "timeout"),
        (507, "", Full, "disk"),
        (599, "", Unavailable, "service"),
    ],
)
def test_errors_are_told_by_code_and_status_never_by_words(
    status: int, code: str, kind: type[OstrakaError], reason: str
) -> None:
    async def main(url: str) -> None:
        async with unsigned(url) as backend:
            with pytest.raises(kind) as raised:
                await backend.write(MISLEADING, b"x")
            assert (type(raised.value), raised.value.reason) == (kind, reason)

    with stub(lambda _: error(status, code, f"{MISLEADING} AccessDenied")) as served:
        asyncio.run(main(served.url))
        assert len(served.asked) == 1  # sent once, whatever it was


@pytest.mark.parametrize("body", [b"", b"<html><body>Bad gateway</body></html>", b"<Error>", b"\xff" * 100])
def test_an_answer_that_is_no_document_is_told_by_its_status(body: bytes) -> None:
    async def main(url: str) -> None:
        async with unsigned(url) as backend:
            with pytest.raises(Unavailable) as raised:
                await backend.read("a")
            assert raised.value.reason == "service"
            with pytest.raises(Unavailable):
                await backend.stat("a")

    with stub(lambda _: Say(502, body)) as served:
        asyncio.run(main(served.url))


def test_a_document_with_a_dtd_or_of_no_end_is_refused() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "b">]><ListBucketResult><Contents><Key>&b;</Key></Contents></ListBucketResult>'

    async def main(url: str) -> None:
        async with unsigned(url) as backend:
            with pytest.raises(Unavailable):
                _ = [p async for p in backend.list()]

    for body in (bomb, b" " * (LIMITS.remote_document_bytes_max + 1), b"nothing of the kind"):
        with stub(lambda _, body=body: Say(200, body)) as served:  # type: ignore[misc]
            asyncio.run(main(served.url))


def test_a_server_that_is_not_there_or_hangs_is_unavailable(own: Served) -> None:
    async def main() -> None:
        async with unsigned("http://127.0.0.1:1") as backend:
            for call in (backend.stat("a"), backend.exists("a"), backend.delete("a"), backend.read("a")):
                with pytest.raises(Unavailable) as raised:
                    await call
                assert raised.value.reason == "connection"
        silent = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        async with silent:
            url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
            config = S3Config(bucket="b", endpoint=url, credentials=Anonymous())
            async with S3Backend(config, limits=replace(LIMITS, remote_answer_seconds_max=0.1)) as backend:
                with pytest.raises(Unavailable) as raised:
                    await backend.stat("a")
                assert raised.value.reason == "timeout"

    asyncio.run(main())


def test_an_answer_that_ends_early_is_truncated_and_nothing_is_made_up() -> None:
    headers = {"ETag": '"e"', "Last-Modified": "Sat, 21 Nov 2026 10:00:00 GMT", "Content-Range": "bytes 0-99/100"}

    async def main(url: str) -> None:
        async with unsigned(url) as backend:
            with pytest.raises(Truncated):
                await backend.read("a")

    for said in (Say(206, b"x" * 10, headers, length=100), Say(206, b"x" * 10, headers), Say(206, b"x" * 101, headers)):
        with stub(lambda _, said=said: said) as served:  # type: ignore[misc]
            asyncio.run(main(served.url))


def test_a_missing_bucket_is_no_absent_path(own: Served, moto: Served) -> None:
    async def main(served: Served) -> None:
        async with S3Backend(served.config(bucket="no-such-404-bucket")) as backend:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: backend.stat("a"),
                lambda: backend.exists("a"),
                lambda: backend.read("a"),
                lambda: backend.write("a", b""),
                lambda: backend.write_if("a", b"", match="e"),
                lambda: backend.write_stream("a", source(b"x")),
                lambda: backend.copy("a", "b"),
                lambda: anext(backend.list_entries()),
            ]
            for call in calls:
                with pytest.raises(Invalid, match=r"no-such-404-bucket.* does not exist") as raised:
                    await call()
                assert raised.value.reason == "config"

    asyncio.run(main(own))
    asyncio.run(main(moto))


def test_a_bad_secret_is_forbidden_and_shows_nowhere(own: Served, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        for keys in (Keys(own.access_key, "not-the-secret"), Keys("nobody", "not-the-secret", "nor-this-token")):
            async with S3Backend(own.config(), keys=keys) as backend:
                for call in (backend.stat("404"), backend.read("404"), backend.write("404", b""), backend.delete("a")):
                    with pytest.raises(Forbidden) as raised:
                        await call
                    assert raised.value.reason == "credentials"
                    assert "not-the-secret" not in f"{raised.value!r}{raised.value.__cause__!r}{keys!r}{backend!r}"

    asyncio.run(main())
    assert "not-the-secret" not in caplog.text


def test_a_configuration_holds_no_secret(own: Served) -> None:
    backend = S3Backend(own.config(prefix="a/b"))
    told = json.dumps(backend.to_config())
    assert own.secret_key not in told
    assert from_config(json.loads(told)).to_config() == backend.to_config()
    with pytest.raises(Invalid, match="variable or a file"):
        S3Backend(own.config(), keys=Keys("a", "b")).to_config()
    plain = {**backend.to_config(), "credentials": {"from": "keys", "access_key": "a", "secret_key": "a secret"}}
    with pytest.raises(Invalid) as raised:
        from_config(plain)
    assert "a secret" not in str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"bucket": ""},
        {"bucket": "a/b"},
        {"endpoint": "127.0.0.1:9000"},
        {"endpoint": "ftp://a"},
        {"endpoint": "http://key:secret@a"},
        {"prefix": "a//b"},
        {"prefix": "../a"},
        {"prefix": "/"},
        {"ca_file": "/no/such/file"},
    ],
)
def test_what_names_no_bucket_is_refused_at_once(fields: dict[str, str]) -> None:
    with pytest.raises(Invalid) as raised:
        S3Backend(S3Config(**{"bucket": "b", **fields}))
    assert raised.value.reason == "config"


# -- where requests go


def test_style_region_and_endpoint_follow_amazons_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    async def url(config: S3Config) -> str:
        async with S3Backend(config, keys=Keys("a", "b")) as backend:
            return (await backend.presign("k ü")).partition("?")[0]

    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert asyncio.run(url(S3Config(bucket="b"))) == "https://b.s3.us-east-1.amazonaws.com/k%20%C3%BC"
    assert asyncio.run(url(S3Config(bucket="b.c"))) == "https://s3.us-east-1.amazonaws.com/b.c/k%20%C3%BC"
    assert asyncio.run(url(S3Config(bucket="b", endpoint="http://x:9"))) == "http://x:9/b/k%20%C3%BC"
    config = S3Config(bucket="b", endpoint="http://x:9", path_style=False, prefix="p")
    assert asyncio.run(url(config)) == "http://b.x:9/p/k%20%C3%BC"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert asyncio.run(url(S3Config(bucket="b", path_style=True))) == "https://s3.eu-west-1.amazonaws.com/b/k%20%C3%BC"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://y")
    assert asyncio.run(url(S3Config(bucket="b"))) == "http://y/b/k%20%C3%BC"


def test_a_prefix_is_added_and_stripped_and_neighbours_are_not_seen(own: Served) -> None:
    bucket = own.new_bucket()

    async def main() -> None:
        async with S3Backend(own.config(bucket=bucket, prefix="a/b")) as backend:
            await backend.write("x/y", b"1")
            await backend.copy("x/y", "z")
            assert [p async for p in backend.list()] == ["x/y", "z"]
            assert [p async for p in backend.list(start_after="x/y")] == ["z"]
            assert [d async for d in backend.list_directories()] == ["x"]
        for key in ("a/bc", "a/b", "a", "x/y"):
            own.client.put_object(Bucket=bucket, Key=key, Body=b"")
        async with S3Backend(own.config(bucket=bucket, prefix="a/b/")) as backend:
            assert [p async for p in backend.list()] == ["x/y", "z"]
            with pytest.raises(Invalid, match="too long below the prefix"):
                await backend.write("x/" * 511 + "xx", b"")

    asyncio.run(main())
    keys = [o["Key"] for o in own.client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["a", "a/b", "a/b/x/y", "a/b/z", "a/bc", "x/y"]


def test_keys_of_others_that_are_no_paths_disturb_no_listing(own: Served, moto: Served) -> None:
    async def main(served: Served, bucket: str) -> None:
        async with S3Backend(served.config(bucket=bucket)) as backend:
            assert [p async for p in backend.list()] == ["a/b", "d/x", "z"]
            assert [p async for p in backend.list("a")] == ["a/b"]
            assert [d async for d in backend.list_directories()] == ["a", "d", "e"]
            assert [d async for d in backend.list_directories("a/")] == []

    for served in (own, moto):
        bucket = served.new_bucket()
        for key in ("a//b", "a/b", "d/", "d/x", "e/./f", "tab\there", "/root", "z", "é" * 200, ".ostraka-staging/x"):
            served.client.put_object(Bucket=bucket, Key=key, Body=b"")
        asyncio.run(main(served, bucket))


# -- uploads


def uploads_left(served: Served) -> list[str]:
    return [u["Key"] for u in served.client.list_multipart_uploads(Bucket=served.bucket).get("Uploads", [])]


def test_parts_begin_at_the_limit_or_where_the_size_is_not_known(own: Served) -> None:
    async def main() -> None:
        async with S3Backend(own.config(prefix="parts"), limits=SMALL) as backend:
            small, large = b"s" * (6 * MIB - 1), b"l" * 12 * MIB
            parts = {
                "small": await backend.write("small", small),
                "small-stream": await backend.write_stream("small-stream", source(small), len(small)),
                "large": await backend.write("large", memoryview(large)),
                "large-stream": await backend.write_stream("large-stream", source(large), len(large)),
                "unknown": await backend.write_stream("unknown", source(large, b"!"), None),
                "unknown-even": await backend.write_stream("unknown-even", source(large[: 10 * MIB]), None),
                "unknown-small": await backend.write_stream("unknown-small", source(b"u" * 5 * MIB), None),
            }
            counts = {name: int(etag.partition("-")[2] or 0) for name, etag in parts.items()}
            assert counts == {
                "small": 0,
                "small-stream": 0,
                "large": 3,
                "large-stream": 3,
                "unknown": 3,
                "unknown-even": 2,
                "unknown-small": 0,
            }
            assert await backend.read("large") == await backend.read("large-stream") == large
            assert await backend.read("unknown") == large + b"!"

    asyncio.run(main())


def test_an_upload_that_fails_or_is_cancelled_is_aborted(own: Served) -> None:
    async def endless(stop: asyncio.Event | None = None) -> AsyncIterator[Buffer]:
        for _ in range(4):
            yield b"x" * 4 * MIB
        if stop is None:
            raise RuntimeError("the source broke")
        stop.set()
        await asyncio.Event().wait()

    async def main() -> None:
        async with S3Backend(own.config(prefix="aborted"), limits=SMALL) as backend:
            with pytest.raises(RuntimeError):
                await backend.write_stream("broken", endless())
            for size in (15 * MIB, 17 * MIB):
                with pytest.raises(Truncated):
                    await backend.write_stream("short", source(*[b"y" * 4 * MIB] * 4), size)
            stop = asyncio.Event()
            task = asyncio.create_task(backend.write_stream("cancelled", endless(stop)))
            await stop.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert uploads_left(own) == []
            assert [p async for p in backend.list()] == []

    asyncio.run(main())
    assert uploads_left(own) == []


def test_an_upload_that_is_cancelled_while_it_is_begun_is_aborted(own: Served) -> None:
    """Its name was on the way: whoever was told it had gone, and the store kept the parts for ever."""

    async def main() -> None:
        begun = asyncio.Event()
        backend = S3Backend(own.config(prefix="begun"), limits=SMALL)
        begin = backend._s3.begin

        async def announced(key: str) -> str:
            begun.set()
            return await begin(key)

        backend._s3.begin = announced  # type: ignore[method-assign]
        task = asyncio.create_task(backend.write("a", b"x" * 7 * MIB))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await backend.close()

    asyncio.run(main())
    assert uploads_left(own) == []


def test_a_part_that_fails_ends_the_upload_and_it_is_aborted() -> None:
    def answer(asked: Asked) -> Say:
        if asked.method == "POST":
            return Say(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        if "partNumber=2" in asked.path:
            return error(503, "SlowDown")
        return Say(200, b"", {"ETag": '"e"'})

    async def main(url: str) -> None:
        config = S3Config(bucket="b", endpoint=url, credentials=Anonymous())
        async with S3Backend(config, limits=SMALL) as backend:
            with pytest.raises(Unavailable) as raised:
                await backend.write("a", b"x" * 20 * MIB)
            assert raised.value.reason == "throttled"

    with stub(answer) as served:
        asyncio.run(main(served.url))
        assert ("DELETE", "/b/a?uploadId=u") in [(asked.method, asked.path) for asked in served.asked]


def test_a_success_that_turns_out_to_be_an_error_is_one() -> None:
    """S3 begins to answer a copy or the end of an upload with 200 before it knows how it ends."""

    def answer(asked: Asked) -> Say:
        if asked.path.endswith("?uploads="):
            return Say(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        if asked.method == "POST" or "x-amz-copy-source" in asked.headers:
            return replace(error(500, "InternalError"), status=200)
        return Say(200, b"", {"ETag": '"e"'})

    async def main(url: str) -> None:
        config = S3Config(bucket="b", endpoint=url, credentials=Anonymous())
        async with S3Backend(config, limits=SMALL) as backend:
            for call in (backend.write("a", b"x" * 20 * MIB), backend.copy("a", "b")):
                with pytest.raises(Unavailable) as raised:
                    await call
                assert raised.value.reason == "service"

    with stub(answer) as served:
        asyncio.run(main(served.url))


def test_streams_at_once_hold_no_more_than_their_room(own: Served) -> None:
    room = replace(SMALL, remote_upload_bytes_max=10 * MIB)
    held = most = 0

    async def counted(backend: S3Backend, number: int) -> None:
        async def pieces() -> AsyncIterator[Buffer]:
            for _ in range(6):
                yield bytes([number]) * MIB

        await backend.write_stream(f"{number}", pieces(), None)

    async def main() -> None:
        nonlocal most
        async with S3Backend(own.config(prefix="room"), limits=room) as backend:
            take, give = backend._uploads._room.take, backend._uploads._room.give

            async def taken(size: int) -> int:
                nonlocal held, most
                got = await take(size)
                held += got
                most = max(most, held)
                return got

            def given(size: int) -> None:
                nonlocal held
                held -= size
                give(size)

            backend._uploads._room.take, backend._uploads._room.give = taken, given  # type: ignore[method-assign]
            await asyncio.gather(*(counted(backend, n) for n in range(8)))
            for n in range(8):
                assert await backend.read(f"{n}") == bytes([n]) * 6 * MIB

    asyncio.run(main())
    assert (held, most) == (0, 10 * MIB)


# -- reads, copies, deletes


def test_a_long_read_is_made_of_ranges_of_one_version(own: Served) -> None:
    bucket = own.new_bucket()
    body = bytes(range(256)) * 40_000  # ten ranges and a bit

    async def main() -> None:
        async with S3Backend(own.config(bucket=bucket), limits=SMALL) as backend:
            await backend.write("a", body)
            assert await backend.read("a") == body
            assert await backend.read("a", offset=1_000_001, size=5_000_000) == body[1_000_001:6_000_001]
            seen = bytearray()
            with pytest.raises(PreconditionFailed) as raised:
                async with backend.open("a") as reading:
                    async for piece in reading.pieces:
                        if not seen:
                            await backend.write("a", body[::-1])
                        seen += piece
            assert raised.value.reason == "changed"
            assert seen == body[: len(seen)]
            own.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
            await backend.write("a", body)
            seen.clear()
            async with backend.open("a") as reading:
                async for piece in reading.pieces:
                    if not seen:
                        await backend.write("a", b"another")
                    seen += piece
            assert seen == body

    asyncio.run(main())


def test_a_copy_that_must_create_is_made_of_parts(own: Served, moto: Served) -> None:
    """CopyObject takes a condition from few: moto copies over what is there."""

    async def main(served: Served) -> None:
        async with S3Backend(served.config(prefix="copies")) as backend:
            for name, body in (("empty", b""), ("some", b"bytes")):
                await backend.write(name, body)
                await backend.copy(name, f"{name}-2", if_absent=True)
                assert await backend.read(f"{name}-2") == body
                with pytest.raises(PreconditionFailed) as raised:
                    await backend.copy(name, f"{name}-2", if_absent=True)
                assert raised.value.reason == "exists"
            stat = await backend.stat("some")
            assert stat is not None
            assert await backend.copy("some", "some") == stat.etag

            async def nobody(path: str) -> bool:
                return False

            backend.exists = nobody  # type: ignore[method-assign]
            with pytest.raises(PreconditionFailed) as raised:  # somebody came between the question and the copy
                await backend.copy("some", "empty", if_absent=True)
            assert raised.value.reason == "exists"
            assert await backend.read("empty") == b""

    for served in (own, moto):
        asyncio.run(main(served))
        assert uploads_left(served) == []


def test_a_batch_tells_of_each_key_and_of_what_was_never_sent() -> None:
    def answer(asked: Asked) -> Say:
        if b"<Key>k0007</Key>" in asked.body:
            errors = "".join(
                f"<Error><Key>{key}</Key><Code>{code}</Code><Message>404</Message></Error>"
                for key, code in (("k0007", "AccessDenied"), ("k0009", "InternalError"), ("k0011", "NoSuchKey"))
            )
            return Say(200, f"<DeleteResult>{errors}</DeleteResult>".encode())
        return Say(200, b"<DeleteResult/>") if b"<Key>k2000</Key>" not in asked.body else error(503, "SlowDown")

    async def main(url: str) -> None:
        async with unsigned(url) as backend:
            failures = await backend.delete_batch([*(f"k{n:04d}" for n in range(2100)), "no//path"])
        told = {f.path: (type(f.error), getattr(f.error, "reason", "")) for f in failures}
        assert told.pop("k0007") == (Forbidden, "access")
        assert told.pop("k0009") == (Unavailable, "service")
        assert told.pop("no//path") == (Invalid, "path")
        assert told == {f"k{n:04d}": (Unavailable, "throttled") for n in range(2000, 2100)}

    with stub(answer) as served:
        asyncio.run(main(served.url))
        assert sorted(a.body.count(b"<Key>") for a in served.asked) == [100, 1000, 1000]


def test_a_key_that_xml_cannot_hold_is_deleted_alone(own: Served) -> None:
    async def main() -> None:
        async with S3Backend(own.config(prefix="xml")) as backend:
            paths = ["a&<b>", "\uffff", "a\ufffe"]
            for path in paths:
                await backend.write(path, b"")
            assert await backend.delete_batch(paths) == []
            assert [p async for p in backend.list()] == []

    asyncio.run(main())


def test_what_is_not_claimed_is_not_sent(own: Served) -> None:
    async def main() -> None:
        config = own.config(prefix="claims", conditional_writes=False, conditional_deletes=False)
        async with S3Backend(config) as backend:
            calls: list[Awaitable[object]] = [backend.write_if("a", b"", match=None), backend.delete_if("a", match="e")]
            for call in calls:
                with pytest.raises(NotSupported):
                    await call
            assert await backend.exists("a") is False

    asyncio.run(main())
