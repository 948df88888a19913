"""The backend pool: bodies live in a byte store (a directory elsewhere, S3, Azure), one object each.

What is durable when: ``write`` returns once the backend says that it keeps the object. An object is named by its write
id, whose first half is that of the process that wrote it: so what a crash leaves is told from what is still being
written (ENGINE 19). Objects are immutable; nothing is ever written under a name twice (law 1).

An object is a header, then cells of the body, each followed by its checksum, which is bound to the write id and the
cell's number (docs/format/pool-object.md). So a range of the body is one range of the object, and all that is read is
verified. There is no redundancy here beyond the backend's own: what does not verify is Corrupt.

With a cache, objects that were read are kept in a local directory, byte for byte, and verified again when they are read
from there.
"""

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple, Protocol, TypeVar

from xxhash import xxh3_64_intdigest

from ostraka.backends.backend import Backend, Capability, DeletesBatches, require
from ostraka.errors import Absent, Corrupt, Full, OstrakaError, Unavailable
from ostraka.host import Buffer, Host
from ostraka.pools.cache import Cache
from ostraka.pools.types import Owner, ShardHealth, Stripe, StripeBuffer

log = logging.getLogger("ostraka.pools")

MAGIC: Final = b"OSTw"
VERSION: Final = 1
HEADER: Final = struct.Struct(">4sBBBxIQ16s32s4x")
SUM: Final = struct.Struct(">Q")
HEADER_SIZE: Final = HEADER.size + SUM.size
NUMBERS_MIN: Final = 1  # 0 is the pool of the store's own disks
OWED_MAX: Final = 10_000  # objects to be deleted once the backend answers; more are found when it is reconciled

_MASK: Final = (1 << 64) - 1

T = TypeVar("T")


class Memory(Protocol):
    """Where buffers come from: the pool of the store's disks."""

    async def buffer(self, size: int) -> StripeBuffer: ...

    def scarce(self, size: int) -> bool: ...

    def scratch(self, size: int) -> memoryview: ...

    def spare(self, size: int) -> StripeBuffer: ...


class Header(NamedTuple):
    """What an object says of itself."""

    owner: Owner
    owner_id: bytes
    write_id: bytes
    length: int
    cell_size: int


# -- the object


def path_of(write_id: bytes) -> str:
    """Where an object is: under its writer's half of the write id."""
    return f"{write_id[:8].hex()}/{write_id.hex()}"


def write_id_of(path: str) -> bytes | None:
    """The opposite; None for what is no object of a pool."""
    try:
        write_id = bytes.fromhex(path.rpartition("/")[2])
    except ValueError:
        return None
    return write_id if len(write_id) == 16 and path == path_of(write_id) else None


def encode(header: Header, body: memoryview) -> list[Buffer]:
    """The pieces of an object."""
    fixed = HEADER.pack(
        MAGIC,
        VERSION,
        header.owner,
        len(header.owner_id),
        header.cell_size,
        header.length,
        header.write_id,
        header.owner_id,
    )
    pieces: list[Buffer] = [fixed, SUM.pack(xxh3_64_intdigest(fixed))]
    seed = xxh3_64_intdigest(header.write_id)
    for number, at in enumerate(range(0, header.length, header.cell_size)):
        cell = body[at : min(at + header.cell_size, header.length)]
        pieces += (cell, SUM.pack(xxh3_64_intdigest(cell, seed=(seed + number) & _MASK)))
    return pieces


def decode_header(data: Buffer) -> Header:
    """The header at the front of an object. Raises Corrupt."""
    view = memoryview(data)
    if len(view) < HEADER_SIZE or bytes(view[:4]) != MAGIC:
        raise Corrupt("no header where an object of a pool begins", reason="pool-object")
    if SUM.unpack_from(view, HEADER.size)[0] != xxh3_64_intdigest(view[: HEADER.size]):
        raise Corrupt("a header that does not match its checksum", reason="pool-object")
    _, version, owner, id_size, cell_size, length, write_id, owner_id = HEADER.unpack_from(view)
    if version != VERSION or owner not in (Owner.CHUNK, Owner.PACK) or id_size > 32 or not cell_size:
        raise Corrupt("a header that says what cannot be", reason="pool-object")
    return Header(Owner(owner), owner_id[:id_size], write_id, length, cell_size)


