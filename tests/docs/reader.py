"""Does what a page says, in a network and a view of the file system of its own: python reader.py PAGE WORK

Started by test_pages.py under ``unshare``, as the first process of its own; all of it is gone when it ends. The page's
ports and paths are taken literally: /srv, /opt, /run, /etc/nginx and /etc/hosts are this reader's own.
"""

import configparser
import contextlib
import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from pages import Step, steps_of

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
OWN = ("/srv", "/opt", "/run", "/var/log/nginx", "/etc/nginx", "/etc/systemd/system")
PATH = f"{ROOT}/.venv/bin:{ROOT}/.venv-awscli/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41


class Reader:
    """A person with a terminal, and another one where a server runs."""

    def __init__(self, work: Path) -> None:
        self.home = work / "home"
        self.home.mkdir()
        self.environment = {
            "HOME": str(self.home),
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.terminal = subprocess.Popen(
            ["bash", "-eo", "pipefail"],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.server: subprocess.Popen[str] | None = None
        self.wanted = ""  # the path of the file that the next block is

    def do(self, step: Step) -> None:
        print(f"--- {step.what}\n{step.text.rstrip()}", flush=True)
        if step.what == "show":
            if self.wanted:
                self._write(step.text)
        else:
            getattr(self, f"_{step.what.lower().replace('-', '_')}")(step.text)

    # -- the terminal

    def _type(self, text: str) -> None:
        assert self.terminal.stdin is not None
        assert self.terminal.stdout is not None
        self.terminal.stdin.write(f"{text}\necho -done-\n")
        self.terminal.stdin.flush()
        for line in self.terminal.stdout:
            if line == "-done-\n":
                return
            print(line, end="", flush=True)
        raise SystemExit(f"the command ended with {self.terminal.wait()}")

    def _run(self, script: str) -> None:
        self._type(f"{ROOT}/.venv/bin/python {HERE / script}")

    # -- the server's terminal

    def _serve(self, text: str) -> None:
        self._begin(["bash", "-c", f"exec {text}"], self.environment)

    def _begin(self, command: list[str], environment: dict[str, str]) -> None:
        assert self.server is None, "the page starts a second server and did not stop the first"
        self.server = subprocess.Popen(
            command,
            cwd=self.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.server.stdout is not None
        for line in self.server.stdout:
            print(f"server: {line}", end="", flush=True)
            if "Ostraka serves" in line or line.startswith('{"url"'):
                return
        raise SystemExit(f"the server ended with {self.server.wait()}")

    def _ctrl_c(self, text: str) -> None:
        self._end(signal.SIGINT)

    def _the(self, text: str) -> None:
        assert text == "server was killed"
        self._end(None)

    def _end(self, number: signal.Signals | None) -> None:
        server, self.server = self.server, None
        assert server is not None
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, number)
        said, _ = server.communicate(timeout=60)
        print("".join(f"server: {line}\n" for line in said.splitlines()), flush=True)
        expected = -signal.SIGKILL if number is None else 0
        if "Traceback" in said or server.returncode != expected:
            raise SystemExit(f"the server ended with {server.returncode}")

    # -- files

    def _file(self, path: str) -> None:
        self.wanted = path

    def _append(self, path: str) -> None:
        self.wanted = f"+{path}"

    def _unit(self, path: str) -> None:
        self.wanted = f"unit:{path}"

    def _write(self, text: str) -> None:
        wanted, self.wanted = self.wanted, ""
        path = Path(re.sub(r"^(\+|unit:)", "", wanted))
        path.write_text(text if not wanted.startswith("+") else path.read_text() + text)
        if wanted.startswith("unit:"):
            self._serve_unit(path)

    def _serve_unit(self, path: Path) -> None:
        """What systemd would do, as far as that goes without one: verify the unit, run its command, end it."""
        Path("/opt/ostraka").symlink_to(ROOT / ".venv")
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(path.read_text())
        command = shlex.split(unit["Service"]["ExecStart"])
        once = [word for word in command if word != "--existing"]
        self._begin(once, self.environment)
        self._end(signal.SIGTERM)
        self._begin(command, self.environment)
        self._end(signal.SIGTERM)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(path)],
            capture_output=True,
            text=True,
            check=False,
            env={**self.environment, "SYSTEMD_LOG_TARGET": "console"},
        )
        told = [line for line in done.stderr.splitlines() if path.name in line]
        if done.returncode or told:
            raise SystemExit(f"systemd-analyze verify: {done.returncode}\n{done.stderr}")

    def _certificate(self, path: str) -> None:
        """A certificate as one would have bought it: clients of this terminal trust who made it."""
        name = Path(path).name
        issue = f"""
            new="openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2"
            $new -subj /CN=authority -keyout ~/ca.key -out ~/ca.pem 2>/dev/null
            $new -subj /CN={name} -CA ~/ca.pem -CAkey ~/ca.key -addext subjectAltName=DNS:{name},DNS:*.{name} \\
                -addext basicConstraints=critical,CA:FALSE -keyout {path}.key -out {path}.pem 2>/dev/null
            export AWS_CA_BUNDLE=~/ca.pem"""
        self._type(issue)

    def close(self) -> None:
        if self.server is not None:
            self._end(signal.SIGINT)
        assert self.terminal.stdin is not None
        self.terminal.stdin.close()
        self.terminal.wait(60)


def settle_in(work: Path) -> None:
    """A loopback interface that is up, and directories of our own in the places that pages speak of."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))
    for place in OWN:
        own = work / place.strip("/").replace("/", "-")
        own.mkdir()
        if place == "/etc/nginx" and Path(place).exists():
            shutil.copytree(place, own, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(own / "sites-enabled", ignore_errors=True)
        if Path(place).exists():
            subprocess.run(["mount", "--bind", str(own), place], check=True)
    hosts = work / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    Path("/etc/hosts").touch()  # a bare Debian has none, and what is not there cannot be covered
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)


def main() -> None:
    page, work = sys.argv[1], Path(sys.argv[2])
    settle_in(work)
    reader = Reader(work)
    for step in steps_of(page):
        reader.do(step)
    reader.close()


if __name__ == "__main__":
    main()
