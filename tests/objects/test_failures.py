"""Failures at every commit, lying bodies, cancellations and crashes: nothing half-visible, lost or leaked."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from objects_rig import SIZES, SMALL, WEIGHED, Body, FaultyState, Md5, Rig, assemble, md5

from ostraka.errors import Absent, Corrupt, OstrakaError, Overloaded, TooLarge, Truncated, Unavailable
from ostraka.objects.check import check, repair
from ostraka.objects.types import Attributes, CompletePart
from ostraka.state import Delete, Mutation, Put
from ostraka.state.memory import MemoryState


async def faulty_rig() -> tuple[Rig, FaultyState]:
    state = FaultyState(MemoryState(SMALL, WEIGHED))
    rig = await Rig(SMALL, state).start("b")  # type: ignore[arg-type]
    return rig, state


async def work(rig: Rig, what: str) -> None:
    """One write of each kind, over what is there."""
    if what == "put":
        await rig.put("b", "k", bytes(range(250)) * 6)
    elif what == "small":
        await rig.put("b", "k", b"n" * 50)
    elif what == "multipart":
        await rig.multipart("b", "k", *(bytes([n]) * 150 for n in range(9)))
    elif what == "copy":
        await rig.objects.copy(rig.objects.lookup("b", "source"), "b", "k", Attributes(), owner="bob")
    elif what == "delete":
        await rig.objects.delete("b", "k")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["put", "small", "multipart", "copy", "delete"])
async def test_a_commit_that_fails_leaves_the_old_or_the_new_and_leaks_nothing(what: str, when: str) -> None:
    at = 0
    while True:
        at += 1
        rig, state = await faulty_rig()
        old = b"old" * 300
        await rig.put("b", "k", old)
        await rig.put("b", "source", b"s" * 1000)
        error = Overloaded("full") if when == "before" else Unavailable("lost")
        state.fail_at[state.commits + at] = (when, error)
        first = state.commits
        try:
            await work(rig, what)
            failed = False
        except OstrakaError:
            failed = True
        if state.commits - first < at:
            break  # no commit is left to fail
        try:
            found: Any = await rig.get("b", "k")
        except Absent:
            found = None
        assert failed
        if when == "before":
            assert found == old
        rig.verify()
        # the process ends; the next one buries it, and all that it left goes
        after = await rig.another()
        after.dead.add(rig.incarnation)
        for upload in after.objects.list_uploads("b", "", "", "", "", 10).entries:
            await after.objects.abort_upload("b", "k", upload.upload_id)
        await after.collect_all()
        await rig.objects.settle()  # the dead one gives its memory back, and can change nothing
        await after.verify_settled()
        assert found is None or await after.get("b", "k") == found
        assert len(after.rows(b"I")) == 0
    assert at > 1


async def test_the_replayed_answer_of_a_complete_whose_answer_was_lost() -> None:
    rig, state = await faulty_rig()
    upload = (await rig.objects.create_upload("b", "k", Attributes(), owner="alice")).upload_id
    part = await rig.objects.put_part("b", "k", upload, 1, Body(b"p" * 200), Md5())
    asked = [CompletePart(1, part.etag)]
    state.fail_at[state.commits + 1] = ("after", Unavailable("lost"))
    with pytest.raises(Unavailable):
        await rig.objects.complete_upload("b", "k", upload, asked, assemble)
    info = await rig.objects.complete_upload("b", "k", upload, asked, assemble)
    assert info.sequence == rig.objects.lookup("b", "k").sequence
    with pytest.raises(Absent):
        await rig.objects.complete_upload("b", "k", upload, [CompletePart(1, "other")], assemble)
    await rig.verify_settled()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("known", [True, False])
async def test_a_wrong_digest_leaves_nothing(size: int, known: bool) -> None:
    rig = await Rig().start("b")
    with pytest.raises(Truncated):
        await rig.put("b", "k", b"x" * size, known=known, digest=Md5("not this"))
    assert rig.keys("b") == []
    await rig.verify_settled()
    assert rig.rows(b"c") == rig.rows(b"M") == []


@pytest.mark.parametrize("size", [10, 60, 100, 500, 1500])
async def test_a_body_shorter_than_declared_leaves_nothing(size: int) -> None:
    rig = await Rig().start("b")
    with pytest.raises(Truncated):
        await rig.put("b", "k", b"x" * size, lie=3)
    assert rig.keys("b") == []
    await rig.verify_settled()


async def test_a_body_longer_than_one_request_may_carry_is_refused_in_the_middle() -> None:
    rig = await Rig(replace(SMALL, put_size_max=1000)).start("b")
    for known in (True, False):
        with pytest.raises(TooLarge):
            await rig.put("b", "k", b"x" * 1001, known=known)
    await rig.verify_settled()
    assert (await rig.put("b", "k", b"x" * 1000, known=False)).size == 1000


class Stalling(Body):
    """A sender that stops after so many bytes, until the end of time."""

    def __init__(self, body: bytes, stop_after: int) -> None:
        super().__init__(body)
        self.reached = asyncio.Event()
        self._rest = stop_after

    async def read_into(self, view: memoryview) -> int:
        if self._rest <= 0:
            self.reached.set()
            await asyncio.Event().wait()
        count = await super().read_into(view)
        self._rest -= count
        return count


@pytest.mark.parametrize("stop_after", [1, 100, 300, 700, 1400])
async def test_a_client_that_leaves_takes_its_bytes_along(stop_after: int) -> None:
    rig = await Rig().start("b")
    await rig.put("b", "k", b"old")
    source = Stalling(b"y" * 1500, stop_after)
    putting = asyncio.ensure_future(rig.objects.put("b", "k", source, Md5(), Attributes(), owner="alice"))
    await source.reached.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await rig.get("b", "k") == b"old"
    await rig.verify_settled()
    assert rig.rows(b"M") == rig.rows(b"I") == rig.rows(b"c") == []


async def test_cancelling_at_any_turn_leaves_all_or_nothing() -> None:
    body = bytes(range(256)) * 5
    for turns in range(0, 120, 3):
        rig = await Rig().start("b")
        putting = asyncio.ensure_future(rig.put("b", "k", body))
        for _ in range(turns):
            await asyncio.sleep(0)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        await rig.objects.settle()
        if rig.keys("b"):
            assert await rig.get("b", "k") == body
        await rig.verify_settled()
        assert rig.rows(b"I") == []


async def test_a_crash_in_the_middle_of_a_body_is_buried_by_the_next_process() -> None:
    rig = await Rig().start("b")
    source = Stalling(b"z" * 1500, 1400)
    putting = asyncio.ensure_future(rig.objects.put("b", "k", source, Md5(), Attributes(), owner="alice"))
    await source.reached.wait()
    assert rig.rows(b"I")  # pages were committed, invisibly
    after = await rig.another()
    await after.collect_all()
    assert after.rows(b"I")  # its process lives
    after.dead.add(rig.incarnation)
    await after.collect_all()
    after.verify()
    assert after.rows(b"I") == after.rows(b"M") == after.rows(b"c") == []
    # and the one that was declared dead, and is not, can change nothing any more
    with pytest.raises(Unavailable) as fenced:
        await rig.put("b", "other", b"x")
    assert fenced.value.reason == "fenced"
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    await rig.objects.settle()
    assert after.keys("b") == []


async def test_a_reader_keeps_what_was_deleted_until_it_closes() -> None:
    rig = await Rig().start("b")
    other = await rig.another()
    for body in (b"s" * 50, b"c" * 300, bytes(range(250)) * 4):
        await rig.put("b", "k", body)
        reader = rig.objects.open("b", "k")
        await other.objects.delete("b", "k")
        for _ in range(20):
            await other.collector.collect(100)
        assert b"".join([bytes(piece) async for piece in reader.read()]) == body
        reader.close()
        reader.close()
        await other.verify_settled()
        assert other.rows(b"c") == []


async def test_a_part_that_is_replaced_dies_and_its_replacement_counts() -> None:
    rig = await Rig().start("b")
    upload = (await rig.objects.create_upload("b", "k", Attributes(), owner="alice")).upload_id
    for body in (b"one" * 100, b"two" * 100):
        part = await rig.objects.put_part("b", "k", upload, 1, Body(body), Md5())
        await rig.verify_settled()
    await rig.objects.complete_upload("b", "k", upload, [CompletePart(1, part.etag)], assemble)
    await rig.verify_settled()
    assert await rig.get("b", "k") == b"two" * 100


async def test_damage_to_derived_rows_is_found_and_mended() -> None:
    rig = await Rig().start("b")
    await rig.set_versioning("b", "Enabled")
    await rig.put("b", "k", b"1" * 200)
    info = await rig.multipart("b", "m", b"2" * 100, b"3" * 100)
    await rig.objects.copy(info, "b", "copy", Attributes(), owner="alice")
    await rig.collect_all()
    rig.verify()
    for table in (b"L", b"G", b"A"):
        for key in rig.rows(table):
            await rig.state.commit(Mutation((), [Delete(key)]))
    await rig.state.commit(Mutation((), [Put(b"T" + rig.rows(b"V")[0][1:-8], b"\0" * 8)]))
    findings = check(rig.state)
    assert {finding.kind for finding in findings} == {"newest", "manifest-count", "gate"}
    assert await repair(rig.state, findings) == len(findings)
    rig.verify()
    assert rig.keys("b") == ["copy", "k", "m"]


async def test_a_manifest_that_lost_a_page_is_corrupt_and_never_short() -> None:
    rig = await Rig().start("b")
    body = bytes(range(250)) * 6
    await rig.put("b", "k", body)
    await rig.state.commit(Mutation((), [Delete(rig.rows(b"M")[-1])]))
    assert [finding.kind for finding in check(rig.state)] == ["manifest-short"]
    with pytest.raises(Corrupt):
        await rig.get("b", "k")
    assert md5(body) == rig.objects.lookup("b", "k").etag
