"""Multipart uploads: parts in any order, one object at the end, AWS's etags and checksums, and every refusal."""

import base64
import hashlib
import random
import zlib
from typing import Any

import pytest
from botocore.exceptions import ClientError

PART = 70_000  # above the smallest part that this server was told to take


def noise(number: int, size: int = PART) -> bytes:
    return random.Random(number).randbytes(size)


def refused(function: Any, **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as e:
        function(**arguments)
    response = e.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


class Uploading:
    """An upload in progress and the parts it has."""

    def __init__(self, s3: Any, bucket: str, key: str = "k", **more: Any) -> None:
        self.s3 = s3
        self.created = s3.create_multipart_upload(Bucket=bucket, Key=key, **more)
        self.at = {"Bucket": bucket, "Key": key, "UploadId": self.created["UploadId"]}
        self.parts: dict[int, dict[str, Any]] = {}
        self.bodies: dict[int, bytes] = {}

    def put(self, number: int, body: bytes | None = None, **more: Any) -> dict[str, Any]:
        self.bodies[number] = noise(number) if body is None else body
        done: dict[str, Any] = self.s3.upload_part(**self.at, PartNumber=number, Body=self.bodies[number], **more)
        sums = {n: v for n, v in done.items() if n.startswith("Checksum")}
        self.parts[number] = {"PartNumber": number, "ETag": done["ETag"], **sums}
        return done

    def complete(self, **more: Any) -> dict[str, Any]:
        parts = [self.parts[n] for n in sorted(self.parts)]
        done: dict[str, Any] = self.s3.complete_multipart_upload(**self.at, MultipartUpload={"Parts": parts}, **more)
        return done

    @property
    def body(self) -> bytes:
        return b"".join(self.bodies[n] for n in sorted(self.bodies))

    @property
    def etag(self) -> str:
        digests = b"".join(hashlib.md5(self.bodies[n]).digest() for n in sorted(self.bodies))
        return f'"{hashlib.md5(digests).hexdigest()}-{len(self.bodies)}"'


def test_parts_in_any_order_become_one_object(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket, ContentType="a/b", Metadata={"m": "1"}, Tagging="t=1")
    for number in (7, 2, 4):
        up.put(number)
    up.put(2, noise(99))  # again: the last one counts
    up.put(9, b"tail")
    done = up.complete()
    assert done["ETag"] == up.etag
    assert done["Location"].endswith(f"/{bucket}/k")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["ETag"], got["ContentType"]) == (up.body, up.etag, "a/b")
    assert (got["Metadata"], got["TagCount"]) == ({"m": "1"}, 1)
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["ETag"] == up.etag
    assert refused(s3.list_parts, **up.at) == ("NoSuchUpload", 404)


