"""The worked examples of docs/format/control.md are what both ends of the socket read and write."""

import contextlib
import re
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from ostraka.errors import Refused
from ostraka.server.asking import NAME, ask
from ostraka.server.control import Request
from ostraka.store.operations import OPERATIONS

PAGE = Path(__file__).parents[2] / "docs" / "format" / "control.md"
EXAMPLES = [
    (
        [line[2:] for line in block.splitlines() if line[0] == ">"],
        [line[2:] for line in block.splitlines() if line[0] == "<"],
    )
    for block in re.findall(r"```\n(.*?)```", PAGE.read_text(), re.S)
]


@contextlib.contextmanager
def answering(directory: Path, lines: list[str], heard: list[bytes]):  # type: ignore[no-untyped-def]
    """A socket in the directory that says these lines, as the page has them, to whoever asks."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / NAME))
        listening.listen(1)

        def answer() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rwb") as stream:
                heard.append(stream.readline())
                stream.write("".join(line + "\n" for line in lines).encode())

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[1][-1][:10])
def test_the_page_shows_what_is_said(example: tuple[list[str], list[str]], tmp_path: Path) -> None:
    (question,), answers = example
    request = msgspec.json.decode(question, type=Request)
    assert request.command in OPERATIONS
    heard: list[bytes] = []
    steps: list[tuple[str, int, int | None]] = []
    with answering(tmp_path, answers, heard):
        if "error" in answers[-1]:
            with pytest.raises(Refused) as refused:
                ask([tmp_path], request.command, request.arguments, lambda *step: steps.append(step))
            assert (refused.value.reason, refused.value.message) == ("not-empty", "/disk9 is not empty")
        else:
            result = ask([tmp_path], request.command, request.arguments, lambda *step: steps.append(step))
            assert result == {"old": 2, "examined": 2048, "repaired": 40}
            assert steps == [("stripes", 512, 2048)]
    assert heard == [question.encode() + b"\n"]


def test_the_page_names_every_command() -> None:
    named = re.search(r"^Commands: (.*?)\. ", PAGE.read_text(), re.M | re.S)
    assert named
    assert {name for name in re.findall(r"`([a-z-]+)`", named[1]) if name in OPERATIONS} == set(OPERATIONS)
