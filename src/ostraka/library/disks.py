"""The disks of a store, for a program that owns one: seen, added, emptied, replaced; and how bodies are spread.

What moves because of that moves in the background, while the store is open; it goes on where it was when the store is
opened again. `AsyncDisks.wait` tells when all is where it belongs.
"""

import os

import msgspec

from ostraka.library import asked
from ostraka.store import disks, layout
from ostraka.store.store import Store


class DiskInfo(msgspec.Struct, frozen=True):
    """``status``: up, healing, draining, down, missing, vanished, hangs or read-only. ``state``: it carries a copy of
    the metadata. ``holds``: bytes of shards that are alive on it; with ``free`` and ``total``, None where it cannot be
    asked. ``path``: its directory, "" while that is not known."""

    number: int
    status: str
    state: bool
    holds: int | None
    free: int | None
    total: int | None
    path: str


class AsyncDisks:
    """The disks of a store. Made by `AsyncStore.disks`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[DiskInfo]:
        """All of them, by number."""
        listed = await disks.list_disks(self._store)
        return [msgspec.convert({**row, "path": row["path"] or ""}, DiskInfo) for row in listed["disks"]]

    async def add(self, directory: str | os.PathLike[str]) -> int:
        """Adopt an empty directory, which need not exist, as one more disk; its number.

        It takes new data when this returns, and its share of the old moves there. Raises Refused and Invalid, each with
        the way out. Name the directory too when the store is opened next.
        """
        (path,) = asked.directories((directory,))
        added = await layout.add(self._store, _silent, new=str(path))
        number: int = added["new"]
        return number

    async def drain(self, disk: int | str | os.PathLike[str]) -> None:
        """Have a disk (its number, or its directory) emptied, and taken out of the store when it is empty.

        The disk that has the index of the metadata leaves when the store is opened next. Raises Refused when the others
        cannot hold what it holds.
        """
        await layout.drain(self._store, _silent, disk=_word(disk))

    async def keep(self, disk: int | str | os.PathLike[str]) -> None:
        """It is not to be drained after all. Raises Refused if it is not."""
        await layout.drain(self._store, _silent, disk=_word(disk), cancel=True)

    async def replace(self, directory: str | os.PathLike[str], old: int | str | os.PathLike[str] | None = None) -> int:
        """Adopt an empty directory in place of a disk that is lost, and rebuild there what that one held; the number
        of the new one. ``old`` may be left out when exactly one is lost. Raises Refused, Invalid, Unavailable."""
        (path,) = asked.directories((directory,))
        word = "" if old is None else _word(old)
        replaced = await disks.replace(self._store, _silent, old=word, new=str(path))
        number: int = replaced["new"]
        return number

    async def forget(self, disk: int) -> None:
        """Give up a disk that is lost; what it held is rebuilt on the others. Raises Refused, Unavailable."""
        await disks.forget(self._store, _silent, old=_word(disk))

    async def set_geometry(self, ec: str, *, convert: bool = False) -> None:
        """Write new data as "K+M"; ``convert``: and have what is there rewritten. Raises Invalid, Refused."""
        k, m = asked.geometry(ec) or (0, 0)
        await layout.geometry(self._store, _silent, k=k, m=m, convert=convert)

    async def wait(self) -> bool:
        """Until nothing is left to be moved, or what is left waits for the next opening: then False."""
        done: bool = (await layout.wait(self._store, _silent))["done"]
        return done


def _word(disk: int | str | os.PathLike[str]) -> str:
    return str(disk) if isinstance(disk, int) else os.path.abspath(disk)


def _silent(step: str, done: int, total: int | None) -> None:
    """Nobody watches."""
