"""What can be seen of a worker from outside: health, metrics, the access log.

``/-/`` is no bucket name, so these paths are the server's own: ``/-/health/live`` (the process runs),
``/-/health/ready`` (the store answers; 503 while it cannot be written), ``/-/metrics``. They need no credentials and
tell no names.
"""

import contextlib
import logging
from collections.abc import Awaitable
from typing import Any

from ostraka.config import ServeConfig
from ostraka.errors import OstrakaError
from ostraka.http import Handler, Request, Response
from ostraka.log import AccessLog
from ostraka.metrics import LATENCY_BUCKETS, Metric
from ostraka.s3.app import AccessRecord
from ostraka.s3.model import OPERATIONS
from ostraka.store import holdings
from ostraka.store.store import Store

log = logging.getLogger("ostraka.server")

STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
OTHER = "none"  # of a request that came to no operation
NAMES = (*sorted(OPERATIONS), "PostObject", "Preflight", OTHER)

METRICS = (
    Metric("ostraka_requests_total", "counter", "requests answered", {"operation": NAMES, "status": STATUSES}),
    Metric("ostraka_request_seconds", "histogram", "from the head to the last byte", {}, LATENCY_BUCKETS),
    Metric("ostraka_received_bytes_total", "counter", "bytes of request bodies"),
    Metric("ostraka_sent_bytes_total", "counter", "bytes of response bodies"),
    Metric("ostraka_handler_failures_total", "counter", "requests that failed for a reason of our own"),
)


class Observer:
    """Counts and logs what one worker answers."""

    def __init__(self, config: ServeConfig, store: Store) -> None:
        self._store = store
        self._board = board = store.shared.board
        self._access = AccessLog(config.access_log) if config.access_log else None
        self._pending: dict[int, AccessRecord] = {}
        self.stopping = False
        self._cells: dict[tuple[str, int], int] = {}
        self._received = board.cell("ostraka_received_bytes_total")
        self._sent = board.cell("ostraka_sent_bytes_total")
        self._failures = board.cell("ostraka_handler_failures_total")

    def front(self, app: Handler) -> Handler:
        """The handler that answers /-/ itself and gives all else to ``app``."""

        def handle(request: Request) -> Response | Awaitable[Response]:
            if request.raw_path.startswith(b"/-/"):
                return self._own(request)
            return app(request)

        return handle

    def _own(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(405, [("allow", "GET, HEAD")], b"")
        if request.raw_path == b"/-/health/live":
            return _text(200, b"alive\n")
        if request.raw_path == b"/-/health/ready":
            return self._ready()
        if request.raw_path == b"/-/metrics":
            content_type = "text/plain; version=0.0.4; charset=utf-8"
            with contextlib.suppress(OstrakaError):  # the counters are told all the same
                holdings.show(self._store.state, self._board)
            return Response(200, [("content-type", content_type)], self._board.render())
        return _text(404, b"no such page\n")

    def _ready(self) -> Response:
        if self.stopping:
            return _text(503, b"stopping\n")
        try:
            self._store.state.get(b"\x00")
            self._store.membership.up()
        except OstrakaError as e:
            return _text(503, e.message.encode() + b"\n")
        return _text(200, b"ready\n")

    # -- hooks

    def on_answer(self, request: Request, record: AccessRecord) -> None:
        """The S3 door has made its answer; it is counted when it was sent."""
        self._pending[id(request)] = record

    def on_complete(self, request: Request, status: int, sent: int, seconds: float) -> None:
        """All of it was sent, or the client left (499)."""
        record = self._pending.pop(id(request), None)
        if record is None:
            return
        board = self._board
        name = record.operation or OTHER
        where = (name, status // 100)
        cell = self._cells.get(where)
        if cell is None:
            known = name if name in NAMES else OTHER
            cell = self._cells[where] = board.cell("ostraka_requests_total", known, STATUSES[min(5, status // 100) - 1])
        board.add(cell)
        board.add(self._received, request.body.received)
        board.add(self._sent, sent)
        board.observe("ostraka_request_seconds", seconds)
        if self._access is not None:
            self._access.write(self._line(request, record, status, sent, seconds))

    def _line(self, request: Request, record: AccessRecord, status: int, sent: int, seconds: float) -> dict[str, Any]:
        return {
            "time": round(self._store.host.clock.time(), 3),
            "peer": request.peer,
            "account": record.account,
            "method": request.method,
            "operation": record.operation,
            "bucket": record.bucket,
            "key": record.key,
            "status": status,
            "code": record.code,
            "received": request.body.received,
            "sent": sent,
            "seconds": round(seconds, 6),
            "framing": record.framing,
            "scheme": request.scheme,
            "agent": request.headers.get("user-agent") or "",
            "request": record.request_id,
        }

    def on_error(self, request: Request, error: BaseException) -> None:
        """A body failed after its head was out, or the door itself failed."""
        self._board.add(self._failures)
        log.error(
            "%s %s failed: %s: %s", request.method, request.raw_path.decode("latin-1"), type(error).__name__, error
        )

    def close(self) -> None:
        if self._access is not None:
            self._access.close()


def _text(status: int, body: bytes) -> Response:
    return Response(status, [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")], body)
