"""Every shard is verified within the period: damage and loss that nobody has met are found, journaled and healed."""

import random
from dataclasses import replace
from pathlib import Path

from store_rig import SMALL, Contents, Turned, directories, flip, fsck, opened, operate

from ostraka.chunks.rows import CHUNKS, PACKS
from ostraka.errors import OstrakaError
from ostraka.host import Host
from ostraka.jobs.ground import Budget, Progress
from ostraka.jobs.heal import Heal
from ostraka.jobs.records import HURT, SCRUB_KEY, ScrubRecord, decode
from ostraka.jobs.scrub import Scrub
from ostraka.jobs.stripes import read_named
from ostraka.limits import KIB
from ostraka.pools.types import Stripe
from ostraka.segments.format import segment_name
from ostraka.state import prefix_end, rows_under
from ostraka.store.store import Store

ALONE = replace(SMALL, state_scrub_seconds=10**9, segment_size_max=64 * KIB)


def stripes(store: Store) -> list[Stripe]:
    return [read_named(key, value).stripe for table in (CHUNKS, PACKS) for key, value in rows_under(store.state, table)]


def file_of(store: Store, stripe: Stripe, index: int) -> tuple[Path, int]:
    """The segment's file, and where the shard's data is in it."""
    disk = store.disks[stripe.disks[index]]
    extent = disk.index.get(stripe.write_id, index)
    assert extent is not None
    return disk.directory / segment_name(extent.segment), extent.offset + extent.header.data_offset


def closed_file(store: Store) -> tuple[Path, int]:
    """A segment that nobody appends to, and its disk: what is repaired would go into the file that is gone."""
    for stripe in stripes(store):
        for index, disk in enumerate(stripe.disks):
            path, _ = file_of(store, stripe, index)
            if path.name != max(other.name for other in path.parent.glob("*.segment")):
                return path, disk
    raise AssertionError("every shard is in an open segment")


def budget(store: Store, seconds: float = 60.0) -> Budget:
    return Budget(store.host.clock, seconds, 10_000)


async def scrub_all(store: Store) -> Scrub:
    """As an operator has it done."""
    scrub = Scrub(store)
    await scrub.begin()
    while (await scrub.run_once(budget(store))).under_way:
        pass
    scrub.close()
    return scrub


def hurt(store: Store) -> int:
    return len(store.state.scan(HURT, prefix_end(HURT), 1000))


async def heal_all(store: Store) -> int:
    mended = 0

    def count(named: object, result: object) -> None:
        nonlocal mended
        mended += getattr(result, "rebuilt", False)

    heal = Heal(store, count)
    while (await heal.run_once(budget(store))).more:
        pass
    return mended


async def test_flipped_bits_in_many_shards_are_all_found_and_all_healed(tmp_path: Path, seed: int) -> None:
    contents, rng = Contents(seed), random.Random(seed)
    async with opened(directories(tmp_path, 6), ALONE) as store:
        await contents.fill(store, 4)
        assert (await scrub_all(store)).damaged == 0
        hit = 0
        for stripe in stripes(store):
            for index in rng.sample(range(6), rng.randrange(3)):  # none, one or two: what 4+2 can bear
                path, at = file_of(store, stripe, index)
                flip(path, at + rng.randrange(stripe.shard_size))
                hit += 1
        assert hit > 10
        scrub = await scrub_all(store)
        assert (scrub.damaged, scrub.missing) == (hit, 0)
        assert 0 < hurt(store) <= hit
        assert await heal_all(store) > 0
        assert hurt(store) == 0
        assert not (await fsck(store))["findings"]
        assert (await scrub_all(store)).damaged == 0
        await contents.check(store)


async def test_a_file_of_shards_that_is_gone_is_missed(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 4), ALONE) as store:
        await contents.fill(store, 3)
        lost, number = closed_file(store)
        there = sum(
            extent is not None and segment_name(extent.segment) == lost.name
            for stripe in stripes(store)
            for index, disk in enumerate(stripe.disks)
            if disk == number and (extent := store.disks[disk].index.get(stripe.write_id, index)) is not None
        )
        store.disks[number].descriptors.close()
        lost.unlink()
        scrub = await scrub_all(store)
        assert (scrub.damaged, scrub.missing) == (0, there)
        await heal_all(store)
        assert not (await fsck(store))["findings"]
        await contents.check(store)


async def test_a_shard_that_the_index_of_its_disk_has_lost_with_its_bytes_is_missed(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 4), ALONE) as store:
        await contents.put(store, "k", 20_000)
        (stripe,) = stripes(store)
        path, at = file_of(store, stripe, 1)
        store.disks[stripe.disks[1]].release([(stripe.write_id, 1)])
        for offset in range(-96, 0, 8):  # and its record cannot be found on the disk either
            flip(path, at + offset)
        scrub = await scrub_all(store)
        assert (scrub.damaged, scrub.missing) == (0, 1)
        await heal_all(store)
        assert not (await fsck(store))["findings"]


