"""Damage that a reader met, and damage that nobody has met yet, are both mended without being asked."""

from dataclasses import replace
from pathlib import Path

import pytest
from store_rig import SMALL, Contents, Turned, directories, flip, fsck, opened, read, wipe

from ostraka.chunks.rows import CHUNKS, decode_chunk
from ostraka.host import Host
from ostraka.jobs.damage import DamageJournal
from ostraka.jobs.ground import Budget
from ostraka.jobs.heal import Heal, pending
from ostraka.jobs.records import HEAL_KEY, HURT, SCRUB_KEY, HealRecord, HurtRow, ScrubRecord, decode, encode, hurt_key
from ostraka.jobs.scrub import Scrub
from ostraka.jobs.stripes import pages, read_named
from ostraka.nodes.keys import NAME
from ostraka.pools.types import Stripe
from ostraka.state import prefix_end
from ostraka.store.store import STATE, Store


def stripes(store: Store) -> list[Stripe]:
    return [decode_chunk(value).stripe for _, value in store.state.scan(CHUNKS, prefix_end(CHUNKS), 1000)]


def damage(store: Store, stripe: Stripe, index: int) -> None:
    """Flip a bit of one shard at rest."""
    disk = store.disks[stripe.disks[index]]
    extent = disk.index.get(stripe.write_id, index)
    assert extent is not None
    name = f"{extent.segment[:16].hex()}-{extent.segment[16:].hex()}.segment"
    flip(disk.directory / name, extent.offset + extent.header.data_offset + 3)


def budget(store: Store, rows: int = 10_000) -> Budget:
    return Budget(store.host.clock, 60.0, rows)


async def test_damage_that_a_read_got_around_is_journaled_and_mended(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)
    async with opened(paths) as store:
        await contents.fill(store, 1)
        for stripe in stripes(store):
            damage(store, stripe, 0)
            damage(store, stripe, 1)
    async with opened(paths) as store:
        journal = DamageJournal(store.state)
        store.pool.on_damage = journal.stripe
        await contents.check(store)
        await journal.close()
        told = store.state.scan(HURT, prefix_end(HURT), 1000)
        assert len(told) == len(stripes(store))
    async with opened(paths) as store:  # the journal outlives the process
        heal = Heal(store)
        while (await heal.run_once(budget(store, 3))).more:
            pass
        assert not store.state.scan(HURT, prefix_end(HURT), 1000)
        assert not (await fsck(store))["findings"]
        await contents.check(store)


async def test_a_chunk_that_cannot_be_mended_is_not_tried_for_ever(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 1)) as store:
        await contents.put(store, "k", 30_000)
        damage(store, stripes(store)[0], 0)
        journal = DamageJournal(store.state)
        key, _ = store.state.scan(CHUNKS, prefix_end(CHUNKS), 1)[0]
        await journal.owner(1, key[-32:])
        outcomes: list[str] = []
        heal = Heal(store, lambda named, result: outcomes.append(result.outcome))
        await heal.run_once(budget(store))
        await heal.run_once(budget(store))
        assert outcomes == ["lost"]
        await contents.put(store, "k", 30_000)  # who uploads again to repair succeeds
        assert await read(store, "k") == contents.body("k")


async def test_a_pass_goes_on_where_it_was_after_a_restart(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)
    async with opened(paths) as store:
        for number in range(30):
            await contents.put(store, f"k{number}", 20_000)
    async with opened(paths[1:]):
        pass
    examined = 0

    def count(*told: object) -> None:
        nonlocal examined
        examined += 1

    turns = 0
    while True:
        async with opened(paths) as store:  # disk 0 is back and stale
            heal = Heal(store, count)
            result = await heal.run_once(budget(store, 8))
            turns += 1
            if not any(d.healing for d in store.membership.epoch.members):
                assert not (await fsck(store))["findings"]
                break
            assert result.more
    assert turns > 3
    assert examined == 30


