"""The stores that these tests run on, real ones, each started once for the session: `ostraka serve`, moto, Azurite."""

from collections.abc import Iterator

import pytest
from tests.backends.remote.remote_services import Account, Served, azurite, moto_server

from ostraka.testing import Endpoint


@pytest.fixture(scope="session")
def own(ostraka_server: Endpoint) -> Served:
    """`ostraka serve`, which honours every condition."""
    return Served(ostraka_server.url, ostraka_server.access_key, ostraka_server.secret_key)


@pytest.fixture(scope="session")
def moto() -> Iterator[Served]:
    """moto's server. Its conditions are not atomic: one writer at a time."""
    with moto_server() as served:
        yield served


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """Azurite, the emulator that Azure's own tools are tested with."""
    with azurite(tmp_path_factory.mktemp("azurite")) as account:
        yield account
