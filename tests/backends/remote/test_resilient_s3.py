"""The resilient backend over a real server that is killed and comes back."""

import asyncio
import contextlib
import hashlib
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

from ostraka.backends import BreakerState, Resilience, ResilientBackend, Secret
from ostraka.backends.s3.backend import S3Backend, S3Config
from ostraka.backends.s3.credentials import Named
from ostraka.errors import Unavailable
from ostraka.host import Buffer
from ostraka.testing.processes import ServerProcess, free_port

SIZE = 48 << 20
PATIENT = Resilience(attempts_max=1000, seconds_max=90.0, delay_seconds=0.05, delay_seconds_max=0.5, failures_max=10**6)


def server_on(tmp_path: Path) -> ServerProcess:
    return ServerProcess([tmp_path / "disk"], "--workers", "1", listen=f"127.0.0.1:{free_port()}")


def backend_of(server: ServerProcess, resilience: Resilience) -> ResilientBackend:
    os.environ["OSTRAKA_TEST_RESILIENT"] = server.secret_key
    keys = Named(access_key=server.access_key, secret_key=Secret(variable="OSTRAKA_TEST_RESILIENT"))
    return ResilientBackend(
        S3Backend(S3Config(bucket="killed", endpoint=server.url, credentials=keys)),
        resilience,
    )


async def killed_and_back(server: ServerProcess) -> None:
    await asyncio.to_thread(server.kill9)
    await asyncio.to_thread(server.start)


def back_when_missed(server: ServerProcess, backend: ResilientBackend) -> None:
    """Started again once a call has failed: ranges that were read ahead hide a server that is back before they end."""
    while not backend.statistics().errors:
        time.sleep(0.01)
    server.start()


def test_a_reading_and_a_count_outlive_a_server_that_is_killed(tmp_path: Path, seed: int) -> None:
    data = random.Random(seed).randbytes(SIZE)
    with server_on(tmp_path) as server:
        server.client().create_bucket(Bucket="killed")

        async def main() -> None:
            async with backend_of(server, PATIENT) as backend:
                await backend.write_stream("large", lambda: _pieces(data))
                got, length = hashlib.sha256(), 0
                back: asyncio.Task[None] | None = None

                async def sink(piece: Buffer) -> None:
                    nonlocal back, length
                    got.update(piece)
                    length += len(piece)
                    if back is None and length > SIZE // 4:
                        await asyncio.to_thread(server.kill9)
                        back = asyncio.create_task(asyncio.to_thread(back_when_missed, server, backend))

                await backend.read_to("large", sink)
                assert back is not None
                await back
                assert (length, got.digest()) == (SIZE, hashlib.sha256(data).digest())
                assert backend.statistics().resumed >= 1
                await backend.write("a", b"before")
                restart = asyncio.create_task(killed_and_back(server))
                done = [await backend.write(f"many/{n}", b"%d" % n) for n in range(50)]
                await restart
                assert [path async for path in backend.list("many/")] == sorted(f"many/{n}" for n in range(50))
                assert len(done) == 50
                assert await backend.read("a") == b"before"

        asyncio.run(main())


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1 << 20):
        yield data[at : at + (1 << 20)]


def test_the_circuit_opens_when_the_server_goes_and_closes_when_it_is_back(tmp_path: Path) -> None:
    changes: list[tuple[BreakerState, BreakerState]] = []
    hasty = Resilience(attempts_max=1, failures_max=3, open_seconds=0.05, probes_needed=2)
    with server_on(tmp_path) as server:
        server.client().create_bucket(Bucket="killed")

        async def main() -> None:
            plain = backend_of(server, hasty)
            async with ResilientBackend(
                plain.inner, hasty, on_change=lambda *change: changes.append(change)
            ) as backend:
                await backend.write("a", b"x")
                await asyncio.to_thread(server.kill9)
                while backend.state is BreakerState.CLOSED:
                    with contextlib.suppress(Unavailable):
                        await backend.stat("a")
                await asyncio.to_thread(server.start)
                while changes[-1][1] is not BreakerState.CLOSED:
                    try:
                        assert await backend.stat("a") is not None
                    except Unavailable:
                        await asyncio.sleep(0.01)
                assert changes[0] == (BreakerState.CLOSED, BreakerState.OPEN)
                assert await backend.read("a") == b"x"

        asyncio.run(main())
