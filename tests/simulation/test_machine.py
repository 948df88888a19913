"""The simulated machine: time, threads, processes and disks are as their real ones, where it matters."""

import asyncio
import queue
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from ostraka.testing.simulation.machine import Machine, Process, seeded
from ostraka.testing.simulation.scheduler import Scheduler, Stuck


def played(seed: int, direct: Callable[[Machine], Any]) -> Any:
    """What a director's strand returns on a machine with one disk."""
    scheduler = Scheduler(seeded(seed))
    machine = Machine(scheduler)
    machine.add_disk(1 << 20)
    try:
        return scheduler.run(scheduler.spawn(None, "director", lambda: direct(machine)))
    finally:
        machine.shut_down()
        scheduler.close()


def ended(machine: Machine, process: Process, main: Callable[[Process], Any]) -> None:
    """Run a process to its end, whatever that is."""
    strand = process.start(main)
    for _ in range(1000):
        if strand.dead or process.dead:
            return
        machine.scheduler.sleep(1.0)
    raise AssertionError("it does not end")


def test_time_passes_only_when_nobody_can_run(seed: int) -> None:
    def direct(machine: Machine) -> float:
        before = machine.scheduler.now
        machine.scheduler.sleep(3600.0)
        return machine.scheduler.now - before

    assert played(seed, direct) == 3600.0


def test_who_waits_for_ever_is_found_out(seed: int) -> None:
    with pytest.raises(Stuck):
        played(seed, lambda machine: machine.threads.SimpleQueue().get())


def test_threads_interleave_by_seed_and_locks_exclude() -> None:
    def direct(machine: Machine) -> list[int]:
        threads, order, inside = machine.threads, [], [0]
        lock = threads.Lock()

        def work(number: int) -> None:
            for _ in range(5):
                with lock:
                    inside[0] += 1
                    assert inside[0] == 1
                    machine.scheduler.pause()
                    inside[0] -= 1
                order.append(number)

        running = [threads.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return order

    orders = [played(seed, direct) for seed in range(5)]
    assert len(set(map(tuple, orders))) > 1, "the seed decides nothing"
    assert orders == [played(seed, direct) for seed in range(5)]


def test_a_queue_gives_up_at_its_deadline(seed: int) -> None:
    def direct(machine: Machine) -> float:
        began = machine.scheduler.now
        with pytest.raises(queue.Empty):
            machine.threads.SimpleQueue().get(timeout=7.0)
        return machine.scheduler.now - began

    assert played(seed, direct) == 7.0


def test_the_loop_runs_tasks_timers_and_threads_on_virtual_time(seed: int) -> None:
    def direct(machine: Machine) -> list[str]:
        found: list[str] = []

        async def main(process: Process) -> None:
            def blocking() -> str:
                machine.scheduler.sleep(5.0)
                return "thread"

            async def other() -> None:
                await asyncio.sleep(1.0)
                found.append("task")

            task = asyncio.ensure_future(other())
            found.append(await asyncio.to_thread(blocking))
            await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10.0):
                    await asyncio.Event().wait()
            found.append(f"{machine.scheduler.now:.0f}")

        ended(machine, machine.new_process("p"), main)
        return found

    assert played(seed, direct) == ["task", "thread", "1015"]


def test_a_killed_process_runs_no_further_and_gives_up_its_locks(seed: int) -> None:
    def direct(machine: Machine) -> list[str]:
        found: list[str] = []
        path = Path("/simulated/d0/lock")

        async def holder(process: Process) -> None:
            try:
                with process.host.files.lock(path):
                    await asyncio.sleep(1000.0)
            finally:
                found.append("finally")

        first = machine.new_process("first")
        first.start(holder)
        machine.scheduler.sleep(1.0)
        first.kill()

        async def taker(process: Process) -> None:
            with process.host.files.lock(path):
                found.append("taken")

        ended(machine, machine.new_process("second"), taker)
        return list(found)

    assert played(seed, direct) == ["taken"]


