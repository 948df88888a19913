"""Deduplication counts only on chunks that are not known to lack shards (ENGINE 16)."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import BUCKET, Body, Contents, Md5, directories, opened, read

from ostraka.chunks.rows import CHUNKS, decode_chunk
from ostraka.objects.types import Attributes
from ostraka.state import prefix_end


def test_the_same_bytes_again_while_a_disk_is_down_are_written_anew_with_all_their_shards(
    tmp_path: Path, seed: int
) -> None:
    """They were acknowledged on a stripe that was known to lack shards: fewer than m more disks might be lost."""
    contents = Contents(seed)

    async def run() -> None:
        async with opened(directories(tmp_path, 6)) as store:
            await contents.put(store, "key", 30_000)
            body = contents.body("key")
            (value,) = (value for _, value in store.state.scan(CHUNKS, prefix_end(CHUNKS), 10))
            before = decode_chunk(value).stripe
            await asyncio.to_thread(store.membership.evict, before.disks[0], "pulled")
            await store.objects.put(BUCKET, "again", Body(body), Md5(), Attributes(), owner="root")
            (value,) = (value for _, value in store.state.scan(CHUNKS, prefix_end(CHUNKS), 10))
            after = decode_chunk(value).stripe
            assert before.disks[0] not in after.disks
            assert (after.m, len(after.disks)) == (2, 5)
            written = store.pool.counters.writes
            await store.objects.put(BUCKET, "once more", Body(body), Md5(), Attributes(), owner="root")
            assert store.pool.counters.writes == written  # that one has all of its shards
            for key in ("key", "again", "once more"):
                assert await read(store, key) == body

    asyncio.run(run())
