"""One server for each scheme, for the whole run, and the clients: what `scripts/install` installed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from client_endpoint import Endpoint
from client_tls import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session", params=["http", "https"])
def endpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Endpoint]:
    """A serving store of one directory and two workers, with an access log."""
    directory = tmp_path_factory.mktemp(f"served-{request.param}")
    with Endpoint(directory, authority if request.param == "https" else None) as served:
        yield served
