"""`ObjectStore`: the object core as one thing (`objects.types.Objects`), put together from its parts.

What is durable when: every method that changes something returns after its one commit is durable on every copy of the
state, and the bytes that the commit names were durable on every shard before it began (laws 1 and 2). A method that
raises has made nothing visible; after `Unavailable` (not `Overloaded`) or a cancellation it may have, as with any
lost answer.
"""

import builtins
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from ostraka.chunks.keyring import Keyring
from ostraka.chunks.types import Chunks
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.objects import listing
from ostraka.objects.buckets import Buckets, bucket_view
from ostraka.objects.collector import Collector
from ostraka.objects.completing import Completer
from ostraka.objects.core import Core
from ostraka.objects.held import Held
from ostraka.objects.identity import Identity
from ostraka.objects.multipart import Multipart
from ostraka.objects.pins import LocalPins, Pins
from ostraka.objects.publish import NO_CONDITIONS, Publisher
from ostraka.objects.reader import Reader
from ostraka.objects.types import (
    NO_ETAGS,
    Assemble,
    Attributes,
    Bucket,
    CompletePart,
    CustomerKey,
    Deleted,
    Digest,
    Digested,
    Encryption,
    ListPage,
    ObjectInfo,
    PartInfo,
    Replay,
    Source,
    Storage,
    Upload,
    UploadPage,
    VersionPage,
    WriteConditions,
)
from ostraka.objects.versions import Versions
from ostraka.state import Ensure, Mutation, State


