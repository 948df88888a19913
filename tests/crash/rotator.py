"""A program that writes objects under a key that it rotates all the time, and tells what was acknowledged.

It is there to be killed.

python rotator.py SEED FIRST DIR...    then "KEY SIZE" a line, from object number FIRST on
"""

import asyncio
import random
import sys
from dataclasses import replace
from pathlib import Path

from ostraka.chunks.keyring import DEFAULT
from ostraka.errors import Absent, OstrakaError
from ostraka.jobs.scheduler import Scheduler
from ostraka.limits import KIB, LIMITS
from ostraka.store.store import Store, open_here

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))
from store_rig import BUCKET, Body, Md5

from ostraka.objects.types import Attributes

MASTER = b"m" * 32
SMALL = replace(
    LIMITS,
    inline_size_max=200,
    pack_size_max=4 * KIB,
    chunk_size=64 * KIB,
    frame_size=16 * KIB,
    key_retire_seconds=0.0,  # an old version goes as soon as nothing is under it: what a write under way meets
    jobs_piece_rows=50,
    collect_grace_seconds=0.5,
)
SIZES = (100, 3000, 20_000, 150_000)


def body_of(seed: int, key: str, size: int) -> bytes:
    return random.Random(f"{seed}/{key}").randbytes(size)


async def write(store: Store, seed: int, numbers: "asyncio.Queue[int]") -> None:
    dice = random.Random()
    while True:
        key, size = f"k{await numbers.get():06}", dice.choice(SIZES)
        try:
            await store.objects.put(BUCKET, key, Body(body_of(seed, key, size)), Md5(), Attributes(), owner="root")
        except OstrakaError as error:
            if error.reason != "key":  # rotated away meanwhile: a client tries again
                raise
        else:
            print(key, size, flush=True)


async def main(seed: int, first: int, paths: list[Path]) -> None:
    async with open_here(paths, limits=SMALL, masters=[MASTER]) as store:
        try:
            store.objects.bucket(BUCKET)
        except Absent:
            await store.objects.create_bucket(BUCKET, "root", "us-east-1")
        scheduler = store.jobs = Scheduler(store)
        await scheduler.start()
        numbers: asyncio.Queue[int] = asyncio.Queue(4)
        writers = [asyncio.ensure_future(write(store, seed, numbers)) for _ in range(3)]
        number = first
        while not any(writer.done() for writer in writers):
            await numbers.put(number)
            number += 1
            if number % 10 == 0:
                if len(store.keyring.find(DEFAULT).row.versions) < 5:
                    await store.keyring.rotate(DEFAULT)
                scheduler.wake()
        await asyncio.gather(*writers)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), [Path(word) for word in sys.argv[3:]]))
