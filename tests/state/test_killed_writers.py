"""kill -9 of writers at any moment, two at a time: what they were told is there, in every copy (ENGINE 6, 24)."""

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ostraka.state import counter, verify_copies

WRITER = Path(__file__).with_name("writer.py")
SEED = 20261121


class Writer:
    """A writer process and what it was told so far."""

    def __init__(self, root: Path, name: str, seed: int) -> None:
        self.name = name
        self.told: dict[int, tuple[int, bytes]] = {}
        self.enough = threading.Event()
        self.wanted = 0
        self.process = subprocess.Popen(
            [sys.executable, str(WRITER), str(root), name, str(seed)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            parts = line.split(" ")
            if line.endswith("\n") and len(parts) == 3:
                self.told[int(parts[0])] = (int(parts[1]), bytes.fromhex(parts[2].strip()))
                if len(self.told) >= self.wanted:
                    self.enough.set()
        self.enough.set()

    def after(self, count: int) -> None:
        """Wait until that many commits more were acknowledged."""
        self.enough.clear()
        self.wanted = len(self.told) + count
        if len(self.told) < self.wanted:
            assert self.enough.wait(60)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def rows_under(state: Any, prefix: bytes) -> int:
    rows, start, end = 0, prefix, prefix[:-1] + b"0"
    while page := state.scan(start, end, 10_000):
        rows, start = rows + len(page), page[-1][0] + b"\0"
    return rows


def check(state: Any, writers: list[Writer]) -> None:
    sequences = [sequence for w in writers for sequence, _ in w.told.values()]
    assert len(sequences) == len(set(sequences))
    assert state.sequence >= max(sequences)
    for w in writers:
        for number, (_, value) in w.told.items():
            key = f"{w.name}/{number:06d}".encode()
            assert state.get(key) == value
            assert state.get(key + b"L" * 600) == value[:9]
        # all of a mutation is there or nothing of it, those in flight included
        rows = rows_under(state, f"{w.name}/".encode())
        assert rows == 2 * counter(state.get(f"of {w.name}".encode()))
        assert rows >= 2 * len(w.told)
    total = sum(counter(state.get(f"of {w.name}".encode())) for w in writers)
    assert counter(state.get(b"count")) == total


@pytest.mark.parametrize("copy_count", [1, 3])
def test_killed_writers_lose_nothing_acknowledged_and_block_nobody(make_store: Any, copy_count: int) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED + copy_count)
    store = make_store(copy_count)
    owner = store.create()
    writers: list[Writer] = []
    for turn in range(4):
        a, b = (Writer(store.root, f"w{turn}{side}", chance.randrange(1 << 30)) for side in "ab")
        writers += [a, b]
        try:
            a.after(chance.randrange(1, 60))
            b.after(1)
            a.kill()
            b.after(chance.randrange(1, 60))  # the survivor rolls forward what the dead one left, and goes on
            if turn % 2:
                owner.checkpoint_now()
            b.after(1)
        finally:
            a.kill()
            b.kill()
        owner.apply([])  # nothing but rolling forward
        check(owner, writers)
        if turn % 2:  # and as after kill -9 of everything
            store.abandon(owner)
            owner = store.open()
            check(owner, writers)
        reports = verify_copies(store.host, store.store, owner.meta())
        assert [report.damage for report in reports] == [[]] * copy_count
    assert not store.evicted
