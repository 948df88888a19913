"""A tree of two thousand files, names as awkward as the file system allows, kept in a bucket by each client."""

from collections import Counter
from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_s3cmd import S3CMD
from client_s5cmd import S5CMD
from client_tools import TOOLS, Tool
from client_tree import Tree, assert_same, digests

pytestmark = pytest.mark.timeout(600)  # the clients take 10 to 25 seconds of processor time each


@pytest.mark.parametrize("tool", [*TOOLS, S3CMD, S5CMD], ids=lambda t: t.name)
def test_a_tree_is_synced_up_changed_synced_again_and_comes_down_byte_for_byte(
    tool: Tool, endpoint: Endpoint, tmp_path: Path, seed: int
) -> None:
    bucket = f"tree-{tool.name}"
    boto = endpoint.boto()
    boto.create_bucket(Bucket=bucket)
    here, there = tmp_path / "here", tmp_path / "there"
    tree = Tree(here, seed, name_bytes_max=tool.name_bytes_max, count=tool.file_count, without=tool.cannot_name)
    tool.up(endpoint, here, bucket)
    changed, gone = tree.change()
    tool.up(endpoint, here, bucket)
    pages = boto.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    assert {o["Key"] for page in pages for o in page.get("Contents", [])} == set(tree.names)

    there.mkdir()
    tool.down(endpoint, bucket, there)
    wanted = digests(here)
    assert_same(digests(there), wanted)
    # an attempt that was refused or cut, and the client's retry of it, are one sending
    sent = Counter(r["key"] for r in endpoint.requests(bucket, "PutObject") if r["status"] == 200)
    twice = {name for name, times in sent.items() if times > 1}
    assert twice, "no file was sent again"
    assert twice <= changed, f"{len(twice - changed)} files were sent again unchanged: listings lie"

    for name in sorted(changed)[::2]:  # lost here
        (there / name).unlink()
    for name in gone:  # not in the bucket any more
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(b"stale")
    tool.down(endpoint, bucket, there)
    assert_same(digests(there), wanted)

    tool.remove(endpoint, bucket)
    assert bucket not in [b["Name"] for b in boto.list_buckets()["Buckets"]]
    assert endpoint.framings(bucket, "PutObject") == {tool.framing[endpoint.scheme]}
    failed = [r for r in endpoint.requests(bucket) if r["status"] >= 500 or r["status"] == 400]
    assert not failed, failed[:3]
