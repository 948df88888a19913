"""Clients of a simulated store: what they ask for is drawn by seed, what they are answered goes into the history.

Bodies are made of a few blocks that come again and again, so that chunks are shared by many objects, lose their last
reference, and come back. Sizes lie on both sides of every threshold of `SMALL`. Some bodies trickle in, some readers
take their time, some requests are given up.
"""

import asyncio
import hashlib
import random
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from ostraka.errors import Absent, OstrakaError, Overloaded, PreconditionFailed, Unavailable
from ostraka.host import Buffer
from ostraka.objects.types import Attributes, CompletePart, Digested, PartInfo, Versioning, WriteConditions
from ostraka.store.store import Store
from ostraka.testing.simulation import history as told
from ostraka.testing.simulation.history import History, Operation, Version

BLOCK = 1024  # of the bodies; `SMALL.chunk_size` is as large
KEYS = ("a", "a/b", "b", "c\x00", "d" * 300, "e" * 600)
OWNER = "root"
ACTIONS = (
    "put", "put", "put", "get", "get", "get", "delete", "delete_some", "copy", "create_only", "replace", "list",
    "versions", "upload", "tag",
)  # fmt: skip


class Bodies:
    """Bodies of a schedule."""

    def __init__(self, rng: random.Random, blocks: int) -> None:
        self._rng = rng
        self._blocks = [bytes([65 + n]) * BLOCK if n % 2 else rng.randbytes(BLOCK) for n in range(blocks)]

    def draw(self) -> bytes:
        rng = self._rng
        kind = rng.random()
        if kind < 0.06:
            return b""
        if kind < 0.25:
            return rng.randbytes(rng.randint(1, 60))
        if kind < 0.5:
            return rng.randbytes(rng.randint(65, 400))
        if kind < 0.75:
            return rng.choice(self._blocks)[: rng.choice((500, BLOCK, BLOCK))]
        count = rng.choice((1, 2, 2, 3, 5, 8))
        return b"".join(rng.choices(self._blocks, k=count)) + rng.randbytes(rng.choice((0, 0, 1, 300)))


