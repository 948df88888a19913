"""What a tired person types, at every command: one line that names the thing and the way out, and nothing is lost."""

import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Program, one_line
from zygote import Zygote

import ostraka
from ostraka.testing.powercut import PowerCutDisk
from ostraka.testing.processes import ServerProcess

# every command that is about a store, in words that would do if the store were good
COMMANDS = [
    ["status"],
    ["bucket", "ls"],
    ["bucket", "create", "some-bucket"],
    ["bucket", "rm", "some-bucket"],
    ["bucket", "storage", "some-bucket"],
    ["bucket", "storage", "some-bucket", "--compression", "lz4"],
    ["ls"],
    ["ls", "s3://some-bucket/k"],
    ["cp", "file", "s3://some-bucket/k"],
    ["cp", "s3://some-bucket/k", "copy"],
    ["sync", "directory", "s3://some-bucket"],
    ["cat", "s3://some-bucket/k"],
    ["rm", "s3://some-bucket/k"],
    ["account", "ls"],
    ["account", "add", "ann"],
    ["account", "rm", "ann"],
    ["credentials", "show"],
    ["credentials", "rotate"],
    ["disk", "ls"],
    ["disk", "replace", "new"],
    ["disk", "forget", "1"],
    ["job", "ls"],
    ["job", "show", "heal"],
    ["job", "pause", "heal"],
    ["job", "resume", "heal"],
    ["job", "cancel", "scrub"],
    ["job", "run", "compact"],
    ["scrub"],
    ["fsck"],
]
OVER_S3 = [
    words
    for words in COMMANDS
    if words[0] in ("status", "bucket", "ls", "cp", "sync", "cat", "rm") and words[:2] != ["bucket", "storage"]
]


def named(words: list[str]) -> str:
    return " ".join(words)


@pytest.fixture
def person(nowhere: Program) -> Program:
    """Somebody with a file, a directory, a directory of other things, and no store."""
    (nowhere.directory / "file").write_text("file")
    (nowhere.directory / "directory").mkdir()
    (nowhere.directory / "foreign").mkdir()
    (nowhere.directory / "foreign" / "letter.txt").write_text("dear")
    return nowhere


def everything(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() if p.is_file() else b"" for p in directory.rglob("*")}


@pytest.mark.parametrize("words", COMMANDS, ids=named)
def test_a_wrong_store_is_named_and_nothing_is_made_there(person: Program, words: list[str]) -> None:
    before = everything(person.directory)
    one_line(person(*words), 2, "no store was named", "--store", "OSTRAKA_STORE")
    one_line(person.elsewhere("--store", "absent")(*words), 1, "no store", "absent", "mounted")
    one_line(person.elsewhere("--store", "file")(*words), 1, "file is not a directory")
    one_line(person.elsewhere("--store", "foreign")(*words), 1, "foreign", "is no Ostraka disk")
    one_line(person.elsewhere("--no-such-option")(*words), 2, "--no-such-option", "--help")
    assert everything(person.directory) == before


@pytest.mark.parametrize("words", [["ls"], ["disk", "ls"]], ids=named)
def test_a_wrong_name_of_a_store_is_named(person: Program, words: list[str]) -> None:
    before = everything(person.directory)
    one_line(person.elsewhere("--store", "file/below")(*words), 1, "is not a directory")
    one_line(person.elsewhere("--store", "directory")(*words), 1, "no store", "directory", "mounted")
    one_line(person.elsewhere("--store", "s3://some-bucket")(*words), 2, "a bucket is not a store")
    one_line(person.elsewhere("--store", "a", "--store", "a")(*words), 2, "named twice")
    one_line(person.elsewhere("--store", "http://x:1", "--store", "a")(*words), 2, "http://x:1", "alone")
    one_line(person.elsewhere("--store", "")(*words), 2, "is no directory of a store")
    assert everything(person.directory) == before


