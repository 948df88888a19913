"""The public shapes of the object core: what the doors (S3, library, command line) give it and get from it.

Nothing here knows HTTP or XML. Names are S3's where S3 has a name. Times are POSIX seconds (float); sizes and
offsets are bytes; an etag is its text without quotes.

What is made thousands of times a second (rows of a listing, one ObjectInfo a request) is a msgspec struct, ten times
cheaper to make than a frozen dataclass: ``msgspec.structs.replace`` takes the place of ``dataclasses.replace``.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

import msgspec

from ostraka.chunks.types import Entry
from ostraka.errors import Absent, Invalid
from ostraka.host import Buffer

Versioning = Literal["", "Enabled", "Suspended"]
NO_ETAGS: Mapping[int, Sequence[str]] = MappingProxyType({})


class Source(Protocol):
    """Where a body comes from: http's body, a decoder around it, a file, bytes."""

    length: int | None  # bytes that will come, when known

    async def read_into(self, view: memoryview) -> int:
        """Fill some of view (at least one byte); 0 at the end. Raises Truncated when the sender lied."""
        ...

    def read_now(self) -> Buffer | None:
        """The whole body, if it is here already and small; else None. Consumes it."""
        ...


class Digested(msgspec.Struct, frozen=True, gc=False):
    """What the digest of a body came to. ``checksums``: algorithm name (upper case) to base64 value."""

    etag: str
    checksums: Mapping[str, str] = msgspec.field(default_factory=dict)
    checksum_type: str = ""  # "FULL_OBJECT" or "COMPOSITE"


class Digest(Protocol):
    """Hashes a body as it streams. ``update`` is called in order, from worker threads, one call at a time."""

    def update(self, data: Buffer) -> None: ...

    def finish(self) -> Digested:
        """After the last byte: raises Truncated if the body is not what its sender declared."""
        ...


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """What is kept beside an object's bytes, verbatim."""

    headers: Mapping[str, str] = msgspec.field(default_factory=dict)  # content-type, cache-control, ... lower case
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)  # x-amz-meta-* without the prefix
    tags: Mapping[str, str] = msgspec.field(default_factory=dict)
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class WriteConditions:
    """Preconditions of a write. ``if_match``: etags of which the current object must have one ("*": any)."""

    if_none_match: bool = False  # If-None-Match: *, create only
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """Identity of an invocation, so that a retry of a write whose answer was lost gets that answer (ENGINE 21)."""

    account: str
    operation: str
    invocation: str
    body: str  # what must be equal for it to be a retry: declared digest and length


@dataclass(frozen=True, slots=True)
class Account:
    """Who owns things. ``root`` may do everything."""

    name: str
    access_key: str
    root: bool = False


AES256 = "AES256"  # what a version may be encrypted by: the store's own key (SSE-S3)
KMS = "aws:kms"  # a key of the store's with a name (SSE-KMS)
CUSTOMER = "customer"  # a key that comes with each request (SSE-C)


class Encryption(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How a version is encrypted, or shall be. ``algorithm``: "" (not), or one of the above. ``key``: its name, of KMS
    ("": what the bucket says). ``context``: as it was given, base64 of JSON. ``proof``: of CUSTOMER, by which the key
    is known again."""

    algorithm: str = ""
    key: str = ""
    context: str = ""
    bucket_key: bool = False
    proof: bytes = b""


UNENCRYPTED = Encryption()


class CustomerKey:
    """A key of 32 bytes that comes with a request, and goes with it."""

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key = key

    def __repr__(self) -> str:
        return "CustomerKey()"


class Storage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How what is written to a bucket from now on is kept; what is there already stays as it is.

    ``compression``: "zstd", "lz4" or "none", at ``level`` (0: that of the codec that was measured to be best).
    ``cut``: "fixed", into chunks of ``chunk_size`` bytes, or "cdc", where content says, ``chunk_size`` apart on average
    (0: what was measured to be best). What `recipes.changed` takes is how people say it.
    ``encryption``: "AES256" (the store's own key), "aws:kms" (the key ``kms_key``; the store's own without a name) or
    "" for none, of writes that ask for none.
    """

    compression: str = "zstd"
    level: int = 0
    cut: str = "fixed"
    chunk_size: int = 0
    encryption: str = ""
    kms_key: str = ""
    bucket_key: bool = False  # what S3 calls a bucket key: said and kept, here every key is one


STORAGE = Storage()  # of buckets whose row says nothing of it
NEW_STORAGE = Storage()  # of a new bucket (docs/decisions/cutting.md)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as it stands. ``settings``: sub-resources kept as the doors gave them (name to opaque bytes)."""

    name: str
    id: int
    owner: str  # account name
    created: float
    region: str
    versioning: Versioning = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, bytes] = field(default_factory=dict)
    storage: Storage = STORAGE


class PartInfo(msgspec.Struct, frozen=True, gc=False):
    """One part, of an upload in progress or of a completed object."""

    number: int
    size: int
    etag: str
    modified: float
    checksums: Mapping[str, str] = msgspec.field(default_factory=dict)


