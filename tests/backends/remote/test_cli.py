"""`ostraka backend`: the program as a person runs it, on files, `ostraka serve`, moto and Azurite."""

import array
import fcntl
import filecmp
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from gate import DOWN, UP, Gate, gate
from remote_services import Account, Served
from stub import Asked, Say, stub

from ostraka.backends import address
from ostraka.cli import main
from ostraka.limits import MIB

STORES = ("own", "azure")


class Program:
    """Runs commands in this process, and remembers what they said."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out = self.err = ""

    def __call__(self, *words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["backend", *words])
        self.out, self.err = self._capfd.readouterr()
        assert (ended.value.code or 0) == status, self.err
        return self.out


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "IDENTITY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return Program(capfd)


def environment(served: Served) -> Mapping[str, str]:
    return {"AWS_ACCESS_KEY_ID": served.access_key, "AWS_SECRET_ACCESS_KEY": served.secret_key}


def azure_environment(account: Account) -> Mapping[str, str]:
    return {"AZURE_STORAGE_ACCOUNT": account.access.account, "AZURE_STORAGE_KEY": account.access.key}


@pytest.fixture
def stores(
    program: Program, own: Served, azure: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, str]:
    """The URLs of places of one's own on `ostraka serve` and on Azurite."""
    for name, value in {**environment(own), **azure_environment(azure)}.items():
        monkeypatch.setenv(name, value)
    return {
        "own": f"s3://{own.bucket}/{tmp_path.name}/?endpoint={own.url}",
        "azure": f"az://{azure.container}/{tmp_path.name}/?endpoint={azure.access.endpoint}",
    }