@pytest.fixture(scope="module")
def chatterbox() -> Iterator[str]:
    """The URL of something that answers, and is no S3 server."""
    listening = socket.create_server(("127.0.0.1", 0))

    def chat() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                body = b"<html><body>It works!</body></html>"
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    threading.Thread(target=chat, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()


@pytest.mark.parametrize("words", OVER_S3, ids=named)
def test_a_wrong_server_is_named(person: Program, server: ServerProcess, chatterbox: str, words: list[str]) -> None:
    before = everything(person.directory)
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        one_line(person.elsewhere("--store", nobody, **keys)(*words), 4, nobody, "is it running there?")
    one_line(person.elsewhere("--store", server.url)(*words), 2, "AWS_ACCESS_KEY_ID", "OSTRAKA_ROOT_ACCESS_KEY")
    for wrong in ({**keys, "AWS_SECRET_ACCESS_KEY": "wrong"}, {**keys, "AWS_ACCESS_KEY_ID": "wrong"}):
        done = person.elsewhere("--store", server.url, **wrong)(*words)
        one_line(done, 6, "AWS_ACCESS_KEY_ID")
    one_line(person.elsewhere("--store", f"{server.url}/some-bucket", **keys)(*words), 2, "URL")
    other = person.elsewhere("--store", chatterbox, **keys)(*words)
    assert other.status in (0, 4, 1), other  # to some requests any 200 is an answer
    assert "Traceback" not in other.err
    assert len(other.err.splitlines()) <= 1, other
    assert set(everything(person.directory)) - {"copy"} == set(before)


def test_the_url_of_something_else_is_told(person: Program, chatterbox: str) -> None:
    other = person.elsewhere("--store", chatterbox, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="s")
    for words in (["ls"], ["ls", "s3://some-bucket"], ["bucket", "ls"]):
        done = other(*words)
        assert (done.status, done.err.count("\n")) == (4, 1), done
        assert "no S3 server" in done.err


@pytest.fixture(scope="session")
def kept(zygote: Zygote, server: ServerProcess, idle: Path) -> Iterator[list[Program]]:
    """Each way to a store in which there is something to be lost; it is there still when all slips were made, and the
    stores, which are the session's, as well. (Of a process that takes tests of others, a module has several lives.)"""
    programs: list[Program] = []
    yield programs
    for program in programs:
        program.directory = Path.cwd()
        rows = program.well("ls", "-r", "s3://slips", "--json").rows
        assert [(row["key"], row["size"]) for row in rows] == [("dir/below", 5), ("there", 5)]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["cp", "absent", "s3://{b}/k"], 1, ["absent", "is the path right?"]),
        (["cp", "directory", "s3://{b}/k"], 2, ["directory is a directory", "--recursive"]),
        (["cp", "-r", "file", "s3://{b}/k"], 2, ["file is a file", "--recursive"]),
        (["cp", "-r", "absent", "s3://{b}/k"], 1, ["absent", "is the path right?"]),
        (["cp", "file", "{b}/k"], 2, ["file and {b}/k are both files", "s3://"]),
        (["cp", "file", "other"], 2, ["both files"]),
        (["cp", "file", "s3://"], 2, ["names no bucket"]),
        (["cp", "file", "foreign/letter.txt", "s3://{b}/k"], 2, ["ends in /"]),
        (["cp", "file", "s3://{b}/" + "k" * 1025], 2, ["1025 bytes", "1024"]),
        (["cp", "-", "s3://{b}/"], 2, ["no name", "s3://{b}/NAME"]),
        (["cp", "s3://{b}/k", "s3://{b}/x", "-"], 2, ["one object"]),
        (["cp", "file", "-"], 2, ["one object"]),
        (["cp", "file", "s3://{b}/k", "--metadata", "novalue"], 2, ["--metadata novalue", "NAME=VALUE"]),
        (["cp", "s3://{b}/absent", "x"], 3, ["s3://{b}/absent"]),
        (["cp", "s3://{b}/dir", "x"], 3, ["s3://{b}/dir", "--recursive"]),
        (["cp", "-r", "s3://{b}/absent", "x"], 3, ["nothing in", "s3://{b}/absent"]),
        (["cp", "s3://{b}/there", "file/x"], 1, ["file", "a file is in the way of a directory"]),
        (["cp", "s3://{b}/there", "directory/there/"], 1, []),
        (["cp", "s3://{b}", "x"], 2, ["s3://{b} is a bucket"]),
        (["cp", "s3://absent-bucket/k", "x"], 3, ["'absent-bucket'", "ostraka bucket ls"]),
        (["cp", "s3://{b}/there", "s3://absent-bucket/"], 3, ["'absent-bucket'", "ostraka bucket ls"]),
        (["cat", "s3://{b}/absent"], 3, ["s3://{b}/absent"]),
        (["cat", "{b}/absent"], 2, ["s3://{b}/absent?"]),
        (["cat", "s3://{b}"], 2, ["is a bucket"]),
        (["cat", "--version-id", "nonsense", "s3://{b}/there"], None, ["nonsense"]),
        (["rm", "s3://{b}/absent"], 3, ["s3://{b}/absent"]),
        (["rm", "s3://{b}"], 2, ["is a bucket"]),
        (["rm", "./there"], 2, ["s3://BUCKET/KEY"]),
        (["rm", "-r", "s3://{b}/absent"], 3, ["s3://{b}/absent"]),
        (["rm", "-r", "--version-id", "v", "s3://{b}/there"], 2, ["--version-id"]),
        (["ls", "s3://{b}/absent"], 3, ["s3://{b}/absent"]),
        (["ls", "s3://absent-bucket"], 3, ["'absent-bucket'"]),
        (["ls", "{b}"], 2, ["s3://{b}?"]),
        (["ls", "--versions", "--incomplete", "s3://{b}"], 2, ["--versions", "--incomplete"]),
        (["bucket", "create", "No Good"], 2, ["No Good", "lower case"]),
        (["bucket", "rm", "absent-bucket"], 3, ["'absent-bucket'"]),
        (["bucket", "rm", "s3://{b}/there"], 2, ["is an object"]),
        (["sync", "absent", "s3://{b}"], 1, ["absent", "is the path right?"]),
        (["sync", "file", "s3://{b}"], 2, ["file is a file"]),
        (["sync", "s3://{b}", "file"], 2, ["file is a file"]),
        (["sync", "s3://absent-bucket", "x"], 3, ["'absent-bucket'"]),
    ],
    ids=lambda value: named(value) if isinstance(value, list) else str(value),
)
@pytest.mark.parametrize("program", ["here", "url"], indirect=True)  # a served one's directories lead to its URL
def test_a_slip_is_named_with_the_way_out(
    program: Program, kept: list[Program], words: list[str], status: int | None, says: list[str]
) -> None:
    bucket = "slips"
    if program.way not in [other.way for other in kept]:
        kept.append(program)
        program.well("bucket", "create", bucket)
        program.well("cp", "-", f"s3://{bucket}/there", "-q", stdin=b"there")
        program.well("cp", "-", f"s3://{bucket}/dir/below", "-q", stdin=b"below")
    here = program.directory
    (here / "file").write_text("file")
    (here / "directory" / "there" / "there").mkdir(parents=True)
    (here / "foreign").mkdir()
    (here / "foreign" / "letter.txt").write_text("dear")
    before = everything(here)
    done = program(*[word.replace("{b}", bucket) for word in words])
    if status is None:
        assert done.status in (2, 3)
        status = done.status
    if not says:
        status, says = done.status, ["directory"]
        assert status in (1, 2)
    one_line(done, status, *[say.replace("{b}", bucket) for say in says])
    assert everything(here) == before