class ObjectStore:
    """Buckets, objects, versions and multipart uploads over a state and chunks.

    ``secret``: the store's, at least 16 bytes. ``incarnation``: 16 bytes, new for every start of every process.
    ``pins``: shared by all processes that use the store; None when this is the only one. ``executor``: where digests
    run (the loop's default when None). ``keyring``: the store's keys; without one nothing is encrypted. `start` before
    anything else, `close` at the end.
    """

    def __init__(
        self,
        state: State,
        chunks: Chunks,
        *,
        secret: bytes,
        incarnation: bytes,
        limits: Limits = LIMITS,
        host: Host | None = None,
        pins: Pins | None = None,
        executor: Executor | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        host = host or Host()
        self.core = Core(
            state,
            chunks,
            limits=limits,
            host=host,
            identity=Identity(secret),
            incarnation=incarnation,
            pins=pins or LocalPins(state, host.clock, limits),
            executor=executor,
            keyring=keyring or Keyring(state, secret, host=host, limits=limits),
        )
        self._buckets = Buckets(self.core)
        self.held = Held(self.core)
        publisher = Publisher(self.core, self._buckets)
        self._versions = Versions(self.core, self._buckets, publisher)
        self._multipart = Multipart(self.core, self._buckets, self._versions)
        self._completer = Completer(self.core, self._buckets, publisher, self._multipart)

    async def start(self) -> None:
        """Commit the row of this incarnation: from now on, and until that row is removed, this process may commit."""
        await self.core.state.commit(Mutation((), [Ensure(self.core.fence.key, b"")]))

    async def settle(self) -> None:
        """Wait for the clean-up of requests that failed."""
        await self.core.settle()

    async def close(self) -> None:
        """Finish clean-up. State and chunks are closed by who opened them."""
        await self.core.settle()

    def collector(self, alive: Callable[[bytes], bool]) -> Collector:
        """``alive(incarnation)``: False only when that process certainly ended, or must not go on."""
        return Collector(self.core, alive)

    # -- buckets

    def create_bucket(self, name: str, owner: str, region: str) -> Coroutine[Any, Any, Bucket]:
        return self._buckets.create(name, owner, region)

    def delete_bucket(self, name: str) -> Coroutine[Any, Any, None]:
        return self._buckets.delete(name)

    def bucket(self, name: str) -> Bucket:
        return bucket_view(name, self._buckets.open(name).record)

    def list_buckets(
        self, owner: str | None, prefix: str, after: str, limit: int
    ) -> tuple[builtins.list[Bucket], bool]:
        return self._buckets.list(owner, prefix, after, limit)

    def new_storage(self) -> Storage:
        return self._buckets.new_storage()

    def update_bucket(self, name: str, change: Callable[[Bucket], Bucket]) -> Coroutine[Any, Any, Bucket]:
        return self._buckets.update(name, change)

    # -- objects

    def put(
        self,
        bucket: str,
        key: str,
        source: Source,
        digest: Digest,
        attributes: Attributes,
        *,
        owner: str,
        conditions: WriteConditions = NO_CONDITIONS,
        replay: Replay | None = None,
        encryption: Encryption | None = None,
        customer: CustomerKey | None = None,
    ) -> Coroutine[Any, Any, ObjectInfo]:
        return self._versions.put(
            bucket,
            key,
            source,
            digest,
            attributes,
            owner=owner,
            conditions=conditions,
            replay=replay,
            encryption=encryption,
            customer=customer,
        )

    def lookup(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        return self._versions.lookup(bucket, key, version_id)

    def open(self, bucket: str, key: str, version_id: str | None = None, customer: CustomerKey | None = None) -> Reader:
        return self._versions.open(bucket, key, version_id, customer)

    def delete(
        self, bucket: str, key: str, version_id: str | None = None, *, owner: str = "", if_match: Sequence[str] = ()
    ) -> Coroutine[Any, Any, Deleted]:
        return self._versions.delete(bucket, key, version_id, owner=owner, if_match=if_match)

    def delete_many(
        self,
        bucket: str,
        keys: Sequence[tuple[str, str | None]],
        *,
        owner: str = "",
        if_match: Mapping[int, Sequence[str]] = NO_ETAGS,
    ) -> Coroutine[Any, Any, builtins.list[Deleted | Exception]]:
        return self._versions.delete_many(bucket, keys, owner=owner, if_match=if_match)

    def copy(
        self,
        source: ObjectInfo,
        bucket: str,
        key: str,
        attributes: Attributes,
        *,
        owner: str,
        conditions: WriteConditions = NO_CONDITIONS,
        digested: Digested | None = None,
        encryption: Encryption | None = None,
        customer: CustomerKey | None = None,
        source_customer: CustomerKey | None = None,
    ) -> Coroutine[Any, Any, ObjectInfo]:
        return self._versions.copy(
            source,
            bucket,
            key,
            attributes,
            owner=owner,
            conditions=conditions,
            digested=digested,
            encryption=encryption,
            customer=customer,
            source_customer=source_customer,
        )

    def update_tags(
        self, bucket: str, key: str, version_id: str | None, tags: Mapping[str, str]
    ) -> Coroutine[Any, Any, ObjectInfo]:
        return self._versions.update_tags(bucket, key, version_id, tags)

    def list(self, bucket: str, prefix: str, delimiter: str, after: str, limit: int) -> ListPage:
        return listing.list_keys(self.core, self._buckets.open(bucket), prefix, delimiter, after, limit)

    def list_versions(
        self, bucket: str, prefix: str, delimiter: str, after_key: str, after_version: str, limit: int
    ) -> VersionPage:
        opened = self._buckets.open(bucket)
        return listing.list_versions(self.core, opened, prefix, delimiter, after_key, after_version, limit)

    # -- multipart

    def create_upload(
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
    ) -> Coroutine[Any, Any, Upload]:
        return self._multipart.create(
            bucket,
            key,
            attributes,
            owner=owner,
            checksum_algorithm=checksum_algorithm,
            checksum_type=checksum_type,
            encryption=encryption,
            customer=customer,
        )

    def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        return self._multipart.upload(bucket, key, upload_id)

    def put_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        source: Source,
        digest: Digest,
        customer: CustomerKey | None = None,
    ) -> Coroutine[Any, Any, PartInfo]:
        return self._multipart.put_part(bucket, key, upload_id, number, source, digest, customer)

    def copy_part(
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
    ) -> Coroutine[Any, Any, PartInfo]:
        return self._multipart.copy_part(
            bucket, key, upload_id, number, source, offset, length, digest, customer, source_customer
        )

    def list_parts(
        self, bucket: str, key: str, upload_id: str, after: int, limit: int
    ) -> tuple[builtins.list[PartInfo], bool]:
        return self._multipart.list_parts(bucket, key, upload_id, after, limit)

    def complete_upload(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[CompletePart],
        assemble: Assemble,
        *,
        conditions: WriteConditions = NO_CONDITIONS,
        replay: Replay | None = None,
        size: int | None = None,
    ) -> Coroutine[Any, Any, ObjectInfo]:
        return self._completer.complete(
            bucket, key, upload_id, parts, assemble, conditions=conditions, replay=replay, size=size
        )

    def abort_upload(self, bucket: str, key: str, upload_id: str) -> Coroutine[Any, Any, None]:
        return self._multipart.abort(bucket, key, upload_id)

    def list_uploads(
        self, bucket: str, prefix: str, delimiter: str, after_key: str, after_upload: str, limit: int
    ) -> UploadPage:
        opened = self._buckets.open(bucket)
        return listing.list_uploads(self.core, opened, prefix, delimiter, after_key, after_upload, limit)
