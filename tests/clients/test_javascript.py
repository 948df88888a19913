"""The AWS SDK for JavaScript in Node, with the bucket in the path and in the host name, over HTTP and HTTPS."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from client_endpoint import Endpoint
from client_tls import Authority
from client_tools import REPOSITORY, needs, run

pytestmark = pytest.mark.timeout(300)
MIB = 1 << 20
SCRIPT = Path(__file__).with_name("javascript") / "script.cjs"
MODULES = REPOSITORY / ".venv-node"
WHOLE, STREAMED = "SHA256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"  # by body, not by scheme: a stream has a trailer
DOMAIN = "s3.ostraka.test"


@pytest.fixture(scope="module", params=["http", "https"])
def named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Endpoint]:
    """A server that has a name: buckets may come in the path and in the host."""
    directory = tmp_path_factory.mktemp(f"named-{request.param}")
    names = (DOMAIN, f"*.{DOMAIN}")
    secure = authority if request.param == "https" else None
    with Endpoint(directory, secure, "--domain", DOMAIN, names=names) as served:
        yield served


@pytest.fixture(params=["path", "virtual"])
def style(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def node(endpoint: Endpoint, style: str, step: str, **arguments: Any) -> Any:
    """Run a step of script.cjs in a bucket of its own; its result, with ``bucket``, and where requests went checked."""
    bucket = f"{step}-{style}"
    url = f"{endpoint.scheme}://{DOMAIN}:{urlsplit(endpoint.url).port}"
    job = {"step": step, "url": url, "bucket": bucket, "style": style, **arguments}
    env = endpoint.environment() | {"NODE_PATH": str(MODULES / "node_modules")}
    if endpoint.bundle:
        env["NODE_EXTRA_CA_CERTS"] = endpoint.bundle
    said = json.loads(run([needs(MODULES / "node"), str(SCRIPT)], env, text=json.dumps(job)))
    host = f"{bucket}.{DOMAIN}" if style == "virtual" else DOMAIN
    assert host in said["hosts"]
    assert style == "virtual" or said["hosts"] == [DOMAIN]
    return said | {"bucket": bucket}


def test_objects_are_put_and_read_as_text_bytes_and_streams(
    named: Endpoint, style: str, tmp_path: Path, seed: int
) -> None:
    content = random.Random(seed).randbytes(3 * MIB + 1)
    (tmp_path / "body").write_bytes(content)
    paths = {"path": str(tmp_path / "body"), "copy": str(tmp_path / "copy")}
    bucket = node(named, style, "objects", size=len(content), **paths)["bucket"]
    assert (tmp_path / "copy").read_bytes() == content
    texts = {"ä b/c+d&e=f?.txt": b"amphora", "copy": b"amphora", "empty": b"", "streamed": content}
    assert named.held(bucket) == {key: hashlib.sha256(body).hexdigest() for key, body in texts.items()}
    framings = {r["key"]: r["framing"] for r in named.requests(bucket, "PutObject") if r["status"] == 200}
    assert framings == {"ä b/c+d&e=f?.txt": WHOLE, "empty": WHOLE, "streamed": STREAMED}


def test_a_stream_of_unknown_length_goes_up_in_parts_and_one_given_up_leaves_nothing(
    named: Endpoint, style: str, tmp_path: Path, seed: int
) -> None:
    content = random.Random(seed).randbytes(21 * MIB + 1)
    (tmp_path / "body").write_bytes(content)
    parts = [hashlib.md5(content[i : i + 5 * MIB]).digest() for i in range(0, len(content), 5 * MIB)]
    etag = f'"{hashlib.md5(b"".join(parts)).hexdigest()}-5"'
    said = node(named, style, "multipart", path=str(tmp_path / "body"), size=len(content), etag=etag)
    held = named.held(said["bucket"])
    assert held == {"parts": hashlib.sha256(content).hexdigest(), "small": hashlib.sha256(b"one two").hexdigest()}
    assert named.framings(said["bucket"], "UploadPart") == {WHOLE}
    assert [r["status"] for r in named.requests(said["bucket"], "AbortMultipartUpload")] == [204]
    assert named.boto().list_multipart_uploads(Bucket=said["bucket"]).get("Uploads", []) == []


def test_links_made_by_the_presigner_are_used_without_it(named: Endpoint, style: str) -> None:
    said = node(named, style, "presigned")
    link = urlsplit(said["url"])
    assert link.hostname == (f"{said['bucket']}.{DOMAIN}" if style == "virtual" else DOMAIN)
    assert named.keys(said["bucket"]) == []
    assert named.framings(said["bucket"], "GetObject") == {"UNSIGNED-PAYLOAD"}


def test_hundreds_of_objects_are_listed_in_pages_and_removed(named: Endpoint, style: str) -> None:
    said = node(named, style, "many")
    assert named.held(said["bucket"]) == {said["kept"]: hashlib.sha256(said["kept"].encode()).hexdigest()}
    assert [r for r in named.requests(said["bucket"]) if r["status"] >= 400] == []