def as_nobody(directory: Path, *words: str) -> tuple[int, str]:
    """Run the program as somebody who may read all and write nothing."""
    prefix = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("setpriv is not installed")
        only = "-all,+dac_read_search"
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set", only]
        prefix += ["--inh-caps", only, "--ambient-caps", only]
    done = subprocess.run(
        [*prefix, sys.executable, "-P", "-m", "ostraka", *words],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert len(done.stderr.splitlines()) == 1, done
    return done.returncode, done.stderr


def test_who_may_not_is_told_what_and_whose_it_is(tmp_path: Path, server: ServerProcess) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    with ostraka.open(store) as opened:
        opened.create_bucket("b-1").put("k", b"k")
    target.mkdir()
    for path in (tmp_path, store, target):
        path.chmod(0o755 if path == tmp_path else 0o555)
    status, said = as_nobody(tmp_path, "ls", "--store", str(store))
    assert (status, "cannot be written by this user" in said, str(store) in said) == (1, True, True), said
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = server.access_key, server.secret_key
    try:
        server.client().create_bucket(Bucket="for-nobody")
        server.client().put_object(Bucket="for-nobody", Key="k", Body=b"k")
        way = ("--store", server.url)
        status, said = as_nobody(tmp_path, "cp", "s3://for-nobody/k", "target/k", *way)
        assert (status, "target" in said, "Permission denied" in said, "owner" in said) == (1, True, True, True), said
        status, said = as_nobody(tmp_path, "sync", "s3://for-nobody", "target/new", *way)
        assert (status, "Permission denied" in said) == (1, True), said
    finally:
        del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    status, said = as_nobody(tmp_path, "serve", str(target), "--listen", "127.0.0.1:0")
    assert (status, "cannot be written by this user" in said) == (1, True), said
    assert os.listdir(target) == []


def test_a_full_target_is_told_and_keeps_what_it_had(remote: Program, tmp_path: Path, seed: int) -> None:
    remote.well("bucket", "create", "too-large")
    remote.well("cp", "-", "s3://too-large/big", stdin=random.Random(seed).randbytes(3_000_000))
    with PowerCutDisk(tmp_path / "backing", tmp_path / "small") as small:
        old = Path(small.path) / "big"
        old.write_bytes(b"what was there")
        small.limit_space(1_000_000)
        one_line(remote("cp", "s3://too-large/big", str(old)), 1, str(old), "3000000 bytes", "make room")
        one_line(remote("sync", "s3://too-large", str(small.path)), 1, str(old), "make room")
        assert os.listdir(small.path) == ["big"]
        assert old.read_bytes() == b"what was there"
        small.heal()
        remote.well("cp", "s3://too-large/big", str(old))
        assert old.stat().st_size == 3_000_000


def test_a_full_store_is_told_keeps_what_it_had_and_can_be_emptied(nowhere: Program, tmp_path: Path, seed: int) -> None:
    body = random.Random(seed).randbytes(20_000_000)
    (nowhere.directory / "big").write_bytes(body)
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        store = Path(disk.path) / "store"
        program = nowhere.elsewhere("--store", str(store))
        with ostraka.open(store) as opened:
            opened.create_bucket("filled").put("kept", b"kept")
        with (Path(disk.path) / "others").open("wb") as others:
            others.truncate(4 << 30)
        disk.limit_space(150 << 20)  # a twentieth of the disk is held back, so clients may write nothing more
        for serve in (False, True):
            running = ServerProcess([store], "--workers", "1") if serve else None
            if running is not None:  # by its URL: this kind of disk holds no socket
                running.start()
                keys = {"AWS_ACCESS_KEY_ID": running.access_key, "AWS_SECRET_ACCESS_KEY": running.secret_key}
                program = nowhere.elsewhere("--store", running.url, **keys)
            try:
                for words in (["cp", "big", "s3://filled/big"], ["cp", "-", "s3://filled/big"]):
                    done = program(*words, stdin=body)
                    one_line(done, 1)
                    assert "big" in done.err, done
                    assert "delete objects" in done.err or "Free space" in done.err, done
                assert [r["key"] for r in program.well("ls", "s3://filled", "--json").rows] == ["kept"]
                assert program.well("ls", "--incomplete", "s3://filled").out == ""
                assert program.well("cat", "s3://filled/kept").out == "kept"
            finally:
                if running is not None:
                    running.terminate()
        disk.heal()
        nowhere.elsewhere("--store", str(store)).well("cp", "big", "s3://filled/big")


def test_a_port_that_is_taken_is_told_and_nothing_is_formatted(person: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        one_line(person("serve", "new", "--listen", listen), 4, listen, "choose another --listen")
    assert not (person.directory / "new" / "superblock").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Usage"),
        (["no-such-command"], "no-such-command"),
        (["bucket", "list"], "list"),
        (["cp", "one"], "SOURCE"),
        (["disk", "replace", "a", "b", "c", "--store", "x"], "at most two words"),
        (["completion", "tcsh"], "tcsh"),
        (["serve"], "no directory was named"),
        (["serve", "--listen", "nonsense", "x"], "HOST:PORT"),
        (["fsck", "a", "--store", "b"], "named twice"),
    ],
)
def test_wrong_words_are_named_with_where_help_is(person: Program, words: list[str], says: str) -> None:
    done = person(*words)
    assert done.status == 2, done
    assert says in done.err
    assert "Traceback" not in done.err
    if words:
        assert len(done.err.splitlines()) == 1


