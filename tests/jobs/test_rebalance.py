"""A shard moves by one commit, if its row is still the one that was read; who loses that race leaves dead bytes."""

from pathlib import Path
from typing import Any

from store_rig import Contents, directories, fsck, opened, read

from ostraka.jobs.ground import Budget
from ostraka.jobs.rebalance import Rebalance
from ostraka.jobs.stripes import Named, pages, read_named, relocate
from ostraka.pools.types import Stripe
from ostraka.store.store import Store


def the_stripe(store: Store) -> Named:
    (named,) = [read_named(key, value) for page in pages(store.state, b"", 100) for key, value in page]
    return named


def elsewhere(store: Store, stripe: Stripe) -> dict[int, int]:
    """The first shard, to a disk that the stripe does not use."""
    return {0: next(number for number in sorted(store.disks) if number not in stripe.disks)}


async def test_a_row_that_changes_under_a_move_stays_as_it_was_changed(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 5), ec=(2, 1)) as store:
        await contents.put(store, "k", 2000)
        named = the_stripe(store)
        spare = [number for number in sorted(store.disks) if number not in named.stripe.disks]
        move = store.pool.move

        async def overtaken(*arguments: Any) -> Stripe:
            store.pool.move = move  # type: ignore[method-assign]
            new = await move(*arguments)
            assert await relocate(store, named, {1: spare[1]}) is not None
            return new

        store.pool.move = overtaken  # type: ignore[method-assign]
        assert await relocate(store, named, {0: spare[0]}) is None
        after = the_stripe(store)
        assert after.stripe.disks == (named.stripe.disks[0], spare[1], named.stripe.disks[2])
        assert store.disks[spare[0]].index.get(named.stripe.write_id, 0) is None, "what was written there is dead"
        assert await relocate(store, after, {0: spare[0]}) is not None
        assert store.disks[named.stripe.disks[0]].index.get(named.stripe.write_id, 0) is None
        await contents.check(store)
        assert (await fsck(store))["clean"]


async def test_a_reader_that_looked_the_row_up_before_goes_on_from_the_new_place(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 2), ec=(1, 0)) as store:  # no other shard could stand in for the one
        await contents.put(store, "k", 20_000)
        named = the_stripe(store)
        targets = elsewhere(store, named.stripe)
        pool_read = store.pool.read
        moves = 0

        async def moving(stripe: Stripe, offset: int, length: int) -> memoryview:
            nonlocal moves
            if not moves:
                moves += 1
                assert await relocate(store, named, targets) is not None
                for segment in (store.disks[named.stripe.disks[0]].path / "segments").iterdir():
                    segment.unlink()  # as compaction would, sooner or later
            return await pool_read(stripe, offset, length)

        store.pool.read = moving  # type: ignore[method-assign]
        assert await read(store, "k") == contents.body("k")
        assert moves == 1


async def test_a_damaged_shard_is_computed_from_the_others_when_it_moves(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 4), ec=(2, 1)) as store:
        await contents.put(store, "k", 60_000)
        named = the_stripe(store)
        old = store.disks[named.stripe.disks[0]]
        extent = old.index.get(named.stripe.write_id, 0)
        assert extent is not None
        (segment,) = (old.path / "segments").glob(f"{extent.segment[:16].hex()}*")
        with segment.open("r+b") as file:
            file.seek(extent.offset + extent.header.data_offset + 100)
            file.write(b"damage")
        moved = await relocate(store, named, elsewhere(store, named.stripe))
        assert moved is not None
        assert {health.state for health in await store.pool.verify(moved)} == {"good"}
        assert await read(store, "k") == contents.body("k")


async def test_a_pass_that_is_at_its_end_costs_nothing_until_something_changes(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    async with opened(directories(tmp_path, 4), ec=(2, 1)) as store:
        await contents.fill(store, 1)
        job = Rebalance(store)

        async def run() -> int:
            before = store.state.sequence
            while (await job.run_once(Budget(store.host.clock, 1.0, 1000))).more:
                pass
            return store.state.sequence - before

        assert await run() > 0
        assert await run() == 0
        await contents.fill(store, 1, "more")
        assert await run() == 0, "new stripes are where they belong"
