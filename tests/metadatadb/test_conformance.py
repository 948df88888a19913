"""Every replica means the same: the public cases of ostraka.testing, on each byte store there is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ostraka.backends import LocalBackend, MemoryBackend
from ostraka.metadatadb import Journal, Memory, Periodic
from ostraka.testing.metadatadb import CASES, Case, Place

NEVER = 1e6  # seconds: replicas sync when a case tells them to
DISCIPLINES = pytest.mark.parametrize("kind", [Journal, Periodic])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alone(case: Case) -> None:
    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        yield Place(lambda host: Memory(host=host), shared=False, rivals=False)

    asyncio.run(case(place))


@DISCIPLINES
@pytest.mark.parametrize("case", CASES, ids=str)
def test_over_memory(case: Case, kind: type[Journal] | type[Periodic]) -> None:
    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        backend = MemoryBackend()
        yield Place(lambda host: kind(backend, host=host, sync_interval=NEVER))

    asyncio.run(case(place))


@DISCIPLINES
@pytest.mark.parametrize("case", CASES, ids=str)
def test_over_a_directory(case: Case, kind: type[Journal] | type[Periodic], tmp_path: Path) -> None:
    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        async with LocalBackend(tmp_path / "root") as backend:
            yield Place(lambda host: kind(backend, host=host, sync_interval=NEVER))

    asyncio.run(case(place))


def test_the_disciplines_share_what_they_keep() -> None:
    """One replica of each kind, over the same byte store."""

    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        backend = MemoryBackend()
        kinds = [Journal, Periodic]

        def replica(host: object) -> Journal | Periodic:
            kinds.append(kinds.pop(0))
            return kinds[0](backend, host=host, sync_interval=NEVER)  # type: ignore[arg-type]

        yield Place(replica)

    for case in CASES:
        if case.name != "what_was_acknowledged_as_durable_needs_no_flush":
            asyncio.run(case(place))
