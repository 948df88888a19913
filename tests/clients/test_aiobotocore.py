"""What services on asyncio do with aiobotocore, over HTTP and HTTPS."""

import pytest
from client_endpoint import Endpoint
from client_tools import AIOBOTOCORE
from client_tree import assert_same

pytestmark = pytest.mark.timeout(300)


def test_hundreds_of_small_objects_at_once(endpoint: Endpoint, bucket: str) -> None:
    wrote = AIOBOTOCORE.do(endpoint, "many", bucket=bucket, count=300)
    assert_same(endpoint.held(bucket), wrote)
    assert endpoint.framings(bucket, "PutObject") == {AIOBOTOCORE.framing[endpoint.scheme]}


def test_parts_that_go_up_at_once_and_a_stream_that_comes_down(endpoint: Endpoint, bucket: str, seed: int) -> None:
    wrote = AIOBOTOCORE.do(endpoint, "parts", bucket=bucket, seed=seed)
    assert_same(endpoint.held(bucket), wrote)
    assert len(endpoint.requests(bucket, "UploadPart", at_least=4)) == 4
    assert endpoint.framings(bucket, "UploadPart") == {AIOBOTOCORE.framing[endpoint.scheme]}


def test_one_of_many_creates_an_object_and_one_of_many_changes_it(endpoint: Endpoint, bucket: str) -> None:
    wrote = AIOBOTOCORE.do(endpoint, "race", bucket=bucket, count=8)
    assert_same(endpoint.held(bucket), wrote)
    refused = [r for r in endpoint.requests(bucket, "PutObject", at_least=16) if r["status"] == 412]
    assert len(refused) == 14


def test_presigned_urls_for_a_plain_client(endpoint: Endpoint, bucket: str) -> None:
    wrote = AIOBOTOCORE.do(endpoint, "links", bucket=bucket)
    assert_same(endpoint.held(bucket), wrote)
    assert endpoint.framings(bucket, "PutObject") == {"UNSIGNED-PAYLOAD"}
