"""What single calls promise: ids, conditions, replays, limits, buckets, and rows as the format page shows them."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from objects_rig import SMALL, Body, Md5, Rig, assemble, md5

from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Absent, Exists, Invalid, PreconditionFailed, TooLarge
from ostraka.objects import rows
from ostraka.objects.identity import Identity
from ostraka.objects.types import Attributes, CompletePart, DeleteMarker, Replay, WriteConditions

CREATE = WriteConditions(if_none_match=True)


@given(st.lists(st.binary(max_size=6), max_size=12), st.binary(max_size=3))
def test_escaped_keys_sort_and_begin_as_plain_ones(keys: list[bytes], prefix: bytes) -> None:
    assert [rows.unescape(e) for e in sorted(map(rows.escape, keys))] == sorted(keys)
    ended = sorted(rows.escape(key) + b"\x00" for key in keys)
    assert [rows.unescape(e[:-1]) for e in ended] == sorted(keys)
    for key in keys:
        assert rows.escape(key).startswith(rows.escape(prefix)) == key.startswith(prefix)
        assert b"\x00" not in rows.escape(key)


@given(st.integers(0, 2**64 - 1), st.binary(min_size=8, max_size=8))
def test_version_ids_lead_back_and_tell_nothing(sequence: int, nonce: bytes) -> None:
    identity = Identity(b"s" * 32)
    text = identity.version_id(sequence, nonce)
    assert re.fullmatch("[0-9a-f]{32}", text)
    assert identity.version(text) == (sequence, nonce)
    assert Identity(b"t" * 32).version(text) != (sequence, nonce)
    assert identity.uploads.text(sequence.to_bytes(8, "big") + nonce) != text


async def test_a_version_id_that_was_made_up_is_absent_and_a_malformed_one_invalid() -> None:
    rig = await Rig().start("b")
    await rig.set_versioning("b", "Enabled")
    info = await rig.put("b", "k", b"x")
    other = await rig.put("b", "other", b"x")
    for foreign in ("0" * 32, "f" * 32, other.version_id):
        with pytest.raises(Absent) as absent:
            rig.objects.lookup("b", "k", foreign)
        assert absent.value.reason == "version"
        await rig.objects.delete("b", "k", foreign)
    for malformed in ("", "x", info.version_id.upper() + "0", info.version_id[:-1], "NULL"):
        with pytest.raises(Invalid) as invalid:
            rig.objects.lookup("b", "k", malformed)
        assert invalid.value.reason == "version-id"
    assert rig.objects.lookup("b", "k").version_id == info.version_id


async def test_a_marker_says_its_id_and_whether_it_was_named() -> None:
    rig = await Rig().start("b")
    await rig.set_versioning("b", "Enabled")
    marker = await rig.objects.delete("b", "never was there")
    assert marker.delete_marker
    with pytest.raises(DeleteMarker) as found:
        rig.objects.open("b", "never was there")
    assert (found.value.version_id, found.value.named, found.value.reason) == (
        marker.version_id,
        False,
        "delete-marker",
    )
    with pytest.raises(DeleteMarker) as found:
        rig.objects.open("b", "never was there", marker.version_id)
    assert found.value.named


async def test_the_first_answer_is_given_again_to_the_same_invocation_only() -> None:
    rig = await Rig().start("b")
    replay = Replay("alice", "PutObject", "invocation-1", md5(b"body" * 50))
    first = await rig.put("b", "k", b"body" * 50, conditions=CREATE, replay=replay)
    again = await rig.put("b", "k", b"body" * 50, conditions=CREATE, replay=replay)
    assert (again.etag, again.sequence) == (first.etag, first.sequence)
    for other in (
        replace(replay, body="another"),
        replace(replay, invocation="invocation-2"),
        replace(replay, account="bob"),
    ):
        with pytest.raises(PreconditionFailed):
            await rig.put("b", "k", b"body" * 50, conditions=CREATE, replay=other)
    rig.clock.now += 3 * SMALL.replay_seconds
    assert await rig.collector.collect(100) > 0
    assert rig.rows(b"R") == []
    with pytest.raises(PreconditionFailed):
        await rig.put("b", "k", b"body" * 50, conditions=CREATE, replay=replay)
    await rig.verify_settled()


@pytest.mark.parametrize("versioning", ["", "Enabled"])
async def test_retries_that_overlap_their_first_attempt_get_one_answer(versioning: str) -> None:
    rig = await Rig().start("b")
    if versioning:
        await rig.set_versioning("b", versioning)
    rigs = [rig, await rig.another()]
    for size in (5, 50, 300, 900):
        replay = Replay("alice", "PutObject", f"invocation-{size}", str(size))
        infos = await asyncio.gather(
            *(
                rigs[n % 2].put("b", f"k{size}", b"r" * size, conditions=CREATE, replay=replay, known=n % 3 > 0)
                for n in range(8)
            )
        )
        assert len({info.sequence for info in infos}) == 1
        assert len(rig.objects.list_versions("b", f"k{size}", "", "", "", 10).entries) == 1
    await rigs[1].objects.settle()
    await rig.verify_settled()


async def test_no_more_replays_are_kept_than_the_limit() -> None:
    rig = await Rig(replace(SMALL, replay_rows_max=5)).start("b")
    for n in range(20):
        await rig.put("b", f"k{n}", b"x", conditions=CREATE, replay=Replay("a", "PutObject", str(n), "x"))
    assert len(rig.rows(b"R")) == 5


async def test_if_match_on_nothing_is_absent() -> None:
    rig = await Rig().start("b")
    with pytest.raises(Absent) as absent:
        await rig.put("b", "k", b"x", conditions=WriteConditions(if_match=("*",)))
    assert absent.value.reason == "key"


async def test_keys_and_metadata_have_limits() -> None:
    rig = await Rig().start("b")
    await rig.put("b", "é" * 512, b"x")
    for key, reason in (("é" * 512 + "a", "key-too-long"), ("", "key"), ("\ud800", "key")):
        with pytest.raises(Invalid) as invalid:
            await rig.put("b", key, b"x")
        assert invalid.value.reason == reason
    with pytest.raises(TooLarge):
        await rig.put("b", "k", b"x", attributes=Attributes(metadata={"a": "b" * 2048}))
    nulls = "\x00" * 1024  # the longest row there is
    await rig.put("b", nulls, b"x" * 100)
    assert await rig.get("b", nulls) == b"x" * 100
    assert set(rig.keys("b")) == {"é" * 512, nulls}


async def test_buckets_know_their_owner_and_what_may_change() -> None:
    rig = await Rig().start("b")
    with pytest.raises(Exists) as owned:
        await rig.objects.create_bucket("b", "alice", "us-east-1")
    with pytest.raises(Exists) as taken:
        await rig.objects.create_bucket("b", "bob", "us-east-1")
    assert (owned.value.reason, taken.value.reason) == ("bucket-owned", "bucket-taken")
    await rig.objects.create_bucket("c", "bob", "eu-west-1")
    assert [bucket.name for bucket in rig.objects.list_buckets("alice", "", "", 10)[0]] == ["b"]
    assert rig.objects.list_buckets(None, "", "", 1)[1]
    with pytest.raises(Invalid):
        await rig.objects.update_bucket("b", lambda bucket: replace(bucket, owner="bob"))
    await rig.set_versioning("b", "Suspended")
    with pytest.raises(Invalid):
        await rig.set_versioning("b", "")
    await asyncio.gather(
        *(
            rig.objects.update_bucket(
                "b", lambda bucket, n=n: replace(bucket, settings={**bucket.settings, str(n): b"x"})
            )
            for n in range(20)
        )
    )
    assert len(rig.objects.bucket("b").settings) == 20


async def test_a_bucket_that_goes_takes_its_uploads_along() -> None:
    rig = await Rig().start("b")
    for n in range(20):
        upload = (await rig.objects.create_upload("b", f"k{n}", Attributes(), owner="alice")).upload_id
        await rig.objects.put_part("b", f"k{n}", upload, 1, Body(b"x" * 300), Md5())
    await rig.objects.delete_bucket("b")
    rig.verify()
    await rig.objects.create_bucket("b", "alice", "us-east-1")
    assert rig.objects.list_uploads("b", "", "", "", "", 100).entries == []
    await rig.verify_settled()
    assert rig.rows(b"U") == rig.rows(b"P") == rig.rows(b"M") == []


async def test_complete_refuses_what_does_not_fit() -> None:
    rig = await Rig().start("b")
    upload = (await rig.objects.create_upload("b", "k", Attributes(), owner="alice")).upload_id
    parts = {}
    for number, size in ((1, 100), (2, 5), (3, 100)):
        parts[number] = (await rig.objects.put_part("b", "k", upload, number, Body(bytes([number]) * size), Md5())).etag
    cases: list[tuple[str, list[CompletePart], int | None]] = [
        ("part", [], None),
        ("part", [CompletePart(4, parts[1])], None),
        ("part", [CompletePart(1, parts[3])], None),
        ("part", [CompletePart(1, parts[1], {"CRC32": "AAAA"})], None),
        ("part-order", [CompletePart(3, parts[3]), CompletePart(1, parts[1])], None),
        ("part-order", [CompletePart(1, parts[1]), CompletePart(1, parts[1])], None),
        ("part-small", [CompletePart(n, parts[n]) for n in (1, 2, 3)], None),
        ("size", [CompletePart(1, parts[1])], 99),
    ]
    for reason, asked, size in cases:
        with pytest.raises(Invalid) as invalid:
            await rig.objects.complete_upload("b", "k", upload, asked, assemble, size=size)
        assert invalid.value.reason == reason
    asked = [CompletePart(1, f'"{parts[1]}"'), CompletePart(2, parts[2])]
    info = await rig.objects.complete_upload("b", "k", upload, asked, assemble, size=105)
    assert info.size == 105
    with pytest.raises(Absent):
        await rig.objects.put_part("b", "k", upload, 1, Body(b"late"), Md5())
    await rig.verify_settled()


async def test_a_conditional_complete_that_is_refused_leaves_the_upload() -> None:
    rig = await Rig().start("b")
    await rig.put("b", "k", b"there")
    upload = (await rig.objects.create_upload("b", "k", Attributes(), owner="alice")).upload_id
    part = await rig.objects.put_part("b", "k", upload, 1, Body(b"p" * 200), Md5())
    with pytest.raises(PreconditionFailed):
        await rig.objects.complete_upload("b", "k", upload, [CompletePart(1, part.etag)], assemble, conditions=CREATE)
    assert rig.objects.list_parts("b", "k", upload, 0, 10)[0] == [part]
    await rig.verify_settled()


def test_the_format_page_shows_rows_as_they_are() -> None:
    """Each ``name: hex`` line of the worked example is what the code writes."""
    page = Path(__file__).parents[2] / "docs/format/object-rows.md"
    shown = dict(re.findall(r"^(\w[\w -]*): ((?:[0-9a-f]{2} ?)+)$", page.read_text(), re.MULTILINE))
    tail = rows.tail(bytes(range(8)), b"a\x00b")
    entry = Entry(Kind.SLOT, bytes(16), 0, 100, 7)
    record = rows.VersionRecord(rows.IS_NULL, b"nnnnnnnn", 100, "e1", 1.5, "al", "STANDARD", None, (entry,))
    made = {
        "live key": rows.LIVE + tail,
        "live value": rows.live_record(record) + (9).to_bytes(8, "big"),
        "version key": rows.version_key(tail, 9),
        "version value": rows.encode(record),
        "page key": rows.page_key(b"m" * 16, 4 << 20),
        "page value": rows.encode([Entry(Kind.CHUNK, bytes(32), 0, 1 << 20)]),
        "dead value": rows.encode(rows.DeadRecord((entry,))),
    }
    assert {name: bytes.fromhex(text) for name, text in shown.items()} == made
