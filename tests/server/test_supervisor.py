"""The supervisor by itself, with children that do as they are told: no signal is lost, no store given up."""

import subprocess
import sys
import textwrap
from pathlib import Path

SCRIPT = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
from ostraka.errors import Unavailable
from ostraka.limits import LIMITS
from ostraka.server import supervisor as room
from ostraka.server.supervisor import Child, Supervisor

here = Path(sys.argv[1])
room.BACKOFF_SECONDS_MAX = 0.05

def note(name):
    with open(here / name, "ab") as file:
        file.write(b".")

def count(name):
    return len((here / name).read_bytes()) if (here / name).exists() else 0

def say(ready, word):
    os.write(ready, word)
    os.close(ready)

def linger():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        time.sleep(60)

def recovered(message):
    if message != b"+":
        raise Unavailable("not yet")

def run(owner, worker):
    limits = replace(LIMITS, shutdown_seconds_max=20.0)
    supervisor = Supervisor(
        Child("owner", 1, owner), [Child("worker", 0, worker)], limits,
        recovered=recovered, all_ready=lambda: note("all_ready"), buried=lambda child: None, stopping=lambda: None)
    sys.exit(supervisor.run())
"""


def supervise(directory: Path, story: str, *, status: int | None = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT + textwrap.dedent(story), str(directory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if status is not None:
        assert done.returncode == status, done.stderr
    return done.stderr


def test_an_abort_counts_as_unreadable_memory_and_the_store_is_recovered(tmp_path: Path) -> None:
    """LMDB aborts on a page that cannot be: a worker that is merely replaced would meet the same page again."""
    supervise(
        tmp_path,
        """
        def owner(ready):
            note("owners")
            say(ready, b"+")
            if count("owners") == 2:
                os.kill(os.getppid(), signal.SIGTERM)
            linger()

        def worker(ready):
            say(ready, b"+")
            if count("owners") == 1:
                os.abort()
            linger()

        run(owner, worker)
        """,
    )
    assert (tmp_path / "owners").read_bytes() == b".."


def test_a_store_that_cannot_be_recovered_yet_is_tried_again_and_again(tmp_path: Path) -> None:
    supervise(
        tmp_path,
        """
        def owner(ready):
            note("owners")
            if 1 < count("owners") < 9:
                say(ready, b"-")
                sys.exit(1)
            say(ready, b"+")
            if count("owners") == 9:
                os.kill(os.getppid(), signal.SIGTERM)
            linger()

        def worker(ready):
            say(ready, b"+")
            if count("owners") == 1:
                os.kill(os.getpid(), signal.SIGBUS)
            linger()

        run(owner, worker)
        """,
    )
    assert len((tmp_path / "owners").read_bytes()) == 9


def test_no_second_owner_recovers_while_the_one_that_failed_lives(tmp_path: Path) -> None:
    supervise(
        tmp_path,
        """
        import fcntl

        def owner(ready):
            lock = os.open(here / "alone", os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note("two at once")
            note("owners")
            if count("owners") == 2:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                say(ready, b"-")
                time.sleep(1.5)  # threads that wait for a disk
                os._exit(1)
            say(ready, b"+")
            if count("owners") == 3:
                os.kill(os.getppid(), signal.SIGTERM)
            linger()

        def worker(ready):
            say(ready, b"+")
            if count("owners") == 1:
                os.kill(os.getpid(), signal.SIGBUS)
            linger()

        run(owner, worker)
        """,
    )
    assert not (tmp_path / "two at once").exists()


def test_a_signal_that_comes_right_after_the_fork_ends_the_child(tmp_path: Path) -> None:
    supervise(
        tmp_path,
        """
        real = room.become_child

        def early(*arguments):
            os.kill(os.getpid(), signal.SIGTERM)  # to a child that still has the supervisor's handlers
            real(*arguments)

        def owner(ready):
            note("owners")
            say(ready, b"+")
            linger()

        room.become_child = early
        run(owner, owner)
        """,
        status=None,
    )
    assert not (tmp_path / "owners").exists()


def test_a_child_whose_supervisor_was_killed_before_it_could_watch_it_ends(tmp_path: Path) -> None:
    supervise(
        tmp_path,
        """
        real = room.become_child

        def orphaned(*arguments):
            parent = os.getppid()
            os.kill(parent, signal.SIGKILL)
            while os.getppid() == parent:
                time.sleep(0.001)
            real(*arguments)

        def owner(ready):
            note("owners")
            os._exit(0)

        room.become_child = orphaned
        run(owner, owner)
        """,
        status=None,
    )
    assert not (tmp_path / "owners").exists()
