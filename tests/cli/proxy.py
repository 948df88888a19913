"""A wire that does what wires do: flips bits, breaks off, stands still."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

Change = Callable[[bytes], bytes | None]  # what goes on instead; None: the connection is cut


def as_it_is(data: bytes) -> bytes:
    return data


class Proxy:
    """Forwards to a server, through ``up`` (what the client sends) and ``down`` (what it gets)."""

    def __init__(self, url: str, up: Change = as_it_is, down: Change = as_it_is) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._server = parts.hostname, parts.port
        self.up, self.down = up, down
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for source, sink, way in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._forward, args=(source, sink, way), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                changed = getattr(self, way)(data)
                if changed is None:
                    break
                sink.sendall(changed)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


@contextlib.contextmanager
def proxy(url: str, up: Change = as_it_is, down: Change = as_it_is) -> Iterator[Proxy]:
    between = Proxy(url, up, down)
    try:
        yield between
    finally:
        between.close()


class Flip:
    """Turns the first byte 'x' after ``skip`` of them into another letter, once."""

    def __init__(self, skip: int) -> None:
        self._skip = skip
        self.flipped = False
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> bytes:
        with self._lock:
            count = data.count(b"xxxxxxxx")
            if self.flipped or not count:
                return data
            if self._skip >= count:
                self._skip -= count
                return data
            self.flipped = True
            return data.replace(b"xxxxxxxx", b"xxxyxxxx", 1)


class Cut:
    """Cuts each connection after so many bytes, ``times`` times."""

    def __init__(self, after: int, times: int) -> None:
        self._after = self._left = after
        self.times = times
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> bytes | None:
        with self._lock:
            self._left -= len(data)
            if self._left > 0 or not self.times:
                return data
            self._left = self._after
            self.times -= 1
            return None


class Hold:
    """Lets so many bytes pass and then none; `reached` says when."""

    def __init__(self, after: int) -> None:
        self._left = after
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> bytes:
        with self._lock:
            self._left -= len(data)
            held = self._left <= 0
        if held and not self.go_on.is_set():
            self.reached.set()
            self.go_on.wait(100)
        return data
