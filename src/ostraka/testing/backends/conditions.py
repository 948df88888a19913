"""Cases: writes and deletes that happen only if nobody came between."""

import asyncio

from ostraka.backends import Backend, Capability, DeletesConditionally, WritesConditionally, require
from ostraka.errors import Invalid, PreconditionFailed
from ostraka.testing.backends.case import Case, collector, listed, refused, same, stat_of, together

CASES: list[Case] = []
case = collector(CASES)


@case(Capability.CONDITIONAL)
async def a_condition_holds_or_nothing_happens(backend: Backend) -> None:
    conditional = require(backend, WritesConditionally)
    with refused(PreconditionFailed, "changed", what="a match of what is absent"):
        await conditional.write_if("a", b"0", match="no such etag")
    same(await listed(backend), [], "all there is")
    first = await conditional.write_if("a", b"1", match=None)
    same((await stat_of(backend, "a")).etag, first, "the ETag of what was created")
    with refused(PreconditionFailed, "exists"):
        await conditional.write_if("a", b"2", match=None)
    second = await conditional.write_if("a", b"3", match=first)
    same((await stat_of(backend, "a")).etag, second, "the ETag of what was replaced")
    with refused(PreconditionFailed, "changed", what="an ETag of bytes written before"):
        await conditional.write_if("a", b"4", match=first)
    third = await backend.write("a", b"5")
    with refused(PreconditionFailed, "changed", what="an ETag from before a write without condition"):
        await conditional.write_if("a", b"6", match=second)
    same(await backend.read("a"), b"5", "what is there")
    await backend.delete("a")
    with refused(PreconditionFailed, "changed", what="the ETag of what was deleted"):
        await conditional.write_if("a", b"7", match=third)
    same(await listed(backend), [], "what is left")
    for path in ("", "../a"):
        with refused(Invalid, "path"):
            await conditional.write_if(path, b"", match=None)


@case(Capability.NEW_ETAGS)
async def equal_bytes_that_came_back_are_a_change(backend: Backend) -> None:
    if Capability.CONDITIONAL not in backend.capabilities:
        return
    conditional = require(backend, WritesConditionally)
    first = await backend.write("a", b"equal")
    second = await conditional.write_if("a", b"equal", match=first)
    with refused(PreconditionFailed, "changed", what="an ETag of equal bytes written before"):
        await conditional.write_if("a", b"1", match=first)
    third = await backend.write("a", b"equal")
    with refused(PreconditionFailed, "changed", what="an ETag from before a write without condition"):
        await conditional.write_if("a", b"2", match=second)
    await backend.delete("a")
    await conditional.write_if("a", b"equal", match=None)
    with refused(PreconditionFailed, "changed", what="the ETag of what was deleted and written anew"):
        await conditional.write_if("a", b"3", match=third)
    same(await backend.read("a"), b"equal", "what is there")


@case(Capability.CONDITIONAL, rivals=True)
async def of_many_who_create_one_wins(backend: Backend) -> None:
    conditional = require(backend, WritesConditionally)
    for turn in range(5):
        won: list[int] = []

        async def create(number: int, path: str = f"a/{turn}", won: list[int] = won) -> None:
            try:
                await conditional.write_if(path, b"%d" % number, match=None)
                won.append(number)
            except PreconditionFailed as error:
                same(error.reason, "exists", "the reason")

        await together([lambda n=n: create(n) for n in range(16)])  # type: ignore[misc]
        same(await backend.read(f"a/{turn}"), b"%d" % won[0], "what is there")
        same(len(won), 1, "how many won")


@case(Capability.CONDITIONAL, rivals=True)
async def of_many_who_count_nobody_is_forgotten(backend: Backend) -> None:
    conditional = require(backend, WritesConditionally)
    await backend.write("counter", b"0")

    async def count(times: int) -> None:
        while times:
            data, stat = await backend.read_with_stat("counter")
            try:
                await conditional.write_if("counter", b"%d" % (int(data) + 1), match=stat.etag)
                times -= 1
            except PreconditionFailed:
                await asyncio.sleep(0)

    await together([lambda: count(10) for _ in range(8)])
    same(await backend.read("counter"), b"80", "the sum")


@case(Capability.CONDITIONAL_DELETE)
async def what_was_changed_is_not_deleted(backend: Backend) -> None:
    conditional = require(backend, DeletesConditionally)
    await conditional.delete_if("a", match="no such etag")
    old = await backend.write("a", b"old")
    new = await backend.write("a", b"new")
    with refused(PreconditionFailed, "changed"):
        await conditional.delete_if("a", match=old)
    same(await backend.read("a"), b"new", "what is there")
    for _ in range(2):
        await conditional.delete_if("a", match=new)
        same(await backend.stat("a"), None, "what was deleted")


@case(Capability.CONDITIONAL_DELETE, rivals=True)
async def of_delete_and_replace_one_wins(backend: Backend) -> None:
    if Capability.CONDITIONAL not in backend.capabilities:
        return
    writes, deletes = require(backend, WritesConditionally), require(backend, DeletesConditionally)
    for turn in range(20):
        etag = await backend.write("a", b"old")
        outcomes = await asyncio.gather(
            writes.write_if("a", b"new", match=etag), deletes.delete_if("a", match=etag), return_exceptions=True
        )
        written, deleted = (not isinstance(o, BaseException) for o in outcomes)
        same((written, deleted).count(True), 1, f"how many won in turn {turn}: {outcomes}")
        same(await backend.exists("a"), written, "whether it is there")
