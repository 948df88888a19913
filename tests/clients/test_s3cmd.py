"""s3cmd at its daily work: info of everything, parts, resuming, pipes, copies, links, over HTTP and HTTPS."""

import hashlib
import random
import ssl
import urllib.request
from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_s3cmd import S3CMD

pytestmark = pytest.mark.timeout(300)
MIB = 1 << 20
NOT_BUILT = {"PutObjectAcl"}  # after a copy it repeats the source's ACL, and lives with the refusal


def test_info_of_a_bucket_and_of_an_object_tells_what_is_and_what_is_not_configured(
    endpoint: Endpoint, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "body.txt").write_bytes(b"found at Athens\n")
    target = f"s3://{bucket}/a b+ü/body.txt"
    S3CMD.do(endpoint, "put", "--mime-type", "text/x-find", str(tmp_path / "body.txt"), target)
    said = fields(S3CMD.do(endpoint, "info", f"s3://{bucket}"))
    assert said["Location"] == "us-east-1"
    assert said["Payer"] == "BucketOwner"
    assert (said["Expiration Rule"], said["Policy"], said["CORS"]) == ("none", "none", "none")
    assert said["ACL"] == "root: FULL_CONTROL"
    said = fields(S3CMD.do(endpoint, "info", target))
    assert (said["File size"], said["MIME type"], said["SSE"]) == ("16", "text/x-find", "none")
    assert said["MD5 sum"] == hashlib.md5(b"found at Athens\n").hexdigest()
    asked = {r["operation"]: r["code"] for r in endpoint.requests(bucket, at_least=13)}
    assert asked["GetBucketPolicy"] == "NoSuchBucketPolicy"
    assert asked["GetBucketCors"] == "NoSuchCORSConfiguration"
    assert asked["GetBucketLifecycleConfiguration"] == "NoSuchLifecycleConfiguration"
    assert asked["GetBucketRequestPayment"] == asked["GetBucketAcl"] == asked["GetObjectAcl"] == ""
    with pytest.raises(AssertionError, match="NoSuchKey"):
        S3CMD.do(endpoint, "info", f"s3://{bucket}/gone")
    with pytest.raises(AssertionError, match="does not exist"):
        S3CMD.do(endpoint, "info", f"s3://{bucket}-gone")


def fields(said: str) -> dict[str, str]:
    """The lines of `s3cmd info`, by what they are of."""
    pairs = (line.split(":", 1) for line in said.splitlines()[1:])
    return {name.strip(): value.strip() for name, value in pairs}


def test_parts_go_up_and_a_download_that_was_cut_goes_on(
    endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int
) -> None:
    content = random.Random(seed).randbytes(23 * MIB + 1)
    (tmp_path / "big").write_bytes(content)
    S3CMD.do(endpoint, "put", "--multipart-chunk-size-mb=5", str(tmp_path / "big"), f"s3://{bucket}/deep/big")
    assert len(endpoint.requests(bucket, "UploadPart", at_least=5)) == 5
    assert endpoint.framings(bucket, "UploadPart") == {S3CMD.framing[endpoint.scheme]}
    (tmp_path / "cut").write_bytes(content[: 9 * MIB])
    S3CMD.do(endpoint, "get", "--continue", f"s3://{bucket}/deep/big", str(tmp_path / "cut"))
    assert (tmp_path / "cut").read_bytes() == content
    assert [(r["status"], r["sent"]) for r in endpoint.requests(bucket, "GetObject")] == [(206, 14 * MIB + 1)]
    assert endpoint.held(bucket) == {"deep/big": hashlib.sha256(content).hexdigest()}


def test_objects_are_piped_copied_moved_listed_linked_and_removed(endpoint: Endpoint, bucket: str) -> None:
    S3CMD.do(endpoint, "put", "-", f"s3://{bucket}/in/piped", text="through a pipe\n")
    assert S3CMD.do(endpoint, "get", f"s3://{bucket}/in/piped", "-") == "through a pipe\n"
    S3CMD.do(endpoint, "cp", f"s3://{bucket}/in/piped", f"s3://{bucket}/out/ä #1")
    S3CMD.do(endpoint, "mv", f"s3://{bucket}/in/piped", f"s3://{bucket}/out/second")
    S3CMD.do(endpoint, "modify", "--add-header=Cache-Control: no-cache", f"s3://{bucket}/out/second")
    assert endpoint.boto().head_object(Bucket=bucket, Key="out/second")["CacheControl"] == "no-cache"
    listed = S3CMD.do(endpoint, "ls", "--recursive", f"s3://{bucket}")
    assert [line.split(maxsplit=3)[2:] for line in listed.splitlines()] == [
        ["15", f"s3://{bucket}/out/second"],
        ["15", f"s3://{bucket}/out/ä #1"],
    ]
    assert S3CMD.do(endpoint, "du", f"s3://{bucket}").split()[:2] == ["30", "2"]
    url = S3CMD.do(endpoint, "signurl", f"s3://{bucket}/out/ä #1", "+60").strip()
    with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=endpoint.bundle or None)) as answer:
        assert answer.read() == b"through a pipe\n"
    with pytest.raises(AssertionError, match="BucketNotEmpty"):
        S3CMD.do(endpoint, "rb", f"s3://{bucket}")
    S3CMD.do(endpoint, "del", "--recursive", "--force", f"s3://{bucket}/out/")
    assert endpoint.keys(bucket) == []
    S3CMD.do(endpoint, "rb", f"s3://{bucket}")
    assert bucket not in S3CMD.do(endpoint, "ls")
