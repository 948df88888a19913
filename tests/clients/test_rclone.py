"""rclone beyond sync: parts, streams, ranges, copies on the server's side, links, over HTTP and HTTPS."""

import hashlib
import json
import random
import ssl
import urllib.request
import zlib
from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tools import RCLONE

pytestmark = pytest.mark.timeout(300)
MIB = 1 << 20


@pytest.fixture
def bucket(request: pytest.FixtureRequest, endpoint: Endpoint) -> str:
    name = f"rclone-{zlib.crc32(request.node.name.encode()):08x}"
    RCLONE.do(endpoint, "mkdir", f"s:{name}")
    return name


def test_100_mib_go_up_in_parts_are_checked_and_come_down(
    endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int
) -> None:
    content = random.Random(seed).randbytes(100 * MIB + 1)
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "big").write_bytes(content)
    RCLONE.do(endpoint, "copy", "--s3-upload-cutoff", "5M", "--s3-chunk-size", "8M", f"{tmp_path}/up", f"s:{bucket}")
    RCLONE.do(endpoint, "check", "--download", f"{tmp_path}/up", f"s:{bucket}")
    RCLONE.do(endpoint, "copy", "--multi-thread-cutoff", "1M", f"s:{bucket}", f"{tmp_path}/down")
    assert hashlib.sha256((tmp_path / "down" / "big").read_bytes()).digest() == hashlib.sha256(content).digest()
    assert len(endpoint.requests(bucket, "UploadPart", at_least=13)) == 13


def test_streams_ranges_copies_and_links(endpoint: Endpoint, bucket: str) -> None:
    RCLONE.do(endpoint, "rcat", f"s:{bucket}/d/streamed +&", text="0123456789" * 100)
    assert RCLONE.do(endpoint, "cat", "--offset", "995", "--count", "3", f"s:{bucket}/d/streamed +&") == "567"
    RCLONE.do(endpoint, "moveto", f"s:{bucket}/d/streamed +&", f"s:{bucket}/e/ü")
    assert len(endpoint.requests(bucket, "CopyObject")) == 1, "it went through the client"
    rows = json.loads(RCLONE.do(endpoint, "lsjson", "--hash", "--recursive", "--files-only", f"s:{bucket}"))
    wanted = hashlib.md5(b"0123456789" * 100).hexdigest()
    assert [(r["Path"], r["Size"], r["Hashes"]["md5"]) for r in rows] == [("e/ü", 1000, wanted)]
    url = RCLONE.do(endpoint, "link", f"s:{bucket}/e/ü").strip()
    with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=endpoint.bundle or None)) as answer:
        assert answer.read() == b"0123456789" * 100
    RCLONE.do(endpoint, "touch", "--timestamp", "2001-02-03T04:05:06", f"s:{bucket}/e/ü")
    rows = json.loads(RCLONE.do(endpoint, "lsjson", f"s:{bucket}/e"))
    assert rows[0]["ModTime"].startswith("2001-02-03T04:05:06")


def test_old_versions_are_seen_and_cleaned_up(endpoint: Endpoint, bucket: str) -> None:
    boto = endpoint.boto()
    boto.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for text in ("one", "two"):
        RCLONE.do(endpoint, "rcat", f"s:{bucket}/k.txt", text=text)
    names = RCLONE.do(endpoint, "lsf", "--s3-versions", f"s:{bucket}").split()
    assert len(names) == 2
    assert {RCLONE.do(endpoint, "cat", "--s3-versions", f"s:{bucket}/{n}") for n in names} == {"one", "two"}
