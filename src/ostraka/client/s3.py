"""`S3Client`: the way over S3, of a server that serves the store."""

import base64
import contextlib
import http.client
import string
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote_plus

from ostraka.client.answers import DOCUMENT_BYTES_MAX, Element, failure, parse
from ostraka.client.bodies import BytesBody
from ostraka.client.types import (
    Attributes,
    Body,
    Bucket,
    Entry,
    Info,
    OnBytes,
    Page,
    Part,
    Upload,
    Version,
    no_bucket,
    place,
)
from ostraka.client.wire import NOTHING, PAUSE_SECONDS, Answer, Wire
from ostraka.errors import Absent, Conflict, Exists, Forbidden, OstrakaError, PreconditionFailed, Unavailable
from ostraka.host import Buffer
from ostraka.s3.checksums import ALGORITHMS, DEFAULT, FULL_OBJECT, full_object
from ostraka.s3.xml import escape
from ostraka.sigv4 import path_of, query_of

META = "x-amz-meta-"
KEPT = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")
READ_SIZE = 1 << 20
FAILURES_IN_A_ROW_MAX = 5  # of a read that gets no further
_XML = frozenset(string.printable) - {"\r", "\x0b", "\x0c"}

Query = Sequence[tuple[str, str]]


class S3Client:
    """Implements `types.Client`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def _call(
        self,
        method: str,
        bucket: str = "",
        key: str = "",
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: Body = NOTHING,
        on_bytes: OnBytes | None = None,
        *,
        guard: bool = False,
        last_word: bool = False,
        version_id: str = "",
    ) -> Answer:
        """A successful answer; else the error that it is."""
        parameters = [*query, *([("versionId", version_id)] if version_id else [])]
        answer = self._wire.request(
            method,
            path_of(f"/{bucket}/{key}" if key else f"/{bucket}"),
            query_of(parameters),
            headers,
            body,
            on_bytes,
            guard=guard,
            last_word=last_word,
        )
        if answer.status < 300:
            return answer
        with answer:
            raise _error(answer, bucket, key, version_id)

    def _document(self, method: str, bucket: str = "", key: str = "", query: Query = (), **more: object) -> Element:
        with self._call(method, bucket, key, query, **more) as answer:  # type: ignore[arg-type]
            told = parse(_read_all(answer))
        if told.name == "Error":  # what takes long is begun to be answered before it is known how it ends
            raise failure(500, told.get("Code"), told.get("Message"), bucket, key)
        return told

    def _done(self, method: str, bucket: str, key: str = "", query: Query = (), **more: object) -> Mapping[str, str]:
        """For what answers with headers only."""
        with self._call(method, bucket, key, query, **more) as answer:  # type: ignore[arg-type]
            _read_all(answer)
            return answer.headers

    def readiness(self) -> str:
        """Why the server cannot serve now; "" when it can. Only of Ostraka's own servers."""
        with self._wire.request("GET", "/-/health/ready", last_word=True) as answer:
            text = _read_all(answer).decode("utf-8", "replace").strip()
            if answer.status in (200, 503):
                return "" if answer.status == 200 else text or "it is not ready"
            raise Unavailable(f"{self._wire.address.url} is no Ostraka server ({answer.status})", reason="url")

    # -- buckets

    def buckets(self) -> list[Bucket]:
        found: list[Bucket] = []
        token = ""
        while True:
            query = [("max-buckets", "1000"), *([("continuation-token", token)] if token else [])]
            page = self._document("GET", query=query)
            for listed in page.all("Buckets"):
                found += [Bucket(b.get("Name"), _time(b.get("CreationDate"))) for b in listed.all("Bucket")]
            token = page.get("ContinuationToken")
            if not token:
                return found

    def check_bucket(self, name: str) -> None:
        self._document("GET", name, query=[("list-type", "2"), ("max-keys", "0")])  # HEAD would not say what is wrong

    def create_bucket(self, name: str) -> None:
        try:
            self.check_bucket(name)
        except Absent:
            self._done("PUT", name)
        else:  # to make one's own again is no error in us-east-1
            raise Exists(f"there is a bucket {name!r} already", reason="bucket")

    def delete_bucket(self, name: str) -> None:
        self._done("DELETE", name)

    # -- objects

    def page(self, bucket: str, prefix: str, *, delimiter: str = "", after: str | None = None) -> Page:
        query = [("list-type", "2"), ("encoding-type", "url"), ("prefix", prefix)]
        query += [("delimiter", delimiter)] if delimiter else []
        query += [("continuation-token", after)] if after is not None else []
        listed = self._document("GET", bucket, query=query)
        rows = [_entry(e) for e in listed.all("Contents")]
        prefixes = [unquote_plus(e.get("Prefix")) for e in listed.all("CommonPrefixes")]
        truncated = listed.get("IsTruncated") == "true"
        return Page(rows, prefixes, listed.get("NextContinuationToken") if truncated else None)

    def versions(self, bucket: str, prefix: str) -> Iterator[Version]:
        place: list[tuple[str, str]] = []
        while True:
            query = [("versions", ""), ("encoding-type", "url"), ("prefix", prefix), *place]
            listed = self._document("GET", bucket, query=query)
            for e in listed.children:
                if e.name in ("Version", "DeleteMarker"):
                    yield Version(
                        unquote_plus(e.get("Key")),
                        e.get("VersionId"),
                        int(e.get("Size") or 0),
                        _time(e.get("LastModified")),
                        e.get("IsLatest") == "true",
                        e.name == "DeleteMarker",
                    )
            if listed.get("IsTruncated") != "true":
                return
            place = [("key-marker", unquote_plus(listed.get("NextKeyMarker")))]
            place += [("version-id-marker", v)] if (v := listed.get("NextVersionIdMarker")) else []

    def head(self, bucket: str, key: str, version_id: str = "") -> Info:
        try:
            headers = self._done("HEAD", bucket, key, headers={"x-amz-checksum-mode": "ENABLED"}, version_id=version_id)
        except (Absent, Forbidden):
            self.check_bucket(bucket)  # HEAD says nothing: it may be the bucket that is absent, or a wrong key
            raise
        return _info(bucket, key, headers)

    @contextlib.contextmanager
    def read(self, info: Info, offset: int, length: int) -> Iterator[Iterator[Buffer]]:
        pieces = self._pieces(info, offset, length)
        try:
            yield pieces
        finally:
            pieces.close()

    def _pieces(self, info: Info, offset: int, length: int) -> Generator[Buffer]:
        """The range, over as many answers as it takes; each goes on where the last one broke off."""
        end, failures = offset + length, 0
        view = memoryview(bytearray(min(READ_SIZE, length)))
        while offset < end:
            with self._get(info, offset, end) as answer:
                while offset < end and (size := _read_some(answer, view[: end - offset])):
                    failures = 0
                    yield view[:size]
                    offset += size
            if offset < end:
                failures += 1
                if failures > FAILURES_IN_A_ROW_MAX or self._wire.stop.is_set():
                    raise Unavailable(
                        f"{place(info.bucket, info.key)}: the server broke off {failures} times at byte {offset}; its "
                        "log says why",
                        reason="broken-off",
                    )
                self._wire.stop.wait(PAUSE_SECONDS * failures)

    def _get(self, info: Info, offset: int, end: int) -> Answer:
        headers = {"range": f"bytes={offset}-{end - 1}", "if-match": f'"{info.etag}"'}
        try:
            answer = self._call("GET", info.bucket, info.key, headers=headers, version_id=info.version_id)
        except PreconditionFailed:
            what = place(info.bucket, info.key)
            raise Conflict(f"{what} was changed while it was read: try again", reason="changed") from None
        if answer.status != 206:
            answer.close()
            raise Unavailable(f"{place(info.bucket, info.key)}: the server gave all where a part was asked for")
        return answer

    def parts(self, info: Info) -> Iterator[Part]:
        if not info.etag.rpartition("-")[0]:
            return
        headers = {"x-amz-object-attributes": "ObjectParts", "x-amz-max-parts": "1000", "if-match": f'"{info.etag}"'}
        while True:
            query = [("attributes", "")]
            told = self._document("GET", info.bucket, info.key, query, headers=headers, version_id=info.version_id)
            for parts in told.all("ObjectParts"):
                for e in parts.all("Part"):
                    sums = [e.get(ALGORITHMS[name].member) for name in info.checksums]
                    yield Part(int(e.get("PartNumber")), int(e.get("Size")), checksum=next(filter(None, sums), ""))
                if parts.get("IsTruncated") != "true":
                    return
                headers["x-amz-part-number-marker"] = parts.get("NextPartNumberMarker")
            if not told.all("ObjectParts"):
                return

    def put(self, bucket: str, key: str, body: Body, attributes: Attributes, on_bytes: OnBytes) -> None:
        self._done("PUT", bucket, key, headers=_kept(attributes), body=body, on_bytes=on_bytes, guard=True)

    def copy(self, info: Info, bucket: str, key: str) -> None:
        self._document("PUT", bucket, key, headers=_source(info))

    def delete(self, bucket: str, named: Sequence[tuple[str, str]]) -> list[Exception | None]:
        results: dict[tuple[str, str], Exception | None] = dict.fromkeys(named)
        plain = [(k, v) for k, v in named if _XML.issuperset(k) or k.isprintable()]
        for key, version in results.keys() - set(plain):  # XML cannot name them
            try:
                self._done("DELETE", bucket, key, version_id=version)
            except OstrakaError as e:
                results[key, version] = e
        if plain:
            for told in self._delete_many(bucket, plain).all("Error"):
                which = told.get("Key"), told.get("VersionId")
                results[which] = failure(400, told.get("Code"), told.get("Message"), bucket, *which)
        return [results[which] for which in named]

    def _delete_many(self, bucket: str, named: Sequence[tuple[str, str]]) -> Element:
        rows = "".join(
            f"<Object><Key>{escape(key)}</Key>{f'<VersionId>{escape(v)}</VersionId>' if v else ''}</Object>"
            for key, v in named
        )
        body = BytesBody(f"<Delete><Quiet>true</Quiet>{rows}</Delete>".encode())
        return self._document("POST", bucket, query=[("delete", "")], body=body, guard=True)

    # -- uploads

    def begin(self, bucket: str, key: str, attributes: Attributes) -> Upload:
        headers = {
            **_kept(attributes),
            "x-amz-checksum-algorithm": DEFAULT,
            "x-amz-checksum-type": FULL_OBJECT,
        }
        made = self._document("POST", bucket, key, [("uploads", "")], headers=headers)
        return Upload(bucket, key, made.get("UploadId"))

    def put_part(self, upload: Upload, number: int, body: Body, on_bytes: OnBytes) -> Part:
        headers = self._done(
            "PUT", upload.bucket, upload.key, _part(upload, number), body=body, on_bytes=on_bytes, guard=True
        )
        return Part(number, body.size, _etag(headers.get("etag", "")), headers.get(ALGORITHMS[DEFAULT].header, ""))

    def copy_part(self, upload: Upload, number: int, info: Info, offset: int, length: int) -> Part:
        headers = {**_source(info), "x-amz-copy-source-range": f"bytes={offset}-{offset + length - 1}"}
        made = self._document("PUT", upload.bucket, upload.key, _part(upload, number), headers=headers)
        return Part(number, length, _etag(made.get("ETag")), made.get(ALGORITHMS[DEFAULT].member))

    def complete(self, upload: Upload, parts: Sequence[Part]) -> None:
        """What the parts come to is said along, so that the server refuses to make anything else of them."""
        headers = {"x-amz-mp-object-size": str(sum(part.size for part in parts))}
        if all(part.checksum for part in parts):
            whole = full_object(DEFAULT, [(part.checksum, part.size) for part in parts])
            headers |= {ALGORITHMS[DEFAULT].header: whole, "x-amz-checksum-type": FULL_OBJECT}
        rows = "".join(
            f'<Part><PartNumber>{part.number}</PartNumber><ETag>"{part.etag}"</ETag></Part>' for part in parts
        )
        body = BytesBody(f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode())
        query = [("uploadId", upload.upload_id)]
        self._document("POST", upload.bucket, upload.key, query, headers=headers, body=body)

    def abort(self, upload: Upload) -> None:
        with contextlib.suppress(Absent):
            self._done("DELETE", upload.bucket, upload.key, [("uploadId", upload.upload_id)], last_word=True)

    def uploads(self, bucket: str, prefix: str) -> Iterator[Upload]:
        place: list[tuple[str, str]] = []
        while True:
            listed = self._document(
                "GET", bucket, query=[("uploads", ""), ("encoding-type", "url"), ("prefix", prefix), *place]
            )
            for e in listed.all("Upload"):
                yield Upload(bucket, unquote_plus(e.get("Key")), e.get("UploadId"), _time(e.get("Initiated")))
            if listed.get("IsTruncated") != "true":
                return
            place = [("key-marker", unquote_plus(listed.get("NextKeyMarker")))]
            place += [("upload-id-marker", marker)] if (marker := listed.get("NextUploadIdMarker")) else []

    def interrupt(self) -> None:
        self._wire.interrupt()

    def close(self) -> None:
        self._wire.close()


