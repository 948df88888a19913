"""What every backend must do, as cases that anybody may run on a backend of their own.

With pytest::

    from ostraka.testing.backends import CASES, Case

    @asynccontextmanager
    async def empty_backend():
        async with MyBackend(...) as backend:
            yield backend

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_conforms(case: Case) -> None:
        asyncio.run(case(empty_backend))

and without it: ``for case in CASES: asyncio.run(case(empty_backend))``. A case raises AssertionError where the backend
differs. Each gets a backend of its own, which must be empty (a prefix of its own will do) and of a type that
``from_config`` knows. What a backend claims in ``capabilities`` is proved; of what it does not claim, it is shown that
it raises NotSupported. A case with ``rivals`` needs a store whose conditions are atomic between callers at once.

FaultyBackend is for those who call backends: it fails as a network and a busy store do.
"""

from ostraka.testing.backends import basics, capabilities, conditions, listing, paths, streams, uploads
from ostraka.testing.backends.case import Case, Factory
from ostraka.testing.backends.faulty import Fault, Faults, FaultyBackend

CASES: list[Case] = [
    case for module in (basics, paths, listing, streams, conditions, uploads, capabilities) for case in module.CASES
]
"""All of them, in the order in which a new backend is best built."""

__all__ = ["CASES", "Case", "Factory", "Fault", "Faults", "FaultyBackend"]
