"""A worker that starts after a disk had joined has that disk too, though the owner's first word did not name it."""

import asyncio
import os
import shutil
import traceback
from pathlib import Path

import msgspec

from ostraka.host import Host
from ostraka.store import disks
from ostraka.store.recovery import Recovered, hold
from ostraka.store.store import new_shared, open_here, open_owner, open_worker


def test_a_worker_that_is_replaced_after_a_disk_joined_writes_to_all_of_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"d{i}" for i in range(2)]

    async def form() -> None:
        async with open_here(paths):
            pass

    asyncio.run(form())
    shutil.rmtree(paths[1])
    shared = new_shared(2)
    told_read, told_write = os.pipe()
    said_read, said_write = os.pipe()
    worker = os.fork()  # before the owner opens anything
    if worker == 0:
        try:
            os.close(told_write)
            with os.fdopen(told_read, "rb") as stream:
                told = msgspec.msgpack.decode(stream.read(), type=Recovered)

            async def work() -> bytes:
                store = open_worker(told, shared, 0, Host())
                numbers = sorted(disk.number for disk in store.membership.up())
                await store.close()
                return msgspec.json.encode(numbers)

            os.write(said_write, asyncio.run(work()))
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(told_read)
    os.close(said_write)

    async def own() -> bytes:
        with hold(paths[:1], Host(), make=False):
            store = open_owner(paths[:1], shared, 1, existing=True)
            first_word = store.recovered
            await disks.replace(store, lambda *_: None, old="", new=str(tmp_path / "d2"))
            with os.fdopen(told_write, "wb") as stream:
                stream.write(msgspec.msgpack.encode(first_word))
            with os.fdopen(said_read, "rb") as stream:
                said = await asyncio.to_thread(stream.read)
            await asyncio.to_thread(os.waitpid, worker, 0)
            await store.close()
            return said

    assert msgspec.json.decode(asyncio.run(own())) == [0, 2]
