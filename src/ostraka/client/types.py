"""What a client of a store can do, and the shapes that it speaks in.

Every method may be called from any thread and waits for its end. Errors are the kinds of errors.py; those that name a
bucket or an object are made here, so that they read alike whichever way led to the store. Sizes are bytes, times POSIX
seconds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from ostraka.errors import Absent, Invalid
from ostraka.host import Buffer

OnBytes = Callable[[int], None]  # so many bytes more (or less: they have to be sent again)


class Bucket(msgspec.Struct, frozen=True):
    name: str
    created: float


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A row of a listing."""

    key: str
    size: int
    modified: float
    etag: str


class Page(msgspec.Struct, frozen=True):
    """Keys and common prefixes, each in order. ``next`` goes on after them; None: that was all."""

    entries: Sequence[Entry]
    prefixes: Sequence[str]
    next: str | None


class Version(msgspec.Struct, frozen=True, gc=False):
    """A version of an object, or a delete marker."""

    key: str
    version_id: str
    size: int
    modified: float
    latest: bool
    delete_marker: bool


class Info(msgspec.Struct, frozen=True):
    """What is known of an object. ``checksums``: algorithm (upper case) to base64, of the kind ``checksum_type``."""

    bucket: str
    key: str
    size: int
    etag: str
    modified: float
    version_id: str = ""  # "" where the bucket never kept versions
    attributes: "Attributes" = msgspec.field(default_factory=lambda: Attributes())
    checksums: Mapping[str, str] = msgspec.field(default_factory=dict)
    checksum_type: str = ""


class Attributes(msgspec.Struct, frozen=True):
    """What is kept beside an object's bytes. ``headers``: cache-control and its like, in lower case."""

    content_type: str = ""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)


class Part(msgspec.Struct, frozen=True):
    """A part of an upload, or of an object that was made of some. ``checksum``: base64, or ""."""

    number: int
    size: int
    etag: str = ""
    checksum: str = ""


class Upload(msgspec.Struct, frozen=True):
    """A multipart upload in progress."""

    bucket: str
    key: str
    upload_id: str
    begun: float = 0.0


class Body(Protocol):
    """What is to be stored. ``pieces`` may be asked for more than once and gives the same bytes each time."""

    size: int

    def pieces(self) -> Iterator[Buffer]:
        """In order; a piece is good until the next one is asked for."""
        ...


class Client(Protocol):
    """A way to a store."""

    def buckets(self) -> list[Bucket]:
        """All that may be seen, by name."""
        ...

    def check_bucket(self, name: str) -> None:
        """Raises Absent, or Forbidden: better once before than for each of a thousand files."""
        ...

    def create_bucket(self, name: str) -> None:
        """Raises Exists, Invalid."""
        ...

    def delete_bucket(self, name: str) -> None:
        """Raises Absent, Exists (it is not empty)."""
        ...

    def page(self, bucket: str, prefix: str, *, delimiter: str = "", after: str | None = None) -> Page:
        """Some of the keys that begin with prefix; ``after``: `Page.next` of the page before."""
        ...

    def versions(self, bucket: str, prefix: str) -> Iterator[Version]:
        """Every version and delete marker, newest first within a key."""
        ...

    def head(self, bucket: str, key: str, version_id: str = "") -> Info: ...

    def read(self, info: Info, offset: int, length: int) -> AbstractContextManager[Iterator[Buffer]]:
        """Exactly these bytes of the version that info tells of; Conflict if another took its place."""
        ...

    def parts(self, info: Info) -> Iterator[Part]:
        """Of an object that was uploaded in parts, with the checksum of each; none of any other object."""
        ...

    def put(self, bucket: str, key: str, body: Body, attributes: Attributes, on_bytes: OnBytes) -> None:
        """Store a body; what arrives damaged is refused (Truncated). On stable storage when it returns."""
        ...

    def copy(self, info: Info, bucket: str, key: str) -> None:
        """Copy the version that info tells of, attributes included, within the store."""
        ...

    def delete(self, bucket: str, named: Sequence[tuple[str, str]]) -> list[Exception | None]:
        """Each (key, version id or "") by itself; what is not there is deleted successfully."""
        ...

    # an object in parts; parts may be put at the same time
    def begin(self, bucket: str, key: str, attributes: Attributes) -> Upload: ...
    def put_part(self, upload: Upload, number: int, body: Body, on_bytes: OnBytes) -> Part: ...
    def copy_part(self, upload: Upload, number: int, info: Info, offset: int, length: int) -> Part: ...
    def complete(self, upload: Upload, parts: Sequence[Part]) -> None: ...
    def abort(self, upload: Upload) -> None:
        """Also after `interrupt`. What is gone is no error."""
        ...

    def uploads(self, bucket: str, prefix: str) -> Iterator[Upload]:
        """Those that were neither completed nor aborted."""
        ...

    def interrupt(self) -> None:
        """Calls that wait end with an error, as soon as they can. Any thread."""
        ...


def place(bucket: str, key: str) -> str:
    """How an object is written: s3://bucket/key."""
    return f"s3://{bucket}/{key}"


def no_bucket(name: str) -> Absent:
    return Absent(f"there is no bucket {name!r}: `ostraka bucket ls` shows what there is", reason="bucket")


def bad_bucket_name(name: str) -> Invalid:
    return Invalid(f"bucket {name!r}: a name is 3 to 63 lower case letters, digits, dots and hyphens", reason="bucket")


def no_object(bucket: str, key: str, version_id: str = "") -> Absent:
    if version_id:
        return Absent(f"{place(bucket, key)} has no version {version_id!r}: `ostraka ls --versions` shows them")
    return Absent(f"there is no object {place(bucket, key)}", reason="key")


def entries(client: Client, bucket: str, prefix: str) -> Iterator[Entry]:
    """Every object whose key begins with prefix, in the order of the keys' bytes."""
    after: str | None = None
    while True:
        page = client.page(bucket, prefix, after=after)
        yield from page.entries
        if page.next is None:
            return
        after = page.next
