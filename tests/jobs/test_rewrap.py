"""A rotated key: seals come under its newest version, nothing sealed is ever lost, and old versions go last."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_rig import BUCKET, SMALL, Body, Contents, Md5, Stop, Turned, directories, fsck, opened, operate, read, wipe

from ostraka.chunks.keyring import DEFAULT, GATES, Keyring, id_key
from ostraka.chunks.rows import CHUNKS, PACKS, decode_chunk, decode_pack
from ostraka.chunks.sealing import key_of
from ostraka.errors import Unavailable
from ostraka.host import Host
from ostraka.jobs.compact import Compact
from ostraka.jobs.damage import DamageJournal
from ostraka.jobs.ground import Budget
from ostraka.jobs.heal import Heal
from ostraka.jobs.records import REWRAP_KEY
from ostraka.jobs.rewrap import Rewrap
from ostraka.objects import rows
from ostraka.objects.types import Attributes, CustomerKey
from ostraka.state import Delete, Mutation, Put, prefix_end
from ostraka.store.store import Store

MASTER, NEW = b"m" * 32, b"n" * 32
AT_ONCE = replace(SMALL, key_retire_seconds=0.0)


def budget(store: Store, rows_: int = 10_000) -> Budget:
    return Budget(store.host.clock, 60.0, rows_)


async def rewrapped(store: Store) -> None:
    job = Rewrap(store)
    while (await job.run_once(budget(store))).more:
        pass


def seals(store: Store) -> Iterator[bytes]:
    for _, value in store.state.scan(CHUNKS, prefix_end(CHUNKS), 1000):
        yield decode_chunk(value).seal or b""
    for _, value in store.state.scan(PACKS, prefix_end(PACKS), 1000):
        yield decode_pack(value).seal or b""
    for _, value in store.state.scan(rows.VERSION, prefix_end(rows.VERSION), 1000):
        seal = rows.version_of(value).seal
        if seal is not None:
            yield seal


def versions(store: Store) -> set[int]:
    return {key_of(seal)[1] for seal in seals(store)}


async def test_after_a_rotation_every_seal_is_wrapped_anew_and_no_data_is_written(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 3)
    async with opened(paths, AT_ONCE, masters=[MASTER]) as store:
        await contents.fill(store, 3)
        assert versions(store) == {1}
        written = store.pool.counters.writes
        for round_ in range(2):
            answer = await operate(store, "key-rotate", name=DEFAULT)
            assert (answer["version"], answer["older_versions"]) == (round_ + 2, 1)
            await contents.check(store)
            await rewrapped(store)
            assert versions(store) == {round_ + 2}
            assert [v.number for v in store.keyring.find(DEFAULT).row.versions] == [round_ + 2]
            assert len(store.state.scan(GATES, prefix_end(GATES), 10)) == 1
            assert store.state.get(REWRAP_KEY) is None
        assert store.pool.counters.writes == written
        await contents.check(store)
    async with opened(paths, AT_ONCE, masters=[MASTER]) as store:  # with nothing in memory
        await contents.check(store)
        await contents.put(store, "more", 20_000)
        assert versions(store) == {3}
        assert not (await fsck(store))["findings"]


async def test_an_old_version_stays_for_what_was_begun_before_and_closes_before_it_goes(
    tmp_path: Path, seed: int
) -> None:
    clock = Turned()
    async with opened(directories(tmp_path, 1), masters=[MASTER], host=Host(clock=clock)) as store:
        old = store.keyring.domain()
        await store.keyring.rotate(DEFAULT)
        await rewrapped(store)
        assert len(store.keyring.find(DEFAULT).row.versions) == 2, "writes may still be under way"

        slow = Waiting(b"x" * 100_000)
        late = asyncio.ensure_future(put(store, "late", slow, old, store))
        await slow.begun.wait()
        clock.now += store.limits.key_retire_seconds + 1
        await rewrapped(store)
        assert len(store.keyring.find(DEFAULT).row.versions) == 1
        slow.go.set()
        with pytest.raises(Unavailable, match="rotated") as refused:
            await late
        assert refused.value.reason == "key"
        for size in (100, 3000, 20_000):
            with pytest.raises(Unavailable, match="rotated"):
                await put(store, "late", Body(b"y" * size), old, store)
        await store.objects.settle()
        await store.chunks.settled()
        assert not list(seals(store))
        await put(store, "late", Body(b"z" * 20_000), None, store)
        assert versions(store) == {2}
        assert not (await fsck(store))["findings"]


class Waiting(Body):
    """A body whose last bytes come when the test says so."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    def read_now(self) -> None:
        return None

    async def read_into(self, view: memoryview) -> int:
        if len(self._left) < 30_000:
            self.begun.set()
            await self.go.wait()
        return await super().read_into(view[:10_000])


