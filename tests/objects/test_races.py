"""Many writers at once, in one process and in several: one outcome that some order explains, exact counts (law 8)."""

import asyncio
import random

import pytest
from objects_rig import Body, Md5, Rig, assemble, md5

from ostraka.errors import Absent, Exists, OstrakaError, PreconditionFailed
from ostraka.objects.types import Attributes, CompletePart, DeleteMarker, WriteConditions


async def two() -> tuple[Rig, Rig]:
    """Two processes of one store: no lock in common."""
    first = await Rig().start("b")
    return first, await first.another()


@pytest.mark.parametrize("versioning", ["", "Enabled", "Suspended"])
async def test_sixty_four_writers_of_one_key_leave_one_of_their_bodies(versioning: str) -> None:
    rigs = await two()
    if versioning:
        await rigs[0].set_versioning("b", versioning)
    bodies = [bytes([n]) * (10 + 9 * n) for n in range(64)]
    infos = await asyncio.gather(*(rigs[n % 2].put("b", "k", body) for n, body in enumerate(bodies)))
    last = max(infos, key=lambda info: info.sequence)
    assert await rigs[0].get("b", "k") == bodies[infos.index(last)]
    versions = rigs[0].objects.list_versions("b", "", "", "", "", 1000).entries
    assert len(versions) == (64 if versioning == "Enabled" else 1)
    await rigs[1].verify_settled()


async def test_a_create_only_race_has_exactly_one_winner() -> None:
    rigs = await two()
    outcomes = await asyncio.gather(
        *(
            rigs[n % 2].put("b", "k", bytes([n]) * 70, conditions=WriteConditions(if_none_match=True))
            for n in range(64)
        ),
        return_exceptions=True,
    )
    winners = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
    assert len(winners) == 1
    assert sum(isinstance(outcome, PreconditionFailed) for outcome in outcomes) == 63
    assert await rigs[0].get("b", "k") == bytes(winners) * 70
    await rigs[0].verify_settled()


async def test_a_chain_of_if_match_updates_loses_none() -> None:
    """A counter kept in an object, incremented by compare-and-set from two processes."""
    rigs = await two()
    await rigs[0].put("b", "k", b"0")

    async def increment(rig: Rig) -> None:
        while True:
            reader = rig.objects.open("b", "k")
            number = int(bytes(reader.read_now(0, reader.info.size) or b""))
            try:
                await rig.put(
                    "b", "k", str(number + 1).encode(), conditions=WriteConditions(if_match=(reader.info.etag,))
                )
                return
            except PreconditionFailed:
                continue

    await asyncio.gather(*(increment(rigs[n % 2]) for n in range(30)))
    assert await rigs[0].get("b", "k") == b"30"


@pytest.mark.parametrize("versioning", ["", "Enabled", "Suspended"])
async def test_puts_deletes_version_deletes_and_listings_at_once_agree_afterwards(
    versioning: str, rng: random.Random
) -> None:
    rigs = await two()
    if versioning:
        await rigs[0].put("b", "a", b"from before versioning")
        await rigs[0].set_versioning("b", versioning)

    async def actor(rig: Rig, rnd: random.Random) -> None:
        for _ in range(40):
            key = rnd.choice("ab")
            action = rnd.randrange(6)
            try:
                if action < 2:
                    await rig.put("b", key, rnd.randbytes(rnd.choice((5, 40, 200, 600))))
                elif action == 2:
                    await rig.objects.delete("b", key)
                elif action == 3:
                    await rig.objects.delete_many("b", [("a", None), ("b", "null"), ("a", None)])
                elif action == 4:
                    versions = rig.objects.list_versions("b", "", "", "", "", 100).entries
                    if versions:
                        version = versions[rnd.randrange(min(3, len(versions)))]
                        await rig.objects.delete("b", version.key, version.version_id)
                else:
                    source = rig.objects.lookup("b", key)
                    await rig.objects.copy(source, "b", rnd.choice("ab"), Attributes(), owner="bob")
            except Absent:
                pass
            for listed in rig.objects.list("b", "", "", "", 10).entries:  # no await in between: one moment
                assert rig.objects.lookup("b", listed.key).etag == listed.etag
            await rig.collector.collect(5)

    await asyncio.gather(*(actor(rigs[n % 2], random.Random(rng.random())) for n in range(8)))
    for key in "ab":
        shown = key in rigs[0].keys("b")
        try:
            body = await rigs[0].get("b", key)
            assert shown
            assert md5(body) == rigs[0].objects.lookup("b", key).etag
        except (Absent, DeleteMarker):
            assert not shown
    await rigs[0].verify_settled()


