"""What grows does not make a page, a commit or the memory grow: listings, parts, manifests."""

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from objects_rig import REAL, SMALL, Body, FaultyState, Md5, Rig, assemble, real_rig

from ostraka.limits import LIMITS
from ostraka.objects import rows
from ostraka.objects.types import Attributes, CompletePart
from ostraka.state import Mutation, stamped_key, stamped_value
from ostraka.state.memory import MemoryState

MILLION = 1_000_000


def fill(rig: Rig, pairs: list[tuple[bytes, bytes]]) -> None:
    """Rows put straight into the state: a million commits would only take time."""
    state: Any = rig.state
    state._rows.update(pairs)
    state._keys = sorted(state._rows)


async def test_a_page_of_a_million_keys_costs_a_page() -> None:
    rig = await Rig(LIMITS).start("b")
    bucket = rig.objects.bucket("b").id.to_bytes(8, "big")
    live = rows.encode(rows.LiveRecord(5, "etag", 1.0, "STANDARD", "alice"))
    under_one = [rows.LIVE + rows.tail(bucket, b"big/%07d" % n) for n in range(MILLION)]
    folders = [rows.LIVE + rows.tail(bucket, b"f%05d/%d" % (n // 3, n % 3)) for n in range(30_000)]
    fill(rig, [(key, stamped_value(live, 1)) for key in under_one + folders])
    page = rig.objects.list("b", "big/", "", "", 1000)
    assert (len(page.entries), page.truncated, page.next) == (1000, True, "big/0000999")
    assert page.rows_read <= 1001
    page = rig.objects.list("b", "", "/", "", 2)
    assert (list(page.prefixes), page.truncated) == (["big/", "f00000/"], True)
    assert page.rows_read <= 40  # a million keys under one prefix are stepped over
    after, seen, read = "", 0, 0
    while True:
        page = rig.objects.list("b", "", "/", after, 1000)
        seen += len(page.prefixes)
        read += page.rows_read
        assert page.rows_read <= 4 * 1000 + 20
        if not page.truncated:
            break
        after = page.next
    assert seen == 10_001
    assert rig.objects.list("b", "big/", "", "big/0999998", 1000).rows_read == 1


async def test_a_million_delete_markers_cost_a_listing_nothing() -> None:
    rig = await Rig(LIMITS).start("b")
    await rig.set_versioning("b", "Enabled")
    bucket = rig.objects.bucket("b").id.to_bytes(8, "big")
    marker = rows.encode(rows.VersionRecord(rows.MARKER, b"n" * 8, 0, "", 1.0, "alice", "", b""))
    tails = [rows.tail(bucket, b"k%07d" % n) for n in range(MILLION)]
    fill(rig, [(stamped_key(rows.VERSION + tail, 5), marker) for tail in tails])
    await rig.put("b", "z", b"the only one")
    page = rig.objects.list("b", "", "", "", 1000)
    assert [entry.key for entry in page.entries] == ["z"]
    assert page.rows_read == 1
    versions = rig.objects.list_versions("b", "", "", "k0500000", "", 10)
    assert versions.rows_read <= 11
    assert versions.entries[0].key == "k0500001"


class Counting(FaultyState):
    """Remembers how large the largest mutation was."""

    operations_max = 0

    async def commit(self, mutation: Mutation) -> Any:
        self.operations_max = max(self.operations_max, len(mutation.operations) + len(mutation.preconditions))
        return await super().commit(mutation)


async def test_ten_thousand_parts_complete_in_bounded_commits() -> None:
    limits = replace(LIMITS, inline_size_max=16, pack_size_max=64, chunk_size=128, part_size_min=1)
    state = Counting(MemoryState(limits))
    rig = await Rig(limits, state).start("b")  # type: ignore[arg-type]
    upload = (await rig.objects.create_upload("b", "k", Attributes(), owner="alice")).upload_id
    asked = []
    for number in range(1, 10_001):
        part = await rig.objects.put_part("b", "k", upload, number, Body(b"%05d" % number, here=True), Md5())
        asked.append(CompletePart(number, part.etag))
    before = state.commits
    info = await rig.objects.complete_upload("b", "k", upload, asked, assemble)
    assert (info.part_count, info.size) == (10_000, 50_000)
    assert state.commits - before == 40  # 39 full pages, and the last with the version
    assert state.operations_max <= 4 * limits.manifest_page_entries_max + 20
    reader = rig.objects.open("b", "k")
    assert await reader.part(10_000) == (49_995, 5)
    assert [part.number for part in (await reader.parts(9_998, 10))[0]] == [9_999, 10_000]
    assert (
        b"".join([bytes(p) async for p in reader.read(25_003, 10)])
        == b"".join(b"%05d" % n for n in range(1, 10_001))[25_003:25_013]
    )
    reader.close()
    await rig.collect_all()
    assert state.operations_max <= 6 * limits.collect_batch_rows_max
    rig.verify()
    assert len(rig.rows(b"P")) == 0
    await rig.objects.delete("b", "k")
    await rig.verify_settled()
    assert rig.rows(b"M") == rig.rows(b"O") == rig.rows(b"G") == rig.rows(b"c") == []


async def test_memory_and_commits_do_not_grow_with_the_body() -> None:
    state = Counting(MemoryState(SMALL))
    rig = await Rig(SMALL, state).start("b")  # type: ignore[arg-type]
    most = 0
    buffer = rig.chunks.buffer

    async def counted(size: int | None = None) -> Any:
        nonlocal most
        got = await buffer(size)
        most = max(most, rig.chunks.buffers_out)
        return got

    rig.chunks.buffer = counted
    body = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(2000))
    for known in (True, False):
        await rig.put("b", "k", body, known=known, piece=100)
        assert await rig.get("b", "k") == body
    # in flight, waiting for an increment, in an increment that is being committed, being filled
    bound = SMALL.chunks_in_flight_max + 2 * SMALL.chunks_per_commit_max + SMALL.slices_embedded_max + 1
    assert most <= bound
    assert state.operations_max <= 60
    await rig.verify_settled()


@pytest.mark.parametrize("size", [0, 1, 64, 65, 1024, 1025, 4096, 4097, 12288, 12289, 50_000])
async def test_over_real_chunks_every_size_is_read_back_and_leaves_nothing(size: int) -> None:
    rig, chunks = await real_rig("b")
    body = hashlib.shake_128(b"%d" % size).digest(size)
    for known in (True, False):
        info = await rig.put("b", "k", body, known=known, piece=1000)
        assert info.size == size
        assert await rig.get("b", "k") == body
        reader = rig.objects.open("b", "k")
        third = size // 3
        assert b"".join([bytes(p) async for p in reader.read(third, third)]) == body[third : 2 * third]
        reader.close()
    copied = await rig.objects.copy(rig.objects.lookup("b", "k"), "b", "copy", Attributes(), owner="alice")
    assert copied.etag == info.etag
    await rig.objects.delete("b", "k")
    await rig.collect_all()
    assert await rig.get("b", "copy") == body
    await rig.objects.delete("b", "copy")
    for _ in range(8):
        rig.clock.now += 100
        await rig.collect_all()
    rig.verify()
    assert rig.state.scan(b"a", None, 1000) == []  # the tables of chunks: not a row is left
    await chunks.close()


async def test_over_real_chunks_parts_and_copied_parts_come_together() -> None:
    rig, chunks = await real_rig("b")
    whole = hashlib.shake_128(b"source").digest(60_000)
    source = await rig.put("b", "source", whole)
    upload = (await rig.objects.create_upload("b", "k", Attributes(), owner="alice")).upload_id
    first = await rig.objects.put_part("b", "k", upload, 1, Body(whole[:5000], piece=900), Md5())
    second = await rig.objects.copy_part("b", "k", upload, 2, source, 3_000, 41_234, Md5())
    assert second.etag == hashlib.md5(whole[3_000:44_234], usedforsecurity=False).hexdigest()
    asked = [CompletePart(1, first.etag), CompletePart(2, second.etag)]
    await asyncio.gather(
        rig.objects.complete_upload("b", "k", upload, asked, assemble), rig.objects.delete("b", "source")
    )
    await rig.collect_all()
    assert await rig.get("b", "k") == whole[:5000] + whole[3_000:44_234]
    rig.verify()
    assert rig.limits is REAL
    await chunks.close()
