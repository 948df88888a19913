"""The asking side of the control socket (docs/format/control.md): a command is sent to the process that serves a store.

Light on purpose: who only asks needs nothing of what it takes to answer (control.py).
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ostraka import errors
from ostraka.errors import OstrakaError, Unavailable

NAME = "control.sock"

Progress = Callable[[str, int, int | None], None]


@contextlib.contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """The socket's path through /proc: a Unix socket's address has room for 107 bytes only, a path may be longer."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)


def ask(
    directories: Sequence[Path], command: str, arguments: Mapping[str, Any], progress: Progress
) -> dict[str, Any] | None:
    """Have the serving process carry out a command; None when no process listens in any of the directories.

    Raises what the server raised.
    """
    for directory in directories:
        sock = socket.socket(socket.AF_UNIX)
        try:
            with short_path(directory) as address:
                sock.connect(address)
        except OSError:
            sock.close()
            continue
        with sock, sock.makefile("rwb") as stream:
            try:
                stream.write(msgspec.json.encode({"command": command, "arguments": arguments}) + b"\n")
                stream.flush()
                return _listen(stream, progress)
            except ConnectionError:
                raise _ended() from None
    return None


def _ended() -> Unavailable:
    return Unavailable("the server ended before it answered; ask again once it is back", reason="server")


def _listen(stream: Any, progress: Progress) -> dict[str, Any]:
    for line in stream:
        answer: dict[str, Any] = msgspec.json.decode(line)
        if "result" in answer:
            result: dict[str, Any] = answer["result"]
            return result
        if "error" in answer:
            kind: Callable[..., OstrakaError] = getattr(errors, answer["error"], OstrakaError)
            raise kind(answer["message"], reason=answer["reason"])
        progress(answer["progress"], answer["done"], answer["total"])
    raise _ended()