class ObjectInfo(msgspec.Struct, frozen=True, gc=False):
    """One version of an object, or a delete marker."""

    bucket: str
    key: str
    size: int
    etag: str
    modified: float
    version_id: str  # "null" for a null version
    versioned: bool  # whether the door should show version_id (the bucket was ever versioned)
    latest: bool
    delete_marker: bool
    owner: str
    attributes: Attributes
    checksums: Mapping[str, str] = msgspec.field(default_factory=dict)
    checksum_type: str = ""
    part_count: int = 0  # of a multipart object
    sequence: int = 0  # of the commit that made this version: names it exactly, null versions too
    encryption: Encryption = UNENCRYPTED


class DeleteMarker(Absent):
    """A delete marker is in the way. ``named``: it was asked for by its version id."""

    def __init__(self, key: str, version_id: str, named: bool, modified: float) -> None:
        super().__init__(f"{key!r} is a delete marker", reason="delete-marker")
        self.version_id = version_id
        self.named = named
        self.modified = modified


class ObjectReader(Protocol):
    """An open version: its bytes stay readable until close, whatever happens to its name (law 6)."""

    info: ObjectInfo

    def read(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Buffer]:
        """Verified pieces, in order. Raises Corrupt or Unavailable before or between pieces, never short."""
        ...

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """All of it at once if that needs no waiting; else None."""
        ...

    def slices(self) -> Iterator[Entry]:
        """The CHUNK and SLOT slices that the body is made of, in order; none when it rides in its row."""
        ...

    async def part(self, number: int) -> tuple[int, int]:
        """(offset, length) of a part of a completed multipart object (or of the whole for part 1 of another)."""
        ...

    async def parts(self, after: int, limit: int) -> tuple[list[PartInfo], bool]:
        """Parts numbered above ``after`` (as completed), and whether more follow."""
        ...

    def close(self) -> None: ...


class Listed(msgspec.Struct, frozen=True, gc=False):
    """A row of a listing."""

    key: str
    size: int
    etag: str
    modified: float
    storage_class: str
    owner: str
    checksum_algorithms: tuple[str, ...] = ()
    checksum_type: str = ""


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page: entries and common prefixes in key order, counted together. ``next``: resume *after* this."""

    entries: Sequence[Listed]
    prefixes: Sequence[str]
    truncated: bool
    next: str = ""
    rows_read: int = 0  # rows of the state that the page cost


@dataclass(frozen=True, slots=True)
class VersionPage:
    """A page of versions and delete markers, newest first within a key."""

    entries: Sequence[ObjectInfo]
    prefixes: Sequence[str]
    truncated: bool
    next_key: str = ""
    next_version: str = ""
    rows_read: int = 0


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload in progress."""

    bucket: str
    key: str
    upload_id: str
    owner: str
    initiated: float
    attributes: Attributes
    checksum_algorithm: str = ""
    checksum_type: str = ""
    encryption: Encryption = UNENCRYPTED


@dataclass(frozen=True, slots=True)
class UploadPage:
    entries: Sequence[Upload]
    prefixes: Sequence[str]
    truncated: bool
    next_key: str = ""
    next_upload: str = ""


