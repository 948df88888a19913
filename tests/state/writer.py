"""A writer process that a test kills: it commits without pause and prints what was acknowledged.

python writer.py STORE-ROOT NAME SEED
"""

import asyncio
import random
import sys
from pathlib import Path

from ostraka.host import Host
from ostraka.limits import LIMITS, MIB
from ostraka.state import Add, Mutation, Put, open_shared


async def main(root: Path, name: str, seed: int) -> None:
    from dataclasses import replace

    limits = replace(LIMITS, state_index_size_max=256 * MIB)
    state = open_shared(Host(), b"a store of tests", root / "index", limits=limits)
    chance = random.Random(seed)
    print("ready", flush=True)
    number = 0

    async def one(number: int) -> None:
        key = f"{name}/{number:06d}".encode()
        value = chance.randbytes(chance.choice([0, 10, 600, 5000]))
        done = await state.commit(
            Mutation(
                (),
                (Put(key, value), Put(key + b"L" * 600, value[:9]), Add(b"count", 1), Add(b"of " + name.encode(), 1)),
            )
        )
        print(f"{number} {done.sequence} {value.hex()}", flush=True)

    while True:
        width = chance.choice([1, 2, 16])
        await asyncio.gather(*[one(number + n) for n in range(width)])
        number += width


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
