"""What a container registry asks of S3: the calls of its storage driver, in their order and with its sizes.

As the documentation of CNCF Distribution's S3 driver has them: parts of 10 MiB, copies in parts of 32 MiB above 32 MiB,
every body signed, reads redirected to presigned URLs. A layer that is pushed in several requests is written by a new
writer for each, which finds the multipart upload of the one before by listing.
"""

import base64
import hashlib
import json
import ssl
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError
from client_endpoint import Endpoint

MIB = 1 << 20
PART_SIZE = 10 * MIB
PART_SIZE_MIN = 5 * MIB  # S3's, of all parts but the last
COPY_SIZE = 32 * MIB  # both the part of a copy and the size above which there are parts
COPIES_AT_ONCE = 100
ROOT = "docker/registry/v2"


class Storage:
    """The driver: files by path in a bucket."""

    def __init__(self, endpoint: Endpoint, bucket: str) -> None:
        self.bucket = bucket
        self.s3 = endpoint.boto(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=COPIES_AT_ONCE,
            s3={"addressing_style": "path", "payload_signing_enabled": True},
        )
        self._trust = ssl.create_default_context(cafile=endpoint.bundle or None)

    def put(self, path: str, content: bytes) -> None:
        md5 = _content_md5(content)
        self.s3.put_object(
            Bucket=self.bucket,
            Key=path,
            Body=content,
            ContentMD5=md5,
            ContentType="application/octet-stream",
            ACL="private",
            StorageClass="STANDARD",
        )

    def get(self, path: str, offset: int = 0) -> bytes:
        answer = self.s3.get_object(Bucket=self.bucket, Key=path, Range=f"bytes={offset}-")
        body: bytes = answer["Body"].read()
        return body

    def redirected(self, path: str) -> bytes:
        """What a client of the registry gets, who is sent to a presigned URL for it."""
        url = self.s3.generate_presigned_url(
            "get_object", Params={"Bucket": self.bucket, "Key": path}, ExpiresIn=20 * 60
        )
        with urllib.request.urlopen(url, context=self._trust) as answer:
            body: bytes = answer.read()
            return body

    def stat(self, path: str) -> int | None:
        """The size of a file, 0 of a directory; None: nothing is there."""
        try:
            return int(self.s3.head_object(Bucket=self.bucket, Key=path)["ContentLength"])
        except ClientError as e:
            if e.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"{path}/", MaxKeys=1)
        return 0 if found["KeyCount"] else None

    def entries(self, path: str) -> list[str]:
        """What is in a directory: paths of files and directories."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{path}/", Delimiter="/", PaginationConfig={"PageSize": 1000}
        )
        names = []
        for page in pages:
            names += [o["Key"] for o in page.get("Contents", [])]
            names += [p["Prefix"].removesuffix("/") for p in page.get("CommonPrefixes", [])]
        return sorted(names)

    def walk(self, path: str) -> Iterator[str]:
        """Every file below."""
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{path}/"):
            yield from (o["Key"] for o in page.get("Contents", []))

    def delete(self, path: str) -> int:
        """A file, or a directory and all below; how many files they were. What only begins alike stays."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=path)
        keys = [o["Key"] for page in pages for o in page.get("Contents", [])]
        keys = [key for key in keys if key == path or key.startswith(f"{path}/")]
        for i in range(0, len(keys), 1000):
            batch = {"Objects": [{"Key": key} for key in keys[i : i + 1000]], "Quiet": False}
            answer = self.s3.delete_objects(Bucket=self.bucket, Delete=batch)
            assert not answer.get("Errors"), answer
            assert len(answer["Deleted"]) == len(batch["Objects"]), answer
        return len(keys)

    def move(self, source: str, target: str) -> None:
        """By a copy on the server's side, in parts if it is large."""
        size = self.stat(source)
        assert size is not None, source
        if size <= COPY_SIZE:
            self.s3.copy_object(
                Bucket=self.bucket,
                Key=target,
                CopySource=f"{self.bucket}/{source}",
                ContentType="application/octet-stream",
                ACL="private",
            )
        else:
            self._copy_in_parts(source, target, size)
        assert self.delete(source) == 1

    def _copy_in_parts(self, source: str, target: str, size: int) -> None:
        upload = self.create(target)

        def copy(number: int) -> dict[str, Any]:
            first = (number - 1) * COPY_SIZE
            last = min(first + COPY_SIZE, size) - 1
            return self.copy_part(source, target, upload, number, f"bytes={first}-{last}")

        with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
            parts = list(pool.map(copy, range(1, -(-size // COPY_SIZE) + 1)))
        self.complete(target, upload, parts)

    # -- uploads

    def create(self, path: str) -> str:
        answer = self.s3.create_multipart_upload(
            Bucket=self.bucket,
            Key=path,
            ContentType="application/octet-stream",
            ACL="private",
            StorageClass="STANDARD",
        )
        return str(answer["UploadId"])

    def find(self, path: str) -> tuple[str, list[dict[str, Any]]]:
        """The upload of a path, and its parts so far."""
        pages = self.s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=path)
        uploads = [u["UploadId"] for page in pages for u in page.get("Uploads", []) if u["Key"] == path]
        assert len(uploads) == 1, (path, uploads)
        listed = self.s3.get_paginator("list_parts").paginate(Bucket=self.bucket, Key=path, UploadId=uploads[0])
        return uploads[0], [part for page in listed for part in page.get("Parts", [])]

    def upload_part(self, path: str, upload: str, number: int, content: bytes) -> dict[str, Any]:
        answer = self.s3.upload_part(
            Bucket=self.bucket,
            Key=path,
            UploadId=upload,
            PartNumber=number,
            Body=content,
            ContentMD5=_content_md5(content),
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "Size": len(content)}

    def copy_part(self, source: str, path: str, upload: str, number: int, where: str = "") -> dict[str, Any]:
        answer = self.s3.upload_part_copy(
            Bucket=self.bucket,
            Key=path,
            UploadId=upload,
            PartNumber=number,
            CopySource=f"{self.bucket}/{source}",
            **({"CopySourceRange": where} if where else {}),
        )
        return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

    def complete(self, path: str, upload: str, parts: list[dict[str, Any]]) -> None:
        named = [{"PartNumber": p["PartNumber"], "ETag": p["ETag"]} for p in parts]
        self.s3.complete_multipart_upload(
            Bucket=self.bucket, Key=path, UploadId=upload, MultipartUpload={"Parts": named}
        )


class Writer:
    """Writes one file; a later one goes on where it stopped."""

    def __init__(self, storage: Storage, path: str, *, append: bool) -> None:
        self._storage = storage
        self._path = path
        self._pending = bytearray()
        self._parts: list[dict[str, Any]] = []
        if append:
            self._upload, self._parts = storage.find(path)
        else:
            self._upload = storage.create(path)
        self.size = sum(p["Size"] for p in self._parts)

    def write(self, content: bytes) -> None:
        if content and self._parts and self._parts[-1]["Size"] < PART_SIZE_MIN:
            self._make_room()
        self._pending += content
        self.size += len(content)
        while len(self._pending) >= PART_SIZE:
            self._send(PART_SIZE)

    def close(self) -> None:
        """Everything is in parts; the upload stays open."""
        if self._pending:
            self._send(len(self._pending))

    def commit(self) -> None:
        """The file is there."""
        self.close()
        if not self._parts:  # S3 completes no upload without a part
            self._send(0)
        self._storage.complete(self._path, self._upload, self._parts)

    def cancel(self) -> None:
        self._storage.s3.abort_multipart_upload(Bucket=self._storage.bucket, Key=self._path, UploadId=self._upload)

    def _send(self, size: int) -> None:
        number = len(self._parts) + 1
        part = self._storage.upload_part(self._path, self._upload, number, bytes(self._pending[:size]))
        self._parts.append(part)
        del self._pending[:size]

    def _make_room(self) -> None:
        """The last part is too small to have a successor: what there is becomes an object, and that the beginning."""
        size = self.size
        self._storage.complete(self._path, self._upload, self._parts)
        self._upload, self._parts = self._storage.create(self._path), []
        if size < PART_SIZE_MIN:
            self._pending += self._storage.get(self._path)
        else:
            self._parts = [self._storage.copy_part(self._path, self._path, self._upload, 1) | {"Size": size}]


def push_layer(storage: Storage, repository: str, pieces: list[bytes]) -> str:
    """POST, a PATCH for each piece, PUT: as `docker push` does for a layer; its digest."""
    name = uuid.uuid4().hex
    session = f"{ROOT}/repositories/{repository}/_uploads/{name}"
    data = f"{session}/data"
    storage.put(f"{session}/startedat", b"2026-11-21T12:00:00Z")
    Writer(storage, data, append=False).close()
    hashed, size = hashlib.sha256(), 0
    storage.put(f"{session}/hashstates/sha256/0", b"state at 0")
    for piece in pieces:
        assert storage.get(f"{session}/startedat")
        writer = Writer(storage, data, append=True)
        assert writer.size == size, "parts that were sent are not listed"
        writer.write(piece)
        writer.close()
        hashed.update(piece)
        size += len(piece)
        storage.put(f"{session}/hashstates/sha256/{size}", f"state at {size}".encode())
    Writer(storage, data, append=True).commit()
    assert storage.stat(data) == size
    states = storage.entries(f"{session}/hashstates/sha256")
    assert int(max(states, key=lambda s: int(s.rpartition("/")[2])).rpartition("/")[2]) == size
    digest = hashed.hexdigest()
    if storage.stat(blob(digest)) is None:
        storage.move(data, blob(digest))
    storage.put(f"{ROOT}/repositories/{repository}/_layers/sha256/{digest}/link", f"sha256:{digest}".encode())
    storage.delete(session)
    return digest


def push_manifest(storage: Storage, repository: str, tag: str, layers: list[str]) -> str:
    """What names the layers, and the tag that names it; its digest."""
    content = json.dumps({"schemaVersion": 2, "layers": [{"digest": f"sha256:{digest}"} for digest in layers]}).encode()
    for digest in layers:
        link = storage.get(f"{ROOT}/repositories/{repository}/_layers/sha256/{digest}/link")
        assert storage.stat(blob(link.decode().removeprefix("sha256:"))) is not None
    digest = hashlib.sha256(content).hexdigest()
    assert storage.stat(blob(digest)) is None
    storage.put(blob(digest), content)
    manifests = f"{ROOT}/repositories/{repository}/_manifests"
    for place in (f"revisions/sha256/{digest}", f"tags/{tag}/index/sha256/{digest}", f"tags/{tag}/current"):
        storage.put(f"{manifests}/{place}/link", f"sha256:{digest}".encode())
    return digest


def pull(storage: Storage, repository: str, tag: str) -> Iterator[bytes]:
    """The layers of a tag, as a client gets them."""
    manifests = f"{ROOT}/repositories/{repository}/_manifests"
    digest = storage.get(f"{manifests}/tags/{tag}/current/link").decode().removeprefix("sha256:")
    assert storage.stat(blob(digest))
    for layer in json.loads(storage.get(blob(digest)))["layers"]:
        yield storage.redirected(blob(layer["digest"].removeprefix("sha256:")))


def blob(digest: str) -> str:
    """Where content lies."""
    return f"{ROOT}/blobs/sha256/{digest[:2]}/{digest}/data"


def _content_md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()
