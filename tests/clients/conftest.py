"""One server for each scheme, for the whole run, and the clients: what `scripts/install` installed."""

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from client_endpoint import Endpoint
from client_tls import Authority

# What every run has over both schemes; of the rest it has HTTPS, and the soak HTTP as well: twelve minutes are not
# enough for all of it. What differs by scheme, framing and trust, is mostly seen over HTTPS. A tree takes a client 10
# to 25 s of processor time: each run has it over one of the two.
BOTH_SCHEMES = {"test_boto3", "test_rclone", "test_page"}
TREES_OVER_HTTP = {"awscli", "boto3-1.34", "s3cmd"}


def in_every_run(test: pytest.Item) -> bool:
    parameters = test.callspec.params if isinstance(test, pytest.Function) and hasattr(test, "callspec") else {}
    scheme = parameters.get("endpoint")
    if test.path.stem == "test_trees":
        return scheme == ("http" if parameters["tool"].name in TREES_OVER_HTTP else "https")
    return scheme != "http" or test.path.stem in BOTH_SCHEMES


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and not in_every_run(item):
            item.add_marker(pytest.mark.slow)


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


@pytest.fixture
def bucket(request: pytest.FixtureRequest, endpoint: Endpoint) -> Iterator[str]:
    """A new bucket, named after the client whose test this is. Nothing that is asked of it may be refused as malformed,
    unknown or unavailable, but for the operations that the test's module says are NOT_BUILT."""
    client = request.path.stem.removeprefix("test_").replace("_", "-")
    name = f"{client}-{zlib.crc32(request.node.name.encode()):08x}"
    endpoint.boto().create_bucket(Bucket=name)
    yield name
    not_built = getattr(request.module, "NOT_BUILT", ())
    answers = [r for r in endpoint.requests(name) if r["status"] != 501 or r["operation"] not in not_built]
    failed = [r for r in answers if r["status"] >= 500 or r["status"] in (400, 403)]
    assert not failed, [(r["operation"], r["key"], r["status"], r["code"]) for r in failed[:5]]