def written_and_cut(seed: int, *, synced: bool, named: bool) -> bytes | None:
    """What is in a file after a power cut, or None."""

    def direct(machine: Machine) -> bytes | None:
        directory = Path("/simulated/d0")

        async def write(process: Process) -> None:
            files = process.host.files
            file = files.open(directory / "f", write=True, create=True)
            file.pwritev([b"x" * 3000], 0)
            if synced:
                file.sync_data()
            if named:
                files.sync_directory(directory)
            machine.cut()

        ended(machine, machine.new_process("p"), write)
        found: list[bytes | None] = [None]

        async def read(process: Process) -> None:
            if process.host.files.exists(directory / "f"):
                found[0] = process.host.files.read(directory / "f")

        ended(machine, machine.new_process("q"), read)
        return found[0]

    return played(seed, direct)  # type: ignore[no-any-return]


def test_what_was_synced_survives_every_power_cut() -> None:
    assert {written_and_cut(seed, synced=True, named=True) for seed in range(40)} == {b"x" * 3000}


def test_what_was_not_synced_may_be_lost_kept_or_torn() -> None:
    found = [written_and_cut(seed, synced=False, named=True) for seed in range(60)]
    assert b"x" * 3000 in found
    assert any(content == b"" for content in found)
    assert any(content and content != b"x" * 3000 for content in found)
    names = [written_and_cut(seed, synced=True, named=False) for seed in range(40)]
    assert None in names
    assert b"x" * 3000 in names


def test_the_map_shows_a_moment_and_keeps_the_last_commit_of_a_killed_writer(seed: int) -> None:
    def direct(machine: Machine) -> list[object]:
        path = Path("/simulated/d0/index.mdb")
        found: list[object] = []

        async def write(process: Process) -> None:
            index = machine.open_map(path, 1 << 20)
            with_two = index.begin(write=True)
            with_two.put(b"k", b"1", db=index.rows)
            with_two.commit()
            reader = index.begin()
            again = index.begin(write=True)
            again.put(b"k", b"2", db=index.rows)
            again.commit()
            found.append(reader.get(b"k", db=index.rows))
            cut_off = index.begin(write=True)
            cut_off.put(b"k", b"3", db=index.rows)
            process.kill()

        ended(machine, machine.new_process("p"), write)

        async def read(process: Process) -> None:
            index = machine.open_map(path, 1 << 20)
            txn = index.begin(write=True)
            found.append(txn.get(b"k", db=index.rows))
            txn.abort()

        ended(machine, machine.new_process("q"), read)
        return found

    assert played(seed, direct) == [b"1", b"2"]


def test_an_unsynced_map_is_not_to_be_relied_upon_after_a_power_cut() -> None:
    def direct(machine: Machine) -> object:
        path = Path("/simulated/d0/index.mdb")
        found: list[object] = []

        async def write(process: Process) -> None:
            process.host.files.mkdir(path.parent)
            index = machine.open_map(path, 1 << 20)
            process.host.files.sync_directory(path.parent)
            for value in range(6):
                txn = index.begin(write=True)
                for key in range(4):
                    txn.put(b"%d" % key, b"%d" % value, db=index.rows)
                txn.commit()
            machine.cut()

        ended(machine, machine.new_process("p"), write)

        async def read(process: Process) -> None:
            try:
                index = machine.open_map(path, 1 << 20)
                txn = index.begin()
                found.append(tuple(txn.get(b"%d" % key, db=index.rows) for key in range(4)))
            except lmdb.Error:
                found.append("damaged")

        ended(machine, machine.new_process("q"), read)
        return found[0]

    outcomes = {played(seed, direct) for seed in range(60)}
    assert "damaged" in outcomes
    assert (b"5",) * 4 in outcomes
    assert any(outcome not in ("damaged", (b"5",) * 4) for outcome in outcomes), "nothing older, nothing mixed"


def test_randomness_of_a_process_is_the_schedules() -> None:
    def direct(machine: Machine) -> bytes:
        return machine.new_process("p").host.random(8)

    assert played(1, direct) == played(1, direct) != played(2, direct)
    assert isinstance(seeded(1), random.Random)
