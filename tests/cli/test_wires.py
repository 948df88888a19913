"""Objects are verified from end to end: no wire, however bad, leaves wrong bytes under a right name."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from client_tls import Authority
from program import Program, one_line
from proxy import Cut, Flip, Hold, proxy

from ostraka.client.transfer import STAGING
from ostraka.testing.processes import ServerProcess, s3_client

SIZE = 30_000_000
BUCKET = "wires"


@pytest.fixture(scope="module")
def s3(server: ServerProcess) -> Any:
    """boto3, past any proxy."""
    s3 = server.client()
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="big", Body=b"x" * SIZE)
    s3.put_object(Bucket=BUCKET, Key="small", Body=b"x" * 1000)
    return s3


def keys(s3: Any) -> set[str]:
    return {entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())}


def uploads(s3: Any) -> list[Any]:
    return list(s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()))


@pytest.mark.parametrize("key", ["big", "small"])
def test_a_bit_that_flips_on_the_way_down_leaves_no_file(
    remote: Program, server: ServerProcess, s3: Any, key: str
) -> None:
    down = Flip(100 if key == "big" else 0)
    with proxy(server.url, down=down) as between:
        done = remote.elsewhere("--store", between.url)("cp", f"s3://{BUCKET}/{key}", "f")
    assert down.flipped
    one_line(done, 5, f"s3://{BUCKET}/{key}", "did not arrive as it was stored", "ostraka fsck")
    assert os.listdir(remote.directory) == []


def test_a_bit_that_flips_on_the_way_to_a_stream_is_told(remote: Program, server: ServerProcess, s3: Any) -> None:
    with proxy(server.url, down=Flip(0)) as between:
        one_line_of_err = remote.elsewhere("--store", between.url)("cat", f"s3://{BUCKET}/small")
    assert one_line_of_err.status == 5
    assert "did not arrive" in one_line_of_err.err


@pytest.mark.parametrize("size", [1000, SIZE])
def test_a_bit_that_flips_on_the_way_up_stores_nothing(
    remote: Program, server: ServerProcess, s3: Any, size: int
) -> None:
    (remote.directory / "f").write_bytes(b"x" * size)
    up = Flip(0)
    with proxy(server.url, up=up) as between:
        done = remote.elsewhere("--store", between.url)("cp", "f", f"s3://{BUCKET}/flipped")
    assert up.flipped
    one_line(done, 1, f"s3://{BUCKET}/flipped", "BadDigest")
    assert "flipped" not in keys(s3)
    assert uploads(s3) == []


def test_a_download_goes_on_where_the_connection_broke_off(remote: Program, server: ServerProcess, s3: Any) -> None:
    down = Cut(after=3_000_000, times=6)
    with proxy(server.url, down=down) as between:
        remote.elsewhere("--store", between.url).well("cp", f"s3://{BUCKET}/big", "f")
    assert down.times == 0
    assert (remote.directory / "f").read_bytes() == b"x" * SIZE


def test_an_upload_is_sent_again_where_the_connection_broke_off(
    remote: Program, server: ServerProcess, s3: Any
) -> None:
    (remote.directory / "f").write_bytes(b"x" * SIZE)
    up = Cut(after=7_000_000, times=4)
    with proxy(server.url, up=up) as between:
        remote.elsewhere("--store", between.url).well("cp", "f", f"s3://{BUCKET}/cut")
    assert up.times == 0
    assert s3.get_object(Bucket=BUCKET, Key="cut")["Body"].read() == b"x" * SIZE
    assert uploads(s3) == []


def test_a_server_that_goes_away_for_good_is_told_and_leaves_no_file(
    remote: Program, server: ServerProcess, s3: Any
) -> None:
    with proxy(server.url, down=Cut(after=5_000_000, times=1000)) as between:
        slow = remote.elsewhere("--store", between.url)
        between.down = Cut(after=1_000_000, times=1)

        def vanish(data: bytes) -> bytes | None:
            between.close()
            return None

        between.down = vanish
        done = slow("cp", f"s3://{BUCKET}/big", "f")
    one_line(done, 4, between.url)
    assert os.listdir(remote.directory) == []


def interrupted(program: Program, hold: Hold, number: int, *words: str) -> tuple[int, str]:
    """Begin a command, signal it when the wire has stopped, then let the wire go on; status and errors."""
    process = program.start(*words)
    assert hold.reached.wait(100)
    process.send_signal(number)
    threading.Timer(1.0, hold.go_on.set).start()  # nothing waits for it: the program may end before or after
    _, err = process.communicate(timeout=100)
    return process.returncode, err.decode()


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "term")]
)
def test_ctrl_c_in_an_upload_leaves_no_object_and_no_upload(
    remote: Program, server: ServerProcess, s3: Any, number: int, status: int, word: str
) -> None:
    (remote.directory / "f").write_bytes(b"x" * SIZE)
    hold = Hold(after=12_000_000)
    with proxy(server.url, up=hold) as between:
        code, err = interrupted(
            remote.elsewhere("--store", between.url), hold, number, "cp", "f", f"s3://{BUCKET}/held"
        )
    assert code == status, err
    assert len(err.splitlines()) == 1
    assert word in err
    assert "held" not in keys(s3)
    assert uploads(s3) == []


def test_ctrl_c_in_a_download_leaves_no_file(remote: Program, server: ServerProcess, s3: Any) -> None:
    hold = Hold(after=12_000_000)
    with proxy(server.url, down=hold) as between:
        code, err = interrupted(
            remote.elsewhere("--store", between.url), hold, signal.SIGINT, "cp", f"s3://{BUCKET}/big", "f"
        )
    assert (code, err) == (130, "ostraka: interrupted\n")
    assert os.listdir(remote.directory) == []


def test_ctrl_c_while_a_stream_is_awaited_leaves_no_upload(program: Program, bucket: str) -> None:
    process = program.start("cp", "-", f"s3://{bucket}/stream", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(40_000_000))  # more than a pipe and two parts hold: it is in the middle of it
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert process.wait(100) == 130
    process.communicate()
    assert program.well("ls", "--incomplete", f"s3://{bucket}").out == ""
    assert program.well("ls", f"s3://{bucket}").out == ""


def test_a_killed_download_leaves_a_private_name_that_a_later_one_sweeps(
    remote: Program, server: ServerProcess, s3: Any
) -> None:
    hold = Hold(after=12_000_000)
    with proxy(server.url, down=hold) as between:
        process = remote.elsewhere("--store", between.url).start("cp", f"s3://{BUCKET}/big", "f")
        assert hold.reached.wait(100)
        process.kill()
        process.communicate()
    (left,) = os.listdir(remote.directory)
    assert left.endswith(STAGING)
    assert remote.well("cp", "-r", ".", f"s3://{BUCKET}/swept").out == ""  # it is nobody's file
    remote.well("cp", f"s3://{BUCKET}/small", "g")
    assert set(os.listdir(remote.directory)) == {left, "g"}  # it may be in use
    os.utime(remote.directory / left, (1, 1))
    remote.well("cp", f"s3://{BUCKET}/small", "g")
    assert os.listdir(remote.directory) == ["g"]


def test_what_other_clients_stored_in_parts_is_verified_by_its_composite_checksum(
    remote: Program, server: ServerProcess, s3: Any
) -> None:
    made = s3.create_multipart_upload(Bucket=BUCKET, Key="parts", ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE")
    where = {"Bucket": BUCKET, "Key": "parts", "UploadId": made["UploadId"]}
    parts = []
    for number, size in ((1, 6_000_000), (2, 5_300_000), (3, 11)):
        done = s3.upload_part(**where, PartNumber=number, Body=b"x" * size, ChecksumAlgorithm="SHA256")
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumSHA256": done["ChecksumSHA256"]})
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    remote.well("cp", f"s3://{BUCKET}/parts", "f")
    assert (remote.directory / "f").read_bytes() == b"x" * 11_300_011
    with proxy(server.url, down=Flip(100)) as between:
        one_line(remote.elsewhere("--store", between.url)("cp", f"s3://{BUCKET}/parts", "g"), 5, "SHA256")
    assert os.listdir(remote.directory) == ["f"]


def test_a_file_that_changes_while_it_is_read_is_not_stored(remote: Program, server: ServerProcess, s3: Any) -> None:
    file = remote.directory / "f"
    file.write_bytes(b"x" * SIZE)
    hold = Hold(after=12_000_000)
    with proxy(server.url, up=hold) as between:
        process = remote.elsewhere("--store", between.url).start("cp", "f", f"s3://{BUCKET}/changed")
        assert hold.reached.wait(100)
        with file.open("r+b") as opened:
            opened.write(b"y")
        hold.go_on.set()
        _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert b"f changed while it was read: it was not stored" in err or b"BadDigest" in err
    assert "changed" not in keys(s3)
    assert uploads(s3) == []


def test_the_store_s_owner_needs_no_authority_to_trust_his_own_server(
    nowhere: Program, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    certificate, key = authority.server(["storage.example.org"])
    tls = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    with ServerProcess([tmp_path / "store"], *tls, "--workers", "1") as server:
        assert server.url.startswith("https://")
        own = nowhere.elsewhere("--store", str(tmp_path / "store"))
        own.well("bucket", "create", "tls")
        own.well("cp", "-", "s3://tls/k", stdin=b"1")
        named = {"OSTRAKA_ROOT_ACCESS_KEY": server.access_key, "OSTRAKA_ROOT_SECRET_KEY": server.secret_key}
        stranger = nowhere.elsewhere("--store", server.url, **named)
        one_line(stranger("cat", "s3://tls/k"), 6, server.url, "AWS_CA_BUNDLE")
        trusting = nowhere.elsewhere("--store", server.url, AWS_CA_BUNDLE=str(authority.bundle), **named)
        assert trusting.well("cat", "s3://tls/k").out == "1"
        plain = nowhere.elsewhere("--store", server.url.replace("https", "http"), **named)
        assert plain("ls").status == 4
        verified = s3_client(server.url, server.access_key, server.secret_key, verify=str(authority.bundle))
        assert verified.list_buckets()["Buckets"][0]["Name"] == "tls"
