"""The Azure backend: what is its own, on Azurite, and what Azure does on its bad days, on an endpoint of our own."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from remote_services import Account
from stub import Asked, Say, stub

from ostraka.backends import from_config
from ostraka.backends.azure.backend import AzureBackend, AzureConfig
from ostraka.backends.azure.credentials import Anonymous
from ostraka.backends.azure.ordering import in_byte_order
from ostraka.backends.azure.signing import Access
from ostraka.errors import (
    Absent,
    Conflict,
    Forbidden,
    Invalid,
    NotSupported,
    OstrakaError,
    PreconditionFailed,
    TooLarge,
    Unavailable,
)
from ostraka.host import Buffer
from ostraka.limits import LIMITS, MIB

SMALL = replace(LIMITS, remote_multipart_size_min=6 * MIB, remote_part_size=5 * MIB, remote_range_size=MIB)
MISLEADING = "404 BlobNotFound 503 ServerBusy"


def unsigned(url: str, **fields: Any) -> AzureBackend:
    """A backend on an endpoint of our own."""
    config = AzureConfig(container="404", account="a", endpoint=url, credentials=Anonymous(), **fields)
    return AzureBackend(config, limits=SMALL)


async def source(*pieces: bytes) -> AsyncIterator[Buffer]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (404, "BlobNotFound", Absent, "path"),
        (404, "ContainerNotFound", Invalid, "config"),
        (403, "AuthenticationFailed", Forbidden, "credentials"),
        (403, "AuthorizationPermissionMismatch", Forbidden, "access"),
        (401, "NoAuthenticationInformation", Forbidden, "credentials"),
        (409, "ContainerBeingDeleted", Unavailable, "service"),
        (409, "BlobImmutableDueToPolicy", Forbidden, "access"),
        (412, "ConditionNotMet", PreconditionFailed, "changed"),
        (412, "LeaseIdMissing", Conflict, "rival"),
        (400, "InvalidBlockList", Conflict, "rival"),
        (400, "InvalidResourceName", Invalid, "config"),
        (400, "Md5Mismatch", Unavailable, "connection"),
        (400, "Anything", Invalid, "request"),
        (413, "RequestBodyTooLarge", TooLarge, "size"),
        (416, "InvalidRange", Invalid, "range"),
        (500, "OperationTimedOut", Unavailable, "timeout"),
        (500, "InternalError", Unavailable, "service"),
        (501, "APINotImplemented", NotSupported, "service"),
        (503, "ServerBusy", Unavailable, "throttled"),
    ],
)
@pytest.mark.parametrize("where", ["header", "document"])
def test_errors_are_told_by_code_and_status_never_by_words(
    where: str, status: int, code: str, kind: type[OstrakaError], reason: str
) -> None:
    async def main(url: str) -> None:
        async with unsigned(url) as backend:
            with pytest.raises(kind) as raised:
                await backend.write(MISLEADING, b"x")
            assert (type(raised.value), raised.value.reason) == (kind, reason)

    body = f"<Error><Code>{code}</Code><Message>{MISLEADING}</Message></Error>".encode()
    said = Say(status, b"", {"x-ms-error-code": code}) if where == "header" else Say(status, body)
    with stub(lambda _: said) as served:
        asyncio.run(main(served.url))
        assert len(served.asked) == 1


def test_a_missing_container_is_no_absent_path(azure: Account) -> None:
    async def main() -> None:
        async with AzureBackend(azure.config(container="no-such-404-container")) as backend:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: backend.stat("a"),
                lambda: backend.exists("a"),
                lambda: backend.read("a"),
                lambda: backend.write("a", b""),
                lambda: backend.write_if("a", b"", match="e"),
                lambda: backend.write_stream("a", source(b"x")),
                lambda: backend.delete("a"),
                lambda: anext(backend.list_entries()),
            ]
            for call in calls:
                with pytest.raises(Invalid, match=r"no-such-404-container.* does not exist") as raised:
                    await call()
                assert raised.value.reason == "config"

    asyncio.run(main())


def test_a_bad_key_is_forbidden_and_shows_nowhere(azure: Account, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        for bad in ("bm90IHRoZSBrZXk=", "not base64, not the key"):
            async with AzureBackend(azure.config(), access=replace(azure.access, key=bad)) as backend:
                for call in (backend.stat("404"), backend.read("404"), backend.write("404", b""), backend.delete("a")):
                    with pytest.raises(Forbidden) as raised:
                        await call
                    assert raised.value.reason in (
                        "credentials",
                        "access",
                    )  # Azurite tells a bad signature as the latter
                    assert bad not in f"{raised.value!r}{raised.value.__cause__!r}{backend!r}{azure.access!r}"
        refused = replace(azure.access, endpoint="http://127.0.0.1:1/account", key="", sas="sig=the-secret-of-the-sas")
        async with AzureBackend(azure.config(), access=refused) as backend:
            with pytest.raises(Unavailable) as unavailable:
                await backend.stat("a")
            assert "the-secret" not in f"{unavailable.value!r}{unavailable.value.__cause__!r}"

    asyncio.run(main())
    assert "secret" not in caplog.text


def test_a_configuration_holds_no_secret(azure: Account) -> None:
    backend = AzureBackend(azure.config(prefix="a/b"))
    told = json.dumps(backend.to_config())
    assert azure.access.key not in told
    assert from_config(json.loads(told)).to_config() == backend.to_config()
    with pytest.raises(Invalid, match="variable or a file"):
        AzureBackend(azure.config(), access=azure.access).to_config()


@pytest.mark.parametrize(
    "fields", [{"container": ""}, {"container": "a/b"}, {"endpoint": "localhost"}, {"prefix": "a//b"}, {"account": ""}]
)
def test_what_names_no_container_is_refused_at_once(fields: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    given = {"container": "c", "account": "a", **fields}
    with pytest.raises(Invalid) as raised:
        AzureBackend(AzureConfig(**given, credentials=Anonymous()))
    assert raised.value.reason == "config"


def test_a_backslash_and_a_dot_at_the_end_are_refused(azure: Account) -> None:
    """Azure keeps `a\\b` as `a/b`: two paths were one, and the second write replaced the first."""

    async def main() -> None:
        async with AzureBackend(azure.config(prefix="plain")) as backend:
            await backend.write("a/b", b"1")
            for path in ("a\\b", "a.", "a./b", "..."):
                with pytest.raises(Invalid):
                    await backend.write(path, b"2")
            assert await backend.read("a/b") == b"1"
            assert [p async for p in backend.list()] == ["a/b"]

    asyncio.run(main())


def test_large_streams_are_blocks_and_a_broken_one_shows_nowhere(azure: Account) -> None:
    async def broken() -> AsyncIterator[Buffer]:
        yield b"x" * 8 * MIB
        raise RuntimeError("the source broke")

    async def main() -> None:
        async with AzureBackend(azure.config(prefix="blocks"), limits=SMALL) as backend:
            body = bytes(range(256)) * 50_000
            etag = await backend.write("a", body)
            stat = await backend.stat("a")
            assert stat is not None
            assert (stat.size, stat.etag) == (len(body), etag)
            assert await backend.read("a") == body
            with pytest.raises(RuntimeError):
                await backend.write_stream("a", broken())
            with pytest.raises(RuntimeError):
                await backend.write_stream("b", broken())
            assert await backend.read("a") == body
            assert [p async for p in backend.list()] == ["a"]

    asyncio.run(main())


def test_writers_of_one_large_blob_leave_one_of_theirs_whole(azure: Account) -> None:
    """The end of one upload takes away the blocks of the other, which says so and has done nothing."""

    async def main() -> None:
        async with AzureBackend(azure.config(prefix="rivals"), limits=SMALL) as backend:
            bodies = [bytes([n]) * 8 * MIB for n in range(4)]
            ends = await asyncio.gather(*(backend.write("a", body) for body in bodies), return_exceptions=True)
            won = [end for end in ends if isinstance(end, str)]
            assert won
            assert all(isinstance(end, str) or (isinstance(end, Conflict) and end.reason == "rival") for end in ends)
            data, stat = await backend.read_with_stat("a")
            assert data in bodies
            assert stat.etag in won

    asyncio.run(main())


def test_a_batch_tells_of_each_blob() -> None:
    inner = (
        "--b\r\nContent-Type: application/http\r\nContent-ID: {n}\r\n\r\nHTTP/1.1 {said}\r\n{head}\r\n\r\n<Error/>\r\n"
    )

    def answer(asked: Asked) -> Say:
        said = [
            inner.format(n=1, said="403 Forbidden", head="x-ms-error-code: AuthorizationPermissionMismatch"),
            inner.format(n=0, said="202 Accepted", head="x-ms-request-id: 404"),
            inner.format(n=2, said="404 Gone", head="x-ms-error-code: BlobNotFound"),
        ]
        return Say(202, ("".join(said) + "--b--\r\n").encode(), {"Content-Type": "multipart/mixed; boundary=b"})

    async def main(url: str) -> None:
        async with unsigned(url) as backend:
            failures = await backend.delete_batch(["a", "b", "c", "d", "no//path"])
        told = {f.path: (type(f.error), getattr(f.error, "reason", "")) for f in failures}
        assert told == {
            "b": (Forbidden, "access"),
            "d": (Unavailable, "service"),
            "no//path": (Invalid, "path"),
        }

    with stub(answer) as served:
        asyncio.run(main(served.url))


def test_a_batch_that_is_refused_as_a_whole_has_deleted_nothing() -> None:
    whole = "--b\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 503 Busy\r\nx-ms-error-code: ServerBusy\r\n\r\n--b--"
    refusals = [
        Say(202, whole.encode(), {"Content-Type": "multipart/mixed; boundary=b"}),
        Say(202, b"", {"Content-Type": "text/plain"}),
        Say(503, b"", {"x-ms-error-code": "ServerBusy"}),
    ]

    async def main(url: str) -> None:
        async with unsigned(url) as backend:
            failures = await backend.delete_batch(f"{n}" for n in range(300))
            assert len(failures) == 300
            assert all(isinstance(f.error, Unavailable) for f in failures)

    for said in refusals:
        with stub(lambda _, said=said: said) as served:  # type: ignore[misc]
            asyncio.run(main(served.url))
            assert len(served.asked) == 2  # 256, and the rest


def test_a_copy_that_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostraka.backends.azure.service.COPY_POLL_SECONDS", 0.01)
    for last, kind in (("success", None), ("failed", Unavailable)):
        states = iter(["pending", "pending", "pending", last])

        def answer(asked: Asked, states: Any = states) -> Say:
            headers = {"x-ms-copy-id": "1", "x-ms-copy-status": next(states), "ETag": '"e"'}
            return Say(202 if asked.method == "PUT" else 200, b"", headers)

        async def main(url: str, kind: type[OstrakaError] | None = kind) -> None:
            async with unsigned(url) as backend:
                if kind is None:
                    assert await backend.copy("a", "b") == "e"
                else:
                    with pytest.raises(kind):
                        await backend.copy("a", "b")

        with stub(answer) as served:
            asyncio.run(main(served.url))
            assert [asked.method for asked in served.asked] == ["PUT", "HEAD", "HEAD", "HEAD"]


def test_without_the_accounts_key_no_url_is_promised(azure: Account) -> None:
    async def main() -> None:
        access = Access("account", azure.access.endpoint, sas="sv=1")
        async with AzureBackend(azure.config(), access=access) as backend:
            with pytest.raises(NotSupported):
                await backend.presign("a")

    asyncio.run(main())


def test_utf_16s_order_becomes_byte_order_and_little_is_held() -> None:
    characters = ["a", "\u00e9", "\ud7ff", "\ue000", "\uffee", "\U00010000", "\U0001f3fa", "/"]
    names = ["p/" + a + b + c for a in characters for b in characters for c in ("", "x", "\U0001f3fa", "\uff01")]
    names += ["p/plain", "p/\U0001f3fa\U0001f3fa\uffee", "p/\U0001f3fa\uffee\U0001f3fa"]

    async def listed() -> AsyncIterator[str]:
        for name in sorted(set(names), key=lambda n: n.encode("utf-16-be")):
            yield name

    async def ordered(prefix: str) -> list[str]:
        return [name async for name in in_byte_order(listed(), str, prefix)]

    assert asyncio.run(ordered("p/")) == sorted(set(names), key=str.encode)

    async def endless() -> AsyncIterator[str]:
        for number in range(sys.maxsize):
            yield f"\U0001f3fa{number:09d}"

    async def held() -> None:
        async for _ in in_byte_order(endless(), str):
            pass

    with pytest.raises(TooLarge):
        asyncio.run(held())
