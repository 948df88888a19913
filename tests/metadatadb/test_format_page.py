"""The worked example of docs/format/metadatadb.md is what the code reads and writes."""

import asyncio
import re
from pathlib import Path

from msgspec import Raw

from ostraka.backends import MemoryBackend
from ostraka.metadatadb import AsyncStore
from ostraka.metadatadb.format import (
    Entry,
    LockLine,
    line_of,
    only_record,
    read_head,
    read_snapshot,
    seal,
    write_snapshot,
)
from ostraka.metadatadb.operations import OPERATIONS, IntExpect, IntSet, ScalarSet, Transaction

PAGE = Path(__file__).parents[2] / "docs" / "format" / "metadatadb.md"
BLOCKS = {
    name: text.encode() for name, text in re.findall(r"`([^`\n]+)`:\n\n```text\n(.*?)```", PAGE.read_text(), re.S)
}
ENTRY, SNAPSHOT = (next(name for name in BLOCKS if name.startswith(kind)) for kind in ("entry", "snapshot"))


def test_what_is_shown_is_what_is_written() -> None:
    entry = only_record("p", BLOCKS[ENTRY], "entry", Entry)
    assert entry.transactions == (Transaction(1700000001000, (IntExpect("turn", 0), IntSet("turn", 1))),)
    assert f"entry-{entry.id}" == ENTRY
    assert seal("entry", [line_of(entry)]) == BLOCKS[ENTRY]
    head = read_head("p", BLOCKS["head"])
    assert head.encode() == BLOCKS["head"]
    older, newer = head.entries("p", 1)
    assert newer == entry
    assert older.transactions[0].ops == (ScalarSet("owner", Raw(b'{"name":"b"}'), 1700000060000),)
    assert head.about.snapshot is not None
    assert (head.about.snapshot.name, head.about.snapshot.size) == (SNAPSHOT, len(BLOCKS[SNAPSHOT]))
    about, state = read_snapshot("p", BLOCKS[SNAPSHOT])
    assert write_snapshot(state, about) == BLOCKS[SNAPSHOT]
    lock = only_record("p", BLOCKS["lock"], "lock", LockLine)
    assert seal("lock", [line_of(lock)]) == BLOCKS["lock"]


def test_a_replica_that_finds_it_says_what_the_page_says() -> None:
    async def main() -> None:
        backend = MemoryBackend()
        for name, data in BLOCKS.items():
            await backend.write(f"metadatadb/example/{name}", data)
        async with AsyncStore(backend) as store:
            namespace = await store.namespace("example")
            assert namespace.int("turn").get() == 1
            assert namespace.int_map("clones").entries() == {"ostraka": 2}
            assert namespace.set("seen", tuple[str, int]).members() == {("ostraka", 7)}
            assert not namespace.scalar("owner").exists()  # it expired in 2023
            assert (namespace.status().sequence, namespace.status().journal) == (3, 0)

    asyncio.run(main())


def test_every_operation_has_the_name_that_the_page_gives_it() -> None:
    for kind in OPERATIONS:
        assert kind.__struct_config__.tag == re.sub(r"\B([A-Z])", r"-\1", kind.__name__).lower()