async def test_of_several_lost_disks_the_most_endangered_stripes_are_healed_first(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 9)
    async with opened(paths, ec=(4, 2)) as store:
        await contents.fill(store, 12)
        membership = store.membership
        with membership.exclusive():
            membership.change([d for d in membership.epoch.members if d.number not in (0, 1)])
        before = {key: read_named(key, value) for page in pages(store.state, b"", 500) for key, value in page}
        dangers = {key: sum(disk in (0, 1) for disk in named.stripe.disks) for key, named in before.items()}
        assert set(dangers.values()) == {0, 1, 2}
        healed: list[int] = []
        progress: list[tuple[int, int | None]] = []
        heal = Heal(store, lambda named, result: healed.append(dangers[named.key]))
        while True:
            step = await heal.run_once(budget(store, 7))
            if not pending(store):
                break
            progress.append((step.done, step.total))
            heal = Heal(store, lambda named, result: healed.append(dangers[named.key]))  # a restart forgets nothing
        assert healed == sorted(healed, reverse=True)
        assert sorted(healed) == sorted(danger for danger in dangers.values() if danger)
        assert [done for done, _ in progress] == sorted(done for done, _ in progress)
        assert {total for _, total in progress} == {2 * len(before)}
        assert not (await fsck(store))["findings"]
        await contents.check(store)


async def test_a_lost_copy_of_the_state_is_made_anew_with_the_keys_beside_it(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 6)
    async with opened(paths) as store:
        await contents.fill(store, 1)
    wipe(paths[0])
    async with opened(paths[1:]) as store:
        assert sum(d.state and d.up for d in store.membership.epoch.members) == 2
        await Heal(store).run_once(budget(store))
        carriers = [d.number for d in store.membership.epoch.members if d.state and d.up]
        assert carriers == [1, 2, 3]
        assert (paths[3] / NAME).read_bytes() == (paths[1] / NAME).read_bytes()
        assert (paths[3] / STATE).is_dir()
        await contents.put(store, "after", 100)
    wipe(paths[1])
    async with opened(paths[2:]) as store:  # two of six are lost, and the copy that was made is enough
        await contents.check(store)


async def test_keys_that_are_damaged_on_one_disk_are_not_what_a_new_copy_gets(tmp_path: Path, seed: int) -> None:
    """They were still JSON, and were copied unseen."""
    contents = Contents(seed)
    paths = directories(tmp_path, 6)
    async with opened(paths) as store:
        await contents.fill(store, 1)
    wipe(paths[0])
    whole = (paths[2] / NAME).read_bytes()
    async with opened(paths[1:]) as store:
        (paths[1] / NAME).write_bytes(whole.replace(b'"root_secret_key": "', b'"root_secret_key": "x'))
        await Heal(store).run_once(budget(store))
        assert (paths[3] / NAME).read_bytes() == whole


@pytest.mark.parametrize("disks", [1, 4])
async def test_the_scrub_finds_damage_of_the_state_within_its_period(tmp_path: Path, seed: int, disks: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, disks)
    turned = Turned()
    limits = replace(SMALL, state_scrub_seconds=3600.0, scrub_seconds=0)
    async with opened(paths, limits, host=Host(clock=turned)) as store:
        await contents.fill(store, 1)
        await store.state.checkpoint()
        scrub = Scrub(store)
        assert (await scrub.run_once(budget(store))).again_in == 3600.0
        snapshot = max((paths[0] / STATE).glob("snapshot-*"), key=lambda p: p.stat().st_size)
        flip(snapshot, snapshot.stat().st_size // 2)
        turned.now += 1800
        await scrub.run_once(budget(store))
        assert not scrub.findings
        turned.now += 1801
        await scrub.run_once(budget(store))
        assert [(f.kind, f.repaired) for f in scrub.findings] == [("state-copy", True)]
        assert not (await fsck(store))["findings"]
        turned.now += 10
        again = Scrub(store)  # the period is counted over restarts
        assert (await again.run_once(budget(store))).again_in == 3600.0  # opening looks at all of it, too


def test_rows_of_jobs_read_back_as_they_were_written() -> None:
    stripe = Stripe(b"w" * 16, 2, 1, 100, 56, (0, 1, 2))
    for key, row in (
        (HEAL_KEY, HealRecord(settled=(3,), healing=((4, 9),), gone=(2,), cursor=b"c\x00", examined=5, left=1)),
        (SCRUB_KEY, ScrubRecord(finished=1.5)),
        (hurt_key(0, b"w" * 16), HurtRow(stripe=stripe)),
        (hurt_key(1, b"i" * 32), HurtRow()),
    ):
        assert decode(key, encode(row)) == row
