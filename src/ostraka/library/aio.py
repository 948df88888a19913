"""`AsyncStore`: a store in an asyncio program. Belongs to the event loop that opened it.

Errors are the kinds of ``ostraka.errors``: Absent for what is not there, Exists, PreconditionFailed, Invalid, Full,
Unavailable (a retry may help), Corrupt (never wrong bytes), InUse (`ostraka.StoreInUse`) for a store that another
process has. Sizes and offsets are bytes; times are seconds since 1970, UTC.
"""

import asyncio
import contextlib
import dataclasses
import io
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from ostraka.errors import Absent, Exists, Invalid, OstrakaError
from ostraka.jobs.scheduler import Scheduler
from ostraka.library import asked, uploads
from ostraka.library.bodies import Body, source_of
from ostraka.library.chunks import AsyncChunks
from ostraka.library.disks import AsyncDisks
from ostraka.library.pools import AsyncPools
from ostraka.library.uploads import AsyncUpload
from ostraka.objects.recipes import changed
from ostraka.objects.tiers import STANDARD
from ostraka.objects.types import (
    KMS,
    Deleted,
    Digested,
    Listed,
    ListPage,
    ObjectInfo,
    ObjectReader,
    PartInfo,
    Storage,
    Upload,
    Versioning,
    VersionPage,
)
from ostraka.objects.types import Bucket as BucketInfo
from ostraka.s3.digests import Digests, Expected
from ostraka.store.accounts import ROOT_NAME
from ostraka.store.store import TEND_SECONDS, Store, open_here

log = logging.getLogger("ostraka.library")

PAGE = 1000
MEMORY = "/dev/shm"  # a file system in memory, where there is one

_NOTHING = Expected()


