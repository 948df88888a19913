"""The pytest plugin: an S3 endpoint for the session, a bucket for each test. Installed with ostraka[testing].

    def test_it(ostraka_server, ostraka_bucket):
        s3 = ostraka_server.client()
        s3.put_object(Bucket=ostraka_bucket, Key="k", Body=b"1")

Safe under pytest-xdist: each of its processes has a server of its own on a port of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ostraka.testing.serving import Endpoint


@pytest.fixture(scope="session")
def ostraka_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Endpoint]":
    """A running `ostraka.testing.serving.Endpoint`: url, access_key, secret_key, client(), environment()."""
    from ostraka.testing.serving import serve

    directory: Path = tmp_path_factory.mktemp("ostraka") / "store"
    with serve(directories=[directory]) as endpoint:
        yield endpoint


@pytest.fixture
def ostraka_bucket(ostraka_server: "Endpoint") -> str:
    """The name of a new, empty bucket, for this test alone."""
    return ostraka_server.new_bucket()


@pytest.fixture
def ostraka_environment(ostraka_server: "Endpoint", monkeypatch: pytest.MonkeyPatch) -> "Endpoint":
    """AWS_* variables of this test's process point at the server: plain ``boto3.client("s3")`` speaks to it."""
    for name, value in ostraka_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    return ostraka_server
