"""The control socket answers whatever it is sent, and holds no more than a bit of what nobody reads."""

import asyncio
import json
import socket
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ostraka.errors import OstrakaError, Unavailable
from ostraka.limits import LIMITS
from ostraka.server import asking
from ostraka.server.asking import ask
from ostraka.server.control import ControlServer
from ostraka.store.operations import OPERATIONS, Progress

_talked = threading.Event()


async def _breaks(store: Any, progress: Progress) -> dict[str, Any]:
    raise RuntimeError("a mistake of our own")


async def _talks(store: Any, progress: Progress) -> dict[str, Any]:
    for done in range(200_000):
        progress("talking " + "x" * 100, done, None)
        if done % 1000 == 0:
            await asyncio.sleep(0)
    peak = tracemalloc.get_traced_memory()[1]
    _talked.set()
    return {"peak": peak}


@pytest.fixture(autouse=True)
def operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATIONS, "breaks", _breaks)
    monkeypatch.setitem(OPERATIONS, "talks", _talks)


def serve(directory: Path, talk: Any) -> Any:
    async def main() -> Any:
        store: Any = SimpleNamespace(membership=SimpleNamespace(paths={}))  # these operations ask nothing of it
        server = ControlServer(store, LIMITS)
        await server.start({0: directory})
        try:
            return await asyncio.to_thread(talk)
        finally:
            await server.close()

    return asyncio.run(main())


def say(directory: Path, sent: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(directory / asking.NAME))
        sock.sendall(sent)
        with sock.makefile("rb") as stream:
            answer: dict[str, Any] = json.loads(stream.readline())
            return answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"null\n",
        b"{}\n",
        b'{"command": "no such thing"}\n',
        b'{"command": "disk-ls", "arguments": {"more": 1}}\n',
        b'{"command": "disk-forget", "arguments": {"old": {}}}\n',
        b"x" * (2 * LIMITS.admin_request_bytes_max),
    ],
    ids=range(7),
)
def test_what_is_no_command_is_answered(tmp_path: Path, sent: bytes) -> None:
    try:
        assert "error" in serve(tmp_path, lambda: say(tmp_path, sent))
    except (BrokenPipeError, ConnectionResetError):
        assert len(sent) > LIMITS.admin_request_bytes_max


def test_a_command_that_breaks_is_answered_and_the_next_one_too(tmp_path: Path) -> None:
    def talk() -> None:
        for _ in range(2):
            with pytest.raises(OstrakaError, match="mistake of our own") as broken:
                ask([tmp_path], "breaks", {}, lambda *_: None)
            assert not isinstance(broken.value, Unavailable)

    serve(tmp_path, talk)


def test_a_client_that_does_not_read_costs_no_memory(tmp_path: Path) -> None:
    def talk() -> int:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(tmp_path / asking.NAME))
            sock.sendall(b'{"command": "talks"}\n')
            assert _talked.wait(60)
            with sock.makefile("rb") as stream:
                result = next(line for line in map(json.loads, stream) if "result" in line)
            return int(result["result"]["peak"])

    tracemalloc.start()
    try:
        assert serve(tmp_path, talk) < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_new_disk_in_the_place_of_an_old_one_answers_as_well(tmp_path: Path) -> None:
    """The old disk's socket went away with what the directory held."""
    place = tmp_path / "disk"
    place.mkdir()

    async def main() -> None:
        store: Any = SimpleNamespace(membership=SimpleNamespace(paths={}))
        server = ControlServer(store, LIMITS)
        await server.start({0: place})
        (place / asking.NAME).unlink()
        place.rmdir()
        place.mkdir()
        await server.start({0: place, 1: place})
        try:
            assert "error" in await asyncio.to_thread(say, place, b"{}\n")
        finally:
            await server.close()

    asyncio.run(main())


def test_a_server_that_ends_before_it_answers_is_told_as_that_and_leaves_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that was under way at a stop left a traceback in the log; one that had only just asked was told that
    the connection was reset."""
    begun = asyncio.Event()

    async def _stays(store: Any, progress: Progress) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    told: list[Unavailable] = []

    def wait() -> None:
        with pytest.raises(Unavailable, match="ended before it answered") as caught:
            ask([tmp_path], "stays", {}, lambda *_: None)
        told.append(caught.value)

    async def main() -> None:
        server = ControlServer(SimpleNamespace(membership=SimpleNamespace(paths={})), LIMITS)  # type: ignore[arg-type]
        await server.start({0: tmp_path})
        asked = asyncio.create_task(asyncio.to_thread(wait))
        await begun.wait()
        await server.close()
        await asked

    OPERATIONS["stays"] = _stays
    try:
        asyncio.run(main())
    finally:
        del OPERATIONS["stays"]
    assert told[0].reason == "server"
    assert "Traceback" not in caplog.text

    def slam() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "other" / asking.NAME))
            listening.listen(1)
            ready.set()
            listening.accept()[0].close()  # unread bytes: whoever asked sees a reset

    (tmp_path / "other").mkdir()
    ready = threading.Event()
    thread = threading.Thread(target=slam)
    thread.start()
    ready.wait(30)
    with pytest.raises(Unavailable, match="ended before it answered"):
        ask([tmp_path / "other"], "status", {}, lambda *_: None)
    thread.join()
