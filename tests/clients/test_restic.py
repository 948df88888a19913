"""restic at its daily work: backup, check of every byte, restore, forget and prune, over HTTP and HTTPS."""

from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_restic import PREFIX, Restic
from client_tree import Tree, assert_same, digests

pytestmark = pytest.mark.timeout(300)


def test_a_tree_is_backed_up_changed_checked_restored_and_forgotten(
    endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int
) -> None:
    restic = Restic(endpoint, bucket, tmp_path / "cache")
    here = tmp_path / "here"
    tree = Tree(here, seed, count=200)
    restic.do("init")
    restic.do("backup", "--quiet", str(here))
    first, snapshot = digests(here), snapshots(endpoint, bucket)
    tree.change()
    restic.do("backup", "--quiet", str(here))
    second = digests(here)
    assert first != second
    restic.do("check", "--read-data")
    assert_names_are_sums(endpoint, bucket)
    restic.do("restore", *snapshot, "--target", str(tmp_path / "first"))
    assert_same(digests(tmp_path / "first" / here.relative_to("/")), first)

    before = set(endpoint.keys(bucket))
    restic.do("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    assert len(snapshots(endpoint, bucket)) == 1
    assert before - set(endpoint.keys(bucket)) > {f"{PREFIX}/snapshots/{snapshot[0]}"}, "nothing was pruned"
    restic.do("check", "--read-data")
    assert_names_are_sums(endpoint, bucket)
    restic.do("restore", "latest", "--target", str(tmp_path / "second"))
    assert_same(digests(tmp_path / "second" / here.relative_to("/")), second)

    assert [k for k in endpoint.keys(bucket) if "/locks/" in k] == []
    assert endpoint.framings(bucket, "PutObject") == {restic.framing[endpoint.scheme]}
    assert [r for r in endpoint.requests(bucket) if r["status"] >= 400 and r["code"] != "NoSuchKey"] == []


def snapshots(endpoint: Endpoint, bucket: str) -> list[str]:
    """Their names, which restic takes for their ids."""
    return [k.rpartition("/")[2] for k in endpoint.keys(bucket) if k.startswith(f"{PREFIX}/snapshots/")]


def assert_names_are_sums(endpoint: Endpoint, bucket: str) -> None:
    """Every file of a repository but its configuration is named by the SHA-256 of what it holds."""
    held = endpoint.held(bucket)
    assert {key for key, sha256 in held.items() if key.rpartition("/")[2] not in (sha256, "config")} == set()
    assert any(key.startswith(f"{PREFIX}/data/") for key in held)
