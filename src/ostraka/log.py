"""Logs for people and for machines: one line an event on standard error, and an access log of one JSON line a request.

No secret can reach either: events are written by us with names and numbers only, and the access log takes a fixed list
of fields, never a header or a query as it came.
"""

import asyncio
import errno
import logging
import os
import sys
from typing import Any

import msgspec

LINES_HELD_MAX = 10_000  # of the access log; over it they are written at once
FLUSH_SECONDS = 0.1


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "room": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(event).decode()


def setup(level: str, *, json: bool) -> None:
    """Send the log to standard error. Called once, by the process that was started."""
    import time

    handler = logging.StreamHandler(sys.stderr)
    formatter: logging.Formatter = (
        JsonFormatter() if json else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger("ostraka")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


class AccessLog:
    """Lines are gathered and written a few times a second in one system call; `close` writes what is left."""

    def __init__(self, path: str) -> None:
        self._fd = 2 if path == "-" else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._torn = False  # the last line in the file has no end: its disk was full
        self._encoder = msgspec.json.Encoder()

    def write(self, record: object) -> None:
        """Take one record (a msgspec struct or a dict). Called on the loop thread."""
        self._lines.append(self._encoder.encode(record) + b"\n")
        if len(self._lines) >= LINES_HELD_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what is held; a log that cannot be written never stops the service, but loses what it cannot write."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            text = b"".join((b"\n", *lines) if self._torn else lines)
            try:
                written = os.write(self._fd, text)
                self._torn = not text[:written].endswith(b"\n")
                if written < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as e:
                logging.getLogger("ostraka.log").warning("the access log cannot be written: %s", e)

    def close(self) -> None:
        self.flush()
        if self._fd != 2:
            os.close(self._fd)
