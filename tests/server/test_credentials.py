"""Who may do what, where secrets are kept, and where they never are."""

import contextlib
import hashlib
import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from server_processes import Served, until

GENERATED = {"OSTRAKA_ROOT_ACCESS_KEY": "", "OSTRAKA_ROOT_SECRET_KEY": ""}
OTHERS = {"OSTRAKA_ACCOUNTS": "ann:ann-key:ann-secret,bob:bob/key+:bob=secret", "OSTRAKA_BUCKETS": "roots,anns:ann"}


def refused(code: str, call: object, **arguments: object) -> None:
    assert callable(call)
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] in (code, "403"), caught.value.response
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_generated_credentials_are_kept_for_their_owner_alone_and_named_not_printed(tmp_path: Path) -> None:
    with Served(tmp_path, environment=GENERATED) as server:
        kept = Path(server.greeting["credentials"])
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        keys = json.loads(kept.read_text())
        client = server.client_of(keys["root_access_key"], keys["root_secret_key"])
        client.create_bucket(Bucket="bucket")
        said = json.dumps(server.greeting) + server.log_text()
    assert keys["root_secret_key"] not in said
    with server:
        again = server.client_of(keys["root_access_key"], keys["root_secret_key"])
        assert [b["Name"] for b in again.list_buckets()["Buckets"]] == ["bucket"]


def test_credentials_of_the_environment_win_for_as_long_as_they_are_given(tmp_path: Path) -> None:
    with Served(tmp_path, environment=GENERATED) as first:
        keys = json.loads(Path(first.greeting["credentials"]).read_text())
    with Served(tmp_path) as given:
        assert given.greeting["credentials"] == "set"
        given.client().create_bucket(Bucket="bucket")
        refused("InvalidAccessKeyId", given.client_of(keys["root_access_key"], keys["root_secret_key"]).list_buckets)
    with first:
        stored = first.client_of(keys["root_access_key"], keys["root_secret_key"])
        assert [b["Name"] for b in stored.list_buckets()["Buckets"]] == ["bucket"]
        refused("InvalidAccessKeyId", given.client_of(given.access_key, given.secret_key, url=first.url).list_buckets)


@pytest.mark.parametrize("terminal", [True, False])
def test_generated_credentials_are_printed_on_a_terminal_only(terminal: bool, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("OSTRAKA_")}
    words = ["serve", str(tmp_path / "store"), "--listen", "127.0.0.1:0", "--workers", "1"]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ostraka", *words],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    try:
        while b"root credentials" not in said and b"secret key" not in said:
            assert select.select([ours], [], [], 60)[0], said
            said += os.read(ours, 65536)
        keys = json.loads((tmp_path / "store" / "keys.json").read_text())
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):  # a terminal's end is EIO
            while more := os.read(ours, 65536):
                said += more
        assert process.wait(60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)
    for word in ("root_access_key", "root_secret_key"):
        assert (keys[word].encode() in said) is terminal
    assert (str(tmp_path / "store" / "keys.json").encode() in said) is not terminal


def test_an_account_may_not_touch_what_it_does_not_own_and_root_may_everything(tmp_path: Path) -> None:
    with Served(tmp_path, environment=OTHERS) as server:
        root, ann = server.client(), server.client_of("ann-key", "ann-secret")
        bob = server.client_of("bob/key+", "bob=secret")
        root.put_object(Bucket="roots", Key="k", Body=b"root's")
        ann.put_object(Bucket="anns", Key="k", Body=b"ann's")
        bob.create_bucket(Bucket="bobs")
        bob.put_object(Bucket="bobs", Key="own", Body=b"")
        for stranger, bucket in ((ann, "roots"), (bob, "anns"), (ann, "bobs")):
            refused("AccessDenied", stranger.get_object, Bucket=bucket, Key="k")
            refused("AccessDenied", stranger.get_object, Bucket=bucket, Key="absent")
            refused("AccessDenied", stranger.head_bucket, Bucket=bucket)
            refused("AccessDenied", stranger.put_object, Bucket=bucket, Key="k", Body=b"stolen")
            refused("AccessDenied", stranger.delete_object, Bucket=bucket, Key="k")
            refused("AccessDenied", stranger.list_objects_v2, Bucket=bucket)
            refused("AccessDenied", stranger.delete_bucket, Bucket=bucket)
            refused("AccessDenied", stranger.create_multipart_upload, Bucket=bucket, Key="k")
            refused("AccessDenied", stranger.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})
        for source in ("roots/k", "anns/k"):
            refused("AccessDenied", bob.copy_object, Bucket="bobs", Key="copy", CopySource=source)
        assert [b["Name"] for b in ann.list_buckets()["Buckets"]] == ["anns"]
        assert [b["Name"] for b in root.list_buckets()["Buckets"]] == ["anns", "bobs", "roots"]
        assert root.get_object(Bucket="anns", Key="k")["Body"].read() == b"ann's"
        refused("SignatureDoesNotMatch", server.client_of("ann-key", "guess").list_buckets)
        refused("InvalidAccessKeyId", server.client_of("nobody", "guess").list_buckets)


