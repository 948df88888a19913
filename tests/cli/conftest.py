"""What these tests share: a store that nobody serves, one that is served, and the same one by its URL."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "clients"))
sys.path.insert(0, str(Path(__file__).parent))

from program import Program
from zygote import Zygote

import ostraka
from ostraka.testing.processes import ServerProcess


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Where commands are forked from."""
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on two disks, for tests that do it no harm: each makes a bucket of its own."""
    directory = tmp_path_factory.mktemp("served")
    with ServerProcess([directory / "a", directory / "b"], "--workers", "1") as running:
        yield running


@pytest.fixture(scope="session")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nobody serves."""
    directory = tmp_path_factory.mktemp("idle") / "store"
    with ostraka.open(directory):
        pass
    return directory


WAYS = ("here", "served", "url")


@pytest.fixture(params=WAYS)
def program(request: pytest.FixtureRequest, zygote: Zygote, tmp_path: Path) -> Program:
    """The program, with each way to a store in turn: its directory, a served one's directories, a server's URL."""
    work = tmp_path / "work"
    work.mkdir()
    if request.param == "here":
        return Program(zygote, work, ("--store", str(request.getfixturevalue("idle"))))
    return of_server(request.param, zygote, request.getfixturevalue("server"), work)


def of_server(way: str, zygote: Zygote, server: ServerProcess, work: Path) -> Program:
    if way == "url":
        keys = {"OSTRAKA_ROOT_ACCESS_KEY": server.access_key, "OSTRAKA_ROOT_SECRET_KEY": server.secret_key}
        return Program(zygote, work, ("--store", server.url), keys)
    return Program(zygote, work, ("--store", server.command[5], "--store", server.command[6]))


@pytest.fixture
def remote(zygote: Zygote, server: ServerProcess, tmp_path: Path) -> Program:
    """The program, with a server's URL."""
    work = tmp_path / "work"
    work.mkdir()
    return of_server("url", zygote, server, work)


@pytest.fixture
def nowhere(zygote: Zygote, tmp_path: Path) -> Program:
    """The program, without any store."""
    return Program(zygote, tmp_path)


@pytest.fixture
def bucket(request: pytest.FixtureRequest, program: Program) -> str:
    """A bucket of this test alone."""
    import zlib

    name = f"b{zlib.crc32(request.node.nodeid.encode()):08x}"
    program.well("bucket", "create", name)
    return name
