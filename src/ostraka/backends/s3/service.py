"""S3's requests: one method each, signed, their answers read. Errors by failures.py."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from ostraka.backends.backend import Stat
from ostraka.backends.remote.answers import etag_of, stat_of
from ostraka.backends.remote.documents import Document, parsed, text
from ostraka.backends.remote.expiring import Expiring
from ostraka.backends.remote.service import Got, Listed
from ostraka.backends.remote.wire import Answer, Request, Wire
from ostraka.backends.s3.failures import failure, named, told
from ostraka.errors import Absent, Forbidden, Invalid, NotSupported, OstrakaError, PreconditionFailed, Unavailable
from ostraka.host import Clock
from ostraka.limits import KIB, LIMITS
from ostraka.sigv4 import EMPTY_SHA256, Keys, Scope, path_of, presigned_query, query_of, signed_headers

EARLY_BYTES: Final = 64 * KIB  # a store may refuse a body that is longer, and close, before it has received all
HASH_INLINE_BYTES_MAX: Final = 256 * KIB  # more is hashed in a thread
PRESIGN_METHODS: Final = ("GET", "HEAD", "PUT", "DELETE")
_NO_XML: Final = ("\ufffe", "\uffff")  # characters of keys that no XML document can hold


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and how requests reach it. ``host`` is as it stands in URLs; ``path`` the bucket's ("" if the host
    names it)."""

    scheme: str
    host: str
    path: str
    bucket: str
    region: str


