"""The bench measures the server that we ship, and never errors: it is run here with tiny numbers."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from bench_running import ROOT, bench

pytestmark = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


def test_one_command_measures_every_kind_of_request_beside_the_limits_of_the_machine(tmp_path: Path) -> None:
    done = bench("serve.py", tmp_path, "--disks", "1", "--workers", "1", "--no-moto", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    names = {figure["name"] for figure in told["figures"]}
    small = [f"{m} {s} KiB, {c} connections" for m in ("PUT", "GET") for s in (4, 100) for c in (32, 128)]
    large = [
        f"PUT 64 MiB, {c}, {content}, {how}"
        for c in ("1 client", "4 clients")
        for content in ("random", "text")
        for how in ("signed", "unsigned")
    ]
    assert names.issuperset([*small, *large, "DELETE, 32 connections", "GET 64 MiB, 1 client, random, cold"])
    assert any(name.startswith("LIST") for name in names)
    assert any(name.startswith("memory") for name in names)
    for figure in told["figures"]:
        assert figure["rate"] > 0 or figure["name"].startswith("idle CPU"), figure
        if figure["name"] in small or figure["name"] in large:
            assert figure["limit"] in told["limits"], figure
            assert told["limits"][figure["limit"]] > 0


def test_a_store_of_six_disks_is_measured_too(tmp_path: Path) -> None:
    done = bench("serve.py", tmp_path, "--disks", "6", "--workers", "2", "--no-moto", "--only", "4 KiB, 32", "--json")
    assert done.returncode == 0, done.stderr
    found = {figure["name"] for figure in json.loads(done.stdout)["figures"]}
    assert found == {"PUT 4 KiB, 32 connections", "GET 4 KiB, 32 connections"}


def test_a_wrong_answer_ends_the_run(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        from load.bounds import bare_http
        from load.signing import Signer, write_heads
        from load.wrk import WrongAnswers, replay
    finally:
        sys.path.remove(str(ROOT / "bench"))
    body, other = tmp_path / "body", tmp_path / "other"
    body.write_bytes(bytes(64))
    other.write_bytes(bytes(63) + b"x")
    etag = '"d41d8cd98f00b204e9800998ecf8427e"'
    with bare_http(64) as (url, _):
        heads = write_heads(tmp_path / "heads", Signer("127.0.0.1", 1).heads("GET", ["/b/k"]))
        assert replay(url, heads, 2, 1.0, again=True, answer=body, etag=etag).requests > 0
        with pytest.raises(WrongAnswers):
            replay(url, heads, 2, 1.0, again=True, answer=other, etag=etag)
        with pytest.raises(WrongAnswers):
            replay(url, heads, 2, 1.0, again=True, answer=body, etag='"another"')
        with pytest.raises(WrongAnswers):
            replay(url, heads, 2, 1.0, again=True, status=204)
