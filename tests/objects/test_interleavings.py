"""Every operation, with every other one done in full just before one of its commits: guards are exact or this fails.

The first operation runs in one process; right before its n-th commit is applied, another process does the second from
start to end. Whatever comes out, the tables must agree, counts must be exact, and after collection nothing may be left
over or missing. This finds the missing precondition that chance finds once a year.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from objects_rig import SMALL, WEIGHED, Body, FaultyState, Md5, Rig, assemble

from ostraka.errors import OstrakaError
from ostraka.objects.types import Attributes, CompletePart, DeleteMarker, Replay, WriteConditions
from ostraka.state import Mutation
from ostraka.state.memory import MemoryState

Step = Callable[[Rig, str], Awaitable[Any]]


class Interposed(FaultyState):
    """Runs ``between`` once, just before the n-th commit from now on is applied."""

    between: Callable[[], Awaitable[None]] | None = None
    left = 0

    async def _interpose(self) -> None:
        self.left -= 1
        if self.left == 0 and self.between is not None:
            between, self.between = self.between, None
            await between()

    async def commit(self, mutation: Mutation) -> Any:
        await self._interpose()
        return await self.inner.commit(mutation)

    async def commit_many(self, mutations: Any) -> Any:
        await self._interpose()
        return await self.inner.commit_many(mutations)


def versions(rig: Rig) -> list[Any]:
    return list(rig.objects.list_versions("b", "k", "", "", "", 100).entries)


async def delete_at(rig: Rig, index: int) -> None:
    found = versions(rig)
    if len(found) > index:
        await rig.objects.delete("b", "k", found[index].version_id)


async def copy_somewhere(rig: Rig, key: str) -> None:
    found = [version for version in versions(rig) if not version.delete_marker]
    if found:
        await rig.objects.copy(found[-1], "b", key, Attributes(), owner="alice")


async def copy_part(rig: Rig, upload: str) -> None:
    found = [version for version in versions(rig) if not version.delete_marker]
    if found:
        await rig.objects.copy_part("b", "m", upload, 3, found[-1], 10, found[-1].size - 10, Md5())


async def complete(rig: Rig, upload: str) -> None:
    parts, _ = rig.objects.list_parts("b", "m", upload, 0, 100)
    asked = [CompletePart(part.number, part.etag) for part in parts]
    await rig.objects.complete_upload("b", "m", upload, asked, assemble)


async def tag(rig: Rig, upload: str) -> None:
    for version in versions(rig)[-1:]:
        await rig.objects.update_tags("b", "k", version.version_id, {"a": "b"})


async def put_part_and_collect(rig: Rig, upload: str) -> None:
    await rig.objects.put_part("b", "m", upload, 2, Body(b"new" * 50), Md5())
    await rig.collect_all()


REPLAY = Replay("alice", "PutObject", "one", "one")
CREATE = WriteConditions(if_none_match=True)
STEPS: dict[str, Step] = {
    "put inline": lambda rig, upload: rig.put("b", "k", b"i"),
    "put packed": lambda rig, upload: rig.put("b", "k", b"packed" * 10),
    "put paged": lambda rig, upload: rig.put("b", "k", bytes(range(250)) * 4),
    "create only": lambda rig, upload: rig.put("b", "k", b"create" * 10, conditions=CREATE),
    "delete": lambda rig, upload: rig.objects.delete("b", "k"),
    "delete many": lambda rig, upload: rig.objects.delete_many("b", [("k", None), ("k", "null")]),
    "delete newest": lambda rig, upload: delete_at(rig, 0),
    "delete second": lambda rig, upload: delete_at(rig, 1),
    "delete null": lambda rig, upload: rig.objects.delete("b", "k", "null"),
    "copy away": lambda rig, upload: copy_somewhere(rig, "copy"),
    "copy onto": lambda rig, upload: copy_somewhere(rig, "k"),
    "tag": tag,
    "enable": lambda rig, upload: rig.set_versioning("b", "Enabled"),
    "suspend": lambda rig, upload: rig.set_versioning("b", "Suspended"),
    "put part": lambda rig, upload: rig.objects.put_part("b", "m", upload, 2, Body(b"new" * 50), Md5()),
    "copy part": copy_part,
    "put part, collect": put_part_and_collect,
    "complete": complete,
    "abort": lambda rig, upload: rig.objects.abort_upload("b", "m", upload),
    "collect": lambda rig, upload: rig.collector.collect(3),
}


class Scene:
    """A key with a history, an upload with parts, and work for the collector: made once, played many times."""

    def __init__(self, rig: Rig, upload: str) -> None:
        self._rig = rig
        self.upload = upload

    @classmethod
    async def make(cls, versioning: str, top: str) -> "Scene":
        rig = await Rig(SMALL).start("b")
        if top != "nothing":
            await rig.put("b", "k", b"null from before" * 10)
        if versioning:
            await rig.set_versioning("b", "Enabled")
            if top != "nothing":
                await rig.put("b", "k", b"first" * 100)
                await rig.put("b", "k", b"second" * 30)
            await rig.set_versioning("b", versioning)
        if top == "marker":
            await rig.objects.delete("b", "k")
        upload = (await rig.objects.create_upload("b", "m", Attributes(), owner="alice")).upload_id
        for number in range(1, 7):
            await rig.objects.put_part("b", "m", upload, number, Body(bytes([number]) * 200), Md5())
        # dead rows, of which one shares its chunks and its manifest with what lives on
        big = await rig.put("b", "big", bytes(range(250)) * 4)
        await rig.objects.copy(big, "b", "big2", Attributes(), owner="alice")
        await rig.objects.delete("b", "big")
        return cls(rig, upload)

    async def play(self) -> tuple[Rig, Rig, Interposed]:
        """Two processes on a copy of it, and the state of the first."""
        made, inner = self._rig, MemoryState(SMALL, WEIGHED)
        inner._rows, inner._keys, inner._sequence = dict(made.state._rows), list(made.state._keys), made.state.sequence
        beside = await Rig(SMALL, inner).start()
        beside.chunks.bodies.update(made.chunks.bodies)
        state = Interposed(inner)
        rig = Rig(SMALL, state, beside.chunks, beside.clock, beside.objects.core.pins)  # type: ignore[arg-type]
        return await rig.start(), beside, state


SETTINGS = [
    ("", "object"),
    ("Enabled", "object"),
    ("Enabled", "marker"),
    ("Suspended", "object"),
    ("Suspended", "marker"),
]


@pytest.mark.parametrize(("versioning", "top"), SETTINGS)
async def test_any_operation_within_any_other_keeps_every_count(versioning: str, top: str) -> None:
    scene = await Scene.make(versioning, top)
    for first_name, first in STEPS.items():
        for second_name, second in STEPS.items():
            for at in range(1, 10):
                rig, beside, state = await scene.play()
                reached = await interleave(rig, beside, state, scene.upload, first, second, at)
                what = f"{second_name!r} before commit {at} of {first_name!r}"
                try:
                    beside.verify()
                    await agree(beside)
                    if at == 1 or first_name in ("put paged", "complete", "collect"):
                        await rig.objects.settle()
                        await beside.verify_settled()
                        await agree(beside)
                except AssertionError as error:
                    raise AssertionError(what) from error
                if not reached:
                    break


async def interleave(rig: Rig, beside: Rig, state: Interposed, upload: str, first: Step, second: Step, at: int) -> bool:
    """Run second within first; whether first had so many commits."""

    async def between() -> None:
        try:
            await second(beside, upload)
        except OstrakaError:
            pass

    state.left, state.between = at, between
    try:
        await first(rig, upload)
    except OstrakaError:
        pass
    reached = state.between is None
    state.between = None
    return reached


async def agree(rig: Rig) -> None:
    """What is listed is readable, and the other way round."""
    for version in rig.objects.list_versions("b", "", "", "", "", 1000).entries:
        if not version.delete_marker:
            assert len(await rig.get("b", version.key, version.version_id)) == version.size
    for listed in rig.objects.list("b", "", "", "", 1000).entries:
        assert rig.objects.lookup("b", listed.key).etag == listed.etag
    try:
        shown = rig.objects.lookup("b", "k") is not None
    except (DeleteMarker, OstrakaError):
        shown = False
    assert shown == ("k" in rig.keys("b"))


@pytest.mark.parametrize("conditions", [CREATE, WriteConditions()])
@pytest.mark.parametrize("versioning", ["", "Enabled"])
async def test_a_retry_within_its_first_attempt_is_one_write(versioning: str, conditions: WriteConditions) -> None:
    scene = await Scene.make(versioning, "nothing")
    for size in (5, 50, 1000):
        at, reached = 0, True
        while reached:
            at += 1
            rig, beside, state = await scene.play()
            answers: list[Any] = []

            async def attempt(which: Rig, upload: str, size: int = size, answers: list[Any] = answers) -> None:
                answers.append(await which.put("b", "r", b"r" * size, conditions=conditions, replay=REPLAY))

            reached = await interleave(rig, beside, state, "", attempt, attempt, at)
            assert len(answers) == 1 + reached
            assert len({answer.sequence for answer in answers}) == 1
            assert len(beside.objects.list_versions("b", "r", "", "", "", 10).entries) == 1
            await rig.objects.settle()
            await beside.verify_settled()
        assert at > 1


@pytest.mark.parametrize("name", ["put inline", "put paged", "put part", "copy part", "complete", "delete newest"])
async def test_a_process_that_is_declared_dead_between_its_commits_changes_nothing_more(name: str) -> None:
    scene = await Scene.make("Enabled", "object")
    at, reached = 0, True
    while reached:
        at += 1
        rig, beside, state = await scene.play()
        rows_then: list[Any] = []

        async def bury(which: Rig, upload: str, rig: Rig = rig, rows_then: list[Any] = rows_then) -> None:
            which.dead.add(rig.incarnation)
            await which.collect_all()
            rows_then.extend(which.state.scan(b"A", b"Z", 10_000))

        reached = await interleave(rig, beside, state, scene.upload, STEPS[name], bury, at)
        await rig.objects.settle()
        if reached:
            assert beside.state.scan(b"A", b"Z", 10_000) == rows_then
        await beside.verify_settled()
        assert beside.rows(b"I") == []
    assert at > 1


async def test_a_bucket_is_not_deleted_around_a_write() -> None:
    for write in (
        lambda rig: rig.put("b", "k", b"x"),
        lambda rig: rig.objects.create_upload("b", "k", Attributes(), owner="alice"),
        lambda rig: rig.objects.delete("b", "k"),
    ):
        for at in (1, 2, 3):
            for inverted in (False, True):
                inner = MemoryState(SMALL, WEIGHED)
                beside = await Rig(SMALL, inner).start("b")
                await beside.set_versioning("b", "Enabled")
                state = Interposed(inner)
                rig = Rig(SMALL, state, beside.chunks, beside.clock)  # type: ignore[arg-type]
                await rig.start()

                async def writing(which: Rig, upload: str, write: Any = write) -> None:
                    await write(which)

                async def deleting(which: Rig, upload: str) -> None:
                    await which.objects.delete_bucket("b")

                order = (deleting, writing) if inverted else (writing, deleting)
                await interleave(rig, beside, state, "", *order, at)
                beside.verify()
                await beside.verify_settled()
