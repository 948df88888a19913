"""The process that `ostraka serve` is: it owns the store's lock and the listening sockets, and keeps workers running.

It opens no state and maps no file of the store, so that a disk that dies under a memory map can kill a worker but
never the supervisor. The first child, the owner, recovers the store, then runs its jobs, and closes it after all
others. Workers start when it is ready. All are forked from here after the modules are imported: a start costs
milliseconds, and what they share is shared.

`REOPEN` has all of them stop as they do at the end, and the store opened anew: between two of their requests, clients
wait on the sockets.

A worker that dies is replaced. One that dies of SIGBUS, SIGSEGV or SIGABRT may have met a damaged index or a dead disk,
and one that ends with `INDEX_LOST` says so: then all workers stop, the store is recovered once more, and they start
again.
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

from ostraka.errors import OstrakaError, Unavailable
from ostraka.limits import Limits

log = logging.getLogger("ostraka.server")

FAST_DEATH_SECONDS = 2.0  # a child that dies sooner than this after its start counts as failing to start
FAST_DEATHS_MAX = 5
MESSAGE_SIZE_MAX = 16 << 20  # of what a child says when it is ready
BACKOFF_SECONDS_MAX = 10.0
MEMORY_FAULTS = (-signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT)  # LMDB aborts on a page that cannot be
INDEX_LOST = 76  # exit status of a child that cannot use the state's index any more: as good as a memory fault
PR_SET_PDEATHSIG = 1
REOPEN = signal.SIGUSR1  # from the owner, when what is in use has to move, as the index of a disk that leaves
ENDING = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


@dataclass(slots=True)
class Child:
    """One forked process and what it is for.

    ``main`` gets a descriptor: it writes one message there and closes it, beginning with ``+`` when it is ready and
    with ``-`` when it cannot be.
    """

    name: str
    row: int  # its row in shared memory
    main: Callable[[int], None]
    pid: int = 0
    ready: bool = False
    started: float = 0.0
    fast_deaths: int = 0
    not_before: float = 0.0
    pipe: int = -1
    said: bytes = field(default=b"", repr=False)


class Supervisor:
    """Runs one owner, which recovers the store and stays, and the workers, until it is told to stop.

    ``recovered(message)`` is called with what the owner said when it was ready, and raises if that is bad news;
    ``all_ready`` once, when all are; ``buried(child)`` after each end of a child; ``stopping`` before the last stop;
    ``meanwhile`` whenever the owner begins to recover: what only workers need may be loaded by then.
    """

    def __init__(
        self,
        owner: Child,
        workers: list[Child],
        limits: Limits,
        *,
        recovered: Callable[[bytes], None],
        all_ready: Callable[[], None],
        buried: Callable[[Child], None],
        stopping: Callable[[], None],
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self.owner = owner
        self.workers = workers
        self.limits = limits
        self._recovered = recovered
        self._all_ready = all_ready
        self._buried = buried
        self._at_stop = stopping
        self._meanwhile = meanwhile
        self.recovering = False  # what an owner that is forked now has to do first
        self._stopping = False
        self._reopening = False
        self._announced = False
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @property
    def children(self) -> list[Child]:
        return [self.owner, *self.workers]

    # -- running

    def run(self) -> int:
        """Start all children, keep them running, return the exit status after a signal asked to stop."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        signal.signal(REOPEN, self._asked_to_reopen)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        gc.freeze()  # children share it, as long as none of them looks for garbage in it
        try:
            self._recover()
            while not self._stopping:
                self._start_due()
                self._wait(self._seconds_to_next_start())
                fault = self._reap()
                if fault:
                    log.error("a process could not read the state: the store is recovered before it is served again")
                if (fault or self._reopening) and not self._stopping:
                    self._stop_all()
                    self._reopening = False
                    self._recover_until_it_works()
            return 0
        finally:
            self._at_stop()
            self._stop_all()

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _asked_to_reopen(self, number: int, frame: FrameType | None) -> None:
        self._reopening = True

    def _recover(self) -> None:
        """Start the owner and wait until it has recovered the store. Raises what it said if it could not."""
        owner = self.owner
        self.recovering = True
        try:
            self._start(owner)
        finally:
            self.recovering = False
        self._meanwhile()
        while owner.pipe >= 0 and not self._stopping:
            self._wait(None)
        if self._stopping:
            return
        if not owner.said:
            _, status = os.waitpid(owner.pid, 0)
            owner.pid = 0
            self._buried(owner)
            raise Unavailable(
                f"the recovery of the store ended with {_describe(status)}; a disk may be failing: see the kernel log",
                reason="recovery",
            )
        self._recovered(owner.said)

    def _recover_until_it_works(self) -> None:
        pause = 0.5
        while not self._stopping:
            try:
                self._recover()
                return
            except OstrakaError as e:
                log.error("the store cannot be recovered yet: %s", e)
                self._stop([self.owner])  # there is never a second one while threads of the first may still write
                until = time.monotonic() + pause
                while not self._stopping and (left := until - time.monotonic()) > 0:
                    self._wait(left)
                pause = min(BACKOFF_SECONDS_MAX, pause * 2)

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
        data = os.read(child.pipe, 1 << 16)
        child.said += data
        if data and len(child.said) <= MESSAGE_SIZE_MAX:
            return
        self._close_pipe(child)
        child.ready = child.said.startswith(b"+")
        if child.ready:
            child.fast_deaths = 0
        if not self._announced and all(c.ready for c in self.children):
            self._announced = True
            self._all_ready()

    def _close_pipe(self, child: Child) -> None:
        if child.pipe >= 0:
            self._selector.unregister(child.pipe)
            os.close(child.pipe)
            child.pipe = -1

    # -- children

    def _start(self, child: Child) -> None:
        """Fork it. Unavailable when the system cannot."""
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until the child has handlers of its own
        try:
            read, write = os.pipe2(os.O_CLOEXEC)
            try:
                pid = os.fork()
            except OSError:
                os.close(read)
                os.close(write)
                raise
            if pid == 0:
                os.close(read)
                become_child(child.name, supervisor, lambda: child.main(write))
        except OSError as e:
            raise Unavailable(f"{child.name} cannot be started: {e}", reason="worker") from e
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(write)
        child.pid, child.ready, child.said = pid, False, b""
        child.started = time.monotonic()
        child.pipe = read
        self._selector.register(read, selectors.EVENT_READ, child)

    def _reap(self) -> bool:
        """Bury the dead; whether one of them met unreadable memory."""
        fault = False
        for child in self.children:
            if child.pid and os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                _, status = os.waitpid(child.pid, 0)
                fault = self._bury(child, status) in (*MEMORY_FAULTS, INDEX_LOST) or fault
        return fault

    def _bury(self, child: Child, status: int) -> int:
        """Note a death; returns its exit status, or minus the signal that caused it."""
        while child.pipe >= 0:  # what it said last, up to the end that its death made
            self._listen_to(child)
        code = os.waitstatus_to_exitcode(status)
        lived = time.monotonic() - child.started
        if not self._stopping:
            log.error(
                "%s (process %d) ended with %s after %.1f s and is replaced",
                child.name,
                child.pid,
                _describe(status),
                lived,
            )
        child.pid = 0
        child.fast_deaths = child.fast_deaths + 1 if lived < FAST_DEATH_SECONDS and not child.ready else 0
        self._buried(child)
        if child.fast_deaths >= FAST_DEATHS_MAX:
            self._stopping = True
            raise Unavailable(f"{child.name} cannot start: it ended {child.fast_deaths} times at once", reason="worker")
        pause = min(BACKOFF_SECONDS_MAX, 0.1 * 2**child.fast_deaths) if child.fast_deaths else 0.0
        child.not_before = time.monotonic() + pause
        return code

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if not child.pid and child.not_before <= now and not self._stopping:
                try:
                    self._start(child)
                except Unavailable as e:
                    log.error("%s", e)
                    child.not_before = now + BACKOFF_SECONDS_MAX

    def _stop_all(self) -> None:
        """Workers finish what they are doing, then the owner closes the store; after the deadline, they are ended."""
        self._stop(self.workers)
        self._stop([self.owner])

    def _stop(self, children: list[Child]) -> None:
        for child in children:
            if child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
        allowed = self.limits.shutdown_seconds_max + self.limits.linger_seconds_max + 2.0  # what a worker gives itself
        deadline = time.monotonic() + allowed
        while any(c.pid for c in children):
            left = deadline - time.monotonic()
            for child in children:
                if not child.pid:
                    continue
                if left <= 0:
                    log.error("%s (process %d) does not finish and is killed", child.name, child.pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.pid, signal.SIGKILL)
                pid, _ = os.waitpid(child.pid, 0 if left <= 0 else os.WNOHANG)
                if pid:
                    child.pid = 0
                    self._close_pipe(child)
                    self._buried(child)
            if any(c.pid for c in children) and left > 0:
                self._wait(min(left, 1.0))


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"status {code}"


def become_child(name: str, supervisor: int, main: Callable[[], None]) -> None:
    """Turn a freshly forked process, in which `ENDING` is blocked, into a child of its own kind; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, REOPEN):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all: the supervisor decides
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != supervisor:  # it was killed before it could be watched
            raise SystemExit
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # one that came meanwhile ends us here
        main()
        status = 0
    except SystemExit:  # it has told why
        pass
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
