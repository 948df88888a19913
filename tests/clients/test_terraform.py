"""Terraform's calls: state with a lock file beside it, and the refresh of a bucket, over HTTP and HTTPS.

As the documentation of its S3 backend (`use_lockfile`) and of the AWS provider's bucket resources have them.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError
from client_endpoint import Endpoint
from client_tools import NEW

pytestmark = pytest.mark.timeout(300)
KEY = "network/terraform.tfstate"


class Locked(Exception):
    """Somebody has the lock; the message is what the lock file says."""


class Backend:
    """The S3 backend of one workspace."""

    def __init__(self, endpoint: Endpoint, bucket: str, workspace: str = "default") -> None:
        self._s3 = endpoint.boto()
        self._bucket = bucket
        self._key = KEY if workspace == "default" else f"env:/{workspace}/{KEY}"

    def workspaces(self) -> list[str]:
        found = self._s3.list_objects_v2(Bucket=self._bucket, Prefix="env:/", MaxKeys=1000)
        keys = [o["Key"].split("/", 2) for o in found.get("Contents", [])]
        return ["default", *(name for _, name, rest in keys if rest == KEY)]

    def lock(self, owner: str) -> None:
        """Create the lock file. Raises Locked if there is one."""
        try:
            self._put(f"{self._key}.tflock", {"ID": owner, "Operation": "OperationTypeApply"}, IfNoneMatch="*")
        except ClientError as e:
            # a conflict is what S3 says to writers of the same moment
            assert e.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), e
            raise Locked from e

    def holder(self) -> str:
        return str(json.loads(self._s3.get_object(Bucket=self._bucket, Key=f"{self._key}.tflock")["Body"].read())["ID"])

    def unlock(self, owner: str) -> None:
        """Only the holder's own."""
        assert self.holder() == owner
        self._s3.delete_object(Bucket=self._bucket, Key=f"{self._key}.tflock")

    def read(self) -> Any:
        """The state; None if there is none."""
        try:
            self._s3.head_object(Bucket=self._bucket, Key=self._key)
        except ClientError as e:
            assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 404, e
            return None
        answer = self._s3.get_object(Bucket=self._bucket, Key=self._key, Range="bytes=0-5242879")
        return json.loads(answer["Body"].read())

    def write(self, state: dict[str, Any]) -> None:
        self._put(self._key, state)

    def remove(self) -> None:
        self._s3.delete_object(Bucket=self._bucket, Key=self._key)

    def _put(self, key: str, content: dict[str, Any], **conditions: str) -> None:
        body = json.dumps(content).encode()
        self._s3.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=body,
            ContentType="application/json",
            ChecksumAlgorithm="SHA256",
            **conditions,
        )

    def apply(self, owner: str, change: Callable[[Any], dict[str, Any]]) -> None:
        """What `terraform apply` does once."""
        self.lock(owner)
        try:
            self.write(change(self.read()))
        finally:
            self.unlock(owner)


def test_state_is_kept_by_workspace_locked_while_it_changes_and_its_versions_stay(
    endpoint: Endpoint, bucket: str
) -> None:
    boto = endpoint.boto()
    boto.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    default, staging = Backend(endpoint, bucket), Backend(endpoint, bucket, "staging")
    assert default.read() is None
    for serial in (1, 2, 3):
        default.apply(f"run-{serial}", lambda _, serial=serial: {"serial": serial, "resources": ["x"] * 300 * serial})
    staging.apply("run-4", lambda _: {"serial": 1, "resources": []})
    assert default.workspaces() == ["default", "staging"]
    assert (default.read()["serial"], staging.read()["serial"]) == (3, 1)

    default.lock("somebody")
    with pytest.raises(Locked):
        default.apply("run-5", lambda _: {})
    assert default.holder() == "somebody"
    staging.apply("run-6", lambda state: state | {"serial": 2})  # a lock of its own
    default.unlock("somebody")
    staging.remove()
    assert default.workspaces() == ["default"]

    versions = boto.list_object_versions(Bucket=bucket, Prefix=KEY)["Versions"]
    states = [v["VersionId"] for v in versions if v["Key"] == KEY]
    assert len(states) == 3
    oldest = boto.get_object(Bucket=bucket, Key=KEY, VersionId=states[-1], ChecksumMode="ENABLED")
    body = oldest["Body"].read()
    assert json.loads(body)["serial"] == 1
    assert oldest["ContentType"] == "application/json"
    boto.copy_object(Bucket=bucket, Key=KEY, CopySource={"Bucket": bucket, "Key": KEY, "VersionId": states[-1]})
    assert endpoint.held(bucket) == {KEY: hashlib.sha256(body).hexdigest()}
    assert endpoint.framings(bucket, "PutObject") == {NEW[endpoint.scheme]}


