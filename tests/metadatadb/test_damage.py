"""What is damaged or foreign is refused with its name and offset, and is never written over."""

import asyncio
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.metadatadb.test_format_page import BLOCKS, ENTRY, SNAPSHOT

from ostraka.backends import MemoryBackend
from ostraka.errors import Corrupt, OstrakaError, Refused
from ostraka.metadatadb import AsyncStore, Journal, Periodic, Replica
from ostraka.metadatadb.format import (
    Entry,
    HeadLine,
    LockLine,
    line_of,
    only_record,
    read_head,
    read_snapshot,
    seal,
)

READERS: dict[str, Callable[[bytes], Any]] = {
    ENTRY: lambda data: only_record("ns/it", data, "entry", Entry),
    "head": lambda data: read_head("ns/it", data).entries("ns/it", 0),
    SNAPSHOT: lambda data: read_snapshot("ns/it", data),
    "lock": lambda data: only_record("ns/it", data, "lock", LockLine),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_flipped_bit_and_every_cut_is_noticed(name: str) -> None:
    good = BLOCKS[name]
    READERS[name](good)
    for at, bit in itertools.product(range(len(good)), (0, 6)):
        bad = bytearray(good)
        bad[at] ^= 1 << bit
        with pytest.raises(Corrupt) as refused:
            READERS[name](bytes(bad))
        assert re.match(r"ns/it: byte \d+: ", refused.value.message), refused.value.message
    for size in range(len(good)):
        with pytest.raises(Corrupt, match=r"ns/it: byte \d+"):
            READERS[name](good[:size])


def test_damage_in_a_line_is_told_with_the_offset_of_the_line() -> None:
    good = BLOCKS["head"]
    starts = [0, *(m.end() for m in re.finditer(b"\n", good))]
    for start in starts[1:-1]:
        bad = bytearray(good)
        bad[start + 40] ^= 1
        with pytest.raises(Corrupt, match=rf"byte {start}: "):
            read_head("ns/it", bytes(bad))


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[1,2]", b'"x"', b"\x00" * 100, b"ostraka-meta", b"<html>"])
def test_what_another_program_wrote_is_told_apart(data: bytes) -> None:
    with pytest.raises(Corrupt, match=r"ns/it: byte \d+: ") as refused:
        read_head("ns/it", data)
    if data and not data.startswith(b"ostraka"):
        assert refused.value.reason == "foreign"


def test_what_a_newer_version_wrote_is_refused_only_if_it_is_whole() -> None:
    from xxhash import xxh3_128_hexdigest

    first, rest = BLOCKS["head"].split(b"\n", 1)
    with pytest.raises(Corrupt):
        read_head("ns/it", first.replace(b" 1 head", b" 2 head") + b"\n" + rest)
    about = b"ostraka-metadatadb 2 head %d" % len(rest)
    newer = about + b" " + xxh3_128_hexdigest(about + b"\n" + rest).encode() + b"\n" + rest
    with pytest.raises(Refused, match="newer"):
        read_head("ns/it", newer)


def test_what_was_sealed_and_makes_no_sense_is_damage() -> None:
    line = line_of(read_head("p", BLOCKS["head"]).about)
    entries = read_head("p", BLOCKS["head"]).lines
    nowhere = HeadLine(3, "d" * 32, 2, 3, "0" * 16, None)
    for lines in ([], [line], [line, *entries, entries[0]], [entries[0]], [line_of(nowhere), *entries]):
        with pytest.raises(Corrupt):
            read_head("ns/it", seal("head", lines))
    with pytest.raises(Corrupt):
        read_head("ns/it", seal("lock", [line, *entries]))
    with pytest.raises(Corrupt):
        only_record("ns/it", seal("entry", []), "entry", Entry)
    deep = b'{"stamp":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(Corrupt):
        only_record("ns/it", seal("entry", [_line(deep)]), "entry", Entry)


def _line(text: bytes) -> bytes:
    from xxhash import xxh3_64_hexdigest

    return xxh3_64_hexdigest(text).encode() + b" " + text + b"\n"


FOREIGN = [b"", b"{}", b"locked", BLOCKS["head"][:-1], BLOCKS["lock"]]


@pytest.mark.parametrize("kind", [Journal, Periodic])
@pytest.mark.parametrize("data", FOREIGN)
def test_a_foreign_head_is_refused_and_never_written_over(kind: type[Journal] | type[Periodic], data: bytes) -> None:
    async def main() -> None:
        backend = MemoryBackend()
        await backend.write("metadatadb/ns/head", data)
        async with AsyncStore(kind(backend)) as store:
            with pytest.raises(Corrupt, match="metadatadb/ns/head: byte"):
                await store.namespace("ns")
        assert await backend.read("metadatadb/ns/head") == data
        assert [path async for path in backend.list()] == ["metadatadb/ns/head"]

    asyncio.run(main())


def replica_of(kind: type[Journal] | type[Periodic], backend: MemoryBackend) -> Replica:
    return kind(backend, sync_interval=3600.0)


@pytest.mark.parametrize("kind", [Journal, Periodic])
@pytest.mark.parametrize("what", ["head", "entry", "gone", "back"])
def test_damage_that_comes_later_reaches_the_writers_and_is_left_as_it_is(
    kind: type[Journal] | type[Periodic], what: str
) -> None:
    async def main() -> None:
        backend = MemoryBackend()
        store = AsyncStore(replica_of(kind, backend))
        namespace = await store.namespace("ns")
        assert await namespace.int("n").compare_and_set(0, 1)
        old = await backend.read("metadatadb/ns/head")
        assert await namespace.int("n").compare_and_set(1, 2)
        if what == "head":
            await backend.write("metadatadb/ns/head", old[:100])
        elif what == "entry":
            await backend.write(f"metadatadb/ns/{ENTRY}", BLOCKS[ENTRY][:-9])
        elif what == "gone":
            await backend.delete("metadatadb/ns/head")
        else:
            await backend.write("metadatadb/ns/head", old)
        before = [(path, await backend.read(path)) async for path in backend.list()]
        with pytest.raises(OstrakaError) as refused:
            await namespace.flush()
        assert type(refused.value) is (Refused if what == "back" else Corrupt)
        assert "metadatadb/ns/" in refused.value.message
        for write in (namespace.int("n").add, namespace.int("m").set):
            with pytest.raises(type(refused.value)):
                await write(5)
        with pytest.raises(type(refused.value)):
            await namespace.int("n").compare_and_set(2, 3)
        assert namespace.status().error is not None
        assert namespace.int("n").get() == 2, "what was read before can still be read"
        assert before == [(path, await backend.read(path)) async for path in backend.list()]
        await store.close()

    asyncio.run(main())


def test_a_missing_or_damaged_snapshot_is_an_error_and_not_an_empty_namespace() -> None:
    async def main(damage: bytes | None) -> None:
        backend = MemoryBackend()
        for name, data in BLOCKS.items():
            await backend.write(f"metadatadb/ns/{name}", data)
        path = f"metadatadb/ns/{SNAPSHOT}"
        await (backend.delete(path) if damage is None else backend.write(path, damage))
        async with AsyncStore(backend) as store:
            with pytest.raises(Corrupt, match=SNAPSHOT):
                await store.namespace("ns")

    for damage in (None, b"", BLOCKS[SNAPSHOT][:-1], BLOCKS["head"]):
        asyncio.run(main(damage))


def test_a_damaged_lock_is_left_alone_and_nobody_waits_for_it() -> None:
    async def main() -> None:
        backend = MemoryBackend()
        await backend.write("metadatadb/ns/lock", b"locked")
        store = AsyncStore(Periodic(backend, sync_interval=3600.0))
        namespace = await store.namespace("ns")
        scope: Any = namespace._scope
        assert not await scope.sharing._lock.acquire(60.0)
        await namespace.int("n").add(1)
        await namespace.flush()
        await store.close()
        assert await backend.read("metadatadb/ns/lock") == b"locked"

    asyncio.run(main())