def test_a_part_is_read_by_its_number(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket)
    up.put(1)
    up.put(2)
    up.put(3, b"end")
    up.complete()
    offset = 0
    for number in (1, 2, 3):
        size = len(up.bodies[number])
        got = s3.get_object(Bucket=bucket, Key="k", PartNumber=number)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert (got["Body"].read(), got["PartsCount"]) == (up.bodies[number], 3)
        assert got["ContentRange"] == f"bytes {offset}-{offset + size - 1}/{len(up.body)}"
        offset += size
        head = s3.head_object(Bucket=bucket, Key="k", PartNumber=number)
        assert (head["ContentLength"], head["PartsCount"]) == (size, 3)
    assert refused(s3.get_object, Bucket=bucket, Key="k", PartNumber=4) == ("InvalidPartNumber", 416)
    assert refused(s3.get_object, Bucket=bucket, Key="k", PartNumber=1, Range="bytes=0-1") == ("InvalidRequest", 400)
    s3.put_object(Bucket=bucket, Key="plain", Body=b"whole")
    got = s3.get_object(Bucket=bucket, Key="plain", PartNumber=1)
    assert (got["Body"].read(), got["ContentRange"], "PartsCount" in got) == (b"whole", "bytes 0-4/5", False)
    assert refused(s3.get_object, Bucket=bucket, Key="plain", PartNumber=2) == ("InvalidPartNumber", 416)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("CRC32", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("CRC32C", "COMPOSITE"), ("CRC32C", "FULL_OBJECT"),
     ("SHA1", "COMPOSITE"), ("SHA256", "COMPOSITE"), ("CRC64NVME", "FULL_OBJECT")],
)  # fmt: skip
def test_composite_and_full_object_checksums(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    name = f"Checksum{algorithm}"
    up = Uploading(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    assert (up.created["ChecksumAlgorithm"], up.created["ChecksumType"]) == (algorithm, kind)
    for number in (1, 2, 3):
        assert up.put(number, ChecksumAlgorithm=algorithm)[name]
    listed = s3.list_parts(**up.at)
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (algorithm, kind)
    assert [p[name] for p in listed["Parts"]] == [up.parts[n][name] for n in (1, 2, 3)]
    done = up.complete(ChecksumType=kind)
    assert done["ChecksumType"] == kind
    s3.put_object(Bucket=bucket, Key="whole", Body=up.body, ChecksumAlgorithm=algorithm)
    whole = s3.head_object(Bucket=bucket, Key="whole", ChecksumMode="ENABLED")[name]
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[name], head["ChecksumType"]) == (done[name], kind)
    if kind == "FULL_OBJECT":
        assert done[name] == whole
    else:
        assert done[name].endswith("-3")
        assert done[name] != whole
    got = s3.get_object(Bucket=bucket, Key="k", PartNumber=2, ChecksumMode="ENABLED")
    assert got["Body"].read() == up.bodies[2]
    assert got.get(name) == (up.parts[2][name] if kind == "COMPOSITE" else None)
    told = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts", "Checksum"])
    assert (told["Checksum"][name], told["Checksum"]["ChecksumType"]) == (done[name].partition("-")[0], kind)
    assert told["ObjectParts"]["TotalPartsCount"] == 3
    if kind == "COMPOSITE":
        assert [p[name] for p in told["ObjectParts"]["Parts"]] == [up.parts[n][name] for n in (1, 2, 3)]


def test_a_part_with_another_algorithm_than_the_upload_is_refused(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket, ChecksumAlgorithm="SHA256")
    assert refused(up.put, number=1, ChecksumAlgorithm="CRC32C") == ("InvalidRequest", 400)


def test_a_part_of_a_composite_checksum_must_have_one(rig: Any, s3: Any, bucket: str) -> None:
    for kind, wanted in (("COMPOSITE", (400, "InvalidRequest")), ("FULL_OBJECT", (200, ""))):
        up = Uploading(s3, bucket, ChecksumAlgorithm="CRC32", ChecksumType=kind)
        target = f"/{bucket}/k?partNumber=1&uploadId={up.created['UploadId']}"
        answer = rig.send("PUT", target, body=b"x")
        assert (answer.status, answer.code) == wanted
        if answer.code:
            message = "Checksum Type mismatch occurred, expected checksum Type: crc32, actual checksum Type: null"
            assert answer.text("Message") == message


def test_the_part_of_a_full_object_with_one_part_has_the_objects_checksum(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    up.put(1, ChecksumAlgorithm="CRC32")
    done = up.complete()
    assert (
        s3.head_object(Bucket=bucket, Key="k", PartNumber=1, ChecksumMode="ENABLED")["ChecksumCRC32"]
        == done["ChecksumCRC32"]
    )


def test_algorithms_and_types_that_do_not_go_together(rig: Any, bucket: str) -> None:
    for algorithm, kind in (("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("MD17", "")):
        fields = {"x-amz-checksum-algorithm": algorithm, **({"x-amz-checksum-type": kind} if kind else {})}
        assert rig.send("POST", f"/{bucket}/k?uploads", fields).code == "InvalidRequest"


def test_without_an_algorithm_the_object_gets_a_full_crc64nvme(rig: Any, s3: Any, bucket: str) -> None:
    upload = rig.send("POST", f"/{bucket}/k?uploads").text("UploadId")
    bodies = [noise(1), noise(2)]
    etags = [rig.send("PUT", f"/{bucket}/k?partNumber={n}&uploadId={upload}", body=b).headers["ETag"]
             for n, b in enumerate(bodies, 1)]  # fmt: skip
    text = "".join(
        f"<Part><PartNumber>{n}</PartNumber><ETag>{e.strip(chr(34))}</ETag></Part>" for n, e in enumerate(etags, 1)
    )
    done = rig.send("POST", f"/{bucket}/k?uploadId={upload}",
                    body=f"<CompleteMultipartUpload>{text}</CompleteMultipartUpload>".encode())  # fmt: skip
    assert done.status == 200, done
    whole = rig.send("PUT", f"/{bucket}/whole", body=b"".join(bodies)).headers["x-amz-checksum-crc64nvme"]
    assert (done.text("ChecksumCRC64NVME"), done.text("ChecksumType")) == (whole, "FULL_OBJECT")


def test_what_complete_refuses(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket)
    up.put(1, b"small")
    up.put(2)
    up.put(3)
    one, two, three = (up.parts[n] for n in (1, 2, 3))

    def complete(*parts: dict[str, Any], **more: Any) -> tuple[str, int]:
        return refused(s3.complete_multipart_upload, **up.at, MultipartUpload={"Parts": list(parts)}, **more)

    assert complete(one, two) == ("EntityTooSmall", 400)
    assert complete(three, two) == ("InvalidPartOrder", 400)
    assert complete(two, two) == ("InvalidPartOrder", 400)
    assert complete(two, {**three, "PartNumber": 4}) == ("InvalidPart", 400)
    assert complete({**two, "ETag": '"00000000000000000000000000000000"'}) == ("InvalidPart", 400)
    assert complete() == ("MalformedXML", 400)
    assert complete(two, three, MpuObjectSize=1)[0] == "InvalidRequest"
    assert complete(two, three, ChecksumType="COMPOSITE")[0] == "InvalidRequest"
    assert refused(s3.get_object, Bucket=bucket, Key="k") == ("NoSuchKey", 404)
    s3.complete_multipart_upload(**up.at, MultipartUpload={"Parts": [two, three]}, MpuObjectSize=2 * PART)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == up.bodies[2] + up.bodies[3]


def test_a_declared_checksum_of_the_whole_is_verified(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    up.put(1, ChecksumAlgorithm="CRC32")
    assert refused(up.complete, ChecksumCRC32="AAAAAA==", ChecksumType="FULL_OBJECT") == ("BadDigest", 400)
    right = base64.b64encode(zlib.crc32(up.body).to_bytes(4, "big")).decode()
    assert up.complete(ChecksumCRC32=right, ChecksumType="FULL_OBJECT")["ChecksumCRC32"] == right


def test_complete_again_gives_the_same_answer(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket)
    up.put(1)
    first, again = up.complete(), up.complete()
    assert first["ETag"] == again["ETag"]


def test_conditional_complete(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"there")["ETag"]
    up = Uploading(s3, bucket)
    up.put(1)
    assert refused(up.complete, IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert refused(up.complete, IfMatch='"no"') == ("PreconditionFailed", 412)
    up.complete(IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == up.body


def test_abort_forgets_everything(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket)
    up.put(1)
    assert s3.abort_multipart_upload(**up.at)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refused(s3.abort_multipart_upload, **up.at) == ("NoSuchUpload", 404)
    assert refused(up.put, number=2) == ("NoSuchUpload", 404)
    assert refused(up.complete) == ("NoSuchUpload", 404)
    assert refused(s3.upload_part, **{**up.at, "UploadId": "junk"}, PartNumber=1, Body=b"x") == ("NoSuchUpload", 404)


@pytest.mark.parametrize("number", ["0", "10001", "x", "-1", ""])
def test_part_numbers_that_cannot_be(rig: Any, bucket: str, number: str) -> None:
    upload = rig.send("POST", f"/{bucket}/k?uploads").text("UploadId")
    answer = rig.send("PUT", f"/{bucket}/k?partNumber={number}&uploadId={upload}", body=b"x")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_parts_and_uploads_are_listed_in_pages(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket)
    for number in (1, 3, 5):
        up.put(number, b"x")
    first = s3.list_parts(**up.at, MaxParts=2)
    assert [p["PartNumber"] for p in first["Parts"]] == [1, 3]
    assert (first["IsTruncated"], first["NextPartNumberMarker"], first["MaxParts"]) == (True, 3, 2)
    rest = s3.list_parts(**up.at, PartNumberMarker=3)
    assert ([p["PartNumber"] for p in rest["Parts"]], rest["IsTruncated"]) == ([5], False)
    assert rest["Parts"][0]["Size"] == 1
    assert rest["Owner"]["DisplayName"] == "root"
    keys = ["a", "a", "b/1", "b/2", "c", "k"]
    ids = {(k, Uploading(s3, bucket, k).at["UploadId"]) for k in keys[:-1]} | {("k", up.at["UploadId"])}
    found: set[tuple[str, str]] = set()
    order: list[str] = []
    marker: dict[str, str] = {}
    while True:
        page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=2, **marker)
        assert len(page["Uploads"]) <= 2
        found |= {(u["Key"], u["UploadId"]) for u in page["Uploads"]}
        order += [u["Key"] for u in page["Uploads"]]
        if not page["IsTruncated"]:
            break
        marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    assert found == ids
    assert order == keys
    folded = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [p["Prefix"] for p in folded["CommonPrefixes"]] == ["b/"]
    assert {u["Key"] for u in s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")["Uploads"]} == {"b/1", "b/2"}


def test_a_part_is_copied_from_another_object(s3: Any, bucket: str) -> None:
    source = noise(5, 200_000)
    s3.put_object(Bucket=bucket, Key="s", Body=source)
    up = Uploading(s3, bucket)
    spans = {1: (0, 99_999), 2: (100_000, 199_999)}
    for number, (first, last) in spans.items():
        done = s3.upload_part_copy(
            **up.at, PartNumber=number, CopySource=f"{bucket}/s", CopySourceRange=f"bytes={first}-{last}"
        )["CopyPartResult"]
        assert done["ETag"] == f'"{hashlib.md5(source[first : last + 1]).hexdigest()}"'
        up.bodies[number] = source[first : last + 1]
        up.parts[number] = {"PartNumber": number, "ETag": done["ETag"]}
    whole = s3.upload_part_copy(**up.at, PartNumber=3, CopySource=f"{bucket}/s")["CopyPartResult"]
    up.bodies[3], up.parts[3] = source, {"PartNumber": 3, "ETag": whole["ETag"]}
    assert up.complete()["ETag"] == up.etag
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == source + source
    other = Uploading(s3, bucket)
    for bad in ("bytes=0-200000", "bytes=5-", "0-5"):
        code = refused(s3.upload_part_copy, **other.at, PartNumber=1, CopySource=f"{bucket}/s", CopySourceRange=bad)[0]
        assert code == "InvalidArgument"
    gone = {"CopySource": f"{bucket}/gone", "PartNumber": 1}
    assert refused(s3.upload_part_copy, **other.at, **gone) == ("NoSuchKey", 404)


def test_a_ranged_read_crosses_parts(s3: Any, bucket: str) -> None:
    up = Uploading(s3, bucket)
    for number in (1, 2, 3):
        up.put(number)
    up.complete()
    first, last = PART - 10, 2 * PART + 10
    got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}")["Body"].read()
    assert got == up.body[first : last + 1]
