"""What the object core itself costs: microseconds of Python per inline PUT and GET, and listed keys a second.

Over a state that does nothing (for PUT), so that what is measured is the room and neither the engine nor the digest.
Run: python tests/objects/cost.py [--profile]
"""

import asyncio
import cProfile
import pstats
import sys
import time
from typing import Any

from ostraka.host import Buffer
from ostraka.objects import rows
from ostraka.objects.store import ObjectStore
from ostraka.objects.types import Attributes, Digested
from ostraka.state import Committed, stamped_value
from ostraka.state.memory import MemoryState
from ostraka.testing.memory_chunks import MemoryChunks

ROUNDS = 20_000
KEYS = 100_000


class Here:
    def __init__(self, body: bytes) -> None:
        self.length: int | None = len(body)
        self._body = body

    async def read_into(self, view: memoryview) -> int:
        return 0

    def read_now(self) -> Buffer | None:
        return self._body


class NoDigest:
    answer = Digested("d41d8cd98f00b204e9800998ecf8427e", {"CRC64NVME": "AAAAAAAAAAA="}, "FULL_OBJECT")

    def update(self, data: Buffer) -> None:
        pass

    def finish(self) -> Digested:
        return self.answer


class Instant:
    """The state, with commits that change nothing and cost nothing."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state
        self._done = Committed(7)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    async def commit(self, mutation: object) -> Committed:
        return self._done


async def main() -> None:
    state = MemoryState()
    real = ObjectStore(state, MemoryChunks(state), secret=b"s" * 32, incarnation=b"i" * 16)
    await real.start()
    for name, versioning in (("plain", ""), ("versioned", "Enabled")):
        await real.create_bucket(name, "alice", "us-east-1")
        if versioning:
            from dataclasses import replace

            await real.update_bucket(name, lambda bucket: replace(bucket, versioning="Enabled"))
    objects = ObjectStore(Instant(state), MemoryChunks(state), secret=b"s" * 32, incarnation=b"i" * 16)  # type: ignore[arg-type]
    digest, body = NoDigest(), bytes(1000)
    attributes = Attributes({"content-type": "text/plain"}, {"a": "b"})
    for bucket in ("plain", "versioned"):

        async def put(bucket: str = bucket) -> None:
            for _ in range(ROUNDS):
                await objects.put(bucket, "some/key/of/usual/length", Here(body), digest, attributes, owner="alice")

        await report(f"PUT of 1,000 bytes, inline, {bucket}", ROUNDS, put())

    await real.put("plain", "key", Here(body), digest, attributes, owner="alice")

    async def get() -> None:
        for _ in range(ROUNDS):
            reader = real.open("plain", "key")
            reader.read_now(0, reader.info.size)
            reader.close()

    await report("GET of 1,000 bytes, inline", ROUNDS, get())

    tail = rows.tail(real._buckets.open("plain").id, b"")[:-1]
    live = rows.encode(
        rows.LiveRecord(
            5, "d41d8cd98f00b204e9800998ecf8427e", 1.7e9, "STANDARD", "alice", ("CRC64NVME",), "FULL_OBJECT"
        )
    )
    for number in range(KEYS):
        key = rows.LIVE + tail + b"photos/2026/%09d\x00" % number
        state._rows[key] = stamped_value(live, number)
        state._keys.append(key)
    state._keys.sort()

    async def list_all() -> None:
        after = ""
        while True:
            page = real.list("plain", "photos/", "", after, 1000)
            if not page.truncated:
                break
            after = page.next

    await report("LIST, pages of 1,000, per key", KEYS, list_all())


async def report(what: str, number: int, work: Any) -> None:
    profile = cProfile.Profile() if "--profile" in sys.argv else None
    if profile:
        profile.enable()
    start = time.perf_counter()
    await work
    spent = time.perf_counter() - start
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(18)
    print(f"{what:45} {spent / number * 1e6:7.2f} us   {number / spent:10,.0f}/s")


asyncio.run(main())
