"""Bodies in every framing and requests signed in every way, through the whole server: framing is never stored."""

import datetime
import hashlib
import hmac
import http.client
import random
import socket
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from ostraka.errors import Unavailable

BODY = random.Random(3).randbytes(150_000)


def test_the_sdks_own_framings(rig: Any, bucket: str) -> None:
    """Signed payload, unsigned trailer, no checksum at all: what is stored is the body and nothing else."""
    for n, config in enumerate(
        (
            {"request_checksum_calculation": "when_required"},
            {"request_checksum_calculation": "when_supported"},
            {"s3": {"addressing_style": "path", "payload_signing_enabled": True}},
        )
    ):
        client = rig.client(**config)
        for size in (0, 10, 5000, len(BODY)):
            client.put_object(Bucket=bucket, Key=f"{n}", Body=BODY[:size])
            assert client.get_object(Bucket=bucket, Key=f"{n}")["Body"].read() == BODY[:size]


def signed_chunks(rig: Any, target: str, body: bytes, pieces: list[int], spoil: str = "") -> tuple[int, bytes]:
    """PUT with STREAMING-AWS4-HMAC-SHA256-PAYLOAD, signed here from the specification."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    host = f"127.0.0.1:{rig.port}"
    mode = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    fields = {
        "content-encoding": "aws-chunked",
        "host": host,
        "x-amz-content-sha256": mode,
        "x-amz-date": now,
        "x-amz-decoded-content-length": str(len(body)),
    }
    names = ";".join(sorted(fields))
    canonical = "\n".join(["PUT", target, "", *(f"{n}:{fields[n]}" for n in sorted(fields)), "", names, mode])
    key = b"AWS4" + b"root-secret"
    for word in (now[:8], "us-east-1", "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")

    def sign(text: str) -> str:
        return hmac.digest(key, text.encode(), "sha256").hex()

    def sha(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    previous = sign(f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{sha(canonical.encode())}")
    fields["authorization"] = f"AWS4-HMAC-SHA256 Credential=ROOTKEY/{scope},SignedHeaders={names},Signature={previous}"
    framed, start = b"", 0
    for size in [*pieces, 0]:
        data = body[start : start + size]
        start += size
        previous = sign(f"AWS4-HMAC-SHA256-PAYLOAD\n{now}\n{scope}\n{previous}\n{sha(b'')}\n{sha(data)}")
        if spoil == "data" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        framed += f"{len(data):x};chunk-signature={previous}\r\n".encode() + data + b"\r\n"
    if spoil == "end":
        framed = framed[: -len(f"0;chunk-signature={previous}\r\n\r\n")]
    connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=30)
    try:
        connection.request("PUT", target, framed, fields)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("pieces", [[150_000], [65_536, 65_536, 18_928], [8192] * 18 + [2544]])
def test_signed_chunks_are_taken_out_of_their_framing(rig: Any, bucket: str, pieces: list[int]) -> None:
    status, answer = signed_chunks(rig, f"/{bucket}/k", BODY, pieces)
    assert status == 200, answer
    assert rig.send("GET", f"/{bucket}/k").body == BODY


def test_small_signed_chunks(rig: Any, bucket: str) -> None:
    for size in (0, 1, 3000):
        status, answer = signed_chunks(rig, f"/{bucket}/k", BODY[:size], [size] if size else [])
        assert status == 200, answer
        assert rig.send("GET", f"/{bucket}/k").body == BODY[:size]


@pytest.mark.parametrize("size", [3000, 150_000])
@pytest.mark.parametrize(("spoil", "code"), [("data", b"SignatureDoesNotMatch"), ("end", b"IncompleteBody")])
def test_a_lying_body_is_refused_and_leaves_nothing(rig: Any, bucket: str, size: int, spoil: str, code: bytes) -> None:
    status, answer = signed_chunks(rig, f"/{bucket}/k", BODY[:size], [size], spoil)
    assert status in (400, 403)
    assert code in answer
    assert rig.send("GET", f"/{bucket}/k").status == 404


def test_a_body_that_is_cut_leaves_nothing(rig: Any, bucket: str) -> None:
    before = len(rig.records)
    head = f"PUT /{bucket}/k HTTP/1.1\r\nHost: 127.0.0.1:{rig.port}\r\nContent-Length: 100000\r\n\r\n"
    url = presigned(rig, "put_object", bucket, "k")
    target = url.partition(f":{rig.port}")[2]
    with socket.create_connection(("127.0.0.1", rig.port)) as sock:
        sock.sendall(head.replace(f"/{bucket}/k", target, 1).encode() + BODY[:50_000])
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    assert rig.send("GET", f"/{bucket}/k").status == 404
    assert len(rig.records) > before


def presigned(rig: Any, operation: str, bucket: str, key: str, **config: Any) -> str:
    client = rig.client(**config)
    return str(client.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": key}))


def fetch(method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


@pytest.mark.parametrize("version", ["s3v4", "s3", None])
def test_presigned_urls_of_both_versions(rig: Any, bucket: str, version: str | None) -> None:
    """None: what boto3 makes when it is not told (version 2 for an endpoint of one's own)."""
    config = {"signature_version": version} if version else {}
    key = "dir/a b+ü.txt"
    put = presigned(rig, "put_object", bucket, key, **config)
    connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=30)
    connection.request("PUT", put.partition(f":{rig.port}")[2], BODY)
    assert connection.getresponse().read() == b""
    connection.close()
    get = presigned(rig, "get_object", bucket, key, **config)
    assert fetch("GET", get) == (200, BODY)
    assert fetch("GET", get.replace("/dir/", "/other/"))[0] == 403
    assert fetch("DELETE", get)[0] == 403


