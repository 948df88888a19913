"""A Debian 12 that holds git, python3, python3-pip and nothing else, and commands that are run in it from a checkout.

The Debian is made once by debootstrap, below build/ (or where OSTRAKA_TEST_DEBIAN says), and used again. What a command
does to it goes into a layer above it, in a view of mounts and processes that ends with the command.
"""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEBIAN = Path(os.environ.get("OSTRAKA_TEST_DEBIAN", ROOT / "build/debian12"))
PACKAGES = "git,python3,python3-pip"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

RUN = """
set -e
if ! mount -t overlay overlay -o lowerdir="$DEBIAN",upperdir="$WORK/upper",workdir="$WORK/layer" "$WORK/root"; then
    mount --bind "$WORK/upper" "$WORK/root"  # no layers where the disk is one already
    cp -a "$DEBIAN/." "$WORK/root"
fi
mount -t proc proc "$WORK/root/proc"
mount --rbind /dev "$WORK/root/dev"
cp -L /etc/resolv.conf "$WORK/root/etc/resolv.conf"
# the certificates that this machine trusts (a mirror or a proxy may have one of its own)
cp -L "$AUTHORITIES" "$WORK/root$AUTHORITIES"
[ "$WHO" = root ] || chroot "$WORK/root" useradd --create-home --shell /bin/sh "$WHO"
home="$(chroot "$WORK/root" getent passwd "$WHO" | cut -d: -f6)"
mv "$WORK/checkout" "$WORK/root$home/ostraka"
chroot "$WORK/root" chown -R "$WHO": "$home/ostraka"
exec chroot --userspec="$WHO:$WHO" "$WORK/root" \\
    env -i HOME="$home" PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8 $PASSED \\
    sh -c 'cd ~/ostraka && exec sh -c "$0"' "$COMMAND"
"""


def why_not() -> str:
    """What this machine lacks to make a Debian and to enter it; empty if nothing."""
    if os.geteuid() != 0:
        return "only root can make a Debian of its own and enter it"
    return "" if shutil.which("debootstrap") else "debootstrap is not installed"


def make() -> None:
    """Make the Debian if it is not there. Several processes may ask at once."""
    DEBIAN.parent.mkdir(parents=True, exist_ok=True)
    with (DEBIAN.parent / ".debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = DEBIAN / ".complete"
        if complete.exists():
            return
        shutil.rmtree(DEBIAN, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(DEBIAN)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"debootstrap failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        shutil.rmtree(DEBIAN / "var/cache/apt/archives", ignore_errors=True)
        complete.touch()


class Running:
    """A command under way in the Debian. ``checkout``: its working directory, seen from here."""

    def __init__(self, process: "subprocess.Popen[str]", checkout: Path) -> None:
        self.process = process
        self.checkout = checkout
        self._said: list[str] = []

    def wait_for(self, word: str) -> str:
        """Read what it says up to the line with that word, which is returned."""
        for line in self._lines():
            if word in line:
                return line
        raise AssertionError(f"it ended with {self.process.wait()} and never said {word!r}:\n{self.said()}")

    def wait(self) -> int:
        """Wait for its end; its status."""
        for _ in self._lines():
            pass
        return self.process.wait()

    def interrupt(self) -> int:
        """Ctrl-C, and what it ends with."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def said(self) -> str:
        return "".join(self._said)

    def _lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.append(line)
            yield line


@contextlib.contextmanager
def running(command: str, who: str, work: Path, environment: Mapping[str, str]) -> Iterator[Running]:
    """The command in a checkout of this tree, in the home of that user; ended with the context if it still runs."""
    for name in ("upper", "layer", "root", "checkout"):
        (work / name).mkdir(parents=True)
    _copy_tree(work / "checkout")
    passed = " ".join(f"{name}={value}" for name, value in {**_network(), **environment}.items())
    variables = {"DEBIAN": str(DEBIAN), "WORK": str(work), "WHO": who, "COMMAND": command, "PASSED": passed}
    variables["AUTHORITIES"] = AUTHORITIES
    process = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", RUN],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    home = "root" if who == "root" else f"home/{who}"
    try:
        yield Running(process, work / "upper" / home / "ostraka")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for name in ("upper", "layer", "root"):
            shutil.rmtree(work / name, ignore_errors=True)


def _copy_tree(into: Path) -> None:
    """What git would have in a checkout of this tree as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).exists():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name, follow_symlinks=False)


def _network() -> dict[str, str]:
    """What this machine says of its network is passed on: proxies, where pip finds its index, and whom to trust."""
    names = re.compile(r"(?i)(http|https|no|all)_proxy|PIP_(INDEX_URL|EXTRA_INDEX_URL|DEFAULT_TIMEOUT|TRUSTED_HOST)")
    return {name: value for name, value in os.environ.items() if names.fullmatch(name) or value == AUTHORITIES}
