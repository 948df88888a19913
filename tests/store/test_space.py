"""A store that fills up: client writes stop while there is still room for deletes, whichever way bodies are kept."""

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import BUCKET, SMALL, Contents, Turned, directories, opened, read

import ostraka
from ostraka.errors import Full
from ostraka.host import Host
from ostraka.jobs.compact import Compact
from ostraka.objects.types import Attributes
from ostraka.store.status import status
from ostraka.testing.files import FaultyFiles
from ostraka.testing.powercut import PowerCutDisk


@pytest.mark.parametrize("disks", [1, 4])
def test_bodies_that_ride_in_the_state_stop_at_the_reserve_too_and_deletes_go_on(
    tmp_path: Path, seed: int, disks: int
) -> None:
    """Inline bodies went past every reserve, until not even a delete could be committed."""
    contents = Contents(seed)
    files, clock = FaultyFiles(), Turned()

    async def run() -> None:
        async with opened(directories(tmp_path, disks), host=Host(files, clock)) as store:
            await contents.fill(store, 1)
            total = 1 << 36
            files.room = (int(total * SMALL.reserve_writes) - 1, total)
            clock.now += 2  # what is free is asked for once in a second
            for size in (0, 100, 1000, 20_000, 150_000):
                with pytest.raises(Full):
                    await contents.put(store, f"new-{size}", size)
            source = store.objects.open(BUCKET, next(iter(contents.keys)))
            with pytest.raises(Full):
                await store.objects.copy(source.info, BUCKET, "copied", Attributes(), owner="root")
            source.close()
            full = [problem for problem in (await status(store))["problems"] if "no room left" in problem["what"]]
            assert full
            assert all("delete" in problem["way_out"] and "delete" not in problem["what"] for problem in full)
            gone = list(contents.keys)[::2]
            for key in gone:
                await contents.delete(store, key)
            await contents.check(store)
            files.room = (int(total * 0.5), total)
            clock.now += 2
            await contents.put(store, "again", 100)
            assert await read(store, "again") == contents.body("again")

    asyncio.run(run())


def test_an_index_that_finds_no_room_is_told_in_our_words_and_not_lmdb_s(tmp_path: Path) -> None:
    """Opening a store on a disk without any room ended in lmdb.DiskError, which nobody above knows."""
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        store = Path(disk.path) / "store"
        with ostraka.open(store) as opened_store:
            opened_store.create_bucket("bucket").put("k", b"kept")
        refusals = set()
        for room in (0, *(4096 << n for n in range(0, 15, 2))):
            shutil.rmtree(store / "index", ignore_errors=True)
            disk.limit_space(room)
            try:
                with ostraka.open(store, existing=True) as opened_store:
                    assert opened_store.bucket("bucket").get("k") == b"kept"
            except (Full, OSError) as error:
                refusals.add(type(error))
            disk.heal()
        assert Full in refusals
        with ostraka.open(store, existing=True) as opened_store:
            assert opened_store.bucket("bucket").get("k") == b"kept"


def test_a_disk_that_is_nearly_full_slows_writers_down_and_has_compaction_hurry(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = Contents(seed)
    files, clock = FaultyFiles(), Turned()
    waited: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    async def run() -> None:
        async with opened(directories(tmp_path, 4), host=Host(files, clock)) as store:
            total = 1 << 36
            near, reserve = SMALL.near_full, SMALL.reserve_writes
            compact = Compact(store)
            for full, pressure in ((near + 0.01, 0.0), ((near + reserve) / 2, 0.5), (reserve + 0.0001, 1.0)):
                files.room = (int(total * full), total)
                clock.now += 2  # what is free is asked for once in a second
                for disk in store.disks.values():
                    disk.space.free()
                await until(lambda: all(disk.space.free()[0] == files.room[0] for disk in store.disks.values()))
                clock.now += 1
                assert store.pressure() == pytest.approx(pressure, abs=0.01)
                waited.clear()
                await contents.put(store, "k", 150_000)  # three chunks
                assert sum(seconds > 0 for seconds in waited) == (3 if pressure else 0)
                assert max(waited, default=0) == pytest.approx(pressure * SMALL.near_full_delay_seconds_max, abs=0.01)
                more = SMALL.compact_live_ratio_full - SMALL.compact_live_ratio
                wanted = SMALL.compact_live_ratio + pressure * more
                assert compact._ratio(store.disks[0]) == pytest.approx(wanted, abs=0.01)
                told = [problem["what"] for problem in (await status(store))["problems"]]
                assert any("nearly full" in what for what in told) == bool(pressure)
            await contents.check(store)

    async def until(holds: Callable[[], bool]) -> None:
        while not holds():
            await sleep(0.01)

    monkeypatch.setattr("ostraka.objects.core.asyncio.sleep", noted)
    asyncio.run(run())