@pytest.fixture(params=["own", "moto", "azure", "file"])
def place(request: pytest.FixtureRequest, program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of a place of its own, to which a path can be added; options are to follow that: see `at`."""
    if request.param == "file":
        (tmp_path / "store").mkdir()
        return f"file:{tmp_path}/store/"
    if request.param in STORES:
        urls: dict[str, str] = request.getfixturevalue("stores")
        return urls[request.param]
    served: Served = request.getfixturevalue(request.param)
    for name, value in environment(served).items():
        monkeypatch.setenv(name, value)
    return f"s3://{served.bucket}/{tmp_path.name}/?endpoint={served.url}"


def at(place: str, path: str) -> str:
    base, mark, options = place.partition("?")
    return base + quote(path) + mark + options


def test_a_file_goes_there_is_seen_comes_back_and_is_gone(program: Program, place: str, tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_bytes(b"contents\n")
    program("cp", "file:a%20b.txt", place)
    assert program("cat", at(place, "a b.txt")) == "contents\n"
    program("cp", at(place, "a b.txt"), at(place, "deep/é?%.txt"))
    listed = [json.loads(line) for line in program("ls", place, "--json").splitlines()]
    assert [(row["path"].rpartition("store/")[2].removeprefix(f"{tmp_path.name}/"), row["size"]) for row in listed] == [
        ("a b.txt", 9),
        ("deep/é?%.txt", 9),
    ]
    assert "9 B" in program("ls", at(place, "a"))
    assert program("ls", "--directories", place).strip().endswith("deep/")
    (row,) = [json.loads(line) for line in program("stat", at(place, "a b.txt"), "--json").splitlines()]
    assert (row["size"], bool(row["etag"])) == (9, True)
    program("cp", at(place, "deep/é?%.txt"), "file:back.txt")
    assert (tmp_path / "back.txt").read_bytes() == b"contents\n"
    program("cp", "-r", place, "file:tree/")
    assert (tmp_path / "tree/deep/é?%.txt").read_bytes() == b"contents\n"
    program("rm", at(place, "a b.txt"))
    program("stat", at(place, "a b.txt"), status=3)
    program("rm", at(place, "a b.txt"), status=3)
    assert program("rm", "-r", "--dry-run", at(place, "deep/")).startswith("(dry run) delete: ")
    (row,) = [json.loads(line) for line in program("rm", "-r", at(place, "deep/"), "--json").splitlines()[:-1]]
    assert (row["action"], address(row["source"]).path.rpartition("deep/")[2]) == ("delete", "é?%.txt")
    program("ls", at(place, "deep/"), status=3)
    assert program.err.count("\n") == 1


def test_check_says_what_works(program: Program, place: str) -> None:
    rows = {row["what"]: row for row in map(json.loads, program("check", place, "--json").splitlines())}
    assert [what for what, row in rows.items() if row["works"] is False] == []
    assert all(rows[what]["works"] for what in ("write", "read, ranges", "large streams", "names, order", "delete"))
    assert all(rows[what]["works"] for what in ("create only", "write if match", "delete if match", "copy if absent"))
    if place.startswith("s3:"):
        assert rows["delete if match"]["said"] == "not claimed so far: conditional_deletes=true"
    if place.startswith("file:"):
        assert re.search(r"(?m)^batch delete +yes$", program("check", place))
    else:
        program("ls", place, status=3)  # nothing is left behind


def test_a_store_that_ignores_conditions_is_found_out(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, bytes] = {}
    times = {"Last-Modified": "Sat, 21 Nov 2026 10:00:00 GMT"}

    def answer(asked: Asked) -> Say:
        path = asked.path.partition("?")[0]
        if asked.method == "PUT":
            kept[path] = asked.body
            return Say(200, b"", {"ETag": f'"{hash(asked.body)}"'})
        if asked.method == "DELETE":
            kept.pop(path, None)
            return Say(204)
        if asked.path.startswith("/b?"):
            return Say(200, b"<ListBucketResult/>")
        if path not in kept:
            return Say(404, b"<Error><Code>NoSuchKey</Code></Error>" if asked.method == "GET" else b"")
        headers = {**times, "ETag": f'"{hash(kept[path])}"'}
        if asked.method == "HEAD":
            return Say(200, b"", {**headers, "Content-Length": str(len(kept[path]))})
        first, last = (int(n) for n in asked.headers["range"].removeprefix("bytes=").split("-"))
        if first >= len(kept[path]):
            return Say(416)
        headers["Content-Range"] = f"bytes {first}-{min(last, len(kept[path]) - 1)}/{len(kept[path])}"
        return Say(206, kept[path][first : last + 1], headers)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with stub(answer) as served:
        out = program("check", f"s3://b/?endpoint={served.url}", "--json", status=1)
        rows = {row["what"]: row for row in map(json.loads, out.splitlines())}
        assert rows["create only"]["said"] == "a second creation went through"
        assert rows["write if match"]["works"] is False
        assert rows["delete if match"]["works"] is None  # it was not claimed
        unclaimed = f"s3://b/?endpoint={served.url}&conditional_writes=false"
        rows = {
            row["what"]: row for row in map(json.loads, program("check", unclaimed, "--json", status=1).splitlines())
        }
        assert rows["create only"]["works"] is None


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("ftp://host/a", 2, "'ftp://host/a': no such kind of URL; there are file:, s3:, az:, memory:"),
        ("s3://bucket/a/../b", 2, "'..' is no name of a path"),
        ("s3://bucket//a", 2, "an empty name"),
        ("s3://bucket/a%00b", 2, "a control character in a path"),
        ("s3://bucket/a%0Ab", 2, "a control character in a path"),
        ("az://container/a/../b", 2, "'..' is no name of a path"),
        ("az://container/a%00b", 2, "a control character in a path"),
        ("az://container/a%1Fb", 2, "a control character in a path"),
        ("memory:a/../b", 2, "'..' is no name of a path"),
        ("memory:a%00b", 2, "a control character in a path"),
        ("file:../a", 2, "no '..' and no control character"),
        ("file:a%00b", 2, "no '..' and no control character"),
        ("file:a%07b", 2, "no '..' and no control character"),
        ("file:a/.ostraka-staging/b?root=a", 2, "is reserved"),
        ("s3://bucket/a?endpoint=nowhere", 2, "the endpoint 'nowhere' is none"),
        ("s3://bucket/a?endpoint=http://[::1", 2, "the endpoint 'http://[::1' is none"),
        ("s3://bucket/a?endpoint=http://h:99999", 2, "the endpoint 'http://h:99999' is none"),
        ("az://container/a?account=me&endpoint=http://[", 2, "the endpoint 'http://[' is none"),
        ("s3://bucket/", 2, "an empty path"),
        ("az://container/a", 6, "nothing opens the account"),
        ("memory:a", 3, "nothing is there"),
        ("s3://bucket/a?endpoint=http://127.0.0.1:1&anonymous", 4, "127.0.0.1:1"),
    ],
)
def test_bad_words_are_one_clear_line(program: Program, url: str, status: int, said: str) -> None:
    program("stat", url, status=status)
    assert program.err.startswith("ostraka: ")
    assert said in program.err
    assert program.err.count("\n") == 1


def test_what_no_request_can_hold_is_told_without_the_signature(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "c2VjcmV0")
    for url in ("s3://bucket/a?endpoint=http://127.0.0.1:1&region=a%0Ab", "az://container/a?account=a b"):
        program("stat", url, status=2)
        assert program.err.count("\n") == 1
        assert "Signature" not in program.err
        assert "SharedKey" not in program.err


def test_bad_credentials_and_missing_places_are_one_clear_line(
    program: Program, own: Served, azure: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("ls", f"s3://{own.bucket}/?endpoint={own.url}", status=6)
    assert "no keys for S3: set AWS_ACCESS_KEY_ID" in program.err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", own.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    program("ls", f"s3://{own.bucket}/?endpoint={own.url}", status=6)
    assert "SignatureDoesNotMatch" in program.err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", own.secret_key)
    for command in ("ls", "check"):
        program(command, f"s3://no-such-bucket/?endpoint={own.url}", status=2 if command == "ls" else 1)
        assert "the bucket does not exist" in program.err + program.out
    program("stat", f"s3://no-such-bucket/a?endpoint={own.url}", status=2)
    assert program.err.count("\n") == 1
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", azure.access.account)
    monkeypatch.setenv("AZURE_STORAGE_KEY", azure.access.key)
    program("stat", f"az://no-such-container/a?endpoint={azure.access.endpoint}", status=2)
    assert "the container does not exist" in program.err
    assert program.err.count("\n") == 1
    for key in ("bm90IHRoZSBrZXk=", "no base64"):
        monkeypatch.setenv("AZURE_STORAGE_KEY", key)
        program("ls", f"az://{azure.container}/?endpoint={azure.access.endpoint}", status=6)
        assert program.err.count("\n") == 1
        assert key not in program.err


def test_without_the_extra_a_clear_sentence_says_what_to_install(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("pyreqwest", "ostraka.backends.s3", "ostraka.backends.remote")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyreqwest", None)
    monkeypatch.setitem(sys.modules, "pyreqwest.client", None)
    program("ls", "s3://bucket/", status=1)
    assert "install ostraka with the extra 'remote'" in program.err
    assert program.err.count("\n") == 1


# -- interrupted copies

UPLOADED, DOWNLOADED = 112, 64  # MiB: what is sent in parts begins at 100
PASSED = {"upload": 100, "across": 100, "download": 56}  # more than is on its way at once: 64, and 32
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
WAYS = [(kind, store, number) for kind in ("upload", "download", "across") for store in STORES for number in SIGNALS]
EACH_RUN = {
    ("upload", "own", signal.SIGKILL),
    ("download", "azure", signal.SIGINT),
    ("across", "azure", signal.SIGTERM),
}


def fill(path: Path, mebibytes: int, seed: int) -> None:
    """No two MiB of it are the same."""
    block = random.Random(seed).randbytes(MIB)
    with path.open("wb") as file:
        for number in range(mebibytes):
            file.write(number.to_bytes(8, "big") + block[8:])


@contextmanager
def held(command: list[str], wire: Gate, steps: Callable[[], int], wanted: int) -> Iterator[subprocess.Popen[bytes]]:
    """The program, standing still in the middle of a copy, after so many steps that it will remember."""
    words = [sys.executable, "-P", "-m", "ostraka", "backend", *command]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as running:
        try:
            assert wire.held.wait(60)
            while steps() < wanted:
                assert running.poll() is None
                time.sleep(0.01)
            yield running
        finally:
            running.kill()


def steps_remembered(directory: Path) -> int:
    return sum(journal.read_bytes().count(b"\n") for journal in directory.glob("state/ostraka/copies/*.copy"))


def bytes_staged(directory: Path) -> int:
    parts = directory.glob("back/.ostraka-staging/uploads/*")
    return sum(part.stat().st_size for part in parts)


@pytest.mark.parametrize(
    ("kind", "store", "number"),
    [pytest.param(*way, marks=[] if way in EACH_RUN else [pytest.mark.slow]) for way in WAYS],
)
def test_a_copy_that_is_interrupted_goes_on(
    program: Program,
    stores: dict[str, str],
    kind: str,
    store: str,
    number: signal.Signals,
    tmp_path: Path,
    seed: int,
) -> None:
    mebibytes = DOWNLOADED if kind == "download" else UPLOADED
    fill(tmp_path / "a.bin", mebibytes, seed)
    place, options = stores[store].split("?endpoint=")
    with gate(options) as wire:
        through = f"{place}a.bin?endpoint={wire.url}"
        source, target = {
            "upload": ("file:a.bin", through),
            "download": (through, "file:back/a.bin"),
            "across": (at(stores["azure" if store == "own" else "own"], "a.bin"), through),
        }[kind]
        if kind != "upload":
            program("cp", "file:a.bin", source.replace(wire.url, options))
        way, steps, wanted = (UP, lambda: steps_remembered(tmp_path), 3)
        if kind == "download":
            way, steps, wanted = (DOWN, lambda: bytes_staged(tmp_path), 16 * MIB)
        wire.hold_after(PASSED[kind] * MIB, way)
        with held(["cp", source, target], wire, steps, wanted) as running:
            running.send_signal(number)
            _, said = running.communicate(timeout=60)
        assert running.returncode in (-number, 128 + number)
        assert said.decode() in ("", "ostraka: interrupted\n", "ostraka: terminated\n")
        program("stat", target.replace(wire.url, options), status=3)
        wire.open()
        program("cp", source, target)
        kept = 16 if kind == "download" else 32  # what had come, or two parts, is not sent again
        assert wire.passed[way] < (mebibytes - kept + 1) * MIB
    program("cp", target.replace(wire.url, options), "file:read.bin")
    assert filecmp.cmp(tmp_path / "a.bin", tmp_path / "read.bin", shallow=False)
    assert list((tmp_path / "state/ostraka/copies").iterdir()) == []


def test_a_long_copy_shows_how_far_it_is_on_a_terminal(program: Program, tmp_path: Path, seed: int) -> None:
    fill(tmp_path / "a.bin", 24, seed)
    command = [sys.executable, "-P", "-m", "ostraka", "backend", "cp", "file:a.bin", "file:copies/"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}) as ran:
        os.close(theirs)
        shown = bytearray()
        with suppress(OSError):  # the terminal is gone when its last user is
            while data := os.read(ours, 1 << 16):
                shown += data
        assert ran.stdout is not None
        assert ran.stdout.read().decode().startswith("copy: file:///")
    os.close(ours)
    assert ran.returncode == 0
    assert "25.2/25.2 MB" in shown.decode() or "24.0/24.0 MiB" in shown.decode()


def test_a_tree_goes_on_with_update_and_one_files_trouble_is_its_own(
    program: Program, stores: dict[str, str], tmp_path: Path
) -> None:
    names = [f"d{n % 3}/{n}" for n in range(30)]
    for name in names:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(name)
        os.utime(tmp_path / "tree" / name, (1, 1))
    target = stores["own"]
    assert program("cp", "-r", "--dry-run", "file:tree/", target).count("(dry run) copy: ") == 30
    program("ls", target, status=3)
    assert program("cp", "-r", "file:tree/", target).splitlines()[-1].startswith("30 copied")
    assert program("cp", "-r", "--update", "file:tree/", target) == ""
    program("rm", at(target, "d1/4"))
    (tmp_path / "tree" / "d2/5").write_text("longer than it was")
    later = time.time() + 60
    os.utime(tmp_path / "tree" / "d0/3", (later, later))
    rows = [json.loads(line) for line in program("cp", "-r", "-u", "file:tree/", target, "--json").splitlines()]
    assert sorted(row["source"].rpartition("tree/")[2] for row in rows[:-1]) == ["d0/3", "d1/4", "d2/5"]
    assert rows[-1]["done"] == {"copy": 3}
    (tmp_path / "back/d0").mkdir(parents=True)
    (tmp_path / "back/d1").write_text("a file where a directory should be")
    program("cp", "-r", target, "file:back/", status=1)
    assert program.err.count("\n") == 10
    assert len(list((tmp_path / "back").glob("d[02]/*"))) == 20
    program("cp", "file:tree", target, status=3)
    assert "end it in /, and add --recursive" in program.err


def test_what_is_in_one_store_is_copied_by_the_store(program: Program, stores: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(4 * MIB))
    place, endpoint = stores["own"].split("?endpoint=")
    program("cp", "file:a", at(stores["own"], "a"))
    with gate(endpoint) as wire:
        wire.open()
        program("cp", f"{place}a?endpoint={wire.url}", f"{place}b?endpoint={wire.url}")
        assert wire.passed[UP] + wire.passed[DOWN] < MIB
    assert '"size":4194304' in program("stat", at(stores["own"], "b"), "--json")
    program("cp", at(stores["own"], "a"), at(stores["own"], "a"), status=2)
    assert "SOURCE and TARGET are the same" in program.err


def test_standard_input_and_output_are_streams(program: Program, stores: dict[str, str], tmp_path: Path) -> None:
    target = at(stores["azure"], "streamed")
    words = [sys.executable, "-P", "-m", "ostraka", "backend"]
    with subprocess.Popen([*words, "cp", "-", target, "-q"], stdin=subprocess.PIPE) as writing:
        assert writing.stdin is not None
        for _ in range(3):
            writing.stdin.write(b"piece\n")
            writing.stdin.flush()
        writing.stdin.close()
        assert writing.wait(60) == 0
    assert program("cp", target, "-") == program("cat", target) == "piece\n" * 3
    with (tmp_path / "file").open("wb") as file:
        file.write(b"of a file")
    with (tmp_path / "file").open("rb") as file:
        subprocess.run([*words, "cp", "-", target, "--quiet"], stdin=file, check=True)
    assert program("cat", target) == "of a file"
    with subprocess.Popen([*words, "cp", "-", target], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        assert waiting.stdin is not None
        assert waiting.stderr is not None
        waiting.stdin.write(b"and no more")
        waiting.stdin.flush()
        while not _reads(waiting):
            time.sleep(0.01)
        waiting.send_signal(signal.SIGINT)
        assert waiting.stderr.read() == b"ostraka: interrupted\n"
        assert waiting.wait(60) == 130
    assert program("cat", target) == "of a file"
    program("cp", "-", "-", status=2)
    closed = subprocess.run(["sh", "-c", '"$0" "$@" <&-', *words, "cp", "-", target], capture_output=True, check=False)
    assert (closed.returncode, closed.stderr.count(b"\n")) == (2, 1)


def _reads(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has taken what its standard input holds."""
    assert process.stdin is not None
    waiting = array.array("i", [0])
    fcntl.ioctl(process.stdin, termios.FIONREAD, waiting)
    return waiting[0] == 0


def test_who_only_reads_makes_no_directory(program: Program, tmp_path: Path) -> None:
    for words in (["ls", "file:absent/"], ["stat", "file:absent/a"], ["cp", "file:absent/a", "file:b"]):
        program(*words, status=4)
        assert program.err.count("\n") == 1
    program("rm", "file:absent/a", status=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["ls"], ["cat"], ["cp"], ["stat"], ["rm"], ["check"]])
def test_help_teaches_by_examples(program: Program, words: list[str]) -> None:
    assert "ostraka backend" in program(*words, "--help").replace("Usage: ostraka backend", "")
