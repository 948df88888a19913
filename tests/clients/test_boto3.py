"""What programs do with boto3, of today and of two years ago, over HTTP and HTTPS."""

import hashlib
import random
import urllib.parse
import zlib
from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tools import BOTOS, Boto

pytestmark = pytest.mark.timeout(300)
MIB = 1 << 20


@pytest.fixture(params=BOTOS, ids=lambda b: b.name)
def boto(request: pytest.FixtureRequest) -> Boto:
    found: Boto = request.param
    return found


@pytest.fixture
def bucket(request: pytest.FixtureRequest, endpoint: Endpoint, boto: Boto) -> str:
    name = f"{boto.name}-{zlib.crc32(request.node.name.encode()):08x}"
    endpoint.boto().create_bucket(Bucket=name)
    return name


def test_100_mib_go_up_in_parts_and_come_down_in_ranges(
    boto: Boto, endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int
) -> None:
    content = random.Random(seed).randbytes(100 * MIB + 1)
    (tmp_path / "big").write_bytes(content)
    said = boto.do(endpoint, "big", bucket=bucket, path=str(tmp_path / "big"), copy=str(tmp_path / "copy"))
    assert hashlib.sha256((tmp_path / "copy").read_bytes()).digest() == hashlib.sha256(content).digest()
    parts = [hashlib.md5(content[i : i + 8 * MIB]).digest() for i in range(0, len(content), 8 * MIB)]
    assert said == {"etag": f'"{hashlib.md5(b"".join(parts)).hexdigest()}-13"', "size": len(content)}
    assert len(endpoint.requests(bucket, "UploadPart", at_least=13)) == 13
    assert endpoint.framings(bucket, "UploadPart") == {boto.framing[endpoint.scheme]}


def test_presigned_get_and_put_need_no_client_configuration(boto: Boto, endpoint: Endpoint, bucket: str) -> None:
    urls = boto.do(endpoint, "presigned", bucket=bucket, version="")
    for url in urls.values():
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
        assert {"AWSAccessKeyId", "Signature", "Expires"} <= query.keys(), "no SigV2: what is default now?"


def test_presigned_get_and_put_with_sigv4(boto: Boto, endpoint: Endpoint, bucket: str) -> None:
    urls = boto.do(endpoint, "presigned", bucket=bucket, version="s3v4")
    assert all("X-Amz-Signature=" in url for url in urls.values())


@pytest.mark.parametrize("step", ["pages", "versioning", "attributes", "many", "stream", "empty"])
def test_a_program_of_today_and_of_two_years_ago(step: str, boto: Boto, endpoint: Endpoint, bucket: str) -> None:
    arguments = {"count": 320} if step == "pages" else {}
    boto.do(endpoint, step, bucket=bucket, **arguments)
    assert [r for r in endpoint.requests(bucket) if r["status"] >= 500] == []
