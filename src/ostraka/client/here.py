"""`HereClient`: the way through this process, which owns the store while it is open. No server, no network."""

import contextlib
import threading
from collections.abc import Iterator, Sequence

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
    no_object,
    place,
)
from ostraka.errors import Absent, Conflict, Exists, OstrakaError
from ostraka.host import Buffer
from ostraka.library import Bucket as StoredBucket
from ostraka.library import Store
from ostraka.library import Upload as StoredUpload
from ostraka.library.bodies import BYTES_AT_ONCE_MAX
from ostraka.objects.types import BadVersionId, ObjectInfo, PartInfo
from ostraka.s3.checksums import DEFAULT, FULL_OBJECT, full_object


class HereClient:
    """Implements `types.Client` over an open store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stop = threading.Event()
        self._uploads: dict[str, StoredUpload] = {}

    # -- buckets

    def buckets(self) -> list[Bucket]:
        return [Bucket(b.name, b.created) for b in self._store.buckets()]

    def check_bucket(self, name: str) -> None:
        self._bucket(name)

    def create_bucket(self, name: str) -> None:
        try:
            self._store.create_bucket(name)
        except Exists:
            raise Exists(f"there is a bucket {name!r} already", reason="bucket") from None

    def delete_bucket(self, name: str) -> None:
        with _telling(name):
            try:
                self._store.delete_bucket(name)
            except Exists:
                raise Exists(f"bucket {name!r} is not empty", reason="bucket-not-empty") from None

    def _bucket(self, name: str) -> StoredBucket:
        with _telling(name):
            return self._store.bucket(name)

    # -- objects

    def page(self, bucket: str, prefix: str, *, delimiter: str = "", after: str | None = None) -> Page:
        page = self._bucket(bucket).page(prefix, delimiter=delimiter, start_after=after or "")
        rows = [Entry(e.key, e.size, e.modified, e.etag) for e in page.entries]
        return Page(rows, page.prefixes, page.next if page.truncated else None)

    def versions(self, bucket: str, prefix: str) -> Iterator[Version]:
        for v in self._bucket(bucket).versions(prefix):
            yield Version(v.key, v.version_id, v.size, v.modified, v.latest, v.delete_marker)

    def head(self, bucket: str, key: str, version_id: str = "") -> Info:
        with _telling(bucket, key, version_id):
            return _info(self._bucket(bucket).head(key, version_id=version_id or None))

    @contextlib.contextmanager
    def read(self, info: Info, offset: int, length: int) -> Iterator[Iterator[Buffer]]:
        with _telling(info.bucket, info.key, info.version_id):
            reader = self._bucket(info.bucket).open(info.key, version_id=info.version_id or None)
        with reader:
            now = reader.info
            if (now.etag, now.size) != (info.etag, info.size):
                what = place(info.bucket, info.key)
                raise Conflict(f"{what} was changed while it was read: try again", reason="changed")
            yield reader.pieces(offset, length)

    def parts(self, info: Info) -> Iterator[Part]:
        with self._bucket(info.bucket).open(info.key, version_id=info.version_id or None) as reader:
            for part in reader.parts():
                sums = [part.checksums[name] for name in info.checksums if name in part.checksums]
                yield Part(part.number, part.size, part.etag, sums[0] if sums else "")

    def put(self, bucket: str, key: str, body: Body, attributes: Attributes, on_bytes: OnBytes) -> None:
        pieces = self._counted(body, on_bytes)
        with _telling(bucket):
            self._bucket(bucket).put(
                key,
                b"".join(pieces) if body.size <= BYTES_AT_ONCE_MAX else pieces,
                content_type=attributes.content_type,
                headers=attributes.headers,
                metadata=attributes.metadata,
            )

    def _counted(self, body: Body, on_bytes: OnBytes) -> Iterator[Buffer]:
        for piece in body.pieces():
            if self._stop.is_set():
                raise InterruptedError("interrupted")
            yield piece
            on_bytes(len(piece))

    def copy(self, info: Info, bucket: str, key: str) -> None:
        self._bucket(bucket)
        with _telling(info.bucket, info.key, info.version_id):
            source = self._bucket(info.bucket)
            if source.head(info.key, version_id=info.version_id or None).etag != info.etag:
                what = place(info.bucket, info.key)
                raise Conflict(f"{what} was changed while it was copied: try again", reason="changed")
            source.copy(info.key, key, to_bucket=bucket, version_id=info.version_id or None)

    def delete(self, bucket: str, named: Sequence[tuple[str, str]]) -> list[Exception | None]:
        stored = self._bucket(bucket)
        plain = [key for key, version in named if not version]
        try:
            stored.delete_many(plain)
            left = [which for which in named if which[1]]
        except OstrakaError:  # of one of them: which one it was is found out by asking for each
            left = list(named)
        results: dict[tuple[str, str], Exception | None] = dict.fromkeys(named)
        for key, version in left:
            try:
                stored.delete(key, version_id=version or None)
            except OstrakaError as e:
                results[key, version] = e
        return [results[which] for which in named]

    # -- uploads

    def begin(self, bucket: str, key: str, attributes: Attributes) -> Upload:
        made = self._bucket(bucket).upload(
            key, content_type=attributes.content_type, headers=attributes.headers, metadata=attributes.metadata
        )
        self._uploads[made.upload_id] = made
        return Upload(bucket, key, made.upload_id)

    def put_part(self, upload: Upload, number: int, body: Body, on_bytes: OnBytes) -> Part:
        return _part(self._uploads[upload.upload_id].put(number, self._counted(body, on_bytes)))

    def copy_part(self, upload: Upload, number: int, info: Info, offset: int, length: int) -> Part:
        source = self._bucket(info.bucket).head(info.key, version_id=info.version_id or None)
        return _part(self._uploads[upload.upload_id].copy(number, source, offset, length))

    def complete(self, upload: Upload, parts: Sequence[Part]) -> None:
        done = self._uploads.pop(upload.upload_id).complete()
        whole = full_object(DEFAULT, [(part.checksum, part.size) for part in parts])
        assert done.checksums.get(DEFAULT, whole) == whole, "other parts were completed than were put"

    def abort(self, upload: Upload) -> None:
        begun = self._uploads.pop(upload.upload_id, None) or self._bucket(upload.bucket).upload_of(
            upload.key, upload.upload_id
        )
        begun.abort()

    def uploads(self, bucket: str, prefix: str) -> Iterator[Upload]:
        for u in self._bucket(bucket).uploads(prefix):
            yield Upload(bucket, u.key, u.upload_id, u.initiated)

    def interrupt(self) -> None:
        self._stop.set()


@contextlib.contextmanager
def _telling(bucket: str, key: str = "", version_id: str = "") -> Iterator[None]:
    """Absences in the words of every client."""
    try:
        yield
    except Absent as e:
        if e.reason == "bucket":
            raise no_bucket(bucket) from None
        if e.reason in ("key", "version", "delete-marker"):
            raise no_object(bucket, key, version_id) from None
        raise
    except BadVersionId:
        raise no_object(bucket, key, version_id) from None


def _info(stored: ObjectInfo) -> Info:
    headers = dict(stored.attributes.headers)
    content_type = headers.pop("content-type", "")
    return Info(
        stored.bucket,
        stored.key,
        stored.size,
        stored.etag,
        stored.modified,
        stored.version_id if stored.versioned else "",
        Attributes(content_type, headers, stored.attributes.metadata),
        stored.checksums,
        stored.checksum_type or (FULL_OBJECT if stored.checksums else ""),
    )


def _part(stored: PartInfo) -> Part:
    return Part(stored.number, stored.size, stored.etag, stored.checksums.get(DEFAULT, ""))
