"""The program, imported once and forked for each command: a start costs milliseconds instead of half a second.

Run as a script it is that process. It is told words, directory and environment, with descriptors for standard input,
output and error; a child takes them and runs `ostraka.cli.main`, as ``python -m ostraka`` does. `Zygote` is the tests'
side. A command may be run as somebody who can read everything and write nothing (``nobody``), and be given Ctrl-C when
it makes its n-th call of a function (``interrupt``).
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path


class Zygote:
    """Runs commands. One for a test process."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ostraka-zygote-")
        self._address = str(Path(self._directory.name) / "socket")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OSTRAKA_", "AWS_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, self._address],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def run(
        self,
        words: list[str],
        directory: Path,
        environment: Mapping[str, str],
        stdin: bytes,
        seconds: float,
        *,
        nobody: bool = False,
        interrupt: int = 0,
    ) -> tuple[int, bytes, bytes]:
        """Status (minus a signal's number), standard output and standard error of a command."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile(dir=self._directory.name)) for _ in range(3)]
            files[0].write(stdin)
            files[0].seek(0)
            link = stack.enter_context(socket.socket(socket.AF_UNIX))
            link.connect(self._address)
            link.settimeout(seconds)
            asked = [words, str(directory), dict(environment), nobody, interrupt]
            message = json.dumps(asked).encode("utf-8", "surrogateescape")
            socket.send_fds(link, [len(message).to_bytes(4, "big")], [f.fileno() for f in files])
            link.sendall(message)
            pid = int(_read(link, 8).decode())
            try:
                status = int(_read(link, 8).decode())
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                raise
            out, err = (os.pread(f.fileno(), os.fstat(f.fileno()).st_size, 0) for f in files[1:])
            return os.waitstatus_to_exitcode(status), out, err

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._directory.cleanup()


def _read(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        assert more, "the command's keeper vanished"
        data += more
    return data


def _serve(address: str) -> list[str]:
    """Fork for each command; returns in the process of one, with its words."""
    import ostraka.cli

    for found in pkgutil.iter_modules(ostraka.cli.__path__, "ostraka.cli."):
        importlib.import_module(found.name)
    for name in ("client.here", "client.s3", "client.wire", "library", "server.control", "server.run"):
        importlib.import_module(f"ostraka.{name}")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    gc.collect()
    gc.freeze()  # what all share is no garbage: nobody needs to look at it, and so to copy its pages
    print("ready", flush=True)
    while True:
        link, _ = listening.accept()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork():
            link.close()
            continue
        listening.close()
        size, descriptors, _, _ = socket.recv_fds(link, 4, 3)
        words, directory, environment, nobody, interrupt = json.loads(
            _read(link, int.from_bytes(size, "big")).decode("utf-8", "surrogateescape")
        )
        pid = os.fork()
        if pid:  # the keeper: it tells the pid, and then the status
            link.sendall(f"{pid:8}".encode())
            link.sendall(f"{os.waitpid(pid, 0)[1]:8}".encode())
            os._exit(0)
        link.close()
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        if nobody:
            _become_nobody()
        if interrupt:
            _interrupt_at(interrupt)
        return list(words)


def _become_nobody() -> None:
    """Of root's capabilities only CAP_DAC_READ_SEARCH is left: what is not installed for everybody is still read."""
    libc = ctypes.CDLL(None, use_errno=True)
    keep_caps, version_3, read_search = 8, 0x20080522, 1 << 2
    assert libc.prctl(keep_caps, 1, 0, 0, 0) == 0
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    header = (ctypes.c_uint32 * 2)(version_3, 0)
    sets = (ctypes.c_uint32 * 6)(read_search, read_search, 0, 0, 0, 0)
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


def _interrupt_at(number: int) -> None:
    """Ctrl-C at that call of a function in the main thread, wherever it is."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        if event == "call":
            calls += 1
            if calls == number:
                sys.setprofile(None)
                os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(count)


if __name__ == "__main__":
    arguments = _serve(sys.argv[1])
    from ostraka.cli import main

    status = 1
    try:
        main(arguments)
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:  # as the interpreter ends, without taking the modules to pieces, which takes longer than the rest
        sys.setprofile(None)  # the program is over: what would be interrupted is only this
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are not daemons
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