def test_of_many_runs_at_once_exactly_one_has_the_lock_and_no_change_is_lost(endpoint: Endpoint, bucket: str) -> None:
    runs, rounds = 6, 10
    together = threading.Barrier(runs, timeout=60)

    def run(number: int) -> list[int]:
        backend = Backend(endpoint, bucket)
        won = []
        for i in range(rounds):
            together.wait()
            with suppress(Locked):
                backend.lock(f"{number}")
                won.append(i)
            together.wait()
            assert int(backend.holder()) == number or i not in won
            together.wait()
            if i in won:
                state = backend.read() or {"serial": 0, "winners": []}
                backend.write({"serial": state["serial"] + 1, "winners": [*state["winners"], number]})
                backend.unlock(f"{number}")
        return won

    with ThreadPoolExecutor(runs) as pool:
        won = list(pool.map(run, range(runs)))
    assert sorted(i for rounds_of_one in won for i in rounds_of_one) == list(range(rounds))
    state = Backend(endpoint, bucket).read()
    assert state == {"serial": rounds, "winners": [next(n for n in range(runs) if i in won[n]) for i in range(rounds)]}
    assert endpoint.keys(bucket) == [KEY], "a lock was left"
    refused = [r for r in endpoint.requests(bucket, "PutObject", at_least=(runs + 1) * rounds) if r["status"] != 200]
    assert len(refused) == (runs - 1) * rounds
    assert {r["status"] for r in refused} <= {409, 412}


# What a refresh of `aws_s3_bucket` and of the resources beside it reads, and the answer that means "not configured".
REFRESH: dict[str, str | dict[str, Any]] = {
    "get_bucket_policy": "NoSuchBucketPolicy",
    "get_bucket_acl": {"Grants.0.Permission": "FULL_CONTROL"},
    "get_bucket_cors": "NoSuchCORSConfiguration",
    "get_bucket_website": "NoSuchWebsiteConfiguration",
    "get_bucket_versioning": {"Status": None},
    "get_bucket_accelerate_configuration": {"Status": None},
    "get_bucket_request_payment": {"Payer": "BucketOwner"},
    "get_bucket_logging": {"LoggingEnabled": None},
    "get_bucket_lifecycle_configuration": "NoSuchLifecycleConfiguration",
    "get_bucket_replication": "ReplicationConfigurationNotFoundError",
    "get_bucket_encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "get_object_lock_configuration": "ObjectLockConfigurationNotFoundError",
    "get_bucket_location": {"LocationConstraint": None},
    "get_bucket_tagging": "NoSuchTagSet",
    "get_bucket_ownership_controls": {"OwnershipControls.Rules.0.ObjectOwnership": "BucketOwnerEnforced"},
    "get_public_access_block": {"PublicAccessBlockConfiguration.BlockPublicAcls": True},
    "get_bucket_policy_status": "NoSuchBucketPolicy",
    "get_bucket_notification_configuration": {"QueueConfigurations": None, "TopicConfigurations": None},
    "list_bucket_analytics_configurations": {"AnalyticsConfigurationList": None, "IsTruncated": False},
    "list_bucket_intelligent_tiering_configurations": {"IntelligentTieringConfigurationList": None},
    "list_bucket_inventory_configurations": {"InventoryConfigurationList": None, "IsTruncated": False},
    "list_bucket_metrics_configurations": {"MetricsConfigurationList": None, "IsTruncated": False},
}


def refresh(s3: Any, bucket: str) -> dict[str, Any]:
    """The answers by operation: an error's code, or what was found at the places that REFRESH names."""
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    found: dict[str, Any] = {}
    for operation, expected in REFRESH.items():
        try:
            answer = getattr(s3, operation)(Bucket=bucket)
        except ClientError as e:
            assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 404, e
            found[operation] = e.response["Error"]["Code"]
        else:
            places = expected if isinstance(expected, dict) else {}
            found[operation] = {place: at(answer, place) for place in places} if places else answer
    return found


def at(answer: Any, place: str) -> Any:
    """The value at a.b.0.c; None if there is none."""
    for word in place.split("."):
        if answer is None:
            return None
        answer = answer[int(word)] if word.isdecimal() else answer.get(word)
    return answer


def test_a_refresh_reads_every_setting_of_a_bucket_and_finds_what_is_configured(
    endpoint: Endpoint, bucket: str
) -> None:
    s3 = endpoint.boto()
    assert refresh(s3, bucket) == REFRESH
    tags = [{"Key": "owner", "Value": "network"}, {"Key": "env", "Value": "prod"}]
    rules = [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://app.example"], "MaxAgeSeconds": 300}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    found = refresh(s3, bucket)
    assert found.pop("get_bucket_tagging")["TagSet"] == tags
    assert found.pop("get_bucket_cors")["CORSRules"] == rules
    assert found.pop("get_bucket_versioning") == {"Status": "Enabled"}
    assert found == {operation: expected for operation, expected in REFRESH.items() if operation in found}
    s3.delete_bucket_tagging(Bucket=bucket)
    s3.delete_bucket_cors(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert refresh(s3, bucket) == REFRESH | {"get_bucket_versioning": {"Status": "Suspended"}}
    assert [r for r in endpoint.requests(bucket) if r["status"] not in (200, 204, 404)] == []


def test_a_bucket_with_objects_and_versions_is_destroyed_by_force(endpoint: Endpoint, bucket: str) -> None:
    s3 = endpoint.boto()
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for i in range(30):
        s3.put_object(Bucket=bucket, Key=f"{i % 20}", Body=b"x", Tagging="made=by-terraform")
    s3.delete_object(Bucket=bucket, Key="3")
    assert s3.get_object_tagging(Bucket=bucket, Key="4")["TagSet"] == [{"Key": "made", "Value": "by-terraform"}]
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for kind in ("Versions", "DeleteMarkers"):
            named = [{"Key": o["Key"], "VersionId": o["VersionId"]} for o in page.get(kind, [])]
            if named:
                answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True})
                assert "Errors" not in answer, answer
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket=bucket)
