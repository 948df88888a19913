"""Server-side encryption through boto3: SSE-S3, SSE-KMS, SSE-C and buckets' defaults, on every way in and out."""

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from ostraka.chunks import Kind
from ostraka.limits import KIB
from ostraka.objects import rows
from ostraka.objects.check import check
from ostraka.s3.ops.encryption import key_name

from .conftest import Rig

MASTER = b"m" * 32
KEY, OTHER = b"1" * 32, b"2" * 32
C = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": KEY}
COPIED = {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": KEY}
WRONG = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": OTHER}
MARK = b"the potter's mark "
SIZES = [0, 1, 900, 3 * KIB, 40 * KIB, 300 * KIB]  # inline, inline, inline, pack, chunk, manifest


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    running = Rig(MASTER)
    running.run(running.keyring.create("kleio"))
    running.run(running.keyring.create("thalia"))
    yield running
    running.close()


@pytest.fixture
def s3(rig: Rig) -> Any:
    return rig.client()


@pytest.fixture
def bucket(rig: Rig, s3: Any, request: pytest.FixtureRequest) -> str:
    name = rig.bucket_name(request.node.name)
    s3.create_bucket(Bucket=name)
    return name


def refused(function: Any, **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as e:
        function(**arguments)
    return e.value.response["Error"]["Code"], e.value.response["ResponseMetadata"]["HTTPStatusCode"]


def body_of(size: int) -> bytes:
    return (MARK * (size // len(MARK) + 1))[:size]


def kept(rig: Rig) -> bytes:
    """All that is stored: the pool's bodies, and every row of the state."""
    found = rig.call(lambda: rig.state.scan(b"", None, 10_000))
    return b"".join([*rig.pool.bodies().values(), *(value for _, value in found)])


def record_of(rig: Rig, bucket: str, key: str) -> rows.VersionRecord:
    versions = rig.objects._versions
    return rig.call(lambda: versions.source(versions.lookup(bucket, key)))[1]


WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "AES256": {"ServerSideEncryption": "AES256"},
    "kms": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "kleio", "BucketKeyEnabled": True},
    "kms of the bucket": {"ServerSideEncryption": "aws:kms"},
    "customer": C,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_body_of_every_size_goes_in_sealed_and_comes_out_whole(rig: Rig, s3: Any, bucket: str, way: str) -> None:
    asked = WAYS[way]
    with_key = C if way == "customer" else {}
    for size in SIZES:
        body = body_of(size)
        made = s3.put_object(Bucket=bucket, Key=str(size), Body=body, **asked)
        got = s3.get_object(Bucket=bucket, Key=str(size), **with_key)
        head = s3.head_object(Bucket=bucket, Key=str(size), **with_key)
        assert got["Body"].read() == body
        for answer in (made, got, head):
            said(answer, way)
            assert answer["ETag"] == made["ETag"]
        is_md5 = made["ETag"].strip('"') == hashlib.md5(body).hexdigest()
        assert is_md5 == (way in ("default", "AES256"))
        if size > 1:
            part = s3.get_object(Bucket=bucket, Key=str(size), Range=f"bytes={size // 3}-{size // 2}", **with_key)
            assert part["Body"].read() == body[size // 3 : size // 2 + 1]
    assert MARK not in kept(rig)


def said(answer: dict[str, Any], way: str) -> None:
    """What every answer about such an object tells."""
    if way == "customer":
        assert answer["SSECustomerAlgorithm"] == "AES256"
        assert answer["SSECustomerKeyMD5"] == base64.b64encode(hashlib.md5(KEY).digest()).decode()
        assert "ServerSideEncryption" not in answer
        return
    assert answer["ServerSideEncryption"] == ("aws:kms" if "kms" in way else "AES256")
    if "kms" in way:
        assert answer["SSEKMSKeyId"].endswith(":key/kleio" if way == "kms" else ":key/default")
        assert answer.get("BucketKeyEnabled", False) == (way == "kms")


@pytest.mark.parametrize("way", WAYS)
def test_uploads_in_parts_are_sealed_like_bodies(rig: Rig, s3: Any, bucket: str, way: str) -> None:
    asked = WAYS[way]
    with_key = C if way == "customer" else {}
    parts = [body_of(100 * KIB), body_of(70 * KIB), body_of(500)]
    made = s3.create_multipart_upload(Bucket=bucket, Key="k", **asked)
    said(made, way)
    upload = {"Bucket": bucket, "Key": "k", "UploadId": made["UploadId"]}
    done = []
    for number, part in enumerate(parts, 1):
        answer = s3.upload_part(**upload, PartNumber=number, Body=part, **with_key)
        said(answer, way)
        assert (answer["ETag"].strip('"') == hashlib.md5(part).hexdigest()) == (way in ("default", "AES256"))
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    whole = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})
    if way != "customer":
        said(whole, way)
    got = s3.get_object(Bucket=bucket, Key="k", **with_key)
    said(got, way)
    assert got["Body"].read() == b"".join(parts)
    assert s3.get_object(Bucket=bucket, Key="k", PartNumber=2, **with_key)["Body"].read() == parts[1]
    assert MARK not in kept(rig)


def test_boto3_s_managed_transfers_carry_a_customer_s_key_through_all_parts(s3: Any, bucket: str) -> None:
    body = body_of(300 * KIB)
    parts = TransferConfig(multipart_threshold=64 * KIB, multipart_chunksize=64 * KIB)
    s3.upload_fileobj(io.BytesIO(body), bucket, "k", ExtraArgs=dict(C), Config=parts)
    out = io.BytesIO()
    s3.download_fileobj(bucket, "k", out, ExtraArgs=dict(C), Config=parts)
    assert out.getvalue() == body


@pytest.mark.parametrize("size", [900, 3 * KIB, 40 * KIB])
def test_an_object_of_a_customer_s_key_takes_that_key_and_no_other(s3: Any, bucket: str, size: int) -> None:
    s3.put_object(Bucket=bucket, Key="theirs", Body=body_of(size), **C)
    s3.put_object(Bucket=bucket, Key="ours", Body=body_of(size))
    for operation, code in ((s3.get_object, "InvalidRequest"), (s3.head_object, "400")):
        assert refused(operation, Bucket=bucket, Key="theirs") == (code, 400)
        assert refused(operation, Bucket=bucket, Key="ours", **C) == (code, 400)
    for operation, code in ((s3.get_object, "AccessDenied"), (s3.head_object, "403")):
        assert refused(operation, Bucket=bucket, Key="theirs", **WRONG) == (code, 403)
    asked = {"Bucket": bucket, "Key": "theirs", "ObjectAttributes": ["ObjectSize"]}
    assert refused(s3.get_object_attributes, **asked) == ("InvalidRequest", 400)
    digest = base64.b64encode(hashlib.md5(KEY).digest()).decode()  # this operation boto3 leaves to its caller
    spelt = {**C, "SSECustomerKey": base64.b64encode(KEY).decode(), "SSECustomerKeyMD5": digest}
    assert s3.get_object_attributes(**asked, **spelt)["ObjectSize"] == size
    s3.put_object_tagging(Bucket=bucket, Key="theirs", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert s3.get_object(Bucket=bucket, Key="theirs", **C)["Body"].read() == body_of(size), "tags take no key"
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 2


def test_a_part_takes_the_key_of_its_upload(s3: Any, bucket: str) -> None:
    theirs = s3.create_multipart_upload(Bucket=bucket, Key="k", **C)["UploadId"]
    ours = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = {"Bucket": bucket, "Key": "k", "PartNumber": 1, "Body": b"x"}
    assert refused(s3.upload_part, UploadId=theirs, **part) == ("InvalidRequest", 400)
    assert refused(s3.upload_part, UploadId=theirs, **part, **WRONG) == ("AccessDenied", 403)
    assert refused(s3.upload_part, UploadId=ours, **part, **C) == ("InvalidRequest", 400)
    s3.put_object(Bucket=bucket, Key="source", Body=body_of(5000))
    copied = {"Bucket": bucket, "Key": "k", "PartNumber": 1, "CopySource": f"{bucket}/source"}
    assert refused(s3.upload_part_copy, UploadId=theirs, **copied) == ("InvalidRequest", 400)
    assert s3.upload_part_copy(UploadId=theirs, **copied, **C)["SSECustomerAlgorithm"] == "AES256"


# -- copies


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_is_sealed_by_its_own_key_whatever_its_source_s(rig: Rig, s3: Any, bucket: str, size: int) -> None:
    body = body_of(size)
    for way, asked in WAYS.items():
        s3.put_object(Bucket=bucket, Key=f"from {way}", Body=body, Metadata={"a": "b"}, **asked)
        source = COPIED if way == "customer" else {}
        for to, wanted in WAYS.items():
            key = f"{way} to {to}"
            origin = {"Bucket": bucket, "Key": f"from {way}"}
            made = s3.copy_object(Bucket=bucket, Key=key, CopySource=origin, **wanted, **source)
            said(made, to)
            got = s3.get_object(Bucket=bucket, Key=key, **(C if to == "customer" else {}))
            assert got["Body"].read() == body
            assert got["Metadata"] == {"a": "b"}
            etag = got["ETag"].strip('"')
            assert etag == made["CopyObjectResult"]["ETag"].strip('"')
            assert (etag == hashlib.md5(body).hexdigest()) == (to in ("default", "AES256"))
    assert MARK not in kept(rig)


def test_a_copy_within_a_key_moves_no_bytes_and_one_across_keys_leaves_nothing_behind(
    rig: Rig, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=body_of(300 * KIB), ServerSideEncryption="aws:kms", SSEKMSKeyId="kleio")
    before = rig.pool.writes
    origin = {"Bucket": bucket, "Key": "a"}
    same = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "kleio"}
    s3.copy_object(Bucket=bucket, Key="b", CopySource=origin, **same)
    assert rig.pool.writes == before
    s3.copy_object(Bucket=bucket, Key="c", CopySource=origin, ServerSideEncryption="aws:kms", SSEKMSKeyId="thalia")
    assert rig.pool.writes > before
    rig.run(rig.objects.settle())
    assert not list(rig.call(lambda: list(check(rig.state))))


def test_a_copy_of_parts_into_another_key_has_all_of_them(s3: Any, bucket: str) -> None:
    body = body_of(300 * KIB)
    s3.upload_fileobj(io.BytesIO(body), bucket, "a", Config=TransferConfig(64 * KIB, multipart_chunksize=64 * KIB))
    s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a", **C)
    assert s3.get_object(Bucket=bucket, Key="b", **C)["Body"].read() == body
    back = s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/b", **COPIED)
    assert back["CopyObjectResult"]["ETag"].strip('"') == hashlib.md5(body).hexdigest()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="d")["UploadId"]
    part = s3.upload_part_copy(
        Bucket=bucket, Key="d", UploadId=upload, PartNumber=1, CopySource=f"{bucket}/b",
        CopySourceRange=f"bytes=100-{150 * KIB}", **COPIED,
    )  # fmt: skip
    parts = [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]
    s3.complete_multipart_upload(Bucket=bucket, Key="d", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="d")["Body"].read() == body[100 : 150 * KIB + 1]


def test_an_object_may_be_copied_onto_itself_to_change_its_key(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=body_of(40 * KIB))
    assert refused(s3.copy_object, Bucket=bucket, Key="k", CopySource=f"{bucket}/k") == ("InvalidRequest", 400)
    s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k", **C)
    assert s3.get_object(Bucket=bucket, Key="k", **C)["Body"].read() == body_of(40 * KIB)
    assert refused(s3.copy_object, Bucket=bucket, Key="l", CopySource=f"{bucket}/k") == ("InvalidRequest", 400)


# -- buckets


def test_a_new_bucket_is_encrypted_once_the_store_has_a_master_key(rig: Rig, s3: Any, bucket: str) -> None:
    rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule == {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}


def test_what_a_bucket_says_of_encryption_is_what_new_objects_get(s3: Any, bucket: str) -> None:
    kms = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:us-east-1:123456789012:key/kleio"}
    rule = {"ApplyServerSideEncryptionByDefault": kms, "BucketKeyEnabled": True}
    s3.put_object(Bucket=bucket, Key="before", Body=b"x")
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    got = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert got["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "kleio"}
    assert got["BucketKeyEnabled"]
    after = s3.put_object(Bucket=bucket, Key="after", Body=b"x")
    assert after["SSEKMSKeyId"].endswith("key/kleio")
    assert after["BucketKeyEnabled"]
    other = s3.put_object(Bucket=bucket, Key="other", Body=b"x", SSEKMSKeyId="thalia", ServerSideEncryption="aws:kms")
    assert other["SSEKMSKeyId"].endswith("key/thalia")
    assert s3.head_object(Bucket=bucket, Key="before")["ServerSideEncryption"] == "AES256"
    s3.delete_bucket_encryption(Bucket=bucket)
    assert s3.put_object(Bucket=bucket, Key="last", Body=b"x")["ServerSideEncryption"] == "AES256"


def test_what_a_bucket_cannot_say_of_encryption_is_refused(s3: Any, bucket: str) -> None:
    def put(*rules: dict[str, Any]) -> tuple[str, int]:
        said = {"Rules": list(rules)}
        return refused(s3.put_bucket_encryption, Bucket=bucket, ServerSideEncryptionConfiguration=said)

    def rule(**default: str) -> dict[str, Any]:
        return {"ApplyServerSideEncryptionByDefault": default}

    assert put(rule(SSEAlgorithm="aws:kms:dsse")) == ("NotImplemented", 501)
    assert put(rule(SSEAlgorithm="ROT13")) == ("MalformedXML", 400)
    assert put(rule(SSEAlgorithm="AES256", KMSMasterKeyID="kleio")) == ("InvalidArgument", 400)
    assert put(rule(SSEAlgorithm="aws:kms", KMSMasterKeyID="nobody")) == ("KMS.NotFoundException", 400)
    assert put() == ("MalformedXML", 400)
    assert put(rule(SSEAlgorithm="AES256"), rule(SSEAlgorithm="AES256")) == ("MalformedXML", 400)
    blocked = {**rule(SSEAlgorithm="AES256"), "BlockedEncryptionTypes": {"EncryptionType": ["SSE-C"]}}
    assert put(blocked) == ("NotImplemented", 501)
    got = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert got[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}


# -- what is refused


def customer_headers(**changed: str | None) -> dict[str, str]:
    given: dict[str, str | None] = {
        "algorithm": "AES256",
        "key": base64.b64encode(KEY).decode(),
        "key-md5": base64.b64encode(hashlib.md5(KEY).digest()).decode(),
    }
    given.update(changed)
    return {f"x-amz-server-side-encryption-customer-{n}": v for n, v in given.items() if v is not None}


SSE = "x-amz-server-side-encryption"
CONTEXT = base64.b64encode(json.dumps({"a": "b"}).encode()).decode()


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({SSE: "aws:kms:dsse"}, "NotImplemented", 501),
        ({SSE: "aws:fsx"}, "NotImplemented", 501),
        ({SSE: "ROT13"}, "InvalidArgument", 400),
        ({f"{SSE}-by-hand": "yes"}, "NotImplemented", 501),
        ({SSE: "aws:kms", f"{SSE}-aws-kms-key-id": "nobody"}, "KMS.NotFoundException", 400),
        ({SSE: "aws:kms", f"{SSE}-context": "no base64!"}, "InvalidArgument", 400),
        ({SSE: "aws:kms", f"{SSE}-context": base64.b64encode(b"[1]").decode()}, "InvalidArgument", 400),
        ({SSE: "aws:kms", f"{SSE}-bucket-key-enabled": "perhaps"}, "InvalidArgument", 400),
        ({SSE: "AES256", f"{SSE}-aws-kms-key-id": "kleio"}, "InvalidArgument", 400),
        ({f"{SSE}-aws-kms-key-id": "kleio"}, "InvalidArgument", 400),
        ({f"{SSE}-context": CONTEXT}, "InvalidArgument", 400),
        ({SSE: "AES256", **customer_headers()}, "InvalidArgument", 400),
        (customer_headers(algorithm=None), "InvalidArgument", 400),
        (customer_headers(algorithm="aws:kms"), "InvalidEncryptionAlgorithmError", 400),
        (customer_headers(key=None), "InvalidArgument", 400),
        (customer_headers(**{"key-md5": None}), "InvalidArgument", 400),
        (customer_headers(key=base64.b64encode(OTHER).decode()), "InvalidArgument", 400),
        (customer_headers(key=base64.b64encode(b"short").decode()), "InvalidArgument", 400),
        (customer_headers(key="=" * 44), "InvalidArgument", 400),
    ],
)
def test_what_is_not_understood_is_refused_before_a_byte_is_stored(
    rig: Rig, bucket: str, headers: dict[str, str], code: str, status: int
) -> None:
    for method, target in (("PUT", f"/{bucket}/k"), ("POST", f"/{bucket}/k?uploads")):
        answer = rig.send(method, target, headers, b"x" if method == "PUT" else b"")
        assert (answer.code, answer.status) == (code, status)
        assert base64.b64encode(KEY) not in answer.body
    assert rig.send("GET", f"/{bucket}/k").status == 404
    assert rig.send("GET", f"/{bucket}?uploads").all("UploadId") == []