async def test_two_deletes_of_neighbouring_versions_leave_the_right_one_current() -> None:
    rigs = await two()
    await rigs[0].set_versioning("b", "Enabled")
    for _ in range(20):
        infos = [await rigs[0].put("b", "k", bytes([n])) for n in range(4)]
        order = [(0, infos[3]), (1, infos[2])]
        await asyncio.gather(*(rigs[n].objects.delete("b", "k", info.version_id) for n, info in order))
        assert rigs[0].objects.lookup("b", "k").version_id == infos[1].version_id
        rigs[0].verify()
        await rigs[0].objects.delete("b", "k")
        marker = rigs[0].objects.list_versions("b", "", "", "", "", 1).entries[0]
        # the marker that hides infos[1] goes while another marker comes on top
        await asyncio.gather(rigs[0].objects.delete("b", "k", marker.version_id), rigs[1].objects.delete("b", "k"))
        with pytest.raises(DeleteMarker):
            rigs[0].objects.lookup("b", "k")
        assert rigs[0].keys("b") == []
        rigs[0].verify()


async def test_a_bucket_is_deleted_empty_or_not_at_all() -> None:
    rigs = await two()
    for n in range(30):
        name = f"bucket{n}"
        await rigs[0].objects.create_bucket(name, "alice", "us-east-1")
        outcomes = await asyncio.gather(
            rigs[0].objects.delete_bucket(name),
            rigs[1].put(name, "k", b"x" * (n * 5)),
            return_exceptions=True,
        )
        if outcomes[0] is None:
            assert isinstance(outcomes[1], Absent)
            with pytest.raises(Absent):
                rigs[0].objects.bucket(name)
        else:
            assert isinstance(outcomes[0], Exists)
            assert not isinstance(outcomes[1], BaseException)
            assert rigs[0].keys(name) == ["k"]
        rigs[0].verify()
    await rigs[0].verify_settled()


async def test_versioning_that_is_enabled_while_writers_run_keeps_every_later_version() -> None:
    rigs = await two()
    await rigs[0].put("b", "k", b"null version")
    results = await asyncio.gather(
        *(rigs[n % 2].put("b", "k", bytes([n]) * 100) for n in range(20)), rigs[0].set_versioning("b", "Enabled")
    )
    versions = rigs[0].objects.list_versions("b", "", "", "", "", 100).entries
    named = {info.version_id for info in results if info is not None and info.version_id != "null"}
    assert {version.version_id for version in versions} - {"null"} == named
    assert sum(version.version_id == "null" for version in versions) == 1
    await rigs[0].verify_settled()


async def test_complete_abort_and_new_parts_at_once_end_in_one_way() -> None:
    rigs = await two()
    for _ in range(10):
        upload = (await rigs[0].objects.create_upload("b", "k", Attributes(), owner="alice")).upload_id
        parts = []
        for number in range(1, 10):
            body = bytes([number]) * 30
            part = await rigs[0].objects.put_part("b", "k", upload, number, Body(body), Md5())
            parts.append(CompletePart(number, part.etag))
        outcomes = await asyncio.gather(
            rigs[0].objects.complete_upload("b", "k", upload, parts, assemble),
            rigs[1].objects.complete_upload("b", "k", upload, parts, assemble),
            rigs[0].objects.put_part("b", "k", upload, 10, Body(b"z" * 200), Md5()),
            rigs[1].objects.abort_upload("b", "k", upload),
            rigs[1].collector.collect(10),
            return_exceptions=True,
        )
        assert all(not isinstance(o, BaseException) or isinstance(o, OstrakaError) for o in outcomes), outcomes
        completed = [o for o in outcomes[:2] if not isinstance(o, BaseException)]
        if outcomes[3] is None:
            assert not completed
        else:
            assert len(completed) == 2
            assert len({info.sequence for info in completed}) == 1
            assert len(await rigs[0].get("b", "k")) == 270
        rigs[0].verify()
    await rigs[0].verify_settled()
    assert rigs[0].rows(b"P") == rigs[0].rows(b"U") == rigs[0].rows(b"D") == rigs[0].rows(b"I") == []
