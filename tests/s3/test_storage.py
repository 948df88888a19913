"""Buckets that keep data in their own ways, by clients who know nothing of it."""

import random
from dataclasses import replace
from typing import Any

import pytest

from ostraka.limits import KIB
from ostraka.objects.recipes import changed


def bucket(rig: Any, name: str, **words: str) -> str:
    """A bucket that keeps data so."""
    made = rig.bucket_name(name)
    rig.client().create_bucket(Bucket=made)
    rig.run(rig.objects.update_bucket(made, lambda b: replace(b, storage=changed(b.storage, **words))))
    return made


def counted(rig: Any, name: str) -> int:
    return int(rig.call(rig.chunks.counters.totals)[name])


def test_the_same_body_is_kept_once_in_whatever_pieces_and_by_whatever_way_it_comes(rig: Any, seed: int) -> None:
    body, client = random.Random(seed).randbytes(900 * KIB), rig.client()
    first, second = (bucket(rig, f"{seed}-{n}", cut="cdc", compression="none") for n in "ab")
    client.put_object(Bucket=first, Key="k", Body=body)
    written = counted(rig, "chunks")
    assert rig.send("PUT", f"/{second}/plain", body=body).status == 200
    client.put_object(Bucket=second, Key="framed", Body=body, ChecksumAlgorithm="CRC64NVME")
    client.copy_object(Bucket=second, Key="copied", CopySource={"Bucket": first, "Key": "k"})
    upload = client.create_multipart_upload(Bucket=second, Key="parts")["UploadId"]
    where = {"Bucket": second, "Key": "parts", "UploadId": upload}
    part = client.upload_part(**where, PartNumber=1, Body=body)["ETag"]
    shared = client.upload_part_copy(**where, PartNumber=2, CopySource={"Bucket": first, "Key": "k"})["CopyPartResult"]
    parts = [{"PartNumber": n, "ETag": etag} for n, etag in ((1, part), (2, shared["ETag"]))]
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    assert counted(rig, "chunks") == written, "not one more"
    for key in ("plain", "framed", "copied"):
        assert client.get_object(Bucket=second, Key=key)["Body"].read() == body
    assert client.get_object(Bucket=second, Key="parts")["Body"].read() == body + body


@pytest.mark.parametrize("compression", ["none", "zstd:3", "lz4"])
@pytest.mark.parametrize("cut", ["fixed", "cdc"])
def test_ranges_are_exact_whatever_keeps_them(rig: Any, seed: int, compression: str, cut: str) -> None:
    dice, client = random.Random(seed), rig.client()
    name = bucket(rig, f"{seed}-{compression}-{cut}", compression=compression, cut=cut)
    text = b"".join(b"%d shards of clay\n" % n for n in range(20_000))
    for size in (2 * KIB, 2 * KIB + 1, 4 * KIB + 1, 64 * KIB, 64 * KIB + 1, 300 * KIB):
        body = text[: size // 2] + dice.randbytes(size - size // 2)
        client.put_object(Bucket=name, Key="k", Body=body)
        for _ in range(4):
            start = dice.randrange(size)
            end = dice.randrange(start, size)
            got = client.get_object(Bucket=name, Key="k", Range=f"bytes={start}-{end}")
            assert got["Body"].read() == body[start : end + 1]
            assert got["ContentRange"] == f"bytes {start}-{end}/{size}"


def test_customers_keys_and_cuts_by_content_go_together(rig: Any, seed: int) -> None:
    body, client = random.Random(seed).randbytes(300 * KIB), rig.client()
    name = bucket(rig, f"{seed}-sealed", cut="cdc", compression="lz4")
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": random.Random(seed).randbytes(32)}
    written = counted(rig, "chunks")
    client.put_object(Bucket=name, Key="sealed", Body=body, **key)
    sealed = counted(rig, "chunks") - written
    assert sealed > 3
    client.put_object(Bucket=name, Key="open", Body=body)
    assert counted(rig, "chunks") - written == 2 * sealed, "cut alike, and no chunk in common"
    client.put_object(Bucket=name, Key="again", Body=body, **key)
    assert counted(rig, "chunks") - written == 2 * sealed
    got = client.get_object(Bucket=name, Key="sealed", Range="bytes=70000-200000", **key)
    assert got["Body"].read() == body[70000:200001]
