"""`ostraka serve`, from settings to exit status: locks, sockets, recovery, children, the words at the start."""

import contextlib
import logging
import os
import resource
import socket
import ssl
import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from ostraka import errors
from ostraka.config import ServeConfig, parse_listen
from ostraka.errors import Invalid, OstrakaError, Unavailable
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.log import AccessLog, setup
from ostraka.nodes.keys import NAME as KEYS_NAME
from ostraka.nodes.opening import still_disks
from ostraka.s3 import checksums
from ostraka.server.observe import METRICS
from ostraka.server.supervisor import Child, Supervisor, bind
from ostraka.server.worker import owner_main, worker_main
from ostraka.shared import Shared
from ostraka.store.recovery import Recovered, hold
from ostraka.store.store import Serving, new_shared

log = logging.getLogger("ostraka.server")

DESCRIPTORS_OWN = 128  # of a process beside those of disks and clients
DESCRIPTORS_PER_DISK = 32  # segments that are written, logs, indexes, directories
CONNECTIONS_MIN = 64


def run(config: ServeConfig, limits: Limits = LIMITS) -> int:
    """Serve until a signal; returns the exit status. Raises the errors of a start that cannot be."""
    setup(config.log_level, json=config.json)
    for warning in config.warnings:
        log.warning("%s", warning)
    if not config.directories:
        raise Invalid("no directory was named: ostraka serve DIR [DIR...]", reason="directories")
    address, port = parse_listen(config.listen)
    tls = check_tls(config)
    check_access_log(config)
    count = config.workers or len(os.sched_getaffinity(0))
    paths = [Path(d).absolute() for d in config.directories]
    limits = within_descriptors(limits, len(paths))
    limits = replace(limits, scrub_seconds=config.scrub_days * 86400, scrub_bytes_per_second=config.scrub_rate)
    with contextlib.ExitStack() as stack:
        stack.enter_context(hold(paths, Host(), make=not config.existing))
        sockets = _listen(config, address, port, count)
        for sock in sockets:
            stack.callback(sock.close)
        shared = new_shared(count + 1, METRICS)
        url = _url(config, address, sockets[0].getsockname()[1])
        return _Service(config, paths, shared, sockets, tls, limits, url).supervisor.run()


