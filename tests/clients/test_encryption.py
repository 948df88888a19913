"""Encryption as clients ask for it, in the words of their own options, of a server with a master key."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_endpoint import Endpoint
from client_s3cmd import S3CMD
from client_tls import Authority
from client_tools import AWS_CLIS, RCLONE, AwsCli

from ostraka.chunks.keyring import SETTING
from ostraka.server.asking import ask

KEY = b"0123456789abcdef0123456789ABCDEF"  # rclone takes it as text
SIZE = 9 << 20  # in parts, by clients that begin them at 8 MiB


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Endpoint]:
    directory = tmp_path_factory.mktemp("sealed")
    with Endpoint(directory, authority, environment={SETTING: "6d" * 32}) as served:
        assert ask([directory / "store"], "key-create", {"name": "kleio"}, lambda *_: None)
        served.boto().create_bucket(Bucket="clay")
        yield served


@pytest.fixture
def body(seed: int, tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(random.Random(seed).randbytes(SIZE))
    return path


def check(endpoint: Endpoint, key: str, body: Path, **with_key: str) -> dict[str, Any]:
    """What an independent client reads of it, and hears."""
    got: dict[str, Any] = endpoint.boto().get_object(Bucket="clay", Key=key, **with_key)
    assert hashlib.sha256(got["Body"].read()).digest() == hashlib.sha256(body.read_bytes()).digest()
    return got


@pytest.mark.parametrize(
    "aws", [AWS_CLIS[0], pytest.param(AWS_CLIS[1], marks=pytest.mark.slow)], ids=[c.name for c in AWS_CLIS]
)
def test_the_aws_command_line(endpoint: Endpoint, body: Path, tmp_path: Path, aws: AwsCli) -> None:
    def copy(*words: str) -> None:
        aws.do(endpoint, "s3", "cp", "--only-show-errors", *words)

    (tmp_path / "key").write_bytes(KEY)
    customer = ["--sse-c", "AES256", "--sse-c-key", f"fileb://{tmp_path}/key"]
    copy(str(body), f"s3://clay/{aws.name}/hers", "--sse", "aws:kms", "--sse-kms-key-id", "kleio")
    assert check(endpoint, f"{aws.name}/hers", body)["SSEKMSKeyId"].endswith("key/kleio")
    copy(str(body), f"s3://clay/{aws.name}/theirs", *customer)
    check(endpoint, f"{aws.name}/theirs", body, SSECustomerAlgorithm="AES256", SSECustomerKey=KEY.decode())
    copy(f"s3://clay/{aws.name}/theirs", str(tmp_path / "back"), *customer)
    assert (tmp_path / "back").read_bytes() == body.read_bytes()


def test_rclone(endpoint: Endpoint, body: Path, tmp_path: Path) -> None:
    kms = ["--s3-server-side-encryption", "aws:kms", "--s3-sse-kms-key-id", "kleio"]
    customer = ["--s3-sse-customer-algorithm", "AES256", "--s3-sse-customer-key", KEY.decode()]
    parts = ["--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M"]
    RCLONE.do(endpoint, "copyto", *kms, *parts, str(body), "s:clay/rclone/hers")
    assert check(endpoint, "rclone/hers", body)["ServerSideEncryption"] == "aws:kms"
    RCLONE.do(endpoint, "copyto", *customer, *parts, str(body), "s:clay/rclone/theirs")
    check(endpoint, "rclone/theirs", body, SSECustomerAlgorithm="AES256", SSECustomerKey=KEY.decode())
    RCLONE.do(endpoint, "copyto", *customer, "s:clay/rclone/theirs", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == body.read_bytes()


def test_s3cmd(endpoint: Endpoint, body: Path, tmp_path: Path) -> None:
    S3CMD.do(endpoint, "put", "--server-side-encryption", str(body), "s3://clay/s3cmd/ours")
    assert check(endpoint, "s3cmd/ours", body)["ServerSideEncryption"] == "AES256"
    named = ["--server-side-encryption", "--server-side-encryption-kms-id=kleio"]
    S3CMD.do(endpoint, "put", *named, str(body), "s3://clay/s3cmd/hers")
    assert check(endpoint, "s3cmd/hers", body)["SSEKMSKeyId"].endswith("key/kleio")
    S3CMD.do(endpoint, "get", "s3://clay/s3cmd/hers", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == body.read_bytes()