def _error(answer: Answer, bucket: str, key: str, version_id: str) -> OstrakaError:
    """The error that an answer of 300 and more is."""
    code = message = ""
    document = _read_all(answer)
    if document:
        try:
            told = parse(document)
            code, message = told.get("Code"), told.get("Message")
        except Unavailable:
            if answer.status < 500:
                raise
    if answer.status == 404 and not code and not key:
        return no_bucket(bucket)
    return failure(answer.status, code, message, bucket, key, version_id)


def _read_some(answer: Answer, view: memoryview) -> int:
    """Bytes of the body; 0 where it ended or broke off."""
    try:
        return answer.readinto(view)
    except (OSError, http.client.HTTPException):
        return 0


def _read_all(answer: Answer) -> bytes:
    try:
        return answer.read(DOCUMENT_BYTES_MAX)
    except (OSError, http.client.HTTPException) as e:
        raise Unavailable(f"the server broke off its answer ({e}): try again", reason="broken-off") from None


def _entry(e: Element) -> Entry:
    return Entry(
        unquote_plus(e.get("Key")), int(e.get("Size") or 0), _time(e.get("LastModified")), _etag(e.get("ETag"))
    )


def _part(upload: Upload, number: int) -> Query:
    return [("partNumber", str(number)), ("uploadId", upload.upload_id)]