def within_descriptors(limits: Limits, disks: int) -> Limits:
    """Take as many file descriptors as the system allows, and of clients no more than leave enough for the disks."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return limits
    clients = clients_within(allowed, limits, disks)
    if clients >= limits.connections_max:
        return limits
    log.warning("%d file descriptors: each worker takes %d clients at most (ulimit -n)", allowed, clients)
    return replace(limits, connections_max=clients)


def clients_within(descriptors: int, limits: Limits, disks: int) -> int:
    """How many clients a worker can take with so many file descriptors."""
    own = DESCRIPTORS_OWN + disks * (limits.segment_files_open_max + DESCRIPTORS_PER_DISK)
    return max(CONNECTIONS_MIN, (descriptors - own) // 2)  # as many again may be on their way out


class _Service:
    """The children of one `ostraka serve`, and what the owner found out for the workers."""

    def __init__(
        self,
        config: ServeConfig,
        paths: list[Path],
        shared: Shared,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None,
        limits: Limits,
        url: str,
    ) -> None:
        self.config, self.paths, self.shared, self.limits, self.url = config, paths, shared, limits, url
        self.sockets = sockets
        certificate = Path(config.tls_cert).read_text(errors="replace") if config.tls_cert else ""
        self.serving = Serving(url, os.getpid(), certificate)
        self.recovered: Recovered | None = None
        workers = [self._worker(row, sock, tls) for row, sock in enumerate(sockets)]
        self.supervisor = Supervisor(
            Child("owner", len(sockets), self._own),
            workers,
            limits,
            recovered=self._heard,
            all_ready=lambda: announce(config, url, self._known(), len(workers)),
            buried=lambda child: shared.bury(child.row),
            stopping=lambda: self._close_sockets(None),
            meanwhile=checksums.crt,
        )

    def _worker(self, row: int, sock: socket.socket, tls: ssl.SSLContext | None) -> Child:
        def main(ready: int) -> None:
            self._close_sockets(sock)
            worker_main(self.config, self._known(), self.shared, row, self.limits, sock, tls, ready)

        return Child(f"worker {row + 1}", row, main)

    def _own(self, ready: int) -> None:
        self._close_sockets(None)
        known = None if self.supervisor.recovering else self._known()
        row = self.supervisor.owner.row
        config, paths = self.config, self.paths
        if self.recovered is not None:  # it may have another geometry now, and disks that left may be empty directories
            config = replace(config, ec=None, existing=True)
            paths = still_disks(paths, Host().files)
        owner_main(config, paths, known, self.shared, row, self.limits, self.serving, ready)

    def _close_sockets(self, spare: socket.socket | None) -> None:
        """Let go of listening sockets in this process: an address refuses clients only when the last holder closed."""
        for sock in self.sockets:
            if sock is not spare:
                sock.close()

    def _known(self) -> Recovered:
        assert self.recovered is not None
        return self.recovered

    def _heard(self, message: bytes) -> None:
        if message[:1] == b"-":
            kind, text, reason = msgspec.msgpack.decode(message[1:], type=tuple[str, str, str])
            raise getattr(errors, kind, OstrakaError)(text, reason=reason)
        self.recovered = msgspec.msgpack.decode(message[1:], type=Recovered)
        for warning in self.recovered.warnings:
            log.warning("%s", warning)


def _listen(config: ServeConfig, address: str, port: int, count: int) -> list[socket.socket]:
    try:
        return bind(address, port, count)
    except OSError as e:
        raise Unavailable(
            f"cannot listen on {config.listen}: {e.strerror or e}; choose another --listen, or stop what is there",
            reason="listen",
        ) from None


def check_tls(config: ServeConfig) -> ssl.SSLContext | None:
    """The TLS context of a server, or None for plain HTTP. Raises Invalid for files that do not fit."""
    if not config.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except FileNotFoundError:
        missing = next((p for p in (config.tls_cert, config.tls_key) if not Path(p).is_file()), config.tls_cert)
        raise Invalid(f"{missing} does not exist: --tls-cert and --tls-key name PEM files", reason="tls") from None
    except (ssl.SSLError, OSError) as e:
        raise Invalid(f"--tls-cert {config.tls_cert}, --tls-key {config.tls_key}: {e}", reason="tls") from None
    return context


def check_access_log(config: ServeConfig) -> None:
    """Make the access log, so that workers find it. Raises Invalid for a file that cannot be written."""
    if config.access_log:
        try:
            AccessLog(config.access_log).close()
        except OSError as e:
            raise Invalid(f"--access-log {config.access_log}: {e.strerror}", reason="access-log") from None


def _url(config: ServeConfig, address: str, port: int) -> str:
    name = f"[{address}]" if ":" in address else address
    return f"{'https' if config.tls_cert else 'http'}://{name}:{port}"


def announce(config: ServeConfig, url: str, recovered: Recovered, workers: int) -> None:
    """Say where the store is: one JSON line, or some words for a person. Secrets go to a terminal only."""
    keys, epoch = recovered.keys, recovered.epoch
    keys_file = str(Path(recovered.index).parent / KEYS_NAME)
    if config.json:
        line = {
            "url": url,
            "ec": f"{epoch.k}+{epoch.m}",
            "disks": len(epoch.members),
            "missing": sorted(recovered.missing),
            "workers": workers,
            "region": config.region,
            "credentials": keys_file if keys.generated else "set",
            "pid": os.getpid(),
        }
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()
        return
    out = [f"Ostraka serves {url}  (S3, region {config.region}, workers: {workers})"]
    disks = len(epoch.members)
    lost = f", {len(recovered.missing)} missing" if recovered.missing else ""
    safety = "one copy: a lost disk is lost data" if epoch.m == 0 else f"any {epoch.m} may be lost"
    out.append(f"{disks} disk{'s' if disks > 1 else ''}{lost}, erasure coding {epoch.k}+{epoch.m} ({safety})")
    if keys.generated and sys.stdout.isatty():
        out.append(f"access key  {keys.root_access_key}")
        out.append(f"secret key  {keys.root_secret_key}")
    elif keys.generated:
        out.append(f"the root credentials are in {keys_file}")
    sys.stdout.write("\n".join(out) + "\n")
    sys.stdout.flush()
