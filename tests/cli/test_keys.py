"""`ostraka key`: keys made, shown and rotated by an operator's word, and no key ever in what anybody reads."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from program import Program, one_line

import ostraka
from ostraka.testing.processes import ServerProcess

FIRST, SECOND, OTHER = (bytes([n]) * 32 for n in (1, 2, 3))
BODY = b"the potter's mark " * 4000


def text_of(*keys: bytes) -> str:
    return "\n".join(base64.b64encode(key).decode() for key in keys)


@pytest.fixture
def served(tmp_path: Path) -> ServerProcess:
    file = tmp_path / "master"
    file.write_text(text_of(FIRST))
    environment = {"OSTRAKA_MASTER_KEY_FILE": str(file)}
    return ServerProcess([tmp_path / d for d in "ab"], "--workers", "2", environment=environment)


def put(s3: Any, key: str, **asked: str) -> dict[str, Any]:
    made: dict[str, Any] = s3.put_object(Bucket="clay", Key=key, Body=BODY, **asked)
    return made


def test_keys_are_made_used_and_rotated_and_master_keys_change(
    nowhere: Program, served: ServerProcess, tmp_path: Path
) -> None:
    program = nowhere.elsewhere(*(w for d in "ab" for w in ("--store", d)))
    kms = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "kleio"}
    file = tmp_path / "master"
    with served:
        s3 = served.client()
        s3.create_bucket(Bucket="clay")
        assert put(s3, "ours")["ServerSideEncryption"] == "AES256"
        with pytest.raises(s3.exceptions.ClientError, match=r"KMS\.NotFoundException.*ostraka key create kleio"):
            put(s3, "theirs", **kms)
        assert "kleio is made" in program.well("key", "create", "kleio").out
        assert put(s3, "theirs", **kms)["SSEKMSKeyId"].endswith("key/kleio")
        assert program.well("key", "rotate", "kleio", "--json").rows[0]["version"] == 2
        put(s3, "theirs too", **kms)
        rows = {row["name"]: row for row in program.well("key", "ls", "--json").rows}
        assert {name: row["version"] for name, row in rows.items()} == {"default": 1, "kleio": 2}
        shown = program.well("key", "show", "default", "--json").rows[0]
        assert shown["buckets"] == ["clay"]
        assert shown["usable"]
        one_line(program("key", "show", "nobody"), 3, "there is no key 'nobody'")
        one_line(program("key", "create", "kleio"), 1, "'kleio' already")
        one_line(program("key", "rotate"), 2, "name a key, or say --master")
        said = program.well("key", "show", "kleio").out + served.log_text() + json.dumps(shown)
    old = rows["default"]["master_key"]

    file.write_text(text_of(SECOND, FIRST))
    with served:
        new = program.well("key", "rotate", "--master", "--json").rows[0]["master_key"]
        assert {row["master_key"] for row in program.well("key", "ls", "--json").rows} == {new} != {old}
    with ostraka.open(tmp_path / "a", tmp_path / "b", master_key=SECOND) as store:
        for key in ("ours", "theirs", "theirs too"):
            assert store.bucket("clay").get(key) == BODY

    file.write_text(text_of(OTHER))
    with served:
        assert new in served.log_text()
        assert "what is encrypted can be neither read nor written" in served.log_text()
        s3 = served.client(retries={"total_max_attempts": 1})
        s3.list_objects_v2(Bucket="clay")
        for attempt in (lambda: s3.get_object(Bucket="clay", Key="ours"), lambda: put(s3, "more")):
            with pytest.raises(s3.exceptions.ClientError, match=f"ServiceUnavailable.*{new}.*OSTRAKA_MASTER_KEY"):
                attempt()
        one_line(program("key", "rotate", "--master"), 2, new)
        troubles = program("status", "--json").rows[0]["problems"]
        assert [t["way_out"] for t in troubles if new in t["what"]] == [
            "set OSTRAKA_MASTER_KEY or OSTRAKA_MASTER_KEY_FILE"
        ]
        assert new in program("doctor").out
        assert not any(row["usable"] for row in program.well("key", "ls", "--json").rows)
        said += served.log_text()
    for key in (FIRST, SECOND, OTHER):
        assert base64.b64encode(key).decode() not in said
        assert key.hex() not in said


def test_a_store_that_nobody_serves_takes_its_master_key_from_the_environment(nowhere: Program, tmp_path: Path) -> None:
    nowhere.well("serve", "--help")
    program = nowhere.elsewhere("--store", "a", OSTRAKA_MASTER_KEY=text_of(FIRST))
    with ostraka.open(tmp_path / "a", master_key=FIRST) as store:
        store.create_bucket("clay").put("k", BODY)
    assert program.well("cat", "s3://clay/k").out.encode() == BODY
    assert program.well("key", "rotate", "default", "--json").rows[0]["version"] == 2
    told = program.well("bucket", "storage", "clay", "--encryption", "aws:kms:default", "--json").rows[0]
    assert told["encryption"] == "aws:kms:default"
    one_line(program("bucket", "storage", "clay", "--encryption", "aws:kms:nobody"), 3, "ostraka key create nobody")
    one_line(program("bucket", "storage", "clay", "--encryption", "rot13"), 2, "write AES256")
    without = nowhere.elsewhere("--store", "a")
    one_line(without("cat", "s3://clay/k"), 4, "OSTRAKA_MASTER_KEY")
    one_line(without("key", "rotate", "default"), 4, "OSTRAKA_MASTER_KEY")
    assert not without.well("key", "ls", "--json").rows[0]["usable"]
    one_line(nowhere.elsewhere("--store", "a", OSTRAKA_MASTER_KEY="hush")("key", "ls"), 2, "32 bytes")