def test_reads_and_parts_cannot_choose_an_encryption(rig: Rig, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    assert rig.send("GET", f"/{bucket}/k", {SSE: "AES256"}).code == "InvalidArgument"
    assert (
        rig.send("PUT", f"/{bucket}/m?partNumber=1&uploadId={upload}", {SSE: "AES256"}, b"x").code == "InvalidArgument"
    )
    assert rig.send("PUT", "/another-one", {SSE: "AES256"}).code == "NotImplemented"


def test_a_customer_s_key_travels_by_https_or_where_nobody_is_on_the_way(rig: Rig, bucket: str) -> None:
    assert rig.send("PUT", f"/{bucket}/k", customer_headers(), b"x").status == 200
    seen = type(rig.app.door.config)
    from ostraka.s3.ops import encryption

    class Far:
        scheme, peer = "http", "192.0.2.7"

    class Call:
        request = Far

        class door:
            config = seen()

    with pytest.raises(Exception, match="secure connection"):
        encryption._check_secure(Call)  # type: ignore[arg-type]
    Call.door.config = seen(sse_c_over_http=True)
    encryption._check_secure(Call)  # type: ignore[arg-type]
    Call.door.config = seen()
    Far.scheme = "https"
    encryption._check_secure(Call)  # type: ignore[arg-type]


def test_the_context_of_a_kms_write_is_kept_and_told_to_who_wrote(rig: Rig, s3: Any, bucket: str) -> None:
    made = s3.put_object(
        Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSEncryptionContext=CONTEXT
    )
    assert made["SSEKMSEncryptionContext"] == CONTEXT
    assert "SSEKMSEncryptionContext" not in s3.head_object(Bucket=bucket, Key="k")


def test_a_key_has_the_names_that_clients_give_it() -> None:
    for text in ("kleio", "alias/kleio", "arn:aws:kms:eu-west-1:123456789012:key/kleio", "arn:aws:kms:kleio"):
        assert key_name(text) == "kleio"
    assert key_name("alias/aws/s3") == key_name("arn:aws:kms:us-east-1:1:alias/aws/s3") == ""


# -- deduplication, and the store beneath


def test_equal_bodies_meet_only_under_one_key(rig: Rig, s3: Any, bucket: str) -> None:
    body = body_of(40 * KIB) + bucket.encode()
    ids: dict[str, set[bytes]] = {}
    for way, asked in WAYS.items():
        for n in range(2):
            s3.put_object(Bucket=bucket, Key=f"{way} {n}", Body=body, **asked)
            record = record_of(rig, bucket, f"{way} {n}")
            assert record.entries[0].kind == Kind.CHUNK
            ids.setdefault(way, set()).add(record.entries[0].id)
    assert all(len(found) == 1 for found in ids.values())
    assert ids["default"] == ids["AES256"] == ids["kms of the bucket"]
    assert len(set.union(*ids.values())) == 3


def test_a_customer_s_key_is_nowhere_and_what_knows_it_is_salted(rig: Rig, s3: Any, bucket: str) -> None:
    for n in range(2):
        s3.put_object(Bucket=bucket, Key=str(n), Body=body_of(900), **C)
    proofs = [
        record_of(rig, bucket, str(n)).encryption.proof  # type: ignore[union-attr]
        for n in range(2)
    ]
    assert proofs[0] != proofs[1]
    everything = kept(rig)
    for tell in (KEY, hashlib.md5(KEY).digest(), base64.b64encode(KEY), hashlib.sha256(KEY).digest()):
        assert tell not in everything