class AsyncReader:
    """One version of an object, open: its bytes stay readable until it is closed, whatever happens to its name.

    An asynchronous context manager, and an asynchronous iterator over its pieces.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._closed = False
        self.info: ObjectInfo = reader.info

    async def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes from ``offset``, or what there is of them; all to the end without a length.

        Every byte was verified. Raises Invalid for an offset beyond the end, Corrupt or Unavailable.
        """
        start, size = self._clip(offset, length)
        now = self._reader.read_now(start, size)
        if now is not None:
            return bytes(now)
        whole = io.BytesIO()  # one copy of each piece, and none of them all: half the CPU of joining them
        async for piece in self._reader.read(start, size):
            whole.write(piece)
        return whole.getvalue()

    async def pieces(self, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The same, piece by piece, in order: never more than a few MiB in memory."""
        start, size = self._clip(offset, length)
        async for piece in self._reader.read(start, size):
            yield bytes(piece)

    async def parts(self) -> list[PartInfo]:
        """The parts that it was uploaded in; none of what was stored whole."""
        self._check_open()
        found: list[PartInfo] = []
        more = self.info.part_count > 0
        while more:
            page, more = await self._reader.parts(found[-1].number if found else 0, PAGE)
            found += page
        return found

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.pieces()

    def _clip(self, offset: int, length: int | None) -> tuple[int, int]:
        self._check_open()
        asked.number("an offset", offset)
        if length is not None:
            asked.number("a length", length)
        left = self.info.size - offset
        if offset < 0 or left < 0 or (length is not None and length < 0):
            raise Invalid(f"{self.info.key!r} has {self.info.size} bytes: none at {offset}", reason="range")
        return offset, left if length is None else min(length, left)

    def _check_open(self) -> None:
        if self._closed:
            raise Invalid(f"the reader of {self.info.key!r} is closed: open the object again", reason="closed")

    def close(self) -> None:
        self._closed = True
        self._reader.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncBucket:
    """The objects of one bucket. Made by `AsyncStore.bucket` and `AsyncStore.create_bucket`."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._objects = store.objects
        self.name = name

    async def put(
        self,
        key: str,
        body: Body,
        *,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        create_only: bool = False,
        if_match: str | Sequence[str] = (),
        encryption: str = "",
        customer_key: bytes | None = None,
        storage_class: str = STANDARD,
    ) -> ObjectInfo:
        """Store a body under a key; when this returns, it is on stable storage.

        ``body``: bytes, a Path, a binary file, or an iterable (asynchronous or not) of bytes. ``headers``: standard
        ones that readers over HTTP get back, such as cache-control, in lower case. ``create_only``: PreconditionFailed
        if the key has an object already. ``if_match``: the ETag (or several, or "*") that the current object must
        have. ``encryption``: as for `set_storage`, of this object; "" leaves it to the bucket. ``customer_key``: 32
        bytes that it is encrypted with instead, that are kept nowhere, and that reading it takes (SSE-C).
        ``storage_class``: one that a pool keeps (`AsyncPools.add`). Raises also Absent (no such bucket), Invalid,
        TooLarge, Full, Unavailable; and OSError, as Python does, for a Path that cannot be read.
        """
        asked.text("a key", key)
        attributes = asked.attributes(content_type, headers, metadata, tags, storage_class)
        conditions = asked.conditions(create_only, if_match)
        wanted, customer = asked.encryption(encryption), asked.customer_key(customer_key)
        source, file = source_of(body)
        try:
            return await self._objects.put(
                self.name,
                key,
                source,
                Digests(_NOTHING),
                attributes,
                owner=ROOT_NAME,
                conditions=conditions,
                encryption=wanted,
                customer=customer,
            )
        finally:
            if file is not None:
                file.close()

    async def get(
        self,
        key: str,
        *,
        version_id: str | None = None,
        offset: int = 0,
        length: int | None = None,
        customer_key: bytes | None = None,
    ) -> bytes:
        """The bytes of an object, or a range of them, in memory; `open` streams. Raises as `open`."""
        async with await self.open(key, version_id=version_id, customer_key=customer_key) as reader:
            return await reader.read(offset, length)

    async def open(self, key: str, *, version_id: str | None = None, customer_key: bytes | None = None) -> AsyncReader:
        """An object to be read, by ranges or piece by piece. ``customer_key``: the one that it was put with. Raises
        Absent, Forbidden for another key, Invalid where there is one too many or too few."""
        asked.text("a key", key)
        asked.version(version_id)
        return AsyncReader(self._objects.open(self.name, key, version_id, asked.customer_key(customer_key)))

    async def head(self, key: str, *, version_id: str | None = None) -> ObjectInfo:
        """What is known of an object: size, etag, modified, version_id, attributes. Raises Absent."""
        asked.text("a key", key)
        asked.version(version_id)
        return self._objects.lookup(self.name, key, version_id)

    async def exists(self, key: str) -> bool:
        """Whether the key has an object now. Raises Absent if there is no such bucket."""
        asked.text("a key", key)
        try:
            self._objects.lookup(self.name, key, None)
        except Absent as e:
            if e.reason == "bucket":
                raise
            return False
        return True

    async def delete(self, key: str, *, version_id: str | None = None, if_match: str | Sequence[str] = ()) -> Deleted:
        """Delete an object, or one version of it. What is not there is no error, unless ``if_match`` demands it."""
        asked.text("a key", key)
        asked.version(version_id)
        matches = asked.etags(if_match)
        return await self._objects.delete(self.name, key, version_id, owner=ROOT_NAME, if_match=matches)

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Delete all of these keys, in commits of many; what is not there is no error. Raises the first failure."""
        left = asked.keys(keys)
        for start in range(0, len(left), PAGE):
            named = [(key, None) for key in left[start : start + PAGE]]
            for answer in await self._objects.delete_many(self.name, named, owner=ROOT_NAME):
                if isinstance(answer, Exception):
                    raise answer

    async def copy(
        self, key: str, to_key: str, *, to_bucket: str = "", version_id: str | None = None, storage_class: str = ""
    ) -> ObjectInfo:
        """Copy an object with its attributes; without copying its bytes, unless the other bucket encrypts under another
        key. ``storage_class``: that of the copy; "" is the source's. Bytes that belong in another pool by it are moved
        later (`AsyncPools.move`)."""
        for what, said in (("a key", key), ("a key", to_key), ("a bucket's name", to_bucket)):
            asked.text(what, said)
        asked.version(version_id)
        source = self._objects.lookup(self.name, key, version_id)
        target, digested = to_bucket or self.name, None
        if source.encryption.algorithm == KMS and self._objects.bucket(target).storage.encryption != KMS:
            digested = await self._digested(source)  # its etag is not the MD5, and that of the copy is
        attributes = source.attributes
        if storage_class:
            asked.text("a storage class", storage_class)
            attributes = msgspec.structs.replace(attributes, storage_class=storage_class)
        return await self._objects.copy(source, target, to_key, attributes, owner=ROOT_NAME, digested=digested)

    async def _digested(self, source: ObjectInfo) -> Digested:
        digest = Digests(_NOTHING)
        reader = self._objects.open(source.bucket, source.key, source.version_id if source.versioned else None)
        try:
            async for piece in reader.read():
                await asyncio.to_thread(digest.update, piece)
        finally:
            reader.close()
        return digest.finish()

    async def upload(
        self,
        key: str,
        *,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        storage_class: str = STANDARD,
    ) -> AsyncUpload:
        """Begin a multipart upload: for bodies beyond 5 GiB, or whose parts are there at different times."""
        asked.text("a key", key)
        attributes = asked.attributes(content_type, headers, metadata, tags, storage_class)
        return await uploads.begin(self._store, self.name, key, attributes)

    def upload_of(self, key: str, upload_id: str) -> AsyncUpload:
        """An upload that was begun before, by its id: to go on with it, or to abort it."""
        asked.text("a key", key)
        asked.text("an upload's id", upload_id)
        return AsyncUpload(self._store, self.name, key, upload_id)

    def uploads(self, prefix: str = "") -> AsyncIterator[Upload]:
        """Multipart uploads that were neither completed nor aborted, by key."""
        return uploads.in_progress(self._store, self.name, prefix)

    async def list(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Listed]:
        """Every object whose key begins with ``prefix``, in the order of the keys' bytes."""
        for what, said in (("a prefix", prefix), ("a key", start_after)):
            asked.text(what, said)
        after = start_after
        while True:
            page = self._objects.list(self.name, prefix, "", after, PAGE)
            for entry in page.entries:
                yield entry
            if not page.truncated:
                return
            after = page.next
            await asyncio.sleep(0)

    async def page(
        self, prefix: str = "", *, delimiter: str = "", start_after: str = "", limit: int = PAGE
    ) -> ListPage:
        """One page of a listing: keys that share a prefix up to the delimiter are folded into ``prefixes``."""
        for what, said in (("a prefix", prefix), ("a delimiter", delimiter), ("a key", start_after)):
            asked.text(what, said)
        asked.number("a limit", limit)
        if limit < 0:
            raise Invalid(f"a limit of {limit} keys: name how many at most", reason="limit")
        return self._objects.list(self.name, prefix, delimiter, start_after, limit)

    async def versions(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Every version and delete marker, newest first within a key."""
        asked.text("a prefix", prefix)
        after_key = after_version = ""
        while True:
            page: VersionPage = self._objects.list_versions(self.name, prefix, "", after_key, after_version, PAGE)
            for entry in page.entries:
                yield entry
            if not page.truncated:
                return
            after_key, after_version = page.next_key, page.next_version
            await asyncio.sleep(0)

    async def set_versioning(self, enabled: bool) -> None:
        """Keep old versions from now on, or suspend that: versions that are kept already stay."""
        status: Versioning = "Enabled" if enabled else "Suspended"
        await self._objects.update_bucket(self.name, lambda bucket: _with_versioning(bucket, status))

    async def set_storage(self, *, compression: str = "", cut: str = "", encryption: str = "") -> Storage:
        """How to keep what is written from now on; what is "" stays, and so does what is there already.

        ``compression``: "zstd", "zstd:LEVEL", "lz4", "lz4:LEVEL" or "none". ``cut``: "cdc" (where content says, so that
        later forms of a body share chunks with it), "cdc:512KiB" on average, "fixed", or "fixed:1MiB". ``encryption``:
        "AES256" (the store's own key), "aws:kms:NAME" (one that `ostraka key create` made) or "none".
        """
        asked.text("compression", compression)
        asked.text("cut", cut)
        asked.text("encryption", encryption)

        def change(bucket: BucketInfo) -> BucketInfo:
            return dataclasses.replace(bucket, storage=changed(bucket.storage, compression, cut, encryption))

        return (await self._objects.update_bucket(self.name, change)).storage

    async def info(self) -> BucketInfo:
        """The bucket itself: owner, created, region, versioning, storage."""
        return self._objects.bucket(self.name)


def _with_versioning(bucket: BucketInfo, status: Versioning) -> BucketInfo:
    return dataclasses.replace(bucket, versioning=status)


class AsyncStore:
    """A store that this process owns. Made by `ostraka.open_async`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def ec(self) -> tuple[int, int]:
        """(k, m): m disks may be lost at once."""
        return self._store.membership.k, self._store.membership.m

    @property
    def chunks(self) -> AsyncChunks:
        """The chunks beneath the buckets."""
        return AsyncChunks(self._store)

    @property
    def pools(self) -> AsyncPools:
        """Its disks, and the places where other storage classes are kept."""
        return AsyncPools(self._store)

    @property
    def disks(self) -> AsyncDisks:
        """The disks that it is on."""
        return AsyncDisks(self._store)

    async def create_bucket(self, name: str, *, exist_ok: bool = False, region: str = "us-east-1") -> AsyncBucket:
        """Make a bucket. Raises Invalid for a name that S3 does not allow, Exists unless ``exist_ok``."""
        asked.bucket_name(name)
        asked.text("a region", region)
        try:
            await self._store.objects.create_bucket(name, ROOT_NAME, region)
        except Exists:
            if not exist_ok:
                raise
        return AsyncBucket(self._store, name)

    async def bucket(self, name: str) -> AsyncBucket:
        """A bucket that is there. Raises Absent."""
        asked.text("a bucket's name", name)
        self._store.objects.bucket(name)
        return AsyncBucket(self._store, name)

    async def buckets(self) -> list[BucketInfo]:
        """All buckets, by name."""
        found: list[BucketInfo] = []
        more = True
        while more:
            page, more = self._store.objects.list_buckets(None, "", found[-1].name if found else "", PAGE)
            found += page
        return found

    async def delete_bucket(self, name: str) -> None:
        """Remove an empty bucket. Raises Absent, or Exists (reason "bucket-not-empty")."""
        asked.text("a bucket's name", name)
        await self._store.objects.delete_bucket(name)


@contextlib.asynccontextmanager
async def open_async(
    *directories: str | os.PathLike[str],
    ec: str | None = None,
    existing: bool = False,
    memory: bool = False,
    master_key: str | bytes | None = None,
) -> AsyncIterator[AsyncStore]:
    """Open the store in these directories, or make one: one directory or several disks, as ``ostraka serve`` takes.

    >>> import asyncio, ostraka, tempfile
    >>> async def main(directory):
    ...     async with ostraka.open_async(directory) as store:
    ...         photos = await store.create_bucket("photos")
    ...         await photos.put("amphora.jpg", b"clay")
    ...         async with await photos.open("amphora.jpg") as reader:
    ...             return [piece async for piece in reader]
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     asyncio.run(main(directory))
    [b'clay']

    ``ec``: "K+M", as --ec; chosen by the number of directories when a store is made, known when it exists.
    ``existing``: never make one; Refused if there is none. ``memory``: a new store that lives in memory, index and
    data, and is gone when it is closed; no directory is named then. ``master_key``: of encryption at rest, as
    OSTRAKA_MASTER_KEY for the command line (which this does not read): 32 bytes, or text in base64 or hex, where of
    several lines the first seals and the others open. A store opens without it; what is encrypted cannot be read then,
    and raises Unavailable (reason "master-key"). Its background work (collection, compaction, scrub, healing) runs
    on this event loop, in small pieces, while it is open. Raises InUse (`ostraka.StoreInUse`, which names the other
    process), Refused, Invalid, Corrupt, Unavailable.
    """
    geometry, masters = asked.geometry(ec), asked.master_keys(master_key)
    with _in_memory(directories, geometry, existing) if memory else contextlib.nullcontext(directories) as named:
        async with _opened(asked.directories(named), geometry, existing, masters) as store:
            yield store


@contextlib.contextmanager
def _in_memory(
    directories: Sequence[object], geometry: tuple[int, int] | None, existing: bool
) -> Iterator[Sequence[str]]:
    """As many directories as the geometry asks for, in memory, for as long as the store is open."""
    if directories or existing:
        raise Invalid("a store in memory is new and has no directories: name none", reason="directories")
    with tempfile.TemporaryDirectory(prefix="ostraka-", dir=MEMORY if os.path.isdir(MEMORY) else None) as place:
        yield [os.path.join(place, f"disk{number}") for number in range(sum(geometry or (1, 0)))]


@contextlib.asynccontextmanager
async def _opened(
    paths: Sequence[Path], geometry: tuple[int, int] | None, existing: bool, masters: Sequence[bytes]
) -> AsyncIterator[AsyncStore]:
    async with open_here(paths, ec=geometry, existing=existing, masters=masters) as store:
        scheduler = store.jobs = Scheduler(store)
        await scheduler.start()
        tending = asyncio.get_running_loop().create_task(_tend(store))
        try:
            yield AsyncStore(store)
        finally:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
            await scheduler.stop()


async def _tend(store: Store) -> None:
    while True:
        await asyncio.sleep(TEND_SECONDS)
        try:
            await store.tend()
        except OstrakaError as e:
            log.warning("%s", e)
