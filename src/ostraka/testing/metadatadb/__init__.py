"""What every replica of the metadata database must do, as cases that anybody may run on theirs.

With pytest, for replicas that share a byte store::

    from ostraka.metadatadb import Journal
    from ostraka.testing.metadatadb import CASES, Case, Place

    @asynccontextmanager
    async def empty_place():
        async with MyBackend(...) as backend:
            yield Place(lambda host: Journal(backend, host=host, sync_interval=3600))

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_conforms(case: Case) -> None:
        asyncio.run(case(empty_place))

Each case gets a place of its own, which must be empty (a prefix of its own will do), and makes the replicas it needs.
They must not sync by themselves while it runs: hence the long interval. A case raises AssertionError where the replica
differs. A case with ``shared`` needs replicas that meet; one with ``rivals`` a store whose conditional writes are
atomic between callers at once. A case for which the place is not enough does nothing.
"""

from ostraka.testing.metadatadb import meeting, single
from ostraka.testing.metadatadb.case import Case, Place

CASES: list[Case] = [*single.CASES, *meeting.CASES]
"""All of them, in the order in which a new replica is best built."""

__all__ = ["CASES", "Case", "Place"]