async def put(store: Store, key: str, body: Body, domain: object, at: Store) -> None:
    """A put that took its key from the keyring when ``domain`` was current."""
    keyring = store.keyring
    if domain is not None:
        known = keyring.domain
        keyring.domain = lambda name=DEFAULT: domain  # type: ignore[method-assign,assignment,return-value]
    try:
        work = asyncio.ensure_future(at.objects.put(BUCKET, key, body, Md5(), Attributes(), owner="root"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    finally:
        if domain is not None:
            keyring.domain = known  # type: ignore[method-assign]
    await work


async def test_it_goes_on_where_it_was_stopped_at_any_commit_while_others_write(tmp_path: Path, seed: int) -> None:
    contents, dice = Contents(seed), random.Random(seed)
    paths = directories(tmp_path, 1)
    async with opened(paths, AT_ONCE, masters=[MASTER]) as store:
        await contents.fill(store, 4)
        await store.keyring.rotate(DEFAULT)
    stops = 0
    for attempt in range(60):
        async with opened(paths, AT_ONCE, masters=[MASTER]) as store:
            left = [dice.randrange(1, 5)]
            commit, commit_many = store.state.commit, store.state.commit_many

            async def one(mutation, commit=commit, left=left):  # type: ignore[no-untyped-def]
                left[0] -= 1
                if not left[0]:
                    raise Stop
                return await commit(mutation)

            async def many(mutations, commit_many=commit_many, left=left):  # type: ignore[no-untyped-def]
                left[0] -= 1
                done = await commit_many(mutations[: dice.randrange(len(mutations) + 1)] if not left[0] else mutations)
                if not left[0]:
                    raise Stop
                return done

            job = Rewrap(store)
            store.state.commit, store.state.commit_many = one, many  # type: ignore[method-assign,assignment]
            try:
                while (await job.run_once(budget(store))).more:
                    pass
            except Stop:
                stops += 1
            store.state.commit, store.state.commit_many = commit, commit_many  # type: ignore[method-assign]
            await contents.put(store, f"new{attempt % 5}", dice.choice((100, 3000, 20_000)))
            if len(store.keyring.find(DEFAULT).row.versions) == 1:
                break
    else:
        raise AssertionError("it never came to its end")
    assert stops > 1
    async with opened(paths, AT_ONCE, masters=[MASTER]) as store:
        await rewrapped(store)
        assert versions(store) == {2}
        await contents.check(store)
        assert not (await fsck(store))["findings"]


async def test_a_row_that_cannot_be_read_keeps_the_old_version(tmp_path: Path, seed: int) -> None:
    async with opened(directories(tmp_path, 1), AT_ONCE, masters=[MASTER]) as store:
        contents = Contents(seed)
        await contents.put(store, "k", 20_000)
        ((key, value),) = store.state.scan(CHUNKS, prefix_end(CHUNKS), 2)
        await store.state.commit(Mutation((), [Put(key, b"\xc1")]))
        await store.keyring.rotate(DEFAULT)
        await rewrapped(store)
        assert len(store.keyring.find(DEFAULT).row.versions) == 2
        await store.state.commit(Mutation((), [Put(key, value)]))
        await contents.check(store)
        await rewrapped(store)
        assert versions(store) == {2}
        await contents.check(store)


async def test_fsck_finds_a_seal_of_a_key_that_is_gone(tmp_path: Path, seed: int) -> None:
    async with opened(directories(tmp_path, 1), AT_ONCE, masters=[MASTER]) as store:
        for size in (100, 3000, 20_000):
            await Contents(seed).put(store, f"k{size}", size)
        customer = CustomerKey(b"c" * 32)
        body, attributes = Body(b"x" * 20_000), Attributes()
        await store.objects.put(BUCKET, "theirs", body, Md5(), attributes, owner="root", customer=customer)
        assert not (await fsck(store))["findings"]
        key = store.keyring.find(DEFAULT)
        await store.state.commit(Mutation((), [Delete(id_key(key.id))]))
        found = (await fsck(store))["findings"]
        assert [f["kind"] for f in found] == ["row"] * 3
        assert all("a key that the store does not have" in f["what"] for f in found)


async def test_without_the_master_key_it_waits_and_all_else_is_done(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)
    async with opened(paths, AT_ONCE, masters=[MASTER], ec=(2, 2)) as store:
        await contents.fill(store, 3)
        await store.keyring.rotate(DEFAULT)
    wipe(paths[3])
    paths[3] = tmp_path / "another"
    async with opened(paths[:3], AT_ONCE) as store:  # no master key: heal, collect, compact, fsck
        progress = await Rewrap(store).run_once(budget(store))
        assert "OSTRAKA_MASTER_KEY" in progress.note
        assert not progress.more
        await operate(store, "disk-replace", new=str(paths[3]))
        heal = Heal(store)
        while (await heal.run_once(budget(store))).more:
            pass
        for key in list(contents.keys)[::2]:
            await contents.delete(store, key)
        collector = store.objects.collector(lambda incarnation: incarnation in store.live_incarnations())
        while await collector.collect(1000):
            pass
        compact = Compact(store, DamageJournal(store.state).owner)
        while (await compact.run_once(budget(store))).more:
            pass
        assert not (await fsck(store))["findings"]
        for key in contents.keys:
            if contents.keys[key][1]:
                with pytest.raises(Unavailable, match="OSTRAKA_MASTER_KEY"):
                    await read(store, key)
    async with opened(paths, AT_ONCE, masters=[NEW, MASTER]) as store:
        await contents.check(store)
        await rewrapped(store)
        assert versions(store) == {2}
    async with opened(paths, AT_ONCE, masters=[NEW]) as store:
        await contents.check(store)
        assert isinstance(store.keyring, Keyring)
