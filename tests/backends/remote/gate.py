"""A wire between a program and a server that can be cut: it passes so many bytes one way, then holds what comes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

UP, DOWN = "up", "down"  # to the server, and from it


class Gate:
    """Listens on a port of its own. ``held``: set once the bytes that may pass have passed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self.held = threading.Event()
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._left = {UP: 0, DOWN: 0}
        self.passed = {UP: 0, DOWN: 0}
        self.open()

    def hold_after(self, size: int, way: str) -> None:
        self._left = {UP: 1 << 60, DOWN: 1 << 60, way: size}
        self.held.clear()
        self._open.clear()

    def open(self) -> None:
        """Let everything through, and count anew."""
        self.passed = {UP: 0, DOWN: 0}
        self._open.set()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                program, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for source, sink, way in ((program, server, UP), (server, program, DOWN)):
                    threading.Thread(target=self._pass, args=(source, sink, way), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 18):
                with self._lock:
                    self._left[way] -= len(data)
                    if self._left[way] < 0 and not self._open.is_set():
                        self.held.set()
                if self._left[way] < 0:
                    self._open.wait()
                sink.sendall(data)
                with self._lock:
                    self.passed[way] += len(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._open.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def gate(url: str) -> Iterator[Gate]:
    made = Gate(url)
    accepting = threading.Thread(target=made.accept, daemon=True)
    accepting.start()
    try:
        yield made
    finally:
        made.close()
        accepting.join(30)