class S3Service:
    """One bucket."""

    part_count_max = LIMITS.part_count_max
    batch_count_max = LIMITS.delete_keys_max

    def __init__(self, place: Place, keys: Expiring[Keys | None], wire: Wire, clock: Clock) -> None:
        self.name = f"the bucket {place.bucket} at {place.host}"
        self._place = place
        self._scope = Scope(place.region)
        self._keys = keys
        self._wire = wire
        self._clock = clock
        self._bucket_seen = False  # it was there once: that a key is absent is then true even if it is gone since

    async def close(self) -> None:
        await self._wire.close()

    # -- requests

    async def _request(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Request:
        place = self._place
        path = f"{place.path}/{path_of(key)}" if key or not place.path else place.path
        sent = query_of(query.items()) if query else ""
        keys = await self._keys.get()
        given = dict(headers or {})
        if keys is not None:
            given = signed_headers(
                keys,
                self._scope,
                self._clock.time(),
                method,
                path,
                sent,
                {**given, "host": place.host},
                await _sha256(body) if body else EMPTY_SHA256,
            )
            del given["host"]  # the connection says it
        return Request(method, f"{place.scheme}://{place.host}{path}{'?' if sent else ''}{sent}", given, body)

    async def _asked(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        try:
            answer = await self._wire.send(await self._request(method, key, query, headers, body))
        except Unavailable as error:
            if error.reason == "connection" and len(body) > EARLY_BYTES:
                await self._explain()
            raise
        if not answer.good:
            raise self._refused(answer, key)
        return answer

    def _refused(self, answer: Answer, key: str) -> OstrakaError:
        error = failure(answer, key or self.name)
        if isinstance(error, Invalid) and error.reason == "config":
            self._bucket_seen = False
            region = answer.headers.get("x-amz-bucket-region", "")
            hint = f" (it is in {region}, not {self._place.region})" if region not in ("", self._place.region) else ""
            return Invalid(f"{self.name}: {error.message.partition(': ')[2]}{hint}", reason="config")
        return error

    # -- reading

    async def stat(self, key: str) -> Stat:
        answer = await self._wire.send(await self._request("HEAD", key))
        if answer.good:
            return stat_of(answer.headers, key)
        if answer.status != 404 or not self._bucket_seen:
            await self._explain()  # after HEAD there is no document that says which one is missing, or why
        raise self._refused(answer, key)

    async def _explain(self) -> None:
        """Ask for what a refusal did not tell; raises if it is about the bucket or the keys."""
        try:
            await self.page("", limit=1)
        except Forbidden as error:
            if error.reason == "credentials":
                raise

    @asynccontextmanager
    async def get(
        self, key: str, offset: int, size: int, *, if_match: str | None = None, version: str = ""
    ) -> AsyncIterator[Got]:
        headers = {"range": f"bytes={offset}-{offset + size - 1}"}
        kind, _, known = version.partition(":")
        if kind == "etag" or if_match is not None:
            headers["if-match"] = f'"{known if kind == "etag" else if_match}"'
        query = {"versionId": known} if kind == "version" else None
        async with self._wire.stream(await self._request("GET", key, query, headers)) as incoming:
            if incoming.status != 206:
                if incoming.status == 200:
                    raise NotSupported(f"{self.name} knows no ranges", reason="service")
                raise self._refused(await incoming.whole(), key)
            stat = stat_of(incoming.headers, key)
            number = incoming.headers.get("x-amz-version-id", "null")
            named = f"etag:{stat.etag}" if number == "null" else f"version:{number}"
            yield Got(stat, named, incoming.pieces())

    async def page(
        self, prefix: str, *, delimiter: str = "", start_after: str = "", cursor: str = "", limit: int = 1000
    ) -> Listed:
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(limit), "prefix": prefix}
        if delimiter:
            query["delimiter"] = delimiter
        if cursor:
            query["continuation-token"] = cursor
        elif start_after:
            query["start-after"] = start_after
        root = parsed((await self._asked("GET", "", query)).body)
        self._bucket_seen = True
        entries = [(unquote_plus(text(e, "Key")), _listed_stat(e)) for e in root.iterfind("Contents")]
        directories = [unquote_plus(text(e, "Prefix")) for e in root.iterfind("CommonPrefixes")]
        return Listed(entries, directories, text(root, "NextContinuationToken"))

    # -- writing

    async def put(self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        headers = {"content-type": "application/octet-stream"}
        if if_absent:
            headers["if-none-match"] = "*"
        if if_match is not None:
            headers["if-match"] = f'"{if_match}"'
        try:
            with _existing(key, if_absent):
                answer = await self._asked("PUT", key, None, headers, body)
        except Absent:
            if if_match is None:
                raise
            # S3 calls what is absent by its name, also when it should have had an ETag
            raise PreconditionFailed(f"{key}: it was changed", reason="changed") from None
        return etag_of(answer.headers.get("etag", ""), key)

    async def begin(self, key: str) -> str:
        headers = {"content-type": "application/octet-stream"}
        return text(parsed((await self._asked("POST", key, {"uploads": ""}, headers)).body), "UploadId")

    async def put_part(self, key: str, upload: str, number: int, *, body: bytes) -> str:
        query = {"partNumber": str(number), "uploadId": upload}
        return etag_of((await self._asked("PUT", key, query, None, body)).headers.get("etag", ""), key)

    async def parts(self, key: str, upload: str) -> dict[int, str]:
        found: dict[int, str] = {}
        marker = "0"
        while marker:
            query = {"uploadId": upload, "part-number-marker": marker, "max-parts": "1000"}
            root = parsed((await self._asked("GET", key, query)).body)
            for element in root.iterfind("Part"):
                found[int(text(element, "PartNumber"))] = text(element, "ETag").strip('"')
            marker = text(root, "NextPartNumberMarker") if text(root, "IsTruncated") == "true" else ""
        return found

    async def complete(self, key: str, upload: str, parts: Sequence[str], *, if_absent: bool = False) -> str:
        listed = "".join(
            f"<Part><PartNumber>{n}</PartNumber><ETag>&quot;{escape(etag)}&quot;</ETag></Part>"
            for n, etag in enumerate(parts, 1)
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        headers = {"if-none-match": "*"} if if_absent else None
        with _existing(key, if_absent):
            answer = await self._asked("POST", key, {"uploadId": upload}, headers, body)
        return etag_of(text(self._document(answer, key), "ETag"), key)

    async def abort(self, key: str, upload: str) -> None:
        try:
            await self._asked("DELETE", key, {"uploadId": upload})
        except Absent:
            pass

    def _document(self, answer: Answer, key: str) -> Document:
        """The document of an answer that begins with 200 before it is known how it ends."""
        root = parsed(answer.body)
        if root.tag == "Error":
            raise named(*told(answer), key)
        return root

    # -- deleting and copying

    async def delete(self, key: str, *, if_match: str | None = None) -> None:
        try:
            await self._asked("DELETE", key, None, {"if-match": f'"{if_match}"'} if if_match is not None else None)
        except Absent:
            pass

    async def delete_many(self, keys: Sequence[str]) -> dict[str, OstrakaError]:
        told_alone = [key for key in keys if any(c in key for c in _NO_XML)]
        failed = await self._deleted_at_once([key for key in keys if key not in told_alone])
        for key in told_alone:
            try:
                await self.delete(key)
            except OstrakaError as error:
                failed[key] = error
        return failed

    async def _deleted_at_once(self, keys: Sequence[str]) -> dict[str, OstrakaError]:
        if not keys:
            return {}
        objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
        body = f"<Delete><Quiet>true</Quiet>{objects}</Delete>".encode()
        digest = hashlib.md5(body, usedforsecurity=False).digest()  # what S3 demands of this request
        headers = {"content-md5": base64.b64encode(digest).decode(), "content-type": "application/xml"}
        root = parsed((await self._asked("POST", "", {"delete": ""}, headers, body)).body)
        failed = {}
        for element in root.iterfind("Error"):
            key, code = text(element, "Key"), text(element, "Code")
            if code != "NoSuchKey":
                failed[key] = named(code, text(element, "Message"), key)
        return failed

    async def copy(self, source: str, target: str) -> str:
        """Copy up to 5 GiB; Invalid ("request") if it is more."""
        answer = await self._asked("PUT", target, None, {"x-amz-copy-source": self._origin(source)})
        return etag_of(text(self._document(answer, target), "ETag"), target)

    async def copy_part(
        self, key: str, upload: str, number: int, *, source: str, etag: str, begin: int, end: int
    ) -> str:
        """Make part ``number`` of the source's bytes from begin to end, if it still has that ETag."""
        headers = {"x-amz-copy-source": self._origin(source), "x-amz-copy-source-if-match": f'"{etag}"'}
        if end > begin:
            headers["x-amz-copy-source-range"] = f"bytes={begin}-{end - 1}"
        answer = await self._asked("PUT", key, {"partNumber": str(number), "uploadId": upload}, headers)
        return etag_of(text(self._document(answer, source), "ETag"), source)

    def _origin(self, source: str) -> str:
        return path_of(f"{self._place.bucket}/{source}")

    async def presign(self, key: str, method: str, seconds: float) -> str:
        if method not in PRESIGN_METHODS or not 1 <= seconds <= LIMITS.presign_seconds_max:
            raise Invalid(
                f"a URL is made for {', '.join(PRESIGN_METHODS)}, and for 1 second to 7 days", reason="request"
            )
        keys = await self._keys.get()
        if keys is None:
            raise Forbidden("without keys nothing can be signed", reason="credentials")
        place = self._place
        path = f"{place.path}/{path_of(key)}"
        now = self._clock.time()
        query = presigned_query(keys, self._scope, now, method, place.host, path, int(seconds))
        return f"{place.scheme}://{place.host}{path}?{query}"


@contextmanager
def _existing(key: str, if_absent: bool) -> Iterator[None]:
    """A failed condition of what must create says that it is there."""
    try:
        yield
    except PreconditionFailed:
        if not if_absent:
            raise
        raise PreconditionFailed(f"{key}: it is there already", reason="exists") from None


async def _sha256(body: bytes) -> str:
    if len(body) <= HASH_INLINE_BYTES_MAX:
        return hashlib.sha256(body).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, body)).hexdigest()


def _listed_stat(element: Document) -> Stat:
    try:
        modified = datetime.fromisoformat(text(element, "LastModified")).timestamp()
        return Stat(int(text(element, "Size")), modified, text(element, "ETag").strip('"'))
    except ValueError:
        raise Unavailable("the store's listing has no size or no time", reason="service") from None
