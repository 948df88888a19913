"""A pool over a byte store: what was written comes back verified by any range, and damage is never an answer."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ostraka.backends.local import LocalBackend
from ostraka.backends.memory import MemoryBackend
from ostraka.errors import Corrupt, Forbidden, Unavailable
from ostraka.host import Host
from ostraka.limits import LIMITS, MIB
from ostraka.pools import backend_pool
from ostraka.pools.backend_pool import BackendPool, decode_header, path_of, write_id_of
from ostraka.pools.cache import Cache
from ostraka.pools.types import Owner, Stripe
from ostraka.testing.backends.faulty import Fault, Faults, FaultyBackend, broken
from ostraka.testing.memory_pool import MemoryPool

T = TypeVar("T")

CELL = 1000
SIZES = [1, 999, 1000, 1001, 2000, 12_345]
ID = b"i" * 32


def pool_over(backend: Any, *, number: int = 1, cache: Cache | None = None, writer: bytes = b"writer_1") -> BackendPool:
    return BackendPool(number, backend, MemoryPool(LIMITS), Host(), writer=writer, cell_size=CELL, cache=cache)


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work()

    return asyncio.run(main())


@pytest.mark.parametrize("size", SIZES)
def test_every_range_of_a_body_is_exact(seed: int, size: int) -> None:
    rng = random.Random(seed)
    body = rng.randbytes(size)

    async def work() -> None:
        pool = pool_over(MemoryBackend())
        stripe = await pool.write(Owner.CHUNK, ID, body, size)
        assert (stripe.length, stripe.disks, stripe.pool) == (size, (), 1)
        assert bytes(await pool.read(stripe, 0, size)) == body
        for _ in range(50):
            offset = rng.randrange(size)
            length = rng.randrange(size - offset + 1)
            assert bytes(await pool.read(stripe, offset, length)) == body[offset : offset + length]
        assert [health.state for health in await pool.verify(stripe)] == ["good"]
        assert await pool.repair(Owner.CHUNK, ID, stripe) is None

    run(work)


def test_an_object_says_whose_it_is_and_no_two_writes_share_a_name(seed: int) -> None:
    async def work() -> None:
        backend = MemoryBackend()
        pool = pool_over(backend)
        first = await pool.write(Owner.PACK, ID[:16], b"body", 4)
        second = await pool.write(Owner.PACK, ID[:16], b"body", 4)
        assert first.write_id != second.write_id
        paths = [path async for path in backend.list("")]
        assert {write_id_of(path) for path in paths} == {first.write_id, second.write_id}
        header = decode_header(await backend.read(path_of(first.write_id)))
        assert (header.owner, header.owner_id, header.write_id, header.length) == (
            Owner.PACK,
            ID[:16],
            first.write_id,
            4,
        )
        assert write_id_of("ostraka-pool") is None
        await pool.release([(Owner.PACK, ID[:16], first)])
        assert [path async for path in backend.list("")] == [path_of(second.write_id)]

    run(work)


def test_any_byte_that_is_wrong_is_corrupt_and_never_another_answer(seed: int) -> None:
    rng = random.Random(seed)
    body = rng.randbytes(3210)

    async def work() -> None:
        backend = MemoryBackend()
        pool = pool_over(backend)
        stripe = await pool.write(Owner.CHUNK, ID, body, len(body))
        path = path_of(stripe.write_id)
        whole = await backend.read(path)
        for _ in range(60):
            at = rng.randrange(len(whole))
            damaged = bytearray(whole)
            damaged[at] ^= 1 << rng.randrange(8)
            await backend.write(path, bytes(damaged))
            assert [health.state for health in await pool.verify(stripe)] == ["damaged"]
            if at >= backend_pool.HEADER_SIZE:
                with pytest.raises(Corrupt):
                    await pool.read(stripe, 0, len(body))
            with pytest.raises(Corrupt, match="damaged"):
                await pool.repair(Owner.CHUNK, ID, stripe)
        await backend.write(path, whole[: rng.randrange(backend_pool.HEADER_SIZE + 1, len(whole))])
        with pytest.raises(Corrupt):
            await pool.read(stripe, 0, len(body))
        await backend.delete(path)
        with pytest.raises(Corrupt, match="not in pool 1 any more"):
            await pool.read(stripe, 0, 10)
        assert [health.state for health in await pool.verify(stripe)] == ["missing"]

    run(work)


def test_cells_of_another_object_do_not_pass_for_ours(seed: int) -> None:
    body = random.Random(seed).randbytes(2 * CELL)

    async def work() -> None:
        backend = MemoryBackend()
        pool = pool_over(backend)
        first, second = [await pool.write(Owner.CHUNK, ID, body, len(body)) for _ in range(2)]
        mine, other = await backend.read(path_of(first.write_id)), await backend.read(path_of(second.write_id))
        await backend.write(
            path_of(first.write_id), mine[: backend_pool.HEADER_SIZE] + other[backend_pool.HEADER_SIZE :]
        )
        with pytest.raises(Corrupt):
            await pool.read(first, 0, 10)

    run(work)


def test_a_backend_that_is_away_or_refuses_is_unavailable_and_never_absent() -> None:
    async def work() -> None:
        faults = Faults()
        pool = pool_over(FaultyBackend(MemoryBackend(), faults))
        stripe = await pool.write(Owner.CHUNK, ID, b"body", 4)
        for error in (broken, lambda: Forbidden("no", reason="access")):
            faults.order("read", Fault.BEFORE, times=2, error=error)
            with pytest.raises(Unavailable):
                await pool.read(stripe, 0, 4)
            assert [health.state for health in await pool.verify(stripe)] == ["unreachable"]
        assert bytes(await pool.read(stripe, 0, 4)) == b"body"

    run(work)


def test_what_could_not_be_deleted_is_owed_and_paid() -> None:
    async def work() -> None:
        faults = Faults()
        backend = FaultyBackend(MemoryBackend(), faults)
        pool = pool_over(backend)
        stripe = await pool.write(Owner.CHUNK, ID, b"body", 4)
        faults.order("delete-batch", Fault.BEFORE)
        await pool.release([(Owner.CHUNK, ID, stripe)])
        assert pool.owed == 1
        await pool.pay()
        assert pool.owed == 0
        assert not await backend.exists(path_of(stripe.write_id))

    run(work)


def test_what_was_read_lately_is_read_from_the_cache_and_verified_there(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    body = rng.randbytes(5000)

    async def work() -> None:
        backend = MemoryBackend()
        cache = Cache(tmp_path / "cache", MIB, 0, 1, Host())
        pool = pool_over(backend, cache=cache)
        stripe = await pool.write(Owner.CHUNK, ID, body, len(body))
        assert bytes(await pool.read(stripe, 1500, 20)) == body[1500:1520]
        assert (cache.hits, cache.misses) == (0, 1)
        whole = await backend.read(path_of(stripe.write_id))
        await backend.delete(path_of(stripe.write_id))  # nobody asks it any more
        assert bytes(await pool.read(stripe, 0, 5000)) == body
        assert cache.hits == 1
        (kept,) = (tmp_path / "cache" / "0").iterdir()
        kept.write_bytes(whole[:1200] + bytes([whole[1200] ^ 1]) + whole[1201:])
        await backend.write(path_of(stripe.write_id), whole)
        assert bytes(await pool.read(stripe, 0, 5000)) == body  # the copy was damaged: the object is asked
        kept.write_bytes(whole[:1200])
        assert bytes(await pool.read(stripe, 0, 5000)) == body  # or cut
        await pool.release([(Owner.CHUNK, ID, stripe)])
        assert not kept.exists()

    run(work)


def test_the_cache_keeps_within_its_bound_and_knows_after_a_restart_what_it_has(tmp_path: Path) -> None:
    host = Host()
    cache = Cache(tmp_path, 64_000, 1, 2, host)
    assert cache.takes(2000)
    assert not cache.takes(2001)
    for number in range(40):
        cache.put(f"{number:032x}", bytes(2000))
        cache.get(f"{0:032x}", 0, 10)  # the one that is read stays
    held = {path.name for path in (tmp_path / "1").iterdir()}
    assert len(held) == 16
    assert f"{0:032x}" in held
    (tmp_path / "1" / ".staging").write_bytes(b"")
    again = Cache(tmp_path, 64_000, 1, 2, host)
    assert not (tmp_path / "1" / ".staging").exists()
    again.put("ff" * 16, bytes(2000))
    assert len(list((tmp_path / "1").iterdir())) == 16
    beside = Cache(tmp_path, 64_000, 0, 2, host)
    assert beside.get("ff" * 16, 0, 5) == bytes(5)  # of another process
    assert beside.get("ee" * 16, 0, 5) is None


def test_on_a_directory_as_well(tmp_path: Path, seed: int) -> None:
    body = random.Random(seed).randbytes(10_001)

    async def work() -> Stripe:
        async with LocalBackend(tmp_path) as backend:
            pool = pool_over(backend)
            stripe = await pool.write(Owner.CHUNK, ID, body, len(body))
            assert bytes(await pool.read(stripe, 4000, 3000)) == body[4000:7000]
            return stripe

    stripe = run(work)
    assert (tmp_path / path_of(stripe.write_id)).is_file()
