"""`ostraka metadatadb`: what a person sees and does, on a directory, on `ostraka serve` and on Azurite."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.backends.remote.remote_services import Account, Served

from ostraka.backends import Backend, LocalBackend, address
from ostraka.cli import main
from ostraka.metadatadb import AsyncNamespace, AsyncStore


class Program:
    """Runs commands in this process, and remembers what they said."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.err = ""

    def __call__(self, *words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["metadatadb", *words])
        out, self.err = self._capfd.readouterr()
        assert (ended.value.code or 0) == status, self.err
        return out

    def fails(self, status: int, *words: str) -> str:
        """One line says why, and nothing else is said."""
        assert self(*words, status=status) == ""
        [line] = self.err.splitlines()
        return line


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    return Program(capfd)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/app"


def fill(backend: Callable[[], Backend], prefix: str = "metadatadb/") -> None:
    """What a program keeps there."""

    async def work(ns: AsyncNamespace) -> None:
        await ns.scalar("owner", dict).set({"name": "ann", "shares": 1})
        await ns.int("turn").set(7)
        await ns.int_map("clones").add("ostraka", 2)
        await ns.map("builds", int, str).set(17, "done")
        await ns.set("seen", tuple[str, int]).add(("a", 1))
        await ns.list("log").append("begun")

    async def run() -> None:
        async with backend() as opened, AsyncStore(opened) as store:
            await work(await store.namespace("git"))

    asyncio.run(run())


def at(url: str) -> Callable[[], Backend]:
    return lambda: address(url).place().open()


def test_what_a_program_keeps_is_listed_and_shown(program: Program, url: str, tmp_path: Path) -> None:
    fill(lambda: LocalBackend(tmp_path / "app"))
    assert program("ls", url) == "namespace\ngit\n"
    assert [line.split() for line in program("ls", url, "git").splitlines()] == [
        ["name", "kind", "size", "expires"],
        ["builds", "map", "1", "-"],
        ["clones", "int-map", "1", "-"],
        ["log", "list", "1", "-"],
        ["owner", "scalar", "1", "-"],
        ["seen", "set", "1", "-"],
        ["turn", "int", "1", "-"],
    ]
    first = json.loads(program("ls", url, "git", "--json").splitlines()[0])
    assert first == {"name": "builds", "kind": "map", "size": 1, "expires": None}
    assert program("get", url, "git", "owner") == '{"name":"ann","shares":1}\n'
    assert program("get", url, "git", "turn") == "7\n"
    assert program("get", url, "git", "clones") == '"ostraka"  2\n'
    assert program("get", url, "git", "clones", "ostraka") == "2\n"
    assert program("get", url, "git", "builds", "17", "--json-key") == '"done"\n'
    assert program("get", url, "git", "seen", '["a", 1]', "--json-key") == '["a",1]\n'
    assert program("get", url, "git", "log") == '"begun"\n'
    assert json.loads(program("get", url, "git", "builds", "--json")) == {"key": 17, "value": "done"}


def test_looking_writes_nothing(program: Program, url: str, tmp_path: Path) -> None:
    fill(lambda: LocalBackend(tmp_path / "app"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "app/metadatadb").rglob("*")}
    program("ls", url)
    program("ls", url, "git")
    program("get", url, "git", "owner")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "app/metadatadb").rglob("*")} == before
    assert "is not there" in program.fails(4, "ls", f"file://{tmp_path}/other")
    assert not (tmp_path / "other").exists()


def test_each_kind_is_changed_in_its_way(program: Program, url: str) -> None:
    program("set", url, "ns", "s", '{"b": 1, "a": null}')
    program("set", url, "ns", "n", "--kind", "int", "--", "-9223372036854775808")
    program("set", url, "ns", "counts", "x", "5", "--kind", "int-map")
    program("set", url, "ns", "m", "k", "--text", "12", "--kind", "map")
    program("set", url, "ns", "seen", "12", "--json-key", "--kind", "set")
    for value in ("1", "null"):
        program("set", url, "ns", "l", value, "--kind", "list")
    assert program("get", url, "ns", "s") == '{"a":null,"b":1}\n'
    assert program("get", url, "ns", "n") == "-9223372036854775808\n"
    assert program("get", url, "ns", "counts", "x") == "5\n"
    assert program("get", url, "ns", "m", "k") == '"12"\n'
    assert program("get", url, "ns", "seen") == "12\n"
    assert program("get", url, "ns", "l") == "1\nnull\n"
    for key in ("10", "9", "1"):
        program("set", url, "ns", "counts by number", key, "0", "--json-key", "--kind", "int-map")
    assert program("get", url, "ns", "counts by number") == "1  0\n9  0\n10  0\n"
    program("set", url, "ns", "counts by number", "x", "0")  # text and numbers have no order
    assert program("get", url, "ns", "counts by number") == '"x"  0\n1  0\n10  0\n9  0\n'
    program("set", url, "ns", "m", "k", "--delete")
    program("set", url, "ns", "seen", "12", "--json-key", "--delete")
    program("set", url, "ns", "s", "--delete")
    assert program("get", url, "ns", "m") == program("get", url, "ns", "seen") == ""
    assert "has no 's'" in program.fails(3, "get", url, "ns", "s")


