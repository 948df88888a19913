"""The body of a batch of deletions, and what comes back: requests and answers inside of one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ostraka.backends.remote.wire import Answer
from ostraka.errors import Unavailable


class Inner(NamedTuple):
    """An answer inside of one: to request ``number``, or (None) to the batch as a whole."""

    number: int | None
    status: int
    headers: Mapping[str, str]


def body_of(requests: Sequence[tuple[str, Mapping[str, str]]], boundary: str) -> bytes:
    """Deletions: each a target (path and query) and its headers."""
    parts = []
    for number, (target, headers) in enumerate(requests):
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        parts.append(
            f"--{boundary}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
            f"Content-ID: {number}\r\n\r\nDELETE {target} HTTP/1.1\r\n{lines}Content-Length: 0\r\n\r\n"
        )
    return f"{''.join(parts)}--{boundary}--\r\n".encode()


def answers_of(answer: Answer) -> list[Inner]:
    """Each answer that came back. Unavailable (reason "service") if they cannot be told apart."""
    _, _, boundary = answer.headers.get("content-type", "").partition("boundary=")
    boundary = boundary.partition(";")[0].strip().strip('"')
    if not boundary:
        raise Unavailable("the store's answer to a batch is none", reason="service")
    found = []
    for part in answer.body.decode("utf-8", "replace").split(f"--{boundary}")[1:]:
        if part.startswith("--"):
            break
        outer, _, inner = part.replace("\r\n", "\n").strip("\n").partition("\n\n")
        status, _, head = inner.partition("\n\n")[0].partition("\n")
        try:
            number = _headers(outer).get("content-id")
            found.append(Inner(int(number) if number else None, int(status.split()[1]), _headers(head)))
        except (ValueError, IndexError):
            raise Unavailable("the store's answer to a batch is none", reason="service") from None
    return found


def _headers(lines: str) -> dict[str, str]:
    fields = (line.partition(":") for line in lines.split("\n"))
    return {name.strip().lower(): value.strip() for name, colon, value in fields if colon}