def test_output_that_nobody_reads_ends_the_command_quietly(person: Program, idle: Path) -> None:
    program = person.elsewhere("--store", str(idle))
    program.well("bucket", "create", "unread", "--exist-ok")
    program.well("cp", "-", "s3://unread/k", stdin=bytes(5_000_000))
    process = program.start("cat", "s3://unread/k")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(100) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_store_in_use_by_a_program_names_its_pid(person: Program, tmp_path: Path) -> None:
    with ostraka.open(tmp_path / "mine"):
        mine = person.elsewhere("--store", str(tmp_path / "mine"))
        for words in (["ls"], ["status"], ["disk", "ls"], ["cp", "file", "s3://b-1/k"]):
            one_line(mine(*words), 1, f"in use by process {os.getpid()}")
    assert stat.S_IMODE((tmp_path / "mine" / "keys.json").stat().st_mode) == 0o600


def test_odd_names_are_shown_and_not_obeyed(person: Program, idle: Path) -> None:
    program = person.elsewhere("--store", str(idle))
    name = os.fsdecode(b"\xff\x1b[31mred")
    done = program("cp", name, "s3://b-1/k")
    assert done.status in (1, 3)
    assert "\x1b" not in done.err
    one_line(program("cp", "file", f"s3://b-1/{os.fsdecode(bytes([255]))}"), 2, "UTF-8")