def test_a_bucket_of_the_settings_that_another_account_owns_stays_so_and_the_log_says_it(tmp_path: Path) -> None:
    with Served(tmp_path, environment=OTHERS):
        pass
    taken = OTHERS | {"OSTRAKA_BUCKETS": "roots:ann,anns:ann"}
    with Served(tmp_path, environment=taken) as server:
        assert [b["Name"] for b in server.client_of("ann-key", "ann-secret").list_buckets()["Buckets"]] == ["anns"]
        assert "bucket roots is owned by root already" in server.log_text()
        assert "bucket anns" not in server.log_text()


def test_an_account_is_updated_by_its_setting_and_never_deleted_for_want_of_one(tmp_path: Path) -> None:
    with Served(tmp_path, environment=OTHERS) as server:
        server.client_of("ann-key", "ann-secret").put_object(Bucket="anns", Key="k", Body=b"1")
    with Served(tmp_path, environment={"OSTRAKA_ACCOUNTS": "ann:new-key:new-secret"}) as server:
        assert server.client_of("new-key", "new-secret").get_object(Bucket="anns", Key="k")["Body"].read() == b"1"
        refused("InvalidAccessKeyId", server.client_of("ann-key", "ann-secret").list_buckets)
        server.client_of("bob/key+", "bob=secret").list_buckets()


def test_keys_with_commas_and_colons_come_from_a_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from:a,file \n")
    (tmp_path / "o.toml").write_text(
        "[serve]\nbuckets = ['of-carl:carl', 'of-root']\n"
        "[[account]]\nname = 'carl'\naccess-key = 'c,a:rl'\nsecret-key = 's,e:c'\n"
        f"[[account]]\nname = 'dora'\naccess-key = 'dora'\nsecret-key-file = '{tmp_path / 'secret'}'\n"
    )
    with Served(tmp_path, "--config", str(tmp_path / "o.toml")) as server:
        names = [b["Name"] for b in server.client_of("c,a:rl", "s,e:c").list_buckets()["Buckets"]]
        assert names == ["of-carl"]
        assert server.client_of("dora", "from:a,file ").list_buckets()["Buckets"] == []
        assert len(server.client().list_buckets()["Buckets"]) == 2


def test_a_secret_may_be_in_a_file_that_a_variable_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    environment = {"OSTRAKA_ROOT_SECRET_KEY": "", "OSTRAKA_ROOT_SECRET_KEY_FILE": str(tmp_path / "secret")}
    server = Served(tmp_path, environment=environment)
    del server.environment["OSTRAKA_ROOT_SECRET_KEY"]
    with server:
        server.client_of(server.access_key, "from-a-file").list_buckets()


def plain(url: str, method: str = "GET", body: bytes | None = None) -> int:
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": ""} if body else {})
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code


def test_no_secret_and_no_signature_reaches_a_log(tmp_path: Path) -> None:
    with Served(tmp_path, "--log-level", "debug", environment=OTHERS) as server:
        root = server.client()
        v2, v4 = (server.client(signature_version=v) for v in ("s3", "s3v4"))
        where = {"Bucket": "roots", "Key": "k"}
        urls = [c.generate_presigned_url("put_object", where) for c in (v2, v4)]
        assert [plain(u, "PUT", b"x") for u in urls] == [200, 200]
        urls += [c.generate_presigned_url("get_object", where) for c in (v2, v4)]
        assert [plain(u) for u in urls[2:]] == [200, 200]
        urls += [u.replace("roots", "rootz") for u in urls[2:]]  # wrong signatures are quoted back, never logged
        assert [plain(u) for u in urls[4:]] == [403, 403]
        urls.append(f"{server.url}/roots/k?X-Amz-Signature=broken&secret={server.secret_key}")
        plain(urls[-1])
        root.upload_file(sys.executable, "roots", "parts")
        customer_key = hashlib.sha256(b"a key of the customer").digest()
        with contextlib.suppress(ClientError):  # refused by name today; its key is a secret all the same
            root.put_object(**where, SSECustomerAlgorithm="AES256", SSECustomerKey=customer_key)
        with contextlib.suppress(ClientError):
            server.client_of(server.access_key, "a-wrong-secret").list_buckets()
        server.client_of("ann-key", "ann-secret").list_buckets()
        until(lambda: b'"ListBuckets"' in server.access_log.read_bytes(), "the log is written")
    logs = server.log_text() + server.access_log.read_text()
    queries = [urllib.parse.parse_qs(urllib.parse.urlsplit(u).query) for u in urls[:6]]
    signatures = [v for q in queries for n, values in q.items() if "signature" in n.lower() for v in values]
    assert len(signatures) == 6
    secrets = [server.secret_key, "ann-secret", "bob=secret", "a-wrong-secret", *signatures, "Signature="]
    assert [s for s in secrets if s in logs] == []
    assert not re.search(r"AWS4-HMAC-SHA256|Credential=", logs)
