"""`ostraka serve`, from settings to exit status: locks, sockets, recovery, children, the words at the start."""

import contextlib
import logging
import multiprocessing
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import msgspec

from ostraka import errors
from ostraka.config import ServeConfig, parse_listen
from ostraka.errors import Invalid, OstrakaError, Unavailable
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.log import setup
from ostraka.server.supervisor import Child, Supervisor, become_child, bind
from ostraka.server.worker import jobs_main, worker_main
from ostraka.shared import clear_pins
from ostraka.store.keys import NAME as KEYS_NAME
from ostraka.store.recovery import Recovered, hold, recover
from ostraka.store.store import Shared

log = logging.getLogger("ostraka.server")

ANSWER_SIZE_MAX = 16 << 20


def run(config: ServeConfig, limits: Limits = LIMITS) -> int:
    """Serve until a signal; returns the exit status. Raises the errors of a start that cannot be."""
    setup(config.log_level, json=config.json)
    for warning in config.warnings:
        log.warning("%s", warning)
    if not config.directories:
        raise Invalid("no directory was named: ostraka serve DIR [DIR...]", reason="directories")
    address, port = parse_listen(config.listen)
    check_tls(config)
    host = Host()
    workers = config.workers or len(os.sched_getaffinity(0))
    paths = [Path(d).absolute() for d in config.directories]
    with contextlib.ExitStack() as stack:
        stack.enter_context(hold(paths, host))
        try:
            sockets = bind(address, port, workers)
        except OSError as e:
            raise Unavailable(
                f"cannot listen on {config.listen}: {e.strerror or e}; choose another --listen, or stop what is there",
                reason="listen",
            ) from None
        for sock in sockets:
            stack.callback(sock.close)
        recovered = _recover_in_child(config, paths, limits)
        shared = Shared(rows=workers + 1)
        supervisor = Supervisor(config, limits)
        state = {"recovered": recovered}

        def again() -> None:
            state["recovered"] = _recover_in_child(config, paths, limits)

        def make(row: int) -> Child:
            if row == workers:
                return Child("jobs", lambda ready: jobs_main(config, state["recovered"], shared, row, limits, ready))
            sock = sockets[row]
            return Child(
                f"worker {row + 1}",
                lambda ready: worker_main(config, state["recovered"], shared, row, limits, sock, ready),
            )

        supervisor.children = [make(row) for row in range(workers + 1)]
        rows = {c.name: row for row, c in enumerate(supervisor.children)}
        supervisor.recover = again
        supervisor.on_gone = lambda child: clear_pins(shared.pins, rows[child.name])
        url = _url(config, address, sockets[0].getsockname()[1])
        supervisor.on_all_ready = lambda: announce(config, url, recovered, workers)
        return supervisor.run()


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


def _url(config: ServeConfig, address: str, port: int) -> str:
    name = f"[{address}]" if ":" in address else address
    return f"{'https' if config.tls_cert else 'http'}://{name}:{port}"


def announce(config: ServeConfig, url: str, recovered: Recovered, workers: int) -> None:
    """Say where the store is: one JSON line, or some words for a person. Secrets go to a terminal only."""
    keys_file = str(Path(next(iter(recovered.present.values()))) / KEYS_NAME)
    k, m = recovered.k, recovered.m
    if config.json:
        line = {
            "url": url,
            "ec": f"{k}+{m}",
            "disks": len(recovered.present) + len(recovered.missing),
            "missing": sorted(recovered.missing),
            "workers": workers,
            "region": config.region,
            "credentials": keys_file if recovered.generated else "set",
            "pid": os.getpid(),
        }
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()
        return
    out = [f"Ostraka serves {url}  (S3, region {config.region}, {workers} workers)"]
    disks = len(recovered.present) + len(recovered.missing)
    lost = f", {len(recovered.missing)} missing" if recovered.missing else ""
    safety = "one copy: a lost disk is lost data" if m == 0 else f"any {m} may be lost"
    out.append(f"{disks} disk{'s' if disks > 1 else ''}{lost}, erasure coding {k}+{m} ({safety})")
    if recovered.generated:
        if sys.stdout.isatty():
            out.append(f"access key  {recovered.root_access_key}")
            out.append(f"secret key  {recovered.root_secret_key}")
        else:
            out.append(f"credentials are in {keys_file}")
    sys.stdout.write("\n".join(out) + "\n")
    sys.stdout.flush()


def _recover_in_child(config: ServeConfig, paths: list[Path], limits: Limits) -> Recovered:
    """Recover the store in a process of its own, which a damaged index or a dead disk may kill without harm to us."""
    root = (config.root_access_key, config.root_secret_key) if config.root_access_key else None
    read, write = multiprocessing.Pipe(duplex=False)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        read.close()

        def main() -> None:
            try:
                answer: Any = recover(paths, ec=config.ec, existing=config.existing, root=root, limits=limits)
                write.send_bytes(b"+" + msgspec.msgpack.encode(answer))
            except OstrakaError as e:
                write.send_bytes(b"-" + msgspec.msgpack.encode((type(e).__name__, e.message, e.reason)))

        become_child("recovery", main)
    write.close()
    try:
        answer = read.recv_bytes(ANSWER_SIZE_MAX)
    except EOFError:
        answer = b""
    finally:
        read.close()
        _, status = os.waitpid(pid, 0)
    if answer[:1] == b"+":
        recovered = msgspec.msgpack.decode(answer[1:], type=Recovered)
        for warning in recovered.warnings:
            log.warning("%s", warning)
        return recovered
    if answer[:1] == b"-":
        kind, message, reason = msgspec.msgpack.decode(answer[1:], type=tuple[str, str, str])
        raise getattr(errors, kind, OstrakaError)(message, reason=reason)
    raise Unavailable(
        f"the recovery of the store ended with {_describe(status)}; a disk may be failing: see the kernel's log",
        reason="recovery",
    )


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"status {code}"
