"""`serve` and the pytest fixtures, as somebody else's tests use them."""

import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from ostraka.testing import Endpoint, serve

pytest_plugins = ["pytester"]

SOMEBODYS_TESTS = """
import boto3, pytest

@pytest.mark.parametrize("n", range(4))
def test_each_test_has_a_bucket_of_its_own(ostraka_server, ostraka_bucket, n):
    s3 = ostraka_server.client()
    assert s3.list_objects_v2(Bucket=ostraka_bucket)["KeyCount"] == 0
    s3.put_object(Bucket=ostraka_bucket, Key="k", Body=b"1")

def test_code_that_knows_nothing_of_it(ostraka_environment, ostraka_bucket):
    boto3.client("s3").put_object(Bucket=ostraka_bucket, Key="k", Body=b"2")
    assert ostraka_environment.client().get_object(Bucket=ostraka_bucket, Key="k")["Body"].read() == b"2"
"""


def test_an_endpoint_for_the_length_of_a_block_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with serve() as endpoint:
        assert list(tmp_path.iterdir())
        s3 = boto3.client("s3", **endpoint.boto())
        bucket = endpoint.new_bucket()
        s3.put_object(Bucket=bucket, Key="k", Body=b"1")
        assert endpoint.client().get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_named_stays(tmp_path: Path) -> None:
    disks = [tmp_path / "a", tmp_path / "b"]
    buckets = []
    for _ in range(2):
        with serve(directories=disks) as endpoint:
            buckets.append(endpoint.new_bucket())
            assert [b["Name"] for b in endpoint.client().list_buckets()["Buckets"]] == sorted(buckets)


def test_a_program_that_takes_its_settings_from_the_environment_finds_it(ostraka_server: Endpoint) -> None:
    script = "import boto3; boto3.client('s3').create_bucket(Bucket='from-the-environment')"
    subprocess.run([sys.executable, "-c", script], env=ostraka_server.environment(), check=True, timeout=60)
    assert "from-the-environment" in [b["Name"] for b in ostraka_server.client().list_buckets()["Buckets"]]


@pytest.mark.parametrize("processes", [0, 2])
def test_the_fixtures_serve_somebody_elses_tests_side_by_side(pytester: pytest.Pytester, processes: int) -> None:
    pytester.makepyfile(SOMEBODYS_TESTS)
    result = pytester.runpytest_subprocess("-n", str(processes), "-p", "no:cacheprovider")
    result.assert_outcomes(passed=5)
