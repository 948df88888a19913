"""`Store`: a store in a program without asyncio. The same names as in aio.py, waiting for their end.

An event loop of its own runs in a thread and does everything; methods may be called from any thread. A call that is
interrupted (Ctrl-C) is cancelled: its write may have happened, or not, but never half of it.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ostraka.library.aio import PAGE, AsyncBucket, AsyncReader, AsyncStore, open_async
from ostraka.library.bodies import Body
from ostraka.library.chunks import AsyncChunks, ChunkInfo, Slice, StripeInfo
from ostraka.library.disks import AsyncDisks, DiskInfo
from ostraka.library.pools import AsyncPools, PoolInfo
from ostraka.library.uploads import AsyncUpload
from ostraka.loop_thread import LoopThread
from ostraka.objects.tiers import STANDARD
from ostraka.objects.types import Bucket as BucketInfo
from ostraka.objects.types import Deleted, Listed, ListPage, ObjectInfo, PartInfo, Storage
from ostraka.objects.types import Upload as UploadInfo
from ostraka.store.holdings import ChunkTotals


class Reader:
    """One version of an object, open. A context manager, and an iterator over its pieces."""

    def __init__(self, loop: LoopThread, reader: AsyncReader) -> None:
        self._loop = loop
        self._reader = reader
        self.info: ObjectInfo = reader.info

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """As `AsyncReader.read`."""
        return self._loop.run(self._reader.read(offset, length))

    def pieces(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """As `AsyncReader.pieces`."""
        pieces = self._reader.pieces(offset, length)
        while (piece := self._loop.run(_next(pieces))) is not None:
            yield piece

    def parts(self) -> list[PartInfo]:
        """As `AsyncReader.parts`."""
        return self._loop.run(self._reader.parts())

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces()

    def close(self) -> None:
        self._loop.finish(_call(self._reader.close))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


async def _call(function: Any) -> None:
    function()


class Upload:
    """A multipart upload in progress; a context manager that aborts what was not completed."""

    def __init__(self, loop: LoopThread, upload: AsyncUpload) -> None:
        self._loop = loop
        self._upload = upload
        self.upload_id = upload.upload_id

    def put(self, number: int, body: Body) -> PartInfo:
        """As `AsyncUpload.put`."""
        return self._loop.run(self._upload.put(number, body))

    def copy(self, number: int, source: ObjectInfo, offset: int, length: int) -> PartInfo:
        """As `AsyncUpload.copy`."""
        return self._loop.run(self._upload.copy(number, source, offset, length))

    def parts(self) -> list[PartInfo]:
        """As `AsyncUpload.parts`."""
        return self._loop.run(self._upload.parts())

    def complete(self) -> ObjectInfo:
        """As `AsyncUpload.complete`."""
        return self._loop.run(self._upload.complete())

    def abort(self) -> None:
        """As `AsyncUpload.abort`."""
        self._loop.run(self._upload.abort())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.finish(self._upload.__aexit__(kind, error, trace))


class Bucket:
    """The objects of one bucket. Made by `Store.bucket` and `Store.create_bucket`."""

    def __init__(self, loop: LoopThread, bucket: AsyncBucket) -> None:
        self._loop = loop
        self._bucket = bucket
        self.name = bucket.name

    def put(
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
        """As `AsyncBucket.put`."""
        work = self._bucket.put(
            key,
            body,
            content_type=content_type,
            headers=headers,
            metadata=metadata,
            tags=tags,
            create_only=create_only,
            if_match=if_match,
            encryption=encryption,
            customer_key=customer_key,
            storage_class=storage_class,
        )
        return self._loop.run(work)

    def get(
        self,
        key: str,
        *,
        version_id: str | None = None,
        offset: int = 0,
        length: int | None = None,
        customer_key: bytes | None = None,
    ) -> bytes:
        """As `AsyncBucket.get`."""
        work = self._bucket.get(key, version_id=version_id, offset=offset, length=length, customer_key=customer_key)
        return self._loop.run(work)

    def open(self, key: str, *, version_id: str | None = None, customer_key: bytes | None = None) -> Reader:
        """As `AsyncBucket.open`."""
        work = self._bucket.open(key, version_id=version_id, customer_key=customer_key)
        return Reader(self._loop, self._loop.run(work))

    def head(self, key: str, *, version_id: str | None = None) -> ObjectInfo:
        """As `AsyncBucket.head`."""
        return self._loop.run(self._bucket.head(key, version_id=version_id))

    def exists(self, key: str) -> bool:
        """As `AsyncBucket.exists`."""
        return self._loop.run(self._bucket.exists(key))

    def delete(self, key: str, *, version_id: str | None = None, if_match: str | Sequence[str] = ()) -> Deleted:
        """As `AsyncBucket.delete`."""
        return self._loop.run(self._bucket.delete(key, version_id=version_id, if_match=if_match))

    def delete_many(self, keys: Iterable[str]) -> None:
        """As `AsyncBucket.delete_many`."""
        self._loop.run(self._bucket.delete_many(keys))

    def copy(
        self, key: str, to_key: str, *, to_bucket: str = "", version_id: str | None = None, storage_class: str = ""
    ) -> ObjectInfo:
        """As `AsyncBucket.copy`."""
        work = self._bucket.copy(key, to_key, to_bucket=to_bucket, version_id=version_id, storage_class=storage_class)
        return self._loop.run(work)

    def upload(
        self,
        key: str,
        *,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        storage_class: str = STANDARD,
    ) -> "Upload":
        """As `AsyncBucket.upload`."""
        work = self._bucket.upload(
            key,
            content_type=content_type,
            headers=headers,
            metadata=metadata,
            tags=tags,
            storage_class=storage_class,
        )
        return Upload(self._loop, self._loop.run(work))

    def upload_of(self, key: str, upload_id: str) -> "Upload":
        """As `AsyncBucket.upload_of`."""
        return Upload(self._loop, self._bucket.upload_of(key, upload_id))

    def uploads(self, prefix: str = "") -> Iterator[UploadInfo]:
        """As `AsyncBucket.uploads`."""
        return self._loop.iterate(self._bucket.uploads(prefix), at_once=PAGE)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[Listed]:
        """As `AsyncBucket.list`."""
        return self._loop.iterate(self._bucket.list(prefix, start_after=start_after), at_once=PAGE)

    def page(self, prefix: str = "", *, delimiter: str = "", start_after: str = "", limit: int = PAGE) -> ListPage:
        """As `AsyncBucket.page`."""
        work = self._bucket.page(prefix, delimiter=delimiter, start_after=start_after, limit=limit)
        return self._loop.run(work)

    def versions(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """As `AsyncBucket.versions`."""
        return self._loop.iterate(self._bucket.versions(prefix), at_once=PAGE)

    def set_versioning(self, enabled: bool) -> None:
        """As `AsyncBucket.set_versioning`."""
        self._loop.run(self._bucket.set_versioning(enabled))

    def set_storage(self, *, compression: str = "", cut: str = "", encryption: str = "") -> Storage:
        """As `AsyncBucket.set_storage`."""
        work = self._bucket.set_storage(compression=compression, cut=cut, encryption=encryption)
        return self._loop.run(work)

    def info(self) -> BucketInfo:
        """As `AsyncBucket.info`."""
        return self._loop.run(self._bucket.info())


class Chunks:
    """The chunks beneath the buckets. Made by `Store.chunks`."""

    def __init__(self, loop: LoopThread, chunks: AsyncChunks) -> None:
        self._loop = loop
        self._chunks = chunks

    def write(self, data: bytes | bytearray | memoryview, *, id: str = "") -> ChunkInfo:
        """As `AsyncChunks.write`."""
        return self._loop.run(self._chunks.write(data, id=id))

    def delete(self, id: str) -> None:
        """As `AsyncChunks.delete`."""
        self._loop.run(self._chunks.delete(id))

    def get(self, id: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """As `AsyncChunks.get`."""
        return self._loop.run(self._chunks.get(id, offset=offset, length=length))

    def pieces(self, id: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """As `AsyncChunks.pieces`."""
        pieces = self._chunks.pieces(id, offset=offset, length=length)
        try:
            while (piece := self._loop.run(_next(pieces))) is not None:
                yield piece
        finally:
            self._loop.finish(pieces.aclose())

    def info(self, id: str) -> ChunkInfo:
        """As `AsyncChunks.info`."""
        return self._loop.run(self._chunks.info(id))

    def exists(self, id: str) -> bool:
        """As `AsyncChunks.exists`."""
        return self._loop.run(self._chunks.exists(id))

    def stripe(self, id: str) -> StripeInfo:
        """As `AsyncChunks.stripe`."""
        return self._loop.run(self._chunks.stripe(id))

    def list(self, *, start_after: str = "") -> Iterator[ChunkInfo]:
        """As `AsyncChunks.list`."""
        return self._loop.iterate(self._chunks.list(start_after=start_after), at_once=PAGE)

    def statistics(self) -> ChunkTotals:
        """As `AsyncChunks.statistics`."""
        return self._loop.run(self._chunks.statistics())

    def slices(self, bucket: str, key: str, *, version_id: str | None = None) -> Iterator[Slice]:
        """As `AsyncChunks.slices`."""
        return self._loop.iterate(self._chunks.slices(bucket, key, version_id=version_id), at_once=PAGE)


class Pools:
    """The pools of a store. Made by `Store.pools`."""

    def __init__(self, loop: LoopThread, pools: AsyncPools) -> None:
        self._loop = loop
        self._pools = pools

    def list(self) -> list[PoolInfo]:
        """As `AsyncPools.list`."""
        return self._loop.run(self._pools.list())

    def add(self, name: str, url: str, storage_class: str, *, cache: int = 0) -> None:
        """As `AsyncPools.add`."""
        self._loop.run(self._pools.add(name, url, storage_class, cache=cache))

    def remove(self, name: str) -> None:
        """As `AsyncPools.remove`."""
        self._loop.run(self._pools.remove(name))

    def move(self) -> int:
        """As `AsyncPools.move`."""
        return self._loop.run(self._pools.move())


class Disks:
    """The disks of a store. Made by `Store.disks`."""

    def __init__(self, loop: LoopThread, disks: AsyncDisks) -> None:
        self._loop = loop
        self._disks = disks

    def list(self) -> list[DiskInfo]:
        """As `AsyncDisks.list`."""
        return self._loop.run(self._disks.list())

    def add(self, directory: str | os.PathLike[str]) -> int:
        """As `AsyncDisks.add`."""
        return self._loop.run(self._disks.add(directory))

    def drain(self, disk: int | str | os.PathLike[str]) -> None:
        """As `AsyncDisks.drain`."""
        self._loop.run(self._disks.drain(disk))

    def keep(self, disk: int | str | os.PathLike[str]) -> None:
        """As `AsyncDisks.keep`."""
        self._loop.run(self._disks.keep(disk))

    def replace(self, directory: str | os.PathLike[str], old: int | str | os.PathLike[str] | None = None) -> int:
        """As `AsyncDisks.replace`."""
        return self._loop.run(self._disks.replace(directory, old))

    def forget(self, disk: int) -> None:
        """As `AsyncDisks.forget`."""
        self._loop.run(self._disks.forget(disk))

    def set_geometry(self, ec: str, *, convert: bool = False) -> None:
        """As `AsyncDisks.set_geometry`."""
        self._loop.run(self._disks.set_geometry(ec, convert=convert))

    def wait(self) -> bool:
        """As `AsyncDisks.wait`."""
        return self._loop.run(self._disks.wait())


class Store:
    """A store that this process owns. Made by `ostraka.open`."""

    def __init__(self, loop: LoopThread, store: AsyncStore) -> None:
        self._loop = loop
        self._store = store

    @property
    def ec(self) -> tuple[int, int]:
        """(k, m): m disks may be lost at once."""
        return self._store.ec

    @property
    def chunks(self) -> Chunks:
        """As `AsyncStore.chunks`."""
        return Chunks(self._loop, self._store.chunks)

    @property
    def pools(self) -> Pools:
        """As `AsyncStore.pools`."""
        return Pools(self._loop, self._store.pools)

    @property
    def disks(self) -> Disks:
        """As `AsyncStore.disks`."""
        return Disks(self._loop, self._store.disks)

    def create_bucket(self, name: str, *, exist_ok: bool = False, region: str = "us-east-1") -> Bucket:
        """As `AsyncStore.create_bucket`."""
        made = self._loop.run(self._store.create_bucket(name, exist_ok=exist_ok, region=region))
        return Bucket(self._loop, made)

    def bucket(self, name: str) -> Bucket:
        """As `AsyncStore.bucket`."""
        return Bucket(self._loop, self._loop.run(self._store.bucket(name)))

    def buckets(self) -> list[BucketInfo]:
        """As `AsyncStore.buckets`."""
        return self._loop.run(self._store.buckets())

    def delete_bucket(self, name: str) -> None:
        """As `AsyncStore.delete_bucket`."""
        self._loop.run(self._store.delete_bucket(name))


@contextlib.contextmanager
def open_store(
    *directories: str | os.PathLike[str],
    ec: str | None = None,
    existing: bool = False,
    memory: bool = False,
    master_key: str | bytes | None = None,
) -> Iterator[Store]:
    """Open the store in these directories, or make one, for a program without asyncio.

    >>> import ostraka, tempfile
    >>> with tempfile.TemporaryDirectory() as directory, ostraka.open(directory) as store:
    ...     photos = store.create_bucket("photos")
    ...     written = photos.put("amphora.jpg", b"clay", metadata={"found": "Athens"})
    ...     print(photos.get("amphora.jpg"), [entry.key for entry in photos.list()])
    b'clay' ['amphora.jpg']

    As `open_async` otherwise.
    """
    loop = LoopThread("the store")
    try:
        opened = open_async(*directories, ec=ec, existing=existing, memory=memory, master_key=master_key)
        store = loop.run(opened.__aenter__())
        try:
            yield Store(loop, store)
        finally:
            loop.run(opened.__aexit__(None, None, None))
    finally:
        loop.close()
