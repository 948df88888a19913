"""What these tests share: a server of one directory and two workers for tests that do it no harm, and an authority."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "clients"))
sys.path.insert(0, str(Path(__file__).parent))

from client_tls import Authority
from server_processes import Served


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for the tests of a module that leave it as it was."""
    with Served(tmp_path_factory.mktemp("served")) as server:
        yield server
