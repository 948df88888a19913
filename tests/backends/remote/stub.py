"""An endpoint of our own on loopback: what a real store or a cloud's metadata service does only on its bad days."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """A request that came. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Say:
    """An answer. ``length``: what it claims to hold, if that is not what it holds."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


def error(status: int, code: str, message: str = "words") -> Say:
    """An error as S3 tells it."""
    return Say(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())


class Stub:
    """What was asked so far, and where to ask."""

    def __init__(self, answer: Callable[[Asked], Say]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.url = ""


@contextmanager
def stub(answer: Callable[[Asked], Say]) -> Iterator[Stub]:
    served = Stub(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body)
            served.asked.append(asked)
            said = served.answer(asked)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            if "content-length" not in {n.lower() for n in said.headers}:
                self.send_header("Content-Length", str(len(said.body) if said.length is None else said.length))
            self.end_headers()
            if self.command != "HEAD":
                with suppress(OSError):  # who asked has gone
                    self.wfile.write(said.body)
            self.close_connection = said.length is not None

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