class Arriving:
    """A body on its way in (`objects.types.Source`): here already, or in pieces that take their time."""

    def __init__(self, body: bytes, rng: random.Random) -> None:
        self._left = memoryview(body)
        self._rng = rng
        self._here = rng.random() < 0.5
        self.length: int | None = len(body) if self._here or rng.random() < 0.6 else None

    async def read_into(self, view: memoryview) -> int:
        if not self._left:
            return 0
        if self._rng.random() < 0.3:
            await asyncio.sleep(self._rng.expovariate(2.0))
        size = min(len(view), len(self._left), self._rng.choice((200, 1000, 5000)))
        view[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def read_now(self) -> Buffer | None:
        if not self._here:
            return None
        body, self._left = bytes(self._left), memoryview(b"")
        return body


class Md5:
    """`objects.types.Digest`."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, data: Buffer) -> None:
        self._md5.update(data)

    def finish(self) -> Digested:
        return Digested(self._md5.hexdigest())


def etag_of(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def assemble(parts: Sequence[PartInfo]) -> Digested:
    return Digested(etag_of("".join(part.etag for part in parts).encode()))


Action = Callable[[str, str], Coroutine[Any, Any, object]]  # of a bucket and a key


@dataclass
class World:
    """What the clients of a schedule share; it outlives processes and power cuts."""

    rng: random.Random
    buckets: dict[str, Versioning]
    bodies: Bodies
    keys: Sequence[str] = KEYS
    history: History = field(default_factory=History)
    written: dict[str, bytes] = field(default_factory=dict)  # etag to the bytes, of all that was ever sent
    left: int = 0  # requests that are still to be made
    stopped: bool = False
    failures: list[str] = field(default_factory=list)
    damaged: bool = False  # more disks are bad than the store can bear: errors are answers, too
    pause: float = 1.0  # seconds between the requests of a client, on average
    actions: Sequence[str] = ACTIONS
    in_step: bool = False  # not on average: all begin theirs at the same moments
    counts: dict[str, int] = field(default_factory=dict)

    def fail(self, note: str) -> None:
        if len(self.failures) < 20:
            self.failures.append(note)


class Refused(Exception):
    """The request certainly had no effect."""


class Client:
    """One client of one process: a request after the other."""

    def __init__(self, world: World, store: Store, name: str) -> None:
        self.world = world
        self.store = store
        self.name = name
        self._rng = world.rng
        self._actions: list[Action] = [getattr(self, name) for name in world.actions]

    def _pause(self) -> float:
        pause = self.world.pause
        if self.world.in_step:
            return pause - asyncio.get_running_loop().time() % pause
        return self._rng.expovariate(1.0 / pause)

    async def run(self) -> None:
        """Until the world's requests are made."""
        world = self.world
        actions: list[Action] = [*self._actions, *self._actions, self.burst, self.at_once, self.at_once, self.at_once]
        while world.left > 0 and not world.stopped:
            world.left -= 1
            await asyncio.sleep(self._pause())
            action = self._rng.choice(actions)
            bucket, key = self._rng.choice(list(world.buckets)), self._rng.choice(world.keys)
            world.counts[action.__name__] = world.counts.get(action.__name__, 0) + 1
            await self._try(action(bucket, key))

    async def _try(self, request: Coroutine[Any, Any, object]) -> None:
        """A request may fail, and may be given up by its client, but only in the words of `errors`."""
        task = asyncio.get_running_loop().create_task(request)
        if self._rng.random() < 0.05:
            asyncio.get_running_loop().call_later(self._rng.expovariate(5.0), task.cancel)
        try:
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:  # the process ends: the request with it
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise
            if not task.cancelled():
                task.result()
        except Refused:
            pass
        except OstrakaError as error:
            self._judge(error)
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            self.world.fail(f"{self.name}: an error that is none of ours: {trace}")

    def _judge(self, error: OstrakaError) -> None:
        """Damage is no answer while the disks can give everything back."""
        if type(error).__name__ == "Corrupt" and not self.world.damaged:
            self.world.fail(f"{self.name}: {error!r}")

    def _begin(self, bucket: str, key: str, what: str, step: told.Step) -> Operation:
        return self.world.history.begin(bucket, key, what, step, self.name)

    async def _write(self, operation: Operation, request: Awaitable[Any]) -> Any:
        """Await a request that changes something, and note it if it certainly did not."""
        try:
            return await request
        except Unavailable as error:
            if isinstance(error, Overloaded):
                self.world.history.refused(operation)
            raise
        except OstrakaError:
            self.world.history.refused(operation)
            raise

    # -- requests

    async def burst(self, bucket: str, key: str) -> None:
        """Small bodies at the same moment: they share a pack."""
        rng = self._rng
        keys = rng.sample(self.world.keys, rng.randint(1, min(4, len(self.world.keys))))
        bodies = [rng.randbytes(rng.randint(65, 300)) for _ in keys]
        await self._together([self.put(bucket, name, body=body) for name, body in zip(keys, bodies, strict=True)])

    async def at_once(self, bucket: str, key: str) -> None:
        """Several requests for one key at the same moment."""
        chosen = self._rng.choices(self._actions, k=self._rng.randint(2, 4))
        await self._together([action(bucket, key) for action in chosen])

    async def _together(self, requests: Sequence[Coroutine[Any, Any, object]]) -> None:
        for outcome in await asyncio.gather(*requests, return_exceptions=True):
            if isinstance(outcome, OstrakaError):
                self._judge(outcome)
            elif isinstance(outcome, Exception) and not isinstance(outcome, Refused):
                raise outcome

    async def put(
        self, bucket: str, key: str, conditions: WriteConditions | None = None, body: bytes | None = None
    ) -> None:
        body = self.world.bodies.draw() if body is None else body
        versioning = self.world.buckets[bucket]
        etag = etag_of(body)
        self.world.written[etag] = body
        asked = conditions or WriteConditions()
        operation = self._begin(bucket, key, f"put {len(body)} {etag[:6]} {_words(asked)}", told.put(versioning, etag))
        try:
            info = await self._write(
                operation,
                self.store.objects.put(
                    bucket, key, Arriving(body, self._rng), Md5(), Attributes(), owner=OWNER, conditions=asked
                ),
            )
        except PreconditionFailed:
            operation.happened = True
            condition = told.exists if asked.if_none_match else told.differs(asked.if_match[0])
            self.world.history.end(operation, condition)
            raise Refused from None
        except Absent:
            if asked.if_match:
                operation.happened = True
                self.world.history.end(operation, told.sees(None))
            raise
        if info.etag != etag or info.size != len(body):
            self.world.fail(f"{self.name}: PUT {bucket}/{key} of {len(body)} bytes was answered with {info}")
        done = told.put(versioning, etag, info.version_id)
        if asked.if_none_match:
            done = told.when(told.sees(None), done)
        elif asked.if_match:
            done = told.when(told.sees(asked.if_match[0]), done)
        self.world.history.end(operation, done)

    async def create_only(self, bucket: str, key: str) -> None:
        await self.put(bucket, key, WriteConditions(if_none_match=True))

    async def replace(self, bucket: str, key: str) -> None:
        found = await self._lookup(bucket, key)
        if found is not None:
            await self.put(bucket, key, WriteConditions(if_match=(found,)))

    async def _lookup(self, bucket: str, key: str) -> str | None:
        operation = self._begin(bucket, key, "head", told.sees(None))
        try:
            etag = (await self._write(operation, _at_once(self.store.objects.lookup, bucket, key))).etag
        except Absent:
            operation.happened = True
            self.world.history.end(operation, told.sees(None))
            return None
        operation.what += f" {etag[:6]}"
        self.world.history.end(operation, told.sees(etag))
        return str(etag)

    async def get(self, bucket: str, key: str) -> None:
        await read_key(self.world, self.store, bucket, key, self.name)

    async def delete(self, bucket: str, key: str) -> None:
        versioning = self.world.buckets[bucket]
        versions = await self.versions(bucket, key) if versioning and self._rng.random() < 0.5 else ()
        if versions:
            chosen = self._rng.choice(versions)
            operation = self._begin(bucket, key, f"delete version {chosen.id[:6]}", told.delete_version(chosen.id))
            await self._write(operation, self.store.objects.delete(bucket, key, chosen.id, owner=OWNER))
            self.world.history.end(operation)
            return
        operation = self._begin(bucket, key, "delete", told.delete(versioning))
        answer = await self._write(operation, self.store.objects.delete(bucket, key, owner=OWNER))
        self.world.history.end(operation, told.delete(versioning, answer.version_id))

    async def delete_some(self, bucket: str, key: str) -> None:
        """Several keys in one request, each of which succeeds or fails by itself."""
        versioning, history = self.world.buckets[bucket], self.world.history
        keys = self._rng.sample(self.world.keys, self._rng.randint(1, min(4, len(self.world.keys))))
        operations = [self._begin(bucket, name, "delete one of some", told.delete(versioning)) for name in keys]
        try:
            answers = await self.store.objects.delete_many(bucket, [(name, None) for name in keys], owner=OWNER)
        except OstrakaError as error:
            if not isinstance(error, Unavailable) or isinstance(error, Overloaded):
                for operation in operations:
                    history.refused(operation)
            raise
        for operation, answer in zip(operations, answers, strict=True):
            if not isinstance(answer, Exception):
                history.end(operation, told.delete(versioning, answer.version_id))
            elif not isinstance(answer, Unavailable) or isinstance(answer, Overloaded):
                history.refused(operation)

    async def copy(self, bucket: str, key: str) -> None:
        objects = self.store.objects
        if self._rng.random() < 0.5:  # to there, or from there
            source = objects.lookup(self._rng.choice(list(self.world.buckets)), self._rng.choice(self.world.keys))
        else:
            source = objects.lookup(bucket, key)
            bucket, key = self._rng.choice(list(self.world.buckets)), self._rng.choice(self.world.keys)
        versioning = self.world.buckets[bucket]
        step = told.put(versioning, source.etag)
        operation = self._begin(bucket, key, f"copy of {source.etag[:6]}", step)
        await asyncio.sleep(self._rng.choice((0, 0, 0, 1.0, 10.0)))
        info = await self._write(operation, objects.copy(source, bucket, key, Attributes(), owner=OWNER))
        self.world.history.end(operation, told.put(versioning, source.etag, info.version_id))

    async def tag(self, bucket: str, key: str) -> None:
        """Rewrites a version's row in place: its bytes, and what is newest, stay as they are."""
        operation = self._begin(bucket, key, "tag", told.exists)
        await self._write(operation, self.store.objects.update_tags(bucket, key, None, {"n": str(self.world.left)}))
        self.world.history.end(operation)

    async def list(self, bucket: str, key: str) -> None:
        """Not at one moment for all keys; for each of them at some moment between call and answer."""
        await list_keys(self.world, self.store, bucket, self.name)

    async def versions(self, bucket: str, key: str) -> Sequence[Version]:
        """All versions of one key."""
        return await list_versions(self.world, self.store, bucket, key, self.name)

    async def upload(self, bucket: str, key: str) -> None:
        """A multipart upload, from its beginning to its end."""
        objects, rng = self.store.objects, self._rng
        upload = await objects.create_upload(bucket, key, Attributes(), owner=OWNER)
        parts, bodies = [], []
        for number in sorted(rng.sample(range(1, 6), rng.randint(1, 3))):
            body = self.world.bodies.draw()
            await asyncio.sleep(rng.choice((0, 0, 2.0)))
            part = await objects.put_part(bucket, key, upload.upload_id, number, Arriving(body, rng), Md5())
            if rng.random() < 0.2:  # in its place
                body = self.world.bodies.draw()
                part = await objects.put_part(bucket, key, upload.upload_id, number, Arriving(body, rng), Md5())
            parts.append(CompletePart(number, part.etag))
            bodies.append(body)
        if rng.random() < 0.2:  # not all of them are wanted
            parts, bodies = parts[-1:], bodies[-1:]
        end = self._end_upload(bucket, key, upload.upload_id, parts, bodies)
        if rng.random() < 0.2:  # and one more is on its way
            late = Arriving(self.world.bodies.draw(), rng)
            more = objects.put_part(bucket, key, upload.upload_id, rng.randint(1, 6), late, Md5())
            await self._together([end, more])
        else:
            await end

    async def _end_upload(
        self, bucket: str, key: str, upload_id: str, parts: Sequence[CompletePart], bodies: Sequence[bytes]
    ) -> None:
        """It is completed, aborted, or left lying."""
        objects, fate = self.store.objects, self._rng.random()
        if fate < 0.15:
            return
        if fate < 0.3:
            await objects.abort_upload(bucket, key, upload_id)
            return
        etag = assemble([PartInfo(part.number, 0, part.etag, 0.0) for part in parts]).etag
        versioning = self.world.buckets[bucket]
        self.world.written[etag] = b"".join(bodies)
        step = told.put(versioning, etag)
        operation = self._begin(bucket, key, f"complete {etag[:6]}", step)
        info = await self._write(operation, objects.complete_upload(bucket, key, upload_id, parts, assemble))
        self.world.history.end(operation, told.put(versioning, etag, info.version_id))


async def _at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _words(conditions: WriteConditions) -> str:
    if conditions.if_none_match:
        return "if none"
    return f"if {conditions.if_match[0][:6]}" if conditions.if_match else ""


# -- reads, by clients and by whoever checks the store


async def read_key(world: World, store: Store, bucket: str, key: str, who: str) -> None:
    """GET: all of it, or a range, at the reader's own pace."""
    rng = world.rng
    operation = world.history.begin(bucket, key, "get", told.sees(None), who)
    try:
        reader = store.objects.open(bucket, key)
    except Absent:
        world.history.end(operation, told.sees(None))
        return
    except BaseException:
        world.history.refused(operation)
        raise
    etag, size = reader.info.etag, reader.info.size
    operation.what += f" {etag[:6]}"
    world.history.end(operation, told.sees(etag))
    try:
        whole = rng.random() < 0.8
        offset = 0 if whole else rng.randint(0, size)
        length = size - offset if whole else rng.randint(0, size - offset)
        found = reader.read_now(offset, length) if rng.random() < 0.5 else None
        if found is None:
            pieces = []
            async for piece in reader.read(offset, length):
                pieces.append(bytes(piece))
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.expovariate(0.5))
            found = b"".join(pieces)
        if found != world.written[etag][offset : offset + length]:
            world.fail(
                f"{who}: wrong bytes: GET {bucket}/{key} {etag} of {size}: {len(found)} bytes of {offset}+{length}"
            )
    finally:
        reader.close()