def _source(info: Info) -> dict[str, str]:
    version = f"?versionId={quote(info.version_id, safe='')}" if info.version_id else ""
    return {
        "x-amz-copy-source": quote(f"{info.bucket}/{info.key}", safe="/~") + version,
        "x-amz-copy-source-if-match": f'"{info.etag}"',
    }


def _kept(attributes: Attributes) -> dict[str, str]:
    headers = dict(attributes.headers)
    if attributes.content_type:
        headers["content-type"] = attributes.content_type
    for name, value in attributes.metadata.items():
        text = value if value.isascii() else f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="
        headers[META + name] = text
    return headers


def _info(bucket: str, key: str, headers: Mapping[str, str]) -> Info:
    sums = {name: headers[a.header] for name, a in ALGORITHMS.items() if a.header in headers}
    return Info(
        bucket,
        key,
        int(headers.get("content-length", "0")),
        _etag(headers.get("etag", "")),
        _http_time(headers.get("last-modified", "")),
        headers.get("x-amz-version-id", ""),
        Attributes(
            headers.get("content-type", ""),
            {name: headers[name] for name in KEPT if name in headers},
            {name[len(META) :]: value for name, value in headers.items() if name.startswith(META)},
        ),
        sums,
        headers.get("x-amz-checksum-type", ""),
    )


def _etag(text: str) -> str:
    return text.strip('"')


def _time(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _http_time(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0