def test_what_is_expected_is_compared_for_all(program: Program, url: str) -> None:
    program("set", url, "jobs", "leader", "--text", "a", "--expect-absent", "--ttl", "1000")
    assert json.loads(program("ls", url, "jobs", "--json"))["expires"]
    assert "not as expected" in program.fails(1, "set", url, "jobs", "leader", "--text", "b", "--expect-absent")
    program("set", url, "jobs", "leader", "--text", "b", "--expect", '"a"')
    assert program("get", url, "jobs", "leader") == '"b"\n'
    program("set", url, "jobs", "turn", "1", "--kind", "int", "--expect", "0")
    program("set", url, "jobs", "etags", "k", "1", "--kind", "map", "--expect-absent")
    program("set", url, "jobs", "etags", "k", "--delete", "--expect", "1")
    program("set", url, "jobs", "seen", "x", "--kind", "set", "--expect-absent")
    program.fails(1, "set", url, "jobs", "seen", "x", "--expect-absent")
    program.fails(2, "set", url, "jobs", "log", "1", "--kind", "list", "--expect-absent")


@pytest.mark.parametrize(
    ("status", "words", "says"),
    [
        (2, ["set", "URL", "git", "owner", "red"], "give --text"),
        (2, ["set", "URL", "git", "turn", "1.5"], "64-bit"),
        (2, ["set", "URL", "git", "turn", "9223372036854775808"], "64-bit"),
        (2, ["set", "URL", "git", "clones", "5"], "KEY and NUMBER"),
        (2, ["set", "URL", "git", "owner", "1", "--kind", "int"], "of kind scalar"),
        (2, ["set", "URL", "git", "log", "1", "--ttl", "5"], "time to live"),
        (2, ["set", "URL", "git", "owner", "1", "--ttl", "-1"], "more than 0"),
        (2, ["set", "URL", "git", "owner", "1", "--expect", "1", "--expect-absent"], "give one"),
        (2, ["set", "URL", "a/b", "x", "1"], "holds a '/'"),
        (3, ["set", "URL", "git", "clones", "nix", "--delete"], 'no "nix"'),
        (3, ["set", "URL", "git", "nix", "--delete"], "no 'nix'"),
        (3, ["get", "URL", "gitt", "owner"], "there are git"),
        (3, ["get", "URL", "git", "clone"], "no 'clone'"),
        (3, ["get", "URL", "git", "builds", "17"], "give --json-key"),
        (2, ["get", "URL", "git", "turn", "17"], "has no keys"),
        (2, ["get", "URL", "git", "builds", "{", "--json-key"], "no JSON"),
        (3, ["ls", "URL", "git", "--prefix", "elsewhere/"], "is --prefix right?"),
        (2, ["ls", "fill:///data"], "did you mean file:?"),
        (2, ["watch", "URL", "git", "--interval", "0"], "more than 0"),
    ],
    ids=lambda p: " ".join(p) if isinstance(p, list) else "",
)
def test_what_is_wrong_is_one_line(program: Program, url: str, status: int, words: list[str], says: str) -> None:
    fill(at(url))
    assert says in program.fails(status, *(url if word == "URL" else word for word in words))


def test_damage_is_told_and_left(program: Program, url: str, tmp_path: Path) -> None:
    fill(at(url))
    program("set", url, "git", "turn", "8", "--expect", "7")
    head = tmp_path / "app/metadatadb/git/head"
    head.write_bytes(b"{}")
    for words in (["get", url, "git", "turn"], ["set", url, "git", "turn", "9"]):
        assert "metadatadb/git/head: byte 0" in program.fails(5, *words)
    assert head.read_bytes() == b"{}"


def test_watching_tells_of_changes_until_it_is_interrupted(program: Program, url: str) -> None:
    fill(at(url))
    command = [sys.executable, "-P", "-m", "ostraka", "metadatadb", "watch", url, "git", "--interval", "0.1", "--json"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert watching.stdout is not None
        seen = []
        number = 0
        while not seen:  # it begins at a moment of its own
            program("set", url, "git", "clones", "ostraka", str(number := number + 1))
            os.set_blocking(watching.stdout.fileno(), False)
            if line := watching.stdout.readline():
                seen.append(json.loads(line))
        os.set_blocking(watching.stdout.fileno(), True)
        assert seen[0] == {"name": "clones", "kind": "int-map", "key": "ostraka", "value": seen[0]["value"]}
        program("set", url, "git", "clones", "ostraka", "--delete")
        while "absent" not in seen[-1]:
            seen.append(json.loads(watching.stdout.readline()))
        assert seen[-1] == {"name": "clones", "kind": "int-map", "key": "ostraka", "absent": True}
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=30)
        assert (watching.returncode, err) == (130, "ostraka: interrupted\n")
    finally:
        watching.kill()
        watching.communicate()


def test_the_same_on_ostraka_serve(program: Program, own: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", own.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", own.secret_key)
    url = f"s3://{own.bucket}/cli?endpoint={own.url}"
    program("set", url, "git", "owner", "--text", "ann", "--expect-absent")
    assert program("ls", url) == "namespace\ngit\n"
    assert program("get", url, "git", "owner") == '"ann"\n'


def test_the_same_on_azurite(program: Program, azure: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", azure.access.key)
    url = f"az://{azure.container}/cli?account={azure.access.account}&endpoint={azure.access.endpoint}"
    program("set", url, "git", "owner", "--text", "ann", "--expect-absent")
    assert program("ls", url) == "namespace\ngit\n"
    assert program("get", url, "git", "owner") == '"ann"\n'