async def test_a_torn_header_in_a_tail_without_a_footer_hides_nothing(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)
    async with opened(paths, ALONE) as store:
        await contents.put(store, "k", 20_000)
        (stripe,) = stripes(store)
        path, at = file_of(store, stripe, 2)
    path.write_bytes(path.read_bytes()[: at + stripe.shard_size])  # as a kill leaves it: no footer
    async with opened(paths, ALONE) as store:
        flip(path, at - 60)
        scrub = await scrub_all(store)
        assert scrub.damaged + scrub.missing == 1
        await heal_all(store)
        assert not (await fsck(store))["findings"]


async def test_dead_bytes_are_nobodys_damage(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 2), ALONE) as store:
        await contents.put(store, "k", 20_000)
        (stripe,) = stripes(store)
        path, at = file_of(store, stripe, 0)
        await contents.delete(store, "k")
        for _ in range(5):
            await operate(store, "job-run", name="collect")
        assert not stripes(store)
        flip(path, at)
        scrub = await scrub_all(store)
        assert (scrub.damaged, scrub.missing, hurt(store)) == (0, 0, 0)


def record(store: Store) -> ScrubRecord:
    value = store.state.get(SCRUB_KEY)
    assert value is not None
    found = decode(SCRUB_KEY, value)
    assert isinstance(found, ScrubRecord)
    return found


async def test_each_disk_is_read_once_a_period_at_its_pace_and_goes_on_where_it_was(tmp_path: Path, seed: int) -> None:
    contents, turned = Contents(seed), Turned()
    host = Host(clock=turned)
    paths = directories(tmp_path, 3)
    limits = replace(
        ALONE,
        scrub_seconds=10_000.0,
        scrub_first_seconds=100.0,
        scrub_bytes_per_second=200,
        jobs_piece_seconds=1e9,
    )
    read = 0
    async with opened(paths, limits, host=host) as store:
        await contents.fill(store, 4)
        scrub = Scrub(store)
        progress = await scrub.run_once(budget(store))
        assert (progress.bytes, progress.again_in, progress.under_way) == (0, 100.0, False)
        turned.now += 101
        progress = await scrub.run_once(budget(store))  # a block of each, and then it rests
        assert progress.under_way
        assert not progress.more
        assert progress.bytes > 0
        assert progress.again_in is not None
        assert progress.again_in > 10
        read += progress.bytes
        turned.now += 10
        rested = await scrub.run_once(budget(store))
        assert rested.bytes == 0
        turned.now += rested.again_in or 0
        read += await until_rest(store, scrub, turned, pieces=3)
        before = record(store)
        assert any(disk.segment for disk in before.disks)
        total = progress.total or 0
        scrub.close()
    async with opened(paths, limits, host=host) as store:
        scrub = Scrub(store)
        read += await until_rest(store, scrub, turned, pieces=10_000)
        after = record(store)
        assert {disk.disk: disk.since for disk in after.disks} == {disk.disk: disk.began for disk in before.disks}
        assert after.rows.since > 0
        longest = max(path.stat().st_size for d in paths for path in (d / "segments").iterdir())
        assert total <= read + 4096 * 100
        assert read <= total + 3 * longest + 4096 * 100  # at most a segment of each disk is read again
        turned.now += 100
        progress = await scrub.run_once(budget(store))
        assert (progress.under_way, progress.bytes) == (False, 0)
        scrub.close()


async def until_rest(store: Store, scrub: Scrub, turned: Turned, *, pieces: int) -> int:
    """Bytes read in so many pieces, or until the pass is at its end."""
    read = 0
    for _ in range(pieces):
        progress: Progress = await scrub.run_once(budget(store))
        read += progress.bytes
        if not progress.under_way:
            break
        turned.now += progress.again_in or 0
    return read


async def test_a_scrub_that_an_operator_began_can_be_cancelled_and_that_by_period_cannot(
    tmp_path: Path, seed: int
) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 3), ALONE) as store:
        await contents.fill(store, 1)
        scrub = Scrub(store)
        await scrub.begin()
        await scrub._walk_on()
        assert "ended" in await scrub.cancel()
        assert not (await scrub.run_once(budget(store))).under_way
        try:
            await scrub.cancel()
        except OstrakaError as error:
            assert error.reason == "always"
        else:
            raise AssertionError("nobody began it")
        scrub.close()


async def test_a_disk_that_cannot_be_read_is_no_damage_and_is_asked_again_later(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 4), ALONE) as store:
        await contents.fill(store, 1)
        disk = store.disks[1]
        away = disk.directory.with_name("away")
        disk.descriptors.close()
        disk.directory.rename(away)
        scrub = Scrub(store)
        await scrub.begin()
        for _ in range(20):
            progress = await scrub.run_once(budget(store))
        assert progress.under_way
        assert hurt(store) == 0
        away.rename(disk.directory)
        scrub._not_before.clear()
        while (await scrub.run_once(budget(store))).under_way:
            pass
        assert (scrub.damaged, scrub.missing) == (0, 0)
        scrub.close()
