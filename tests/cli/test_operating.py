"""status, job ls, disk ls, fsck, doctor: the same answers from a store that is served and from one that is not."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from program import Program, one_line

import ostraka
from ostraka import __version__
from ostraka.testing.processes import ServerProcess

JOBS = {"collect", "checkpoint", "heal", "rebalance", "compact", "rewrap", "scrub", "tier"}


@pytest.fixture
def disks(tmp_path: Path) -> list[Path]:
    """A store of three disks with a few objects, that nobody serves."""
    paths = [tmp_path / d for d in "abc"]
    with ostraka.open(*paths) as store:
        bucket = store.create_bucket("photos")
        for n in range(5):
            bucket.put(f"k{n}", b"1" * 1000)
    return paths


def of(nowhere: Program, disks: list[Path]) -> Program:
    return nowhere.elsewhere(OSTRAKA_STORE=":".join(map(str, disks)))


def test_status_says_how_the_store_is(nowhere: Program, disks: list[Path]) -> None:
    program = of(nowhere, disks)
    told = json.loads(program.well("status", "--json").out)
    assert (told["k"], told["m"], told["version"], told["url"]) == (2, 1, __version__, None)
    nothing = {"count": 0, "bytes": 0, "stored_bytes": 0, "disk_bytes": 0, "slots": 0}
    held = {"buckets": 1, "objects": 5, "bytes": 5000, "counted": True, "chunks": nothing, "packs": nothing}
    assert told["holds"] == held
    assert (told["state"]["copies"], told["state"]["wanted"]) == (2, 2)
    assert 0 < told["room"]["free"] < told["room"]["total"]
    assert {job["name"] for job in told["jobs"]} == JOBS
    assert {job["status"] for job in told["jobs"]} == {"not running"}
    assert told["problems"] == []
    assert "one device" in told["warnings"][0] or not told["warnings"]
    with ServerProcess(disks, "--workers", "1") as server:
        served = json.loads(program.well("status", "--json").out)
        assert (served["url"], served["pid"]) == (server.url, server.pid)
        assert {job["status"] for job in served["jobs"]} <= {"working", "waiting", "idle"}
        assert served["holds"] == told["holds"]
        assert {row["name"] for row in program.well("job", "ls", "--json").rows} == JOBS
        shown = program.well("status").out
        for word in (server.url, "2+1", "any one disk may be lost", "5 objects, 4.9 KiB, in 1 buckets", "scrub"):
            assert word in shown
        disks[2].rename(disks[2].with_name("away"))
        broken = program("status", "--json")
        assert broken.status == 1
        (problem,) = json.loads(broken.out)["problems"]
        assert f"disk 2 ({disks[2]})" in problem["what"]
        assert "ostraka disk replace 2 NEW" in problem["way_out"]
        keys = {"OSTRAKA_ROOT_ACCESS_KEY": server.access_key, "OSTRAKA_ROOT_SECRET_KEY": server.secret_key}
        by_url = nowhere.elsewhere("--store", server.url, **keys)
        answer = by_url.well("status", "--json").rows[0]
        assert answer == {"url": server.url, "ready": True, "why": None, "buckets": 1}
    few = of(nowhere, disks[:2])("status")
    assert few.status == 1
    assert "disk 2 is missing" in few.out
    one_line(of(nowhere, disks[:1])("status"), 1, "only 1 of 3 disks", "name the others")


def test_jobs_are_held_back_let_go_on_and_done_now_whether_the_store_is_served_or_not(
    nowhere: Program, disks: list[Path]
) -> None:
    program = of(nowhere, disks)
    one_line(program("job", "pause"), 2, "--all")
    one_line(program("job", "show", "scurb"), 3, "no job 'scurb'", "scrub")
    rows = program.well("job", "pause", "collect", "scrub", "--json").rows
    assert {row["name"]: row["status"] for row in rows} == {"collect": "paused", "scrub": "paused"}
    with ServerProcess(disks, "--workers", "1"):
        shown = json.loads(program.well("job", "show", "collect", "--json").out)
        assert shown["status"] == "paused"
        assert f"by {shown['paused_by']} since" in program.well("job", "show", "collect").out
        one_line(program("job", "run", "collect"), 1, "is paused", "ostraka job resume collect")
        broken = program("status")
        assert broken.status == 1
        assert "ostraka job resume scrub" in broken.out
        assert {row["status"] for row in program.well("job", "resume", "--all", "--json").rows}.isdisjoint({"paused"})
        assert program.well("job", "run", "collect", "--json").rows[-1]["outcome"] == "done"
        assert "(dry run) delete" in program.well("job", "run", "collect", "--dry-run").out
        one_line(program("job", "cancel", "compact"), 1, "ostraka job pause compact")
    assert "done in" in program.well("job", "run", "compact").out
    assert program.well("status").status == 0


def test_a_scrub_finds_what_rots_and_the_server_heals_it(nowhere: Program, disks: list[Path], seed: int) -> None:
    program, body = of(nowhere, disks), random.Random(seed).randbytes(3_000_000)
    with ostraka.open(*disks) as store:
        store.bucket("photos").put("large", body)
    rotten = 0
    for path in (disks[1] / "segments").iterdir():
        if path.stat().st_size > 100_000:
            content = bytearray(path.read_bytes())
            content[50_000] ^= 1
            path.write_bytes(content)
            rotten += 1
    assert rotten
    with ServerProcess(disks, "--workers", "1"):
        told = program.well("scrub", "--json").rows[-1]
        assert (told["outcome"], told["done"] > 0) == ("done", True)
        assert f"{rotten} shards were damaged and 0 missing" in told["note"]
        while json.loads(program("status", "--json").out)["hurt"]:  # the heal job is at it
            program.well("job", "run", "heal")
        assert program.well("cat", "s3://photos/large").raw == body
        assert "shards were damaged" in program.well("job", "show", "scrub").out
    assert "0 findings" in program.well("fsck").out


def test_a_disk_is_replaced_and_forgotten_whether_the_store_is_served_or_not(
    nowhere: Program, disks: list[Path]
) -> None:
    shutil.rmtree(disks[2])
    replaced = of(nowhere, disks[:2]).well("disk", "replace", "new", "--json").rows[-1]
    assert (replaced["new"], replaced["path"]) == (3, str(nowhere.directory / "new"))
    now = [*disks[:2], nowhere.directory / "new"]
    rows = of(nowhere, now).well("disk", "ls", "--json").rows
    assert [(row["number"], row["status"]) for row in rows] == [(0, "up"), (1, "up"), (3, "up")]
    assert of(nowhere, now).well("fsck", "--json").rows[-1]["clean"] is True
    with ServerProcess(now, "--workers", "1"):
        one_line(of(nowhere, now[:1])("disk", "forget", "0"), 1, "disk 0 is up")
        assert "verified; 0 findings" in of(nowhere, now[:1]).well("fsck").out


def test_what_needs_the_store_s_machine_says_so_of_a_url(nowhere: Program) -> None:
    for words in (
        ["disk", "ls"],
        ["disk", "replace", "new"],
        ["disk", "forget", "1"],
        ["job", "ls"],
        ["fsck"],
        ["doctor"],
        ["account", "ls"],
        ["account", "add", "a"],
        ["account", "rm", "a"],
        ["credentials", "show"],
        ["credentials", "rotate"],
    ):
        done = nowhere(*words, "--store", "http://127.0.0.1:9")
        command = " ".join(words[:2]) if len(words) > 1 else words[0]
        one_line(done, 2, f"`ostraka {command}`", "http://127.0.0.1:9", "directories")


def findings(program: Program, *words: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["about"], row["level"]): row for row in program("doctor", *words, "--json").rows}


def test_doctor_finds_what_is_wrong_and_says_the_way_out(nowhere: Program, disks: list[Path]) -> None:
    good = nowhere("doctor", *map(str, disks), "--json")
    assert good.status == 0, good
    about = {row["about"] for row in good.rows}
    assert {"system", "python", "libraries", "erasure coding", "open files", "clock", "memory", "store"} <= about
    assert any("a sync takes" in row["what"] for row in good.rows)
    assert all(row["way_out"] for row in good.rows if row["level"] == "problem")
    (disks[0] / "keys.json").chmod(0o644)
    open_keys = findings(nowhere, *map(str, disks))[str(disks[0]), "problem"]
    assert "can be read by others" in open_keys["what"]
    assert "chmod 600" in open_keys["way_out"]
    (disks[0] / "keys.json").chmod(0o600)
    (nowhere.directory / "file").touch()
    (nowhere.directory / "foreign").mkdir()
    (nowhere.directory / "foreign" / "x").touch()
    missing = nowhere("doctor", "absent", "file", "--quiet")
    assert missing.status == 1
    assert "there is no such directory" in missing.out
    assert "file: it is a file" in missing.out
    foreign = nowhere("doctor", "foreign", "-q")
    assert foreign.status == 1
    assert "is no Ostraka disk" in foreign.out
    assert nowhere("doctor", "empty").status == 0
    assert not (nowhere.directory / "empty").exists()
    lost = findings(nowhere, *map(str, disks[:2]))["store", "problem"]
    assert "disk 2 is missing" in lost["what"]
    with ServerProcess(disks, "--workers", "1"):
        assert nowhere("doctor", *map(str, disks)).status == 0


def test_doctor_knows_memory_and_limits_and_what_swallows_syncs(nowhere: Program) -> None:
    if os.path.ismount("/dev/shm"):
        assert "memory" in findings(nowhere, "/dev/shm")["/dev/shm", "problem"]["what"]
    assert findings(nowhere.elsewhere(LD_PRELOAD="/nowhere/libeatmydata.so"))["LD_PRELOAD", "problem"]
    few = subprocess.run(
        [sys.executable, "-P", "-m", "ostraka", "doctor", "--json"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600)),
        env=nowhere.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {row["about"]: row for row in map(json.loads, few.stdout.splitlines())}
    assert rows["open files"]["level"] == "warning"
    assert "ulimit -n" in rows["open files"]["way_out"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_our_words(nowhere: Program, shell: str) -> None:
    script = nowhere.well("completion", shell).out
    assert "_OSTRAKA_COMPLETE" in script
    if shell == "bash" and shutil.which("bash"):
        asked = 'COMP_WORDS=(ostraka bucket cr); COMP_CWORD=2; _ostraka_completion ostraka; echo "${COMPREPLY[@]}"'
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{asked}"], env={"PATH": path}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["create"]


def test_version_and_help_are_there_at_once_and_help_teaches(nowhere: Program) -> None:
    assert nowhere.well("version", "--json").rows[0]["ostraka"] == __version__
    commands = [line.split()[0] for line in nowhere.well("--help").out.partition("Commands:\n")[2].splitlines() if line]
    assert {"serve", "status", "bucket", "ls", "cp", "sync", "cat", "rm", "account", "credentials"} <= set(commands)
    assert {"disk", "job", "fsck", "doctor", "version", "completion"} <= set(commands)


def test_bucket_storage_says_and_changes_how_a_bucket_keeps_what_comes(nowhere: Program, disks: list[Path]) -> None:
    program = of(nowhere, disks)
    told = json.loads(program.well("bucket", "storage", "photos", "--json").out)
    assert told["name"] == "photos"
    assert (told["compression"], told["level"]) == ("zstd", 1)
    shown = program.well("bucket", "storage", "photos", "--compression", "lz4:9", "--cut", "cdc:512KiB").out
    assert "lz4, level 9" in shown
    assert "cdc, chunks of 512.0 KiB on average" in shown
    body = os.urandom(300_000) + bytes(300_000)
    with ServerProcess(disks, "--workers", "1") as server:
        wanted = {
            "name": "photos",
            "compression": "lz4",
            "level": 9,
            "cut": "cdc",
            "chunk_size": 512 << 10,
            "encryption": None,
        }
        assert json.loads(program.well("bucket", "storage", "s3://photos", "--json").out) == wanted
        server.client().put_object(Bucket="photos", Key="lz4", Body=body)
        told = json.loads(program.well("bucket", "storage", "photos", "--compression", "none", "--json").out)
        assert (told["compression"], told["level"], told["cut"]) == ("none", None, "cdc")
        server.client().put_object(Bucket="photos", Key="none", Body=body)
        for words in (["--compression", "gzip"], ["--cut", "cdc:3MiB"]):
            one_line(program("bucket", "storage", "photos", *words), 2, words[1].split(":")[0])
        one_line(program("bucket", "storage", "nowhere"), 3, "'nowhere'")
        one_line(program.elsewhere(OSTRAKA_STORE=server.url)("bucket", "storage", "photos"), 2, "store's own machine")
        program.well("bucket", "create", "served", "--cut", "cdc")
        assert json.loads(program.well("bucket", "storage", "served", "--json").out)["cut"] == "cdc"
    one_line(program("bucket", "create", "never", "--cut", "cdc:3MiB"), 2, "3 MiB")
    program.well("bucket", "create", "here", "there", "--compression", "none", "--exist-ok")
    assert json.loads(program.well("bucket", "storage", "there", "--json").out)["compression"] == "none"
    assert {row["name"] for row in program.well("bucket", "ls", "--json").rows} == {"photos", "served", "here", "there"}
    with ostraka.open(*disks) as store:
        bucket = store.bucket("photos")
        assert bucket.get("lz4") == bucket.get("none") == body
        assert bucket.info().storage.cut == "cdc"
        assert bucket.set_storage(compression="zstd:3", cut="fixed").compression == "zstd"
    program.well("fsck")
