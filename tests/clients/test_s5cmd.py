"""s5cmd, which does everything at once: thousands of objects made and removed, parts, batches, over HTTP and HTTPS."""

import hashlib
import json
import random
import ssl
import urllib.request
from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_s5cmd import S5CMD

pytestmark = pytest.mark.timeout(300)
MIB = 1 << 20


def test_2500_keys_go_up_at_once_and_are_removed_by_one_command(
    endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int
) -> None:
    bodies = random.Random(seed)
    contents = {f"{i % 7}/{i:04d} +&=%.bin": bodies.randbytes(i % 3000) for i in range(2500)}
    for name, content in contents.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    S5CMD.do(endpoint, "cp", f"{tmp_path}/", f"s3://{bucket}/n/")
    S5CMD.do(endpoint, "pipe", f"s3://{bucket}/kept", text="kept")
    sums = {f"n/{name}": hashlib.md5(content).hexdigest() for name, content in contents.items()}
    rows = [json.loads(line) for line in S5CMD.do(endpoint, "--json", "ls", f"s3://{bucket}/n/*").splitlines()]
    assert {r["key"].removeprefix(f"s3://{bucket}/"): r["etag"] for r in rows} == sums
    assert S5CMD.do(endpoint, "du", f"s3://{bucket}/n/*").startswith(
        f"{sum(map(len, contents.values()))} bytes in 2500"
    )

    removed = S5CMD.do(endpoint, "rm", f"s3://{bucket}/n/*").splitlines()
    assert {line.removeprefix(f"rm s3://{bucket}/") for line in removed} == sums.keys()
    assert endpoint.keys(bucket) == ["kept"]
    assert len(endpoint.requests(bucket, "DeleteObjects", at_least=3)) == 3, "a thousand keys a request"
    assert endpoint.framings(bucket, "PutObject") == {S5CMD.framing[endpoint.scheme]}
    assert [r for r in endpoint.requests(bucket) if r["status"] >= 400] == []


def test_parts_go_up_and_come_down_in_ranges(endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int) -> None:
    content = random.Random(seed).randbytes(31 * MIB + 1)
    (tmp_path / "big").write_bytes(content)
    parts = ["--part-size", "5", "--concurrency", "4"]
    S5CMD.do(endpoint, "cp", *parts, str(tmp_path / "big"), f"s3://{bucket}/big")
    S5CMD.do(endpoint, "cp", *parts, f"s3://{bucket}/big", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == content
    assert len(endpoint.requests(bucket, "UploadPart", at_least=7)) == 7
    assert endpoint.framings(bucket, "UploadPart") == {S5CMD.framing[endpoint.scheme]}
    assert {r["status"] for r in endpoint.requests(bucket, "GetObject", at_least=7)} == {206}
    assert endpoint.held(bucket) == {"big": hashlib.sha256(content).hexdigest()}


def test_a_batch_of_copies_moves_links_and_removals(endpoint: Endpoint, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"one of many")
    source, target = tmp_path / "body", f"s3://{bucket}"
    S5CMD.do(endpoint, "run", text="".join(f"cp {source} {target}/made/{i}\n" for i in range(40)))
    lines = [f"mv {target}/made/{i} '{target}/moved/ü {i}'" for i in range(10)]
    lines += [f"cp {target}/made/{i} {target}/copied/{i}" for i in range(10, 20)]
    lines += [f"rm {target}/made/{i}" for i in range(20, 30)]
    S5CMD.do(endpoint, "run", text="\n".join(lines))
    wanted = {f"moved/ü {i}" for i in range(10)} | {f"copied/{i}" for i in range(10, 20)}
    wanted |= {f"made/{i}" for i in [*range(10, 20), *range(30, 40)]}
    assert endpoint.held(bucket) == dict.fromkeys(wanted, hashlib.sha256(b"one of many").hexdigest())
    assert S5CMD.do(endpoint, "cat", f"{target}/moved/ü 3") == "one of many"
    url = S5CMD.do(endpoint, "presign", f"{target}/moved/ü 3").strip()
    with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=endpoint.bundle or None)) as answer:
        assert answer.read() == b"one of many"
    with pytest.raises(AssertionError, match="not found"):
        S5CMD.do(endpoint, "cat", f"{target}/made/0")


def test_all_versions_are_listed_and_removed(endpoint: Endpoint, bucket: str) -> None:
    S5CMD.do(endpoint, "bucket-version", "--set", "Enabled", f"s3://{bucket}")
    for text in ("one", "two"):
        S5CMD.do(endpoint, "pipe", f"s3://{bucket}/k", text=text)
    S5CMD.do(endpoint, "rm", f"s3://{bucket}/k")
    rows = S5CMD.do(endpoint, "ls", "--all-versions", f"s3://{bucket}/k").splitlines()
    versions = [row.split()[-1] for row in rows]
    assert len(versions) == 3, "two, and the marker of the deletion"
    texts = {S5CMD.do(endpoint, "cat", "--version-id", v, f"s3://{bucket}/k") for v in versions[:2]}
    assert texts == {"one", "two"}
    S5CMD.do(endpoint, "rm", "--all-versions", f"s3://{bucket}/*")
    left = endpoint.boto().list_object_versions(Bucket=bucket)
    assert "Versions" not in left
    assert "DeleteMarkers" not in left
    S5CMD.do(endpoint, "rb", f"s3://{bucket}")
