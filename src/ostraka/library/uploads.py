"""Multipart uploads in the library: a large object in parts that are stored beside each other.

A part is durable when `AsyncUpload.put` returns; the object is there, whole, when `complete` does, and not before. Who
does neither complete nor abort leaves the upload open: `AsyncBucket.uploads` lists what is.
"""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from ostraka.errors import Absent
from ostraka.library import asked
from ostraka.library.bodies import Body, source_of
from ostraka.objects.types import Attributes, CompletePart, ObjectInfo, PartInfo, Upload
from ostraka.s3.digests import Digests, Expected, of_parts
from ostraka.store.accounts import ROOT_NAME
from ostraka.store.store import Store

PAGE = 1000


class AsyncUpload:
    """An upload in progress. Made by `AsyncBucket.upload`; a context manager that aborts what was not completed."""

    def __init__(self, store: Store, bucket: str, key: str, upload_id: str) -> None:
        self._objects = store.objects
        self.bucket = bucket
        self.key = key
        self.upload_id = upload_id
        self._open = True

    async def put(self, number: int, body: Body) -> PartInfo:
        """Store part ``number`` (1 to 10,000), in place of an earlier one of that number.

        All but the last need 5 MiB. Raises Absent (the upload is gone), Invalid, TooLarge, Full, Unavailable.
        """
        asked.number("a part's number", number)
        source, file = source_of(body)
        try:
            return await self._objects.put_part(
                self.bucket, self.key, self.upload_id, number, source, Digests(Expected())
            )
        finally:
            if file is not None:
                file.close()

    async def copy(self, number: int, source: ObjectInfo, offset: int, length: int) -> PartInfo:
        """A part that shares bytes of a version which is stored already."""
        for what, said in (("a part's number", number), ("an offset", offset), ("a length", length)):
            asked.number(what, said)
        digest = Digests(Expected())
        return await self._objects.copy_part(
            self.bucket, self.key, self.upload_id, number, source, offset, length, digest
        )

    async def parts(self) -> list[PartInfo]:
        """The parts that are stored, by number."""
        found: list[PartInfo] = []
        more = True
        while more:
            after = found[-1].number if found else 0
            page, more = self._objects.list_parts(self.bucket, self.key, self.upload_id, after, PAGE)
            found += page
        return found

    async def complete(self) -> ObjectInfo:
        """Make the stored parts one object, in the order of their numbers. Raises Invalid for a part too small."""
        named = [CompletePart(part.number, part.etag) for part in await self.parts()]
        done = await self._objects.complete_upload(self.bucket, self.key, self.upload_id, named, of_parts)
        self._open = False
        return done

    async def abort(self) -> None:
        """Forget the upload and its parts. What is forgotten already is no error."""
        self._open = False
        try:
            await self._objects.abort_upload(self.bucket, self.key, self.upload_id)
        except Absent:
            pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            await self.abort()


async def begin(store: Store, bucket: str, key: str, attributes: Attributes) -> AsyncUpload:
    """Begin an upload."""
    made = await store.objects.create_upload(bucket, key, attributes, owner=ROOT_NAME)
    return AsyncUpload(store, bucket, key, made.upload_id)


async def in_progress(store: Store, bucket: str, prefix: str) -> AsyncIterator[Upload]:
    """Uploads that were neither completed nor aborted, by key."""
    asked.text("a prefix", prefix)
    key = upload = ""
    while True:
        page = store.objects.list_uploads(bucket, prefix, "", key, upload, PAGE)
        for entry in page.entries:
            yield entry
        if not page.truncated:
            return
        key, upload = page.next_key, page.next_upload
