"""A source that is overwritten while it is copied was there all the time: the copy is of one state or the other."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError


def overwriting(rig: Any, method: str, times: int, write: Any) -> Any:
    """The object core's ``method`` finds its source overwritten, that often, between its choice and the call."""
    real, left = getattr(rig.objects, method), [times]

    async def call(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            await asyncio.to_thread(write, left[0])
        return await real(*args, **kwargs)

    setattr(rig.objects, method, call)
    return lambda: delattr(rig.objects, method)


@pytest.mark.parametrize("size", [10, 3000, 200_000])
def test_a_copy_of_a_key_that_is_overwritten_meanwhile_is_a_copy(rig: Any, size: int) -> None:
    client = rig.client()
    bucket = rig.bucket_name(f"overwritten-{size}")
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="source", Body=b"0" * size)

    def write(left: int) -> None:
        client.put_object(Bucket=bucket, Key="source", Body=b"%d" % (left + 1) * size)

    undo = overwriting(rig, "copy", 2, write)
    try:
        client.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "source"})
    finally:
        undo()
    assert client.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"1" * size


def test_a_part_copied_from_a_key_that_is_overwritten_meanwhile_is_a_part(rig: Any) -> None:
    client = rig.client()
    bucket = rig.bucket_name("overwritten-part")
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="source", Body=b"0" * 200_000)
    upload = client.create_multipart_upload(Bucket=bucket, Key="copy")["UploadId"]
    undo = overwriting(
        rig, "copy_part", 1, lambda left: client.put_object(Bucket=bucket, Key="source", Body=b"1" * 200_000)
    )
    try:
        part = client.upload_part_copy(
            Bucket=bucket,
            Key="copy",
            UploadId=upload,
            PartNumber=1,
            CopySource={"Bucket": bucket, "Key": "source"},
        )
    finally:
        undo()
    client.complete_multipart_upload(
        Bucket=bucket,
        Key="copy",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]},
    )
    assert client.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"1" * 200_000


def test_a_source_that_is_deleted_meanwhile_is_no_key_and_one_that_changes_for_ever_a_conflict(rig: Any) -> None:
    client = rig.client()
    bucket = rig.bucket_name("deleted-source")
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="source", Body=b"0" * 10)
    source = {"Bucket": bucket, "Key": "source"}
    undo = overwriting(rig, "copy", 1, lambda left: client.delete_object(Bucket=bucket, Key="source"))
    try:
        with pytest.raises(ClientError) as gone:
            client.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    finally:
        undo()
    assert gone.value.response["Error"]["Code"] == "NoSuchKey"
    client.put_object(Bucket=bucket, Key="source", Body=b"0" * 10)
    undo = overwriting(
        rig, "copy", 1000, lambda left: client.put_object(Bucket=bucket, Key="source", Body=b"%04d" % left)
    )
    try:
        with pytest.raises(ClientError) as changing:
            client.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    finally:
        undo()
    assert changing.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