def test_a_presigned_url_with_response_headers(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    url = rig.client(signature_version="s3v4").generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "k", "ResponseContentType": "text/x-made-up"}
    )
    with urllib.request.urlopen(url, timeout=30) as response:
        assert response.headers["Content-Type"] == "text/x-made-up"


def test_nobody_may_read(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    anonymous = rig.client(signature_version=UNSIGNED)
    with pytest.raises(ClientError, match="AccessDenied"):
        anonymous.get_object(Bucket=bucket, Key="k")


def test_the_body_is_not_asked_for_before_the_request_is_allowed(rig: Any, bucket: str) -> None:
    """100-continue comes after authentication and after everything that the head alone can tell."""
    url = presigned(rig, "put_object", bucket, "k", signature_version="s3v4")
    target = url.partition(f":{rig.port}")[2]
    fields = f"Host: 127.0.0.1:{rig.port}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
    for target_, wanted in ((target, b"HTTP/1.1 100 "), (target.replace("/k?", "/j?"), b"HTTP/1.1 403 ")):
        with socket.create_connection(("127.0.0.1", rig.port), timeout=10) as sock:
            sock.sendall(f"PUT {target_} HTTP/1.1\r\n{fields}\r\n".encode())
            assert sock.recv(4096).startswith(wanted)


def stored_by(rig: Any, s3: Any, bucket: str, key: str, body: bytes) -> list[bytes]:
    """Put an object; the write ids of what the pool holds of it, the smallest last."""
    before = set(rig.pool.bodies())
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    new = {w: len(b) for w, b in rig.pool.bodies().items() if w not in before}
    return sorted(new, key=lambda w: -new[w])


def test_damage_is_an_error_before_the_200_and_a_torn_connection_after(
    rig: Any, s3: Any, bucket: str, seed: int
) -> None:
    noise = random.Random(seed)
    rig.pool.damage(stored_by(rig, s3, bucket, "small", noise.randbytes(3000))[0], 100)
    answer = rig.send("GET", f"/{bucket}/small")
    assert (answer.status, answer.code) == (500, "InternalError")
    tail = stored_by(rig, s3, bucket, "large", noise.randbytes(150_000))[-1]
    rig.pool.damage(tail, 100)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        rig.send("GET", f"/{bucket}/large")
    assert rig.send("GET", f"/{bucket}/large", {"Range": "bytes=0-999"}).status == 206


def test_a_pool_that_is_away_is_503_and_never_an_absence(rig: Any, s3: Any, bucket: str, seed: int) -> None:
    rig.pool.failing = Unavailable("too few disks: /mnt/one, /mnt/two")
    try:
        answer = rig.send("PUT", f"/{bucket}/k", body=random.Random(seed).randbytes(100_000))
    finally:
        rig.pool.failing = None
    assert (answer.status, answer.code) == (503, "ServiceUnavailable")
    assert b"/mnt" not in answer.body
    assert rig.send("GET", f"/{bucket}/k").code == "NoSuchKey"
