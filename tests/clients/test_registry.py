"""The calls of a container registry on S3: layers pushed in pieces, moved, pulled, collected, over HTTP and HTTPS."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from client_endpoint import Endpoint
from client_registry import ROOT, Storage, Writer, blob, pull, push_layer, push_manifest

pytestmark = pytest.mark.timeout(300)
MIB = 1 << 20


@pytest.fixture
def storage(endpoint: Endpoint, bucket: str) -> Storage:
    return Storage(endpoint, bucket)


def pieces_of(seed: int, *sizes: int) -> list[bytes]:
    made = random.Random(seed)
    return [made.randbytes(size) for size in sizes]


def test_a_layer_pushed_in_pieces_of_every_size_is_appended_to_moved_and_pulled(
    endpoint: Endpoint, storage: Storage, seed: int
) -> None:
    # smaller than a part may be, so that it is read back; not a whole number of parts, so that it is copied as one
    pieces = pieces_of(seed, 3 * MIB, 20 * MIB, 13 * MIB + 3)
    layer = push_layer(storage, "library/app", pieces)
    config = push_layer(storage, "library/app", pieces_of(seed + 1, 1500))
    empty = push_layer(storage, "library/app", [b""])
    assert layer == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert push_layer(storage, "library/other", pieces) == layer, "a layer that is there already"
    manifest = push_manifest(storage, "library/app", "latest", [config, layer, empty])
    assert list(pull(storage, "library/app", "latest")) == [*pieces_of(seed + 1, 1500), b"".join(pieces), b""]
    assert storage.get(blob(layer), 30 * MIB) == b"".join(pieces)[30 * MIB :]

    held = endpoint.held(storage.bucket)
    for digest in (layer, config, empty, manifest):
        assert held[blob(digest)] == digest
    assert [key for key in held if "/_uploads/" in key] == []
    assert "Uploads" not in endpoint.boto().list_multipart_uploads(Bucket=storage.bucket)
    copies = endpoint.requests(storage.bucket, "UploadPartCopy", at_least=4)
    assert len(copies) == 2 * 1 + 2, "one for each append, two for the move"
    assert (
        endpoint.framings(storage.bucket, "UploadPart") == endpoint.framings(storage.bucket, "PutObject") == {"SHA256"}
    )
    assert [r for r in endpoint.requests(storage.bucket) if r["status"] not in (200, 204, 206, 404)] == []


def test_layers_are_pushed_at_once_and_one_that_is_given_up_leaves_nothing(
    endpoint: Endpoint, storage: Storage, seed: int
) -> None:
    layers = [pieces_of(seed + i, 6 * MIB + i, 11 * MIB, 100 * i) for i in range(4)]
    with ThreadPoolExecutor(5) as pool:
        pushed = pool.map(lambda pieces: push_layer(storage, "library/busy", pieces), layers)
        session = f"{ROOT}/repositories/library/busy/_uploads/given-up"
        storage.put(f"{session}/startedat", b"2026-11-21T12:00:00Z")
        writer = Writer(storage, f"{session}/data", append=False)
        writer.write(pieces_of(seed, 12 * MIB)[0])
        writer.close()
        Writer(storage, f"{session}/data", append=True).cancel()
        assert storage.delete(session) == 1
        digests = list(pushed)
    assert digests == [hashlib.sha256(b"".join(pieces)).hexdigest() for pieces in layers]
    push_manifest(storage, "library/busy", "v1", digests)
    assert [hashlib.sha256(layer).hexdigest() for layer in pull(storage, "library/busy", "v1")] == digests
    assert storage.stat(session) is None
    assert "Uploads" not in endpoint.boto().list_multipart_uploads(Bucket=storage.bucket)


def test_tags_are_listed_and_what_nothing_names_any_more_is_collected(
    endpoint: Endpoint, storage: Storage, seed: int
) -> None:
    names = [f"library/{name}" for name in ("app", "app-2", "app.old")]
    shared = push_layer(storage, names[0], pieces_of(seed, 5000))
    kept, gone = {shared}, set()
    for i, repository in enumerate(names):
        own = push_layer(storage, repository, pieces_of(seed + 1 + i, 7000))
        push_layer(storage, repository, pieces_of(seed, 5000))
        manifest = push_manifest(storage, repository, f"v{i}", [shared, own])
        (gone if repository == "library/app" else kept).update({own, manifest})
    repositories = f"{ROOT}/repositories"
    assert storage.entries(f"{repositories}/library") == [f"{repositories}/{name}" for name in names]
    tags = f"{repositories}/library/app-2/_manifests/tags"
    assert storage.entries(tags) == [f"{tags}/v1"]

    assert storage.delete(f"{repositories}/library/app") == 5, "not what only begins alike"
    assert storage.stat(f"{repositories}/library/app") is None
    assert storage.stat(f"{repositories}/library/app-2") == 0, "a directory"
    named = set()
    for path in storage.walk(repositories):
        if "/revisions/" in path or "/_layers/" in path:
            named.add(storage.get(path).decode().removeprefix("sha256:"))
    stored = {path.split("/")[-2] for path in storage.walk(f"{ROOT}/blobs")}
    assert stored == kept | gone
    assert named == kept
    for digest in stored - named:
        assert storage.delete(blob(digest).removesuffix("/data")) == 1
    assert {key.split("/")[-2] for key in endpoint.keys(storage.bucket) if key.startswith(f"{ROOT}/blobs/")} == kept
    for i, repository in enumerate(names[1:], start=1):
        assert len(list(pull(storage, repository, f"v{i}"))) == 2