async def list_keys(world: World, store: Store, bucket: str, who: str) -> None:
    """LIST, a page at a time."""
    operations = {
        key: world.history.begin(bucket, key, "list", told.sees(None), who) for key in (*KEYS, *_others(world, bucket))
    }
    found: dict[str, str] = {}
    try:
        after = ""
        while True:
            page = store.objects.list(bucket, "", "", after, world.rng.choice((2, 1000)))
            for entry in page.entries:
                if entry.key in found:
                    world.fail(f"{who}: {entry.key!r} is listed twice")
                found[entry.key] = entry.etag
            if not page.truncated:
                break
            after = page.next
            await asyncio.sleep(0)
    except BaseException:
        for operation in operations.values():
            world.history.refused(operation)
        raise
    for key, operation in operations.items():
        etag = found.pop(key, None)
        operation.what += f" {etag and etag[:6]}"
        world.history.end(operation, told.sees(etag))
    if found:
        world.fail(f"{who}: LIST shows {sorted(found)}, which nobody has written")


def _others(world: World, bucket: str) -> list[str]:
    return [key for name, key in world.history.keys if name == bucket and key not in KEYS]


async def list_versions(world: World, store: Store, bucket: str, key: str, who: str) -> Sequence[Version]:
    """Every version of one key, newest first; all at one moment."""
    operation = world.history.begin(bucket, key, "versions", told.sees(None), who)
    try:
        page = store.objects.list_versions(bucket, key, "", "", "", 1000)
    except BaseException:
        world.history.refused(operation)
        raise
    found = tuple(
        Version(info.version_id, "" if info.delete_marker else info.etag) for info in page.entries if info.key == key
    )
    if not world.buckets[bucket]:
        found = tuple(Version(told.NULL, version.etag) for version in found)
    operation.what += f" {[version.etag[:6] for version in found]}"
    world.history.end(operation, told.sees_all(found))
    return found


async def read_version(world: World, store: Store, bucket: str, key: str, version: Version, who: str) -> None:
    """GET of a version by its id: exactly its bytes."""
    reader = store.objects.open(bucket, key, version.id)
    try:
        body = b"".join([bytes(piece) async for piece in reader.read()])
        if body != world.written[version.etag]:
            world.fail(f"{who}: wrong bytes of {bucket}/{key} version {version.id}")
    finally:
        reader.close()
