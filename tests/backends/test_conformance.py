"""Every backend means the same: the public cases of ostraka.testing, on each of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ostraka.backends import Backend, LocalBackend, MemoryBackend, MeteredBackend, ResilientBackend
from ostraka.testing.backends import CASES, Case


@asynccontextmanager
async def memory() -> AsyncIterator[Backend]:
    async with MemoryBackend() as backend:
        yield backend


@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory(case: Case) -> None:
    asyncio.run(case(memory))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_local(case: Case, tmp_path: Path) -> None:
    @asynccontextmanager
    async def local() -> AsyncIterator[Backend]:
        async with LocalBackend(tmp_path / "root") as backend:
            yield backend

    asyncio.run(case(local))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_metered_and_resilient(case: Case, tmp_path: Path) -> None:
    @asynccontextmanager
    async def resilient() -> AsyncIterator[Backend]:
        async with MeteredBackend(ResilientBackend(LocalBackend(tmp_path / "root")), "local") as backend:
            yield backend

    asyncio.run(case(resilient))
