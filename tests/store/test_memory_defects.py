"""Requests that together want more memory than there is wait for one another, and all of them end well."""

import asyncio
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import BUCKET, SMALL, Body, Md5, directories, opened, read

from ostraka.host import Buffer
from ostraka.limits import KIB, MIB
from ostraka.objects.types import Attributes

TIGHT = replace(SMALL, buffers_bytes_max=1 * MIB, buffers_wait_seconds_max=3.0, read_piece_max=64 * KIB)


class Arriving(Body):
    """A body that comes over the network, a piece at a time, as those of others do."""

    def __init__(self, body: bytes, known: bool) -> None:
        super().__init__(body)
        if not known:
            self.length = None

    def read_now(self) -> Buffer | None:  # type: ignore[override]
        return None

    async def read_into(self, view: memoryview) -> int:
        await asyncio.sleep(0)
        return await super().read_into(view[: 16 * KIB])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [4 * 64 * KIB, 20 * 64 * KIB])
def test_uploads_that_hold_memory_and_want_more_do_not_wait_for_one_another_until_all_fail(
    tmp_path: Path, seed: int, size: int, known: bool
) -> None:
    """Each held chunks that it could not commit yet, and waited for the next: after the deadline all got 503."""
    rng = random.Random(seed)
    bodies = {f"key{i}": rng.randbytes(size) for i in range(30)}

    async def run() -> None:
        async with opened(directories(tmp_path, 1), TIGHT) as store:
            await asyncio.gather(
                *(
                    store.objects.put(BUCKET, key, Arriving(body, known), Md5(), Attributes(), owner="root")
                    for key, body in bodies.items()
                )
            )
            for key, body in bodies.items():
                assert await read(store, key) == body
            assert store.pool.buffers.bytes_used <= TIGHT.buffers_bytes_max

    asyncio.run(run())


def test_downloads_that_read_ahead_do_not_wait_for_one_another_until_all_fail(tmp_path: Path, seed: int) -> None:
    """What was fetched ahead held the memory that the bytes before it needed."""
    body = random.Random(seed).randbytes(20 * 64 * KIB)
    limits = replace(TIGHT, frame_size=64 * KIB, chunk_size=256 * KIB)

    async def run() -> None:
        async with opened(directories(tmp_path, 1), limits) as store:
            await store.objects.put(BUCKET, "key", Body(body), Md5(), Attributes(), owner="root")

            async def download() -> None:
                reader = store.objects.open(BUCKET, "key")
                got = bytearray()
                try:
                    async for piece in reader.read():
                        got += piece
                        del piece
                        await asyncio.sleep(0)  # it is sent, and the client takes its time
                finally:
                    reader.close()
                assert got == body

            await asyncio.gather(*(download() for _ in range(60)))

    asyncio.run(run())
