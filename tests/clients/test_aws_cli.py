"""What people type: the AWS command line, PyPI's and Debian's, over HTTP and HTTPS."""

import hashlib
import random
import ssl
import subprocess
import urllib.request
import zlib
from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tools import AWS_CLIS, AwsCli

pytestmark = pytest.mark.timeout(300)
MIB = 1 << 20


@pytest.fixture(params=AWS_CLIS, ids=lambda c: c.name)
def aws(request: pytest.FixtureRequest) -> AwsCli:
    found: AwsCli = request.param
    return found


@pytest.fixture
def bucket(request: pytest.FixtureRequest, endpoint: Endpoint, aws: AwsCli) -> str:
    name = f"{aws.name}-{zlib.crc32(request.node.name.encode()):08x}"
    endpoint.boto().create_bucket(Bucket=name)
    return name


def test_100_mib_go_up_and_down_and_a_part_of_them_alone(
    aws: AwsCli, endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int
) -> None:
    content = random.Random(seed).randbytes(100 * MIB + 1)
    (tmp_path / "big file").write_bytes(content)
    target = f"s3://{bucket}/a directory/big file"
    aws.do(endpoint, "s3", "cp", "--only-show-errors", str(tmp_path / "big file"), target)
    aws.do(endpoint, "s3", "cp", "--only-show-errors", target, str(tmp_path / "copy"))
    assert hashlib.sha256((tmp_path / "copy").read_bytes()).digest() == hashlib.sha256(content).digest()
    parts = endpoint.requests(bucket, "UploadPart", at_least=13)
    assert len(parts) == 13
    assert {r["framing"] for r in parts} == {aws.framing[endpoint.scheme]}
    words = ["--bucket", bucket, "--key", "a directory/big file", "--range", "bytes=8388600-8388700"]
    assert aws.api(endpoint, "get-object", *words, str(tmp_path / "part"))["ContentLength"] == 101
    assert (tmp_path / "part").read_bytes() == content[8388600:8388701]


def test_objects_are_piped_copied_moved_listed_presigned_and_removed(
    aws: AwsCli, endpoint: Endpoint, bucket: str, tmp_path: Path
) -> None:
    name = "ä b+c&d.txt"
    (tmp_path / name).write_bytes(b"moved")
    aws.do(endpoint, "s3", "mv", str(tmp_path / name), f"s3://{bucket}/in/{name}")
    assert not (tmp_path / name).exists()
    aws.do(endpoint, "s3", "cp", f"s3://{bucket}/in/{name}", f"s3://{bucket}/out/{name}")
    aws.do(endpoint, "s3", "mv", f"s3://{bucket}/in/{name}", f"s3://{bucket}/out/second")
    listed = aws.do(endpoint, "s3", "ls", "--recursive", f"s3://{bucket}")
    assert [line[31:] for line in listed.splitlines()] == ["out/second", f"out/{name}"]
    assert aws.do(endpoint, "s3", "cp", f"s3://{bucket}/out/{name}", "-") == "moved"
    url = aws.do(endpoint, "s3", "presign", f"s3://{bucket}/out/{name}").strip()
    with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=endpoint.bundle or None)) as answer:
        assert answer.read() == b"moved"
    aws.do(endpoint, "s3", "rm", "--recursive", f"s3://{bucket}/out/")
    assert "Contents" not in (aws.api(endpoint, "list-objects-v2", "--bucket", bucket) or {})
    aws.do(endpoint, "s3", "rb", f"s3://{bucket}")


def test_versions_tags_and_pages_are_asked_for_by_name(
    aws: AwsCli, endpoint: Endpoint, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "body").write_bytes(b"1")
    where = ["--bucket", bucket, "--key", "k=ü/+"]
    aws.api(endpoint, "put-bucket-versioning", "--bucket", bucket, "--versioning-configuration", "Status=Enabled")
    put = aws.api(endpoint, "put-object", *where, "--body", str(tmp_path / "body"), "--metadata", "a=b")
    assert put["ETag"] == f'"{hashlib.md5(b"1").hexdigest()}"'
    aws.api(endpoint, "put-object-tagging", *where, "--tagging", "TagSet=[{Key=x,Value=y z}]")
    assert aws.api(endpoint, "get-object-tagging", *where)["TagSet"] == [{"Key": "x", "Value": "y z"}]
    assert aws.api(endpoint, "head-object", *where)["Metadata"] == {"a": "b"}
    assert aws.api(endpoint, "delete-object", *where)["DeleteMarker"] is True
    found = aws.api(endpoint, "list-object-versions", "--bucket", bucket, "--page-size", "1")
    assert [v["VersionId"] for v in found["Versions"]] == [put["VersionId"]]
    assert [m["Key"] for m in found["DeleteMarkers"]] == ["k=ü/+"]


def test_what_is_not_there_is_told_as_such(aws: AwsCli, endpoint: Endpoint, bucket: str) -> None:
    with pytest.raises(AssertionError, match="NoSuchKey"):
        aws.api(endpoint, "get-object", "--bucket", bucket, "--key", "absent", "/dev/null")
    with pytest.raises(AssertionError, match="NoSuchBucket"):
        aws.do(endpoint, "s3", "ls", f"s3://{bucket}-absent")


def test_without_the_authority_a_client_refuses_the_server(aws: AwsCli, endpoint: Endpoint, bucket: str) -> None:
    if endpoint.scheme == "http":
        return  # nothing to verify
    env = {k: v for k, v in endpoint.environment().items() if k not in ("AWS_CA_BUNDLE", "SSL_CERT_FILE")}
    command = [str(aws.path), "--endpoint-url", endpoint.url, "s3", "ls", "--region", "us-east-1"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
