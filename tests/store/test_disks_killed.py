"""`disk replace` under kill -9, at whatever step, and disks that join while several processes serve."""

import asyncio
import os
import signal
import subprocess
import sys
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import SMALL, Contents, directories, fsck, opened, operate, wipe

from ostraka.errors import Refused
from ostraka.host import Host
from ostraka.shared import Shared
from ostraka.store.recovery import Recovered, hold
from ostraka.store.store import new_shared, open_owner, open_worker

REPLACE = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from store_rig import opened, operate

calls = 0

def dying(step, done, total):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with opened([Path(p) for p in sys.argv[4:]]) as store:
        await operate(store, "disk-replace", dying, old="1", new=sys.argv[3])

asyncio.run(main())
"""


@pytest.mark.parametrize("calls", [2, 3, 4, 6])
def test_a_replace_that_is_killed_is_finished_by_the_same_command(tmp_path: Path, seed: int, calls: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)
    new = tmp_path / "new"

    async def before() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 2)

    async def after() -> None:
        async with opened(left) as store:
            await operate(store, "disk-replace", old="1", new=str(new))
        async with opened([*left, new]) as store:
            await contents.check(store)
            found = await fsck(store)
            assert found["clean"], found["findings"]
            assert sum(d.state for d in store.membership.epoch.members) == 3

    asyncio.run(before())
    wipe(paths[1])
    left = [paths[0], *paths[2:]]
    rig = str(Path(__file__).parents[1] / "jobs")
    command = [sys.executable, "-c", REPLACE, rig, str(calls), str(new), *map(str, left)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == -signal.SIGKILL, done.stderr
    asyncio.run(after())


def work(conn: Connection, shared: Shared, contents: Contents) -> None:
    """Another process of the store: joins it, and writes when it is told to."""

    async def run() -> None:
        recovered = msgspec.msgpack.decode(await asyncio.to_thread(conn.recv_bytes), type=Recovered)
        store = open_worker(recovered, shared, 1, Host(), SMALL)
        await contents.check(store)
        conn.send("ready")
        number = await asyncio.to_thread(conn.recv)
        await contents.put(store, "written-elsewhere", 60_000)
        conn.send((number in store.disks, sum(found.named for found in store.disks[number].iterate())))
        await asyncio.to_thread(conn.recv)
        await store.close()

    asyncio.run(run())


def test_a_disk_that_joins_is_written_by_the_other_processes_too(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 3)
    new = tmp_path / "new"

    async def before() -> None:
        async with opened(paths) as store:
            await contents.fill(store, 2)

    async def serve() -> None:
        with hold(paths[:2], Host(), make=False):
            owner = open_owner(paths[:2], shared, 0, host=Host(), limits=SMALL)
            ours.send_bytes(msgspec.msgpack.encode(owner.recovered))
            assert await asyncio.to_thread(ours.recv) == "ready"
            result = await operate(owner, "disk-replace", new=str(new))
            ours.send(result["new"])
            joined, named = await asyncio.to_thread(ours.recv)
            assert joined
            contents.keys["written-elsewhere"] = 1, 60_000
            assert named == sum(found.named for found in owner.disks[result["new"]].iterate()) > 0
            await contents.check(owner)
            found = await fsck(owner)
            assert found["clean"], found["findings"]
            with pytest.raises(Refused, match="stop the server"):
                await operate(owner, "disk-replace", old=str(paths[0]), new=str(tmp_path / "other"))
            ours.send("end")
            await asyncio.to_thread(process.join)
            owner.held.close()
            await owner.close()

    async def after() -> None:
        async with opened([paths[1], new]) as store:
            await contents.check(store)

    asyncio.run(before())
    wipe(paths[2])
    shared = new_shared(2)
    ours, theirs = Pipe()
    process = get_context("fork").Process(target=work, args=(theirs, shared, contents))
    process.start()
    try:
        asyncio.run(serve())
    finally:
        process.kill()
        process.join()
    wipe(paths[0])
    asyncio.run(after())
