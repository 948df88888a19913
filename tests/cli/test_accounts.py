"""Accounts and keys: changed by an operator's word, at once for every worker, and whole through every crash."""

import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from program import Program, one_line

from ostraka.nodes import keys as keyring
from ostraka.testing.processes import ServerProcess, s3_client

GENERATED = {"OSTRAKA_ROOT_ACCESS_KEY": "", "OSTRAKA_ROOT_SECRET_KEY": ""}
ATTEMPTS = 24  # on connections of their own: each worker gets some


def allowed(url: str, keys: dict[str, Any]) -> set[bool]:
    """Whether these keys may list buckets, by every worker's word."""
    request = AWSRequest("GET", f"{url}/", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    S3SigV4Auth(Credentials(keys["access_key"], keys["secret_key"]), "s3", "us-east-1").add_auth(request)
    answers = set()
    for _ in range(ATTEMPTS):
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        connection.request("GET", "/", headers=dict(request.headers))
        answers.add(connection.getresponse().status)
        connection.close()
    assert answers <= {200, 403}, answers
    return {status == 200 for status in answers}


@pytest.fixture
def served(tmp_path: Path) -> ServerProcess:
    """A server with keys of its own making, of three disks and three workers; not started."""
    return ServerProcess([tmp_path / d for d in "abc"], "--workers", "3", environment=GENERATED)


def by_directory(nowhere: Program) -> Program:
    return nowhere.elsewhere(*(w for d in "abc" for w in ("--store", d)))


def shown(program: Program, *name: str) -> dict[str, Any]:
    row: dict[str, Any] = program.well("credentials", "show", *name, "--json").rows[0]
    return row


def on_disks(directory: Path) -> list[tuple[str, str]]:
    """Root's keys as the files have them."""
    files = sorted(directory.glob("*/" + keyring.NAME))
    kept = [keyring.decode(f.read_bytes(), str(f)) for f in files]
    return [(k.root_access_key, k.root_secret_key) for k in kept]


def test_rotated_keys_are_good_at_once_for_every_worker_and_old_ones_are_not(
    nowhere: Program, served: ServerProcess
) -> None:
    program = by_directory(nowhere)
    with served:
        old = shown(program)
        assert old["name"] == "root"
        assert allowed(served.url, old) == {True}
        new = program.well("credentials", "rotate", "--json").rows[0]
        assert allowed(served.url, old) == {False}
        assert allowed(served.url, new) == {True}
        assert shown(program) == new
        assert on_disks(nowhere.directory) == [(new["access_key"], new["secret_key"])] * 2
        program.well("bucket", "create", "mine")
        assert new["secret_key"] not in served.log_text()
        newer = program.well("credentials", "rotate", "--json").rows[0]
        assert allowed(served.url, new) == {False}
        os.kill(int(Path(f"/proc/{served.pid}/task/{served.pid}/children").read_text().split()[0]), signal.SIGKILL)
        assert allowed(served.url, newer) == {True}
    assert shown(program) == newer  # nobody serves
    unserved = program.well("credentials", "rotate", "--json").rows[0]
    with served:
        assert allowed(served.url, newer) == {False}
        assert allowed(served.url, unserved) == {True}


def test_keys_that_were_given_are_not_rotated_behind_the_back_of_who_gave_them(
    nowhere: Program, served: ServerProcess
) -> None:
    program = by_directory(nowhere)
    served.environment["OSTRAKA_ROOT_ACCESS_KEY"] = "given-key"
    served.environment["OSTRAKA_ROOT_SECRET_KEY"] = "given-secret"
    given = {"name": "root", "access_key": "given-key", "secret_key": "given-secret"}
    with served:
        assert shown(program) == given
        one_line(program("credentials", "rotate"), 1, "OSTRAKA_ROOT_ACCESS_KEY", "start it again")
        assert allowed(served.url, given) == {True}
    rotated = program.well("credentials", "rotate", "--json").rows[0]
    with served:  # what is given wins for as long as it is
        assert allowed(served.url, given) == {True}
        assert allowed(served.url, rotated) == {False}
    served.environment.update(GENERATED)
    with served:
        assert allowed(served.url, rotated) == {True}
        assert allowed(served.url, given) == {False}


def test_a_crash_between_the_commit_and_the_files_is_mended_at_the_next_start(
    nowhere: Program, served: ServerProcess
) -> None:
    program = by_directory(nowhere)
    with served:
        before = {f: f.read_bytes() for f in nowhere.directory.glob("*/" + keyring.NAME)}
        new = program.well("credentials", "rotate", "--json").rows[0]
        served.kill9()
    assert len(before) == 2
    for file, content in before.items():  # as if no file, or only one of them, had been written yet
        file.write_bytes(content)
    with served:
        assert allowed(served.url, new) == {True}
        assert on_disks(nowhere.directory) == [(new["access_key"], new["secret_key"])] * 2
    assert program.well("fsck", "--json").rows[-1]["clean"] is True


def test_accounts_come_and_go_while_the_store_is_served(nowhere: Program, served: ServerProcess) -> None:
    program = by_directory(nowhere)
    with served:
        ann = program.well("account", "add", "ann", "--json").rows[0]
        assert allowed(served.url, ann) == {True}
        s3_client(served.url, ann["access_key"], ann["secret_key"]).create_bucket(Bucket="anns")
        bob = program.well(
            "account", "add", "bob", "--access-key", "BOB", "--secret-key-file", "-", "--json", stdin=b"s\n"
        )
        assert bob.rows[0] == {"name": "bob", "access_key": "BOB", "secret_key": "s"}
        listed = program.well("account", "ls", "--json").rows
        assert [(row["name"], row["buckets"]) for row in listed] == [("root", 0), ("ann", 1), ("bob", 0)]
        assert shown(program, "ann") == ann
        again = program.well("credentials", "rotate", "ann", "--json").rows[0]
        assert allowed(served.url, ann) == {False}
        assert allowed(served.url, again) == {True}
        one_line(program("account", "rm", "ann"), 1, "'ann'", "anns", "--force")
        program.well("account", "rm", "ann", "--force")
        assert allowed(served.url, again) == {False}
        program.well("account", "rm", "bob")
        assert allowed(served.url, {"access_key": "BOB", "secret_key": "s"}) == {False}
        assert [row["name"] for row in program.well("account", "ls", "--json").rows] == ["root"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["account", "add", "root"], 2, "root is not an account to create"),
        (["account", "add", ""], 2, "account name"),
        (["account", "add", "a\nb"], 2, "account name"),
        (["account", "add", "n" * 100], 2, "account name"),
        (["account", "add", "n", "--secret-key-file", "absent"], 2, "absent"),
        (["account", "add", "n", "--access-key", "k" * 200], 2, "access key"),
        (["account", "rm", "nobody"], 3, "'nobody'"),
        (["account", "rm", "root"], 1, "credentials rotate"),
        (["credentials", "show", "nobody"], 3, "ostraka account ls"),
        (["credentials", "rotate", "nobody"], 3, "ostraka account ls"),
    ],
)
def test_what_cannot_be_is_one_line(idle: Path, nowhere: Program, words: list[str], status: int, says: str) -> None:
    one_line(nowhere.elsewhere("--store", str(idle))(*words), status, says)
    assert json.loads((idle / keyring.NAME).read_text())["version"] == 1