@dataclass(frozen=True, slots=True)
class CompletePart:
    """A part as the caller names it in Complete; ``checksums`` as given, to be compared."""

    number: int
    etag: str
    checksums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did."""

    key: str
    version_id: str = ""  # of what was deleted (as named by the caller), or of the marker that was made
    delete_marker: bool = False  # the marker that was made, or that was removed


class BadVersionId(Invalid):
    """What can be no version id."""

    def __init__(self, version_id: str) -> None:
        super().__init__(f"{version_id!r} is no version id", reason="version-id")
        self.version_id = version_id


class PartRefused(Invalid):
    """A part that Complete names cannot be used: unknown or other than named ("part"), or too small ("part-small")."""

    def __init__(self, message: str, *, reason: str, number: int, etag: str, size: int = 0) -> None:
        super().__init__(message, reason=reason)
        self.number = number
        self.etag = etag  # as the caller gave it
        self.size = size  # of the part as stored


Assemble = Callable[[Sequence[PartInfo]], Digested]


class Objects(Protocol):
    """The core: buckets, objects, versions, multipart. All methods raise the kinds of errors.py.

    Reasons used with Absent: "bucket", "key", "version", "upload", "kms-key". Exists: "bucket-owned", "bucket-taken",
    "bucket-not-empty". PreconditionFailed: "if-match", "if-none-match" (If-Match on a key that is not there is
    Absent "key", as in S3). Invalid: "part" (an unknown part, a wrong etag or checksum), "part-order", "part-small",
    "part-number", "size", "key", "key-too-long", "version-id", "versioning", "range". TooLarge: "metadata", "entity",
    "buckets". Truncated: "body". Conflict: "contention". Unavailable: "fenced" (this process was declared dead). A
    delete marker that is in the way raises `DeleteMarker`, an Absent(reason="delete-marker").
    Names and policies are checked by the doors; key size and metadata limits here as well.
    """

    # buckets
    async def create_bucket(self, name: str, owner: str, region: str) -> Bucket: ...
    async def delete_bucket(self, name: str) -> None: ...
    def bucket(self, name: str) -> Bucket: ...
    def list_buckets(self, owner: str | None, prefix: str, after: str, limit: int) -> tuple[list[Bucket], bool]: ...
    def new_storage(self) -> Storage:
        """What a new bucket gets."""
        ...

    async def update_bucket(self, name: str, change: Callable[[Bucket], Bucket]) -> Bucket:
        """Compare-and-set: ``change`` may run more than once. Versioning, tags, settings and storage may change."""
        ...

    # objects
    async def put(
        self,
        bucket: str,
        key: str,
        source: Source,
        digest: Digest,
        attributes: Attributes,
        *,
        owner: str,
        conditions: WriteConditions = WriteConditions(),
        replay: Replay | None = None,
        encryption: Encryption | None = None,
        customer: CustomerKey | None = None,
    ) -> ObjectInfo:
        """Store a body. When it returns, data and metadata are on stable storage on every member (law 2).

        ``encryption``: None leaves it to the bucket. ``customer``: a key that is used instead.
        """
        ...

    def lookup(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """The version's record, without its bytes."""
        ...

    def open(
        self, bucket: str, key: str, version_id: str | None = None, customer: CustomerKey | None = None
    ) -> ObjectReader:
        """``customer``: the key that it was written with, and only with that one."""
        ...

    async def delete(
        self, bucket: str, key: str, version_id: str | None = None, *, owner: str = "", if_match: Sequence[str] = ()
    ) -> Deleted:
        """Deleting what is not there succeeds, as in S3.

        With ``if_match`` (etags; "*": any), and without a version id, only if the current object has one of them:
        else PreconditionFailed, or Absent "key" when there is none (a delete marker included).
        """
        ...

    async def delete_many(
        self,
        bucket: str,
        keys: Sequence[tuple[str, str | None]],
        *,
        owner: str = "",
        if_match: Mapping[int, Sequence[str]] = NO_ETAGS,
    ) -> list[Deleted | Exception]:
        """Each by itself; the n-th answer belongs to the n-th key, and so does ``if_match[n]``."""
        ...

    async def copy(
        self,
        source: ObjectInfo,
        bucket: str,
        key: str,
        attributes: Attributes,
        *,
        owner: str,
        conditions: WriteConditions = WriteConditions(),
        digested: Digested | None = None,
        encryption: Encryption | None = None,
        customer: CustomerKey | None = None,
        source_customer: CustomerKey | None = None,
    ) -> ObjectInfo:
        """Metadata only: the new version shares the source version's bytes (exactly the version in ``source``).

        Under another key than the source's the bytes are read and encrypted anew.
        """
        ...

    async def update_tags(
        self, bucket: str, key: str, version_id: str | None, tags: Mapping[str, str]
    ) -> ObjectInfo: ...

    def list(self, bucket: str, prefix: str, delimiter: str, after: str, limit: int) -> ListPage:
        """Live keys; with a delimiter, keys that share a prefix up to it fold into one item.

        Items (keys and common prefixes) greater than ``after`` are shown: ``next`` of one page is ``after`` of the
        following, and a start-after within a common prefix hides that prefix.
        """
        ...

    def list_versions(
        self, bucket: str, prefix: str, delimiter: str, after_key: str, after_version: str, limit: int
    ) -> VersionPage: ...

    # multipart
    async def create_upload(
        self,
        bucket: str,
        key: str,
        attributes: Attributes,
        *,
        owner: str,
        checksum_algorithm: str = "",
        checksum_type: str = "",
        encryption: Encryption | None = None,
        customer: CustomerKey | None = None,
    ) -> Upload: ...
    def upload(self, bucket: str, key: str, upload_id: str) -> Upload: ...
    async def put_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        source: Source,
        digest: Digest,
        customer: CustomerKey | None = None,
    ) -> PartInfo: ...
    async def copy_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        source: ObjectInfo,
        offset: int,
        length: int,
        digest: Digest,
        customer: CustomerKey | None = None,
        source_customer: CustomerKey | None = None,
    ) -> PartInfo:
        """Shares the source's chunks; reads its bytes once to compute the part's etag and checksums.

        An upload under another key than the source's gets the bytes encrypted anew.
        """
        ...

    def list_parts(
        self, bucket: str, key: str, upload_id: str, after: int, limit: int
    ) -> tuple[Sequence[PartInfo], bool]: ...
    async def complete_upload(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[CompletePart],
        assemble: Assemble,
        *,
        conditions: WriteConditions = WriteConditions(),
        replay: Replay | None = None,
        size: int | None = None,
    ) -> ObjectInfo:
        """Rewrites no data; a replay of a Complete that succeeded gets the same answer."""
        ...

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None: ...
    def list_uploads(
        self, bucket: str, prefix: str, delimiter: str, after_key: str, after_upload: str, limit: int
    ) -> UploadPage: ...