def span(length: int, cell_size: int, offset: int, size: int) -> tuple[int, int, int]:
    """(number of the first cell, where it begins in the object, bytes of the object) of a range of the body."""
    first = offset // cell_size
    last = -(-(offset + size) // cell_size)
    end = min(last * cell_size, length) + last * SUM.size
    begin = first * (cell_size + SUM.size)
    return first, HEADER_SIZE + begin, end - begin


def cells(data: memoryview, write_id: bytes, first: int, cell_size: int) -> Iterator[memoryview]:
    """The cells in a piece of an object that begins with one, each verified. Raises Corrupt."""
    seed = xxh3_64_intdigest(write_id)
    step = cell_size + SUM.size
    for number, at in enumerate(range(0, len(data), step), first):
        cell = data[at : at + step]
        plain, told = cell[: -SUM.size], cell[-SUM.size :]
        if len(cell) <= SUM.size or SUM.unpack(told)[0] != xxh3_64_intdigest(plain, seed=(seed + number) & _MASK):
            raise Corrupt(f"cell {number} of {write_id.hex()} does not match its checksum", reason="pool-object")
        yield plain


def body_of(data: memoryview, stripe: Stripe, cell_size: int, offset: int, size: int) -> memoryview:
    """[offset, offset + size) of the body from what `span` says of it. Raises Corrupt."""
    first, _, wanted = span(stripe.length, cell_size, offset, size)
    if len(data) != wanted:
        raise Corrupt(f"{path_of(stripe.write_id)} has another length than recorded", reason="pool-object")
    verified = list(cells(data, stripe.write_id, first, cell_size))
    whole = verified[0] if len(verified) == 1 else memoryview(b"".join(verified))
    skip = offset - first * cell_size
    return whole[skip : skip + size]


# -- the pool


class BackendPool:
    """Implements pools.types.Pool over a byte store; it is pool ``number`` of its store.

    ``writer``: 8 bytes that no other process has or had. The backend is expected to ask again by itself what failed in
    passing (backends/resilience).
    """

    def __init__(
        self,
        number: int,
        backend: Backend,
        memory: Memory,
        host: Host,
        *,
        writer: bytes,
        cell_size: int,
        executor: Executor | None = None,
        cache: Cache | None = None,
    ) -> None:
        assert number >= NUMBERS_MIN
        assert len(writer) == 8
        self.number = number
        self.backend = backend
        self.cache = cache
        self._memory = memory
        self._host = host
        self._writer = writer
        self._cell_size = cell_size
        self._executor = executor
        self._owed: dict[str, None] = {}  # objects that nobody names, and that could not be deleted

    async def buffer(self, size: int) -> StripeBuffer:
        return await self._memory.buffer(size)

    def scarce(self, size: int) -> bool:
        return self._memory.scarce(size)

    def scratch(self, size: int) -> memoryview:
        return self._memory.scratch(size)

    def spare(self, size: int) -> StripeBuffer:
        return self._memory.spare(size)

    async def write(
        self, owner: Owner, owner_id: bytes, body: StripeBuffer | Buffer, length: int, pool: int = 0
    ) -> Stripe:
        view = memoryview(body).cast("B") if isinstance(body, Buffer) else body.view
        write_id = self._writer + self._host.random(8)
        data = await self._in_thread(
            lambda: b"".join(encode(Header(owner, owner_id, write_id, length, self._cell_size), view))
        )
        stripe = Stripe(write_id, 1, 0, length, self._cell_size, (), self.number)
        try:
            await self._asked(self.backend.write(path_of(write_id), data))
        except BaseException:
            self._owe([path_of(write_id)])  # it may be there
            raise
        return stripe

    async def read(self, stripe: Stripe, offset: int, length: int) -> memoryview:
        if not length:
            return memoryview(b"")
        if self.cache is not None:
            kept = await self._from_cache(self.cache, stripe, offset, length)
            if kept is not None:
                return kept
        _, start, size = span(stripe.length, stripe.shard_size, offset, length)
        data = await self._fetch(stripe, start, size)
        return await self._in_thread(body_of, memoryview(data), stripe, stripe.shard_size, offset, length)

    async def _from_cache(self, cache: Cache, stripe: Stripe, offset: int, length: int) -> memoryview | None:
        """The range from the cache, which gets the whole object if it has it not; None if it cannot be kept."""
        name = stripe.write_id.hex()
        _, start, size = span(stripe.length, stripe.shard_size, offset, length)
        try:
            data = await self._in_thread(cache.get, name, start, size)
            if data is not None:
                return await self._in_thread(body_of, memoryview(data), stripe, stripe.shard_size, offset, length)
        except Corrupt:  # of the copy that is at hand: there is another
            await self._in_thread(cache.drop, name)
        if not cache.takes(self._object_size(stripe)):
            return None
        whole = await self._fetch(stripe, 0, self._object_size(stripe))
        plain = await self._in_thread(
            body_of, memoryview(whole)[start : start + size], stripe, stripe.shard_size, offset, length
        )
        await self._in_thread(cache.put, name, whole)
        return plain

    def read_now(self, stripe: Stripe, offset: int, length: int) -> memoryview | None:
        return None

    def settle(self, stripes: Iterable[Stripe]) -> None:
        pass  # no compaction touches an object

    async def release(self, stripes: Sequence[tuple[Owner, bytes, Stripe]]) -> None:
        paths = [path_of(stripe.write_id) for _, _, stripe in stripes]
        if self.cache is not None:
            for _, _, stripe in stripes:
                await self._in_thread(self.cache.drop, stripe.write_id.hex())
        await self.delete(paths)

    async def delete(self, paths: Sequence[str]) -> None:
        """Objects that nobody names. What cannot be deleted now is owed."""
        try:
            if Capability.BATCH_DELETE in self.backend.capabilities:
                failed = await require(self.backend, DeletesBatches).delete_batch(paths)
                self._owe([failure.path for failure in failed])
            else:
                await asyncio.gather(*(self.backend.delete(path) for path in paths))
        except OstrakaError as error:
            log.warning("%d objects of pool %d are to be deleted later: %s", len(paths), self.number, error.message)
            self._owe(paths)

    async def delete_ids(self, write_ids: Sequence[bytes]) -> None:
        """The same, by write ids."""
        await self.delete([path_of(write_id) for write_id in write_ids])

    async def pay(self) -> None:
        """Delete what is owed."""
        owed, self._owed = list(self._owed), {}
        if owed:
            await self.delete(owed)

    @property
    def owed(self) -> int:
        """Objects that are to be deleted once the backend lets us."""
        return len(self._owed)

    def _owe(self, paths: Iterable[str]) -> None:
        for path in paths:
            if len(self._owed) < OWED_MAX:
                self._owed[path] = None

    async def verify(self, stripe: Stripe) -> list[ShardHealth]:
        try:
            data = memoryview(await self._fetch(stripe, 0, self._object_size(stripe)))
            header = decode_header(data)
            if (header.write_id, header.length) != (stripe.write_id, stripe.length):
                raise Corrupt(f"{path_of(stripe.write_id)} is another object", reason="pool-object")
            await self._in_thread(body_of, data[HEADER_SIZE:], stripe, stripe.shard_size, 0, stripe.length)
            state = "good"
        except Corrupt as error:
            state = "missing" if error.reason == "missing" else "damaged"
        except OstrakaError:
            state = "unreachable"
        return [ShardHealth(0, -self.number, state)]

    async def repair(self, owner: Owner, owner_id: bytes, stripe: Stripe) -> Stripe | None:
        (health,) = await self.verify(stripe)
        if health.state == "good":
            return None
        if health.state == "unreachable":
            raise Unavailable(f"pool {self.number} does not answer", reason="pool")
        raise Corrupt(
            f"{path_of(stripe.write_id)} in pool {self.number} is {health.state}, and there is no other copy",
            reason="pool-object",
        )

    async def close(self) -> None:
        await self.backend.close()

    def _object_size(self, stripe: Stripe) -> int:
        return span(stripe.length, stripe.shard_size, 0, stripe.length)[2] + HEADER_SIZE

    async def _fetch(self, stripe: Stripe, start: int, size: int) -> bytes:
        path = path_of(stripe.write_id)
        try:
            return await self._asked(self.backend.read(path, offset=start, size=size))
        except Absent:
            raise Corrupt(f"{path} is not in pool {self.number} any more", reason="missing") from None

    async def _asked(self, call: Awaitable[T]) -> T:
        """What a backend refuses to a store is no answer to the store's reader (law 3): it is away."""
        try:
            return await call
        except (Absent, Corrupt, Full, Unavailable):
            raise
        except OstrakaError as error:
            raise Unavailable(f"pool {self.number}: {error.message}", reason="pool") from error

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
