"""Every replica means the same: the public cases of ostraka.testing, on each byte store there is."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import pytest
from tests.backends.remote.remote_services import Account, Served

from ostraka.backends import LocalBackend, MemoryBackend
from ostraka.host import Host
from ostraka.metadatadb import Journal, Memory, Periodic
from ostraka.metadatadb.replica import Shared
from ostraka.testing.backends import Factory as Store
from ostraka.testing.metadatadb import CASES, Case, Place

NEVER = 1e6  # seconds: replicas sync when a case tells them to

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_discipline = pytest.mark.parametrize("kind", [Journal, Periodic], ids=["journal", "periodic"])
# on stores that take their time: what replicas see of each other in both disciplines, the rest in one of them
on_a_server = pytest.mark.parametrize(
    ("case", "kind"),
    [*((case, Journal) for case in CASES), *((case, Periodic) for case in CASES if case.shared)],
    ids=lambda p: str(p) if isinstance(p, Case) else p.type,
)


def check(case: Case, kinds: Iterator[type[Shared]], store: Store, *, rivals: bool = True) -> None:
    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        async with store() as backend:

            def replica(host: Host) -> Shared:
                return next(kinds)(backend, host=host, sync_interval=NEVER)

            yield Place(replica, rivals=rivals)

    asyncio.run(case(place))


@each_case
def test_alone(case: Case) -> None:
    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        yield Place(lambda host: Memory(host=host), shared=False, rivals=False)

    asyncio.run(case(place))


@each_discipline
@each_case
def test_over_memory(case: Case, kind: type[Shared]) -> None:
    check(case, cycle([kind]), MemoryBackend)


@each_discipline
@each_case
def test_over_a_directory(case: Case, kind: type[Shared], tmp_path: Path) -> None:
    check(case, cycle([kind]), lambda: LocalBackend(tmp_path / "root"))


@on_a_server
def test_over_ostraka_serve(case: Case, kind: type[Shared], own: Served) -> None:
    check(case, cycle([kind]), own.empty())


@on_a_server
def test_over_moto(case: Case, kind: type[Shared], moto: Served) -> None:
    """One writer at a time: its conditions are not atomic."""
    check(case, cycle([kind]), moto.empty(), rivals=False)


@on_a_server
def test_over_azurite(case: Case, kind: type[Shared], azure: Account) -> None:
    check(case, cycle([kind]), azure.empty())


@pytest.mark.parametrize("kinds", [[Journal, Periodic], [Periodic, Journal]], ids=["journal first", "periodic first"])
@pytest.mark.parametrize("case", [case for case in CASES if case.shared], ids=str)
def test_the_disciplines_share_what_they_keep(case: Case, kinds: list[type[Shared]]) -> None:
    """Every other replica is of the other kind."""
    if case.name == "what_was_acknowledged_as_durable_needs_no_flush":
        kinds = kinds[:1]
    check(case, cycle(kinds), MemoryBackend)
