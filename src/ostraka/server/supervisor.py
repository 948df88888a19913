"""The process that `ostraka serve` is: it owns the store's lock and the listening sockets, and keeps workers running.

It opens no state and maps no file of the store, so that a disk that dies under a memory map can kill a worker but
never the supervisor. Everything it needs to know about the store is found out by a child (`recover`), which ends
before the first worker starts. Workers are forked from here after all modules are imported: a start costs
milliseconds, and what they share is shared.

A worker that dies is replaced. One that dies of SIGBUS or SIGSEGV may have met a damaged index or a dead disk: then all
workers stop, the store is recovered once more, and they start again.
"""

import contextlib
import ctypes
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from ostraka.config import ServeConfig
from ostraka.errors import OstrakaError, Unavailable
from ostraka.limits import Limits

log = logging.getLogger("ostraka.server")

FAST_DEATH_SECONDS = 2.0  # a child that dies sooner than this after its start counts as failing to start
FAST_DEATHS_MAX = 5
BACKOFF_SECONDS_MAX = 10.0
MEMORY_FAULTS = (signal.SIGBUS, signal.SIGSEGV)
PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    """One forked process and what it is for."""

    name: str
    main: Callable[[int], None]  # gets the descriptor on which it says that it is ready
    pid: int = 0
    ready: bool = False
    started: float = 0.0
    fast_deaths: int = 0
    not_before: float = 0.0
    pipe: int = -1
    said: bytes = field(default=b"", repr=False)


class Supervisor:
    """Runs children until it is told to stop."""

    def __init__(self, config: ServeConfig, limits: Limits) -> None:
        self.config = config
        self.limits = limits
        self.children: list[Child] = []
        self.on_all_ready: Callable[[], None] = lambda: None
        self.on_gone: Callable[[Child], None] = lambda child: None
        self.recover: Callable[[], None] = lambda: None
        self._stopping = False
        self._announced = False
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    # -- running

    def run(self) -> int:
        """Start all children, keep them running, return the exit status after a signal asked to stop."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        gc.collect()
        gc.freeze()
        try:
            for child in self.children:
                self._start(child)
            while not self._stopping:
                self._wait(self._seconds_to_next_start())
                self._reap()
                self._restart_due()
            return 0
        finally:
            self._stop_all()

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _seconds_to_next_start(self) -> float | None:
        waiting = [c.not_before for c in self.children if not c.pid]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _wait(self, seconds: float | None) -> None:
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            else:
                self._listen_to(key.data)

    def _listen_to(self, child: Child) -> None:
        data = os.read(child.pipe, 4096)
        if not data:
            self._selector.unregister(child.pipe)
            os.close(child.pipe)
            child.pipe = -1
            return
        child.said += data
        child.ready = True
        child.fast_deaths = 0
        if not self._announced and all(c.ready for c in self.children):
            self._announced = True
            self.on_all_ready()

    # -- children

    def _start(self, child: Child) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            become_child(child.name, lambda: child.main(write))
        os.close(write)
        child.pid, child.ready, child.said = pid, False, b""
        child.started = time.monotonic()
        child.pipe = read
        self._selector.register(read, selectors.EVENT_READ, child)

    def _reap(self) -> None:
        fault = False
        for child in self.children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            fault = self._bury(child, status) in MEMORY_FAULTS or fault
        if fault and not self._stopping:
            log.error("a worker met unreadable memory: the store is recovered before it is served again")
            self._stop_all()
            self._recover_again()

    def _bury(self, child: Child, status: int) -> int:
        """Note a death; returns the signal that caused it, or 0."""
        if child.pipe >= 0:
            self._selector.unregister(child.pipe)
            os.close(child.pipe)
            child.pipe = -1
        code = os.waitstatus_to_exitcode(status)
        lived = time.monotonic() - child.started
        if not self._stopping:
            how = f"signal {-code}" if code < 0 else f"status {code}"
            log.error("%s (process %d) ended with %s after %.1f s and is replaced", child.name, child.pid, how, lived)
        child.pid = 0
        child.fast_deaths = child.fast_deaths + 1 if lived < FAST_DEATH_SECONDS and not child.ready else 0
        if child.fast_deaths >= FAST_DEATHS_MAX:
            self._stopping = True
            raise Unavailable(f"{child.name} cannot start: it ended {child.fast_deaths} times at once", reason="worker")
        pause = min(BACKOFF_SECONDS_MAX, 0.1 * 2**child.fast_deaths) if child.fast_deaths else 0.0
        child.not_before = time.monotonic() + pause
        self.on_gone(child)
        return -code if code < 0 else 0

    def _recover_again(self) -> None:
        pause = 0.5
        while not self._stopping:
            try:
                self.recover()
                break
            except OstrakaError as e:
                log.error("the store cannot be recovered yet: %s", e)
                self._wait(pause)
                pause = min(BACKOFF_SECONDS_MAX, pause * 2)

    def _restart_due(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if not child.pid and child.not_before <= now and not self._stopping:
                self._start(child)

    def _stop_all(self) -> None:
        """Ask all children to finish what they are doing; after the deadline, end them."""
        for child in self.children:
            if child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + self.limits.shutdown_seconds_max + 2.0
        while any(c.pid for c in self.children):
            left = deadline - time.monotonic()
            for child in self.children:
                if not child.pid:
                    continue
                if left <= 0:
                    log.error("%s (process %d) does not finish and is killed", child.name, child.pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.pid, signal.SIGKILL)
                pid, _ = os.waitpid(child.pid, 0 if left <= 0 else os.WNOHANG)
                if pid:
                    child.pid = 0
                    self.on_gone(child)
                    if child.pipe >= 0:
                        self._selector.unregister(child.pipe)
                        os.close(child.pipe)
                        child.pipe = -1
            if any(c.pid for c in self.children) and left > 0:
                self._wait(min(left, 1.0))


def become_child(name: str, main: Callable[[], None]) -> None:
    """Turn a freshly forked process into a child of its own kind; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all: the supervisor decides
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        main()
        status = 0
    except OstrakaError as e:
        log.error("%s: %s", name, e)
    except BaseException:
        log.exception("%s failed", name)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def bind(host: str, port: int, count: int, backlog: int = 1024) -> list[socket.socket]:
    """``count`` sockets that share one address, one for each worker (SO_REUSEPORT spreads connections over them).

    The supervisor keeps them open: connections that wait on the socket of a worker that died are served by the next.
    Raises OSError.
    """
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    sockets: list[socket.socket] = []
    try:
        # the first without REUSEPORT tells whether another program has the port, whatever options it set
        probe = socket.socket(family, kind, proto)
        with probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            address = (address[0], probe.getsockname()[1], *address[2:])
        for _ in range(count):
            sock = socket.socket(family, kind, proto)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setblocking(False)
            sock.bind(address)
            sock.listen(backlog)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets
