"""Azure's requests: one method each, signed, their answers read. Errors by failures.py.

Parts are blocks, named by the upload and their number. Azure has no call that forgets blocks: it does so by itself when
another write of the blob ends, or after a week; until then nobody sees them.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ostraka.backends.azure.batch import answers_of, body_of
from ostraka.backends.azure.failures import failure, named
from ostraka.backends.azure.signing import VERSION, Access, blob_sas, query_string, signed_headers
from ostraka.backends.backend import Stat
from ostraka.backends.remote.answers import etag_of, http_time, stat_of
from ostraka.backends.remote.documents import Document, parsed, text
from ostraka.backends.remote.expiring import Expiring
from ostraka.backends.remote.service import Got, Listed
from ostraka.backends.remote.wire import Answer, Request, Wire
from ostraka.errors import (
    Absent,
    Conflict,
    Forbidden,
    Invalid,
    NotSupported,
    OstrakaError,
    PreconditionFailed,
    Unavailable,
)
from ostraka.host import Host

PRESIGN_METHODS: Final = ("GET", "HEAD", "PUT", "DELETE")
COPY_POLL_SECONDS: Final = 0.5  # a copy within an account is nearly always done at once


class AzureService:
    """One container."""

    part_count_max = 50_000
    batch_count_max = 256

    def __init__(self, container: str, accesses: Expiring[Access], wire: Wire, host: Host) -> None:
        self.name = f"the container {container}"
        self._container = container
        self._accesses = accesses
        self._wire = wire
        self._host = host

    async def close(self) -> None:
        await self._wire.close()

    # -- requests

    def _signed(
        self,
        access: Access,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        size: int = 0,
    ) -> tuple[str, dict[str, str]]:
        """The URL and the headers."""
        path = f"/{quote(self._container)}" + (f"/{quote(key, safe='/~')}" if key else "")
        base = urlsplit(access.endpoint).path
        given = signed_headers(access, self._host.clock.time(), method, base + path, query or {}, headers or {}, size)
        sent = "&".join(part for part in (query_string(query or {}), access.sas) if part)
        return f"{access.endpoint}{path}{'?' if sent else ''}{sent}", given

    async def _request(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Request:
        spoken = {"x-ms-version": VERSION, **(headers or {})}
        url, given = self._signed(await self._accesses.get(), method, key, query, spoken, len(body))
        return Request(method, url, given, body)

    async def _asked(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        answer = await self._wire.send(await self._request(method, key, query, headers, body))
        if not answer.good:
            raise self._refused(answer, key)
        return answer

    def _refused(self, answer: Answer, key: str) -> OstrakaError:
        error = failure(answer, key or self.name)
        if isinstance(error, Invalid) and error.reason == "config":
            return Invalid(f"{self.name}: {error.message.partition(': ')[2]}", reason="config")
        return error

    # -- reading

    async def stat(self, key: str) -> Stat:
        answer = await self._asked("HEAD", key)
        return stat_of(answer.headers, key)

    @asynccontextmanager
    async def get(
        self, key: str, offset: int, size: int, *, if_match: str | None = None, version: str = ""
    ) -> AsyncIterator[Got]:
        headers = {"range": f"bytes={offset}-{offset + size - 1}"}
        if version or if_match is not None:
            headers["if-match"] = f'"{version or if_match}"'
        async with self._wire.stream(await self._request("GET", key, None, headers)) as incoming:
            if incoming.status != 206:
                if incoming.status == 200:
                    raise NotSupported(f"{self.name} knows no ranges", reason="service")
                raise self._refused(await incoming.whole(), key)
            stat = stat_of(incoming.headers, key)
            yield Got(stat, stat.etag, incoming.pieces())

    async def page(self, prefix: str, *, delimiter: str = "", start_after: str = "", cursor: str = "") -> Listed:
        """Azure begins a listing nowhere but at its beginning: what is not after ``start_after`` is listed as well."""
        query = {"restype": "container", "comp": "list", "maxresults": "1000"}
        for name, value in (("prefix", prefix), ("delimiter", delimiter), ("marker", cursor)):
            if value:
                query[name] = value
        root = parsed((await self._asked("GET", "", query)).body)
        entries = [(_name(e), _listed_stat(e)) for e in root.iterfind("Blobs/Blob") if not _is_directory(e)]
        directories = [_name(e) for e in root.iterfind("Blobs/BlobPrefix")]
        return Listed(entries, directories, text(root, "NextMarker"))

    # -- writing

    async def put(self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        headers = {"x-ms-blob-type": "BlockBlob", "content-type": "application/octet-stream"}
        return await self._written(key, None, headers, body, if_match=if_match, if_absent=if_absent)

    async def _written(
        self,
        key: str,
        query: Mapping[str, str] | None,
        headers: dict[str, str],
        body: bytes,
        *,
        if_match: str | None = None,
        if_absent: bool = False,
    ) -> str:
        if if_absent:
            headers["if-none-match"] = "*"
        if if_match is not None:
            headers["if-match"] = f'"{if_match}"'
        try:
            answer = await self._asked("PUT", key, query, headers, body)
        except PreconditionFailed as error:
            reason, words = ("exists", "it is there already") if if_absent else ("changed", "it was changed")
            raise PreconditionFailed(f"{key}: {words}", reason=reason) from error
        return etag_of(answer.headers.get("etag", ""), key)

    async def begin(self, key: str) -> str:
        return self._host.random(8).hex()

    async def parts(self, key: str, upload: str) -> dict[int, str]:
        try:
            answer = await self._asked("GET", key, {"comp": "blocklist", "blocklisttype": "uncommitted"})
        except Absent:
            return {}
        names = [text(e, "Name") for e in parsed(answer.body).iterfind("UncommittedBlocks/Block")]
        blocks = {base64.b64decode(name).decode("latin-1"): name for name in names}
        return {int(b[len(upload) :]): name for b, name in blocks.items() if b.startswith(upload)}

    async def put_part(self, key: str, upload: str, number: int, *, body: bytes) -> str:
        block = base64.b64encode(f"{upload}{number:08d}".encode()).decode()
        await self._asked("PUT", key, {"comp": "block", "blockid": block}, None, body)
        return block

    async def complete(self, key: str, upload: str, parts: Sequence[str], *, if_absent: bool = False) -> str:
        listed = "".join(f"<Uncommitted>{block}</Uncommitted>" for block in parts)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
        headers = {"x-ms-blob-content-type": "application/octet-stream", "content-type": "application/xml"}
        return await self._written(key, {"comp": "blocklist"}, headers, body, if_absent=if_absent)

    async def abort(self, key: str, upload: str) -> None:
        pass

    # -- deleting and copying

    async def delete(self, key: str, *, if_match: str | None = None) -> None:
        headers = {"x-ms-delete-snapshots": "include"}
        if if_match is not None:
            headers["if-match"] = f'"{if_match}"'
        try:
            await self._asked("DELETE", key, None, headers)
        except Absent:
            pass
        except PreconditionFailed:  # which is also said of what is absent
            with suppress(Absent):
                await self.stat(key)
                raise

    async def delete_many(self, keys: Sequence[str]) -> dict[str, OstrakaError]:
        access = await self._accesses.get()
        requests = []
        for key in keys:
            url, headers = self._signed(access, "DELETE", key, None, {"x-ms-delete-snapshots": "include"})
            target = urlsplit(url)
            requests.append((urlunsplit(("", "", target.path, target.query, "")), headers))
        boundary = f"batch_{self._host.random(16).hex()}"
        headers = {"content-type": f"multipart/mixed; boundary={boundary}"}
        answer = await self._asked(
            "POST", "", {"restype": "container", "comp": "batch"}, headers, body_of(requests, boundary)
        )
        failed: dict[str, OstrakaError] = dict.fromkeys(
            keys, Unavailable("the batch's answer does not tell what became of it", reason="service")
        )
        for inner in answers_of(answer):
            if inner.number is None:  # one answer for all of them
                raise named(inner.status, inner.headers.get("x-ms-error-code", ""), self.name)
            key = keys[inner.number]
            del failed[key]
            error = named(inner.status, inner.headers.get("x-ms-error-code", ""), key)
            if inner.status // 100 != 2 and not isinstance(error, Absent):
                failed[key] = error
        return failed

    async def copy(self, source: str, target: str, *, if_absent: bool) -> str:
        access = await self._accesses.get()
        origin, _ = self._signed(access, "GET", source)
        headers = {"x-ms-copy-source": origin, **({"if-none-match": "*"} if if_absent else {})}
        try:
            answer = await self._asked("PUT", target, None, headers)
        except PreconditionFailed:
            raise PreconditionFailed(f"{target}: it is there already", reason="exists") from None
        copy = answer.headers.get("x-ms-copy-id", "")
        while answer.headers.get("x-ms-copy-status") == "pending":
            await asyncio.sleep(COPY_POLL_SECONDS)
            answer = await self._asked("HEAD", target)
            if answer.headers.get("x-ms-copy-id") != copy:
                raise Conflict(f"{target}: another write of it ended while this one was under way", reason="rival")
        if answer.headers.get("x-ms-copy-status") != "success":
            raise Unavailable(f"{target}: the copy failed", reason="service")
        return etag_of(answer.headers.get("etag", ""), target)

    async def presign(self, key: str, method: str, seconds: float) -> str:
        if method not in PRESIGN_METHODS or seconds < 1:
            raise Invalid(f"a URL is made for {', '.join(PRESIGN_METHODS)}, and for 1 second or more", reason="request")
        access = await self._accesses.get()
        if not access.key:
            raise Forbidden("a URL is signed with the account's key, and none is at hand", reason="credentials")
        query = blob_sas(access, self._host.clock.time(), self._container, key, method, seconds)
        return f"{access.endpoint}/{quote(self._container)}/{quote(key, safe='/~')}?{query}"


def _name(element: Document) -> str:
    name = element.find("Name")
    if name is None:
        raise Unavailable("the store's listing has an entry without a name", reason="service")
    whole = name.text or ""
    return unquote(whole) if name.get("Encoded") == "true" else whole


def _is_directory(element: Document) -> bool:
    """A directory of an account with a hierarchical namespace."""
    return text(element, "Properties/ResourceType") == "directory"


def _listed_stat(element: Document) -> Stat:
    try:
        modified = http_time(text(element, "Properties/Last-Modified"))
        etag = text(element, "Properties/Etag").strip('"')
        return Stat(int(text(element, "Properties/Content-Length")), modified, etag)
    except ValueError:
        raise Unavailable("the store's listing has no size or no time", reason="service") from None
