"""The rows in which buckets, objects and uploads are kept: their keys, and what their values hold.

The spec with a worked example is docs/format/object-rows.md. A table is the first byte of a key. Inside tables a
bucket is its 8-byte id, so that a bucket made anew under an old name shares nothing with it. Object keys are escaped
so that rows sort as the keys do as plain bytes and no key's row is the beginning of another's: 00 becomes 01 01, 01
becomes 01 02, and 00 ends the key (ENGINE 11).

Values are msgpack arrays: a field is only ever added at the end, with a default. This module knows no rules, only
shapes.
"""

from collections.abc import Mapping

import msgspec

from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Corrupt
from ostraka.objects.types import STORAGE, UNENCRYPTED, Attributes, Encryption, ObjectInfo, Storage
from ostraka.state.totals import Weighed
from ostraka.state.types import SEQUENCE_MAX

BUCKET = b"B"  # + name -> BucketRecord
GATE = b"A"  # + bucket id -> what every write to the bucket was judged on: versioning, and a nonce
LIVE = b"L"  # + tail -> LiveRecord, then the sequence of its version
VERSION = b"V"  # + tail + inverted sequence -> VersionRecord
NULL = b"N"  # + tail -> sequence of the null version, once versioning was touched
TOP = b"T"  # + tail -> sequence of the delete marker that is the newest version
UPLOAD = b"U"  # + tail + upload id (16) -> UploadRecord
PART = b"P"  # + upload id (16) + number (4) -> PartRecord
PAGE = b"M"  # + manifest id (16) + start offset (8) -> list of entries
REFERENCES = b"G"  # + manifest id (16) -> how many name the manifest (absent: one)
PENDING = b"I"  # + incarnation (16) + manifest id (16): a manifest that no commit made visible yet
DEAD = b"D"  # + inverted sequence -> DeadRecord
REPLAY = b"R"  # + epoch (4) + hash (20) -> ReplayRecord, then the sequence of the version
COMPLETED = b"O"  # + manifest id (16) + number (4) -> CompletedPart
HELD = b"H"  # + chunk id (32) -> how often a program holds the chunk by its id
INCARNATION = b"X"  # + incarnation (16): a process that may commit

ID_SIZE = 16
BUCKET_ID_SIZE = 8
SEQUENCE_SIZE = 8
MARKER = 1  # bits of VersionRecord.flags
IS_NULL = 2


class BucketRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``gate`` is what the GATE row holds. ``deleting``: somebody is about to remove the bucket if it is empty."""

    id: bytes
    owner: str
    created: float
    region: str
    gate: bytes
    versioning: str = ""
    deleting: bool = False
    tags: dict[str, str] = {}
    settings: dict[str, bytes] = {}
    storage: Storage = STORAGE


class LiveRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What LIST prints. ``held``: the body lies outside its version's row, and must be dismantled one day."""

    size: int
    etag: str
    modified: float
    storage_class: str
    owner: str
    algorithms: tuple[str, ...] = ()
    checksum_type: str = ""
    held: bool = False


class VersionRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One version. Its bytes are ``inline`` (sealed, if there is a ``seal``), or else those of ``entries`` in order."""

    flags: int
    nonce: bytes  # 8 random bytes: with the sequence they make the version id
    size: int
    etag: str
    modified: float
    owner: str
    storage_class: str
    inline: bytes | None
    entries: tuple[Entry, ...] = ()
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    checksums: dict[str, str] = {}
    checksum_type: str = ""
    part_count: int = 0
    encryption: Encryption | None = None
    seal: bytes | None = None  # of ``inline``, if that is encrypted

    @property
    def marker(self) -> bool:
        return bool(self.flags & MARKER)

    @property
    def null(self) -> bool:
        return bool(self.flags & IS_NULL)


class UploadRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A multipart upload in progress."""

    owner: str
    initiated: float
    storage_class: str
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    checksum_algorithm: str = ""
    checksum_type: str = ""
    encryption: Encryption | None = None


class PartRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part of an upload in progress. Its bytes are a manifest's, so that Complete counts one row a part."""

    size: int
    etag: str
    modified: float
    manifest: bytes  # 16 bytes; none for a part without bytes
    checksums: dict[str, str] = {}

    def entries(self) -> tuple[Entry, ...]:
        return (Entry(Kind.MANIFEST, self.manifest, 0, self.size),) if self.manifest else ()


class CompletedPart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part of a completed object; parts are numbered anew from 1."""

    offset: int
    size: int
    etag: str
    modified: float
    checksums: dict[str, str] = {}


class DeadRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What nothing names any more, with the references that it still holds: the collector takes them back."""

    entries: tuple[Entry, ...] = ()
    uploads: tuple[bytes, ...] = ()  # whose parts are to go
    buckets: tuple[bytes, ...] = ()  # whose uploads are to go


class ReplayRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answer that was given: ``record`` is the version without its bytes."""

    body: str
    record: VersionRecord


_encode = msgspec.msgpack.Encoder().encode
encode = _encode
_decode_bucket = msgspec.msgpack.Decoder(BucketRecord).decode
_decode_live = msgspec.msgpack.Decoder(LiveRecord).decode
_decode_version = msgspec.msgpack.Decoder(VersionRecord).decode
_decode_upload = msgspec.msgpack.Decoder(UploadRecord).decode
_decode_part = msgspec.msgpack.Decoder(PartRecord).decode
_decode_completed = msgspec.msgpack.Decoder(CompletedPart).decode
_decode_dead = msgspec.msgpack.Decoder(DeadRecord).decode
_decode_replay = msgspec.msgpack.Decoder(ReplayRecord).decode
_decode_page = msgspec.msgpack.Decoder(tuple[Entry, ...]).decode


def _damaged(what: str, error: Exception) -> Corrupt:
    return Corrupt(f"a {what} row does not decode: {error}", reason="row")


def bucket_of(value: bytes) -> BucketRecord:
    try:
        return _decode_bucket(value)
    except msgspec.MsgspecError as error:
        raise _damaged("bucket", error) from error


def live_of(value: bytes) -> LiveRecord:
    """The record of a live row; `state.value_sequence` gives the sequence of its version."""
    try:
        return _decode_live(value[:-8])
    except msgspec.MsgspecError as error:
        raise _damaged("live", error) from error


def version_of(value: bytes) -> VersionRecord:
    try:
        return _decode_version(value)
    except msgspec.MsgspecError as error:
        raise _damaged("version", error) from error


def upload_of(value: bytes) -> UploadRecord:
    try:
        return _decode_upload(value)
    except msgspec.MsgspecError as error:
        raise _damaged("upload", error) from error


def part_of(value: bytes) -> PartRecord:
    try:
        return _decode_part(value)
    except msgspec.MsgspecError as error:
        raise _damaged("part", error) from error


def completed_of(value: bytes) -> CompletedPart:
    try:
        return _decode_completed(value)
    except msgspec.MsgspecError as error:
        raise _damaged("completed part", error) from error


def dead_of(value: bytes) -> DeadRecord:
    try:
        return _decode_dead(value)
    except msgspec.MsgspecError as error:
        raise _damaged("dead", error) from error


def replay_of(value: bytes) -> ReplayRecord:
    try:
        return _decode_replay(value[:-8])
    except msgspec.MsgspecError as error:
        raise _damaged("replay", error) from error


def page_of(value: bytes) -> tuple[Entry, ...]:
    try:
        return _decode_page(value)
    except msgspec.MsgspecError as error:
        raise _damaged("manifest", error) from error


# -- keys


def escape(key: bytes) -> bytes:
    """Object key bytes as they stand in a row, without the terminator. Keeps the order and the prefixes."""
    if b"\x01" in key:
        key = key.replace(b"\x01", b"\x01\x02")
    if b"\x00" in key:
        key = key.replace(b"\x00", b"\x01\x01")
    return key


def unescape(escaped: bytes) -> bytes:
    if b"\x01" in escaped:
        escaped = escaped.replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01")
    return escaped


def tail(bucket_id: bytes, key: bytes) -> bytes:
    """Bucket and key as the tables of keys (L, V, N, T, U) continue after their first byte."""
    return b"%b%b\x00" % (bucket_id, escape(key))


def key_text(escaped: bytes) -> str:
    """The object key of an escaped run without terminator."""
    return unescape(escaped).decode()


def tail_end(row: bytes) -> int:
    """Where the terminator of the object key stands in a row of L, V, N, T or U."""
    return row.index(b"\x00", 1 + BUCKET_ID_SIZE)


def page_key(manifest: bytes, offset: int) -> bytes:
    return PAGE + manifest + offset.to_bytes(8, "big")


def part_key(upload: bytes, number: int) -> bytes:
    return PART + upload + number.to_bytes(4, "big")


def completed_key(manifest: bytes, number: int) -> bytes:
    return COMPLETED + manifest + number.to_bytes(4, "big")


def pending_key(incarnation: bytes, manifest: bytes) -> bytes:
    return PENDING + incarnation + manifest


def version_key(key_tail: bytes, sequence: int) -> bytes:
    return VERSION + key_tail + (SEQUENCE_MAX - sequence).to_bytes(8, "big")


def live_record(record: VersionRecord) -> bytes:
    """The live row of a version, as LIST prints it, without the sequence at its end."""
    checksums = record.checksums
    return _encode(
        LiveRecord(
            record.size,
            record.etag,
            record.modified,
            record.storage_class,
            record.owner,
            tuple(checksums) if checksums else (),
            record.checksum_type,
            record.inline is None,
        )
    )


def live_total(bucket_id: bytes) -> bytes:
    """The name of the total of a bucket's live objects: how many, and their bytes."""
    return LIVE + bucket_id


def _weigh_live(key: bytes, value: bytes) -> tuple[bytes, tuple[int, ...]]:
    return key[: 1 + BUCKET_ID_SIZE], (1, live_of(value).size)


WEIGHED: Weighed = {LIVE[0]: _weigh_live}


def plain(mapping: Mapping[str, str]) -> dict[str, str]:
    """A mapping as a dict, without a copy if it is one."""
    return mapping if type(mapping) is dict else dict(mapping)


def attributes_of(record: VersionRecord | UploadRecord) -> Attributes:
    return Attributes(record.headers, record.metadata, record.tags, record.storage_class)


def encryption_of(record: VersionRecord | UploadRecord) -> Encryption:
    return record.encryption or UNENCRYPTED


def info_of(
    bucket: str, key: str, record: VersionRecord, sequence: int, version_id: str, versioned: bool, latest: bool
) -> ObjectInfo:
    """A version as the doors see it."""
    return ObjectInfo(
        bucket,
        key,
        record.size,
        record.etag,
        record.modified,
        version_id,
        versioned,
        latest,
        bool(record.flags & MARKER),
        record.owner,
        attributes_of(record),
        record.checksums,
        record.checksum_type,
        record.part_count,
        sequence,
        encryption_of(record),
    )
