"""A copy that is made whole from itself survives a crash, or a failure, at any step of it."""

import errno
from pathlib import Path
from typing import Any

import pytest

from ostraka.errors import OstrakaError
from ostraka.host import Host
from ostraka.state import Mutation, Put, verify_copies


class Crash(BaseException):
    """The process ends here."""


def put(number: int) -> Mutation:
    return Mutation((), (Put(b"key %d" % number, b"value"),))


def damaged(store: Any) -> int:
    """A lone copy with several logs, one of them damaged where a later one has the same; how many rows it holds."""
    state = store.create()
    number = 0
    for _ in range(3):
        for _ in range(5):
            state.apply([put(number)])
            number += 1
        store.abandon(state)  # unclean: the next start writes the last record once more, in a new file
        state = store.open()
    store.abandon(state)
    first = store.logs()[0]
    content = bytearray(first.read_bytes())
    at = content.rindex(b"key 4")
    content[at] ^= 1
    first.write_bytes(content)
    return number


@pytest.mark.parametrize("kind", [Crash, OSError])
@pytest.mark.parametrize("step", range(12))
def test_nothing_is_lost_whichever_step_is_the_last(make_store: Any, step: int, kind: Any) -> None:
    store = make_store(1)
    rows = damaged(store)
    left = [step]

    def count(path: Path) -> None:
        if path.parent != store.copies[0].path:
            return
        if left[0] == 0:
            left[0] -= 1
            raise Crash if kind is Crash else OSError(errno.EIO, "Input/output error")
        left[0] -= 1

    class Stopping(type(store.files)):  # type: ignore[misc]
        def rename(self, old: Path, new: Path) -> None:
            count(new)
            super().rename(old, new)

        def unlink(self, path: Path) -> None:
            if not path.name.endswith(".staging"):
                count(path)
            elif kind is Crash and left[0] < 0:
                return  # a process that has ended cleans nothing up
            super().unlink(path)

        def sync_directory(self, path: Path) -> None:
            count(path / "x")
            super().sync_directory(path)

    sound = store.host
    stopping = Stopping()
    store.host = Host(files=stopping)
    try:
        state = store.open()
    except (Crash, OstrakaError, OSError):
        assert left[0] < 0
    else:
        store.abandon(state)
    store.host = sound
    state = store.open()
    assert len(state.scan(b"", None, 100)) == rows
    assert [r.damage for r in verify_copies(store.host, store.store, state.meta())] == [[]]
