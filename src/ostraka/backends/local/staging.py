"""Files that nobody sees yet, and how one takes its path: the only module that renames or unlinks what is kept.

Publishing (law 9): the staged file is complete and synced; under the path's lock the condition is checked and the file
renamed; then the directory is synced, and every directory on the way whose own name may not be durable yet. Whoever
is told that it happened finds it after a power cut.

The path's lock is one of LOCKS files, chosen by the path's hash and held with flock: across processes, and given back
by the kernel when its holder is killed. It is held for a rename or an unlink, not for a sync.

The lock's file keeps, in 8 bytes, the newest modification time given out under it. A file that is published gets the
time of the clock, or if the clock (or what the file system keeps of it) stands or went back, the next later that the
file system can tell apart: so that of all files that were ever at a path no two have the same. It may be lost with the
power; the clock then went on.

A staged file is locked as well, so that it is known to be in use as long as its writer lives.
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

from ostraka.backends.local.directories import Settled, remove_empty
from ostraka.backends.local.place import Place, check_regular, etag_of
from ostraka.backends.local.threads import Turn
from ostraka.backends.paths import RESERVED
from ostraka.errors import Conflict, OstrakaError, PreconditionFailed, Refused, Unavailable
from ostraka.host import Buffer, Host
from ostraka.tree import Directory, Status, TreeFile

LOCKS: Final = 256
REMOVING: Final = "directories"  # the lock that who removes directories holds, and who was in their way too often
ATTEMPTS: Final = 3  # to publish into a directory that others remove while it is empty, before we take that lock
DIRECTORIES_OPEN: Final = 64  # whose names a batch has changed and not synced yet
STEPS: Final = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)  # nanoseconds that file systems tell apart
FUTURE_MAX: Final = 24 * 3600 * 10**9  # nanoseconds: a time given out further ahead was a clock's mistake

Condition = Callable[[Status | None], None]


def unconditional(status: Status | None) -> None:
    pass


def matches(path: str, match: str | None) -> Condition:
    """PreconditionFailed unless what is there has that ETag, or (None) nothing is there."""

    def check(status: Status | None) -> None:
        if match is None and status is not None:
            raise PreconditionFailed(f"{path}: it is there already", reason="exists")
        if match is not None and (status is None or etag_of(status) != match):
            raise PreconditionFailed(f"{path}: it was changed", reason="changed")

    return check


class Staged:
    """A file under the reserved directory, written by one and seen by none. Safe to be discarded from any thread."""

    def __init__(self, directory: Directory, name: str, file: TreeFile) -> None:
        self.directory = directory
        self.name = name
        self.file = file
        self._mutex = threading.Lock()
        self._over = False

    def write(self, data: Buffer, offset: int) -> None:
        with self._mutex:
            if not self._over:
                self.file.pwritev([memoryview(data).cast("B")], offset)

    def copy(self, file: TreeFile) -> None:
        """Become what the other file holds."""
        with self._mutex:
            if not self._over:
                self.file.copy_from(file)

    def sync(self) -> None:
        with self._mutex:
            if not self._over:
                self.file.sync_data()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """It is not closed in this block."""
        with self._mutex:
            yield

    def keep(self) -> None:
        """Close it and leave what is there, under whatever name."""
        with self._mutex:
            if not self._over:
                self._over = True
                self.file.close()

    def discard(self) -> None:
        """Close it, and take its staging name away."""
        with self._mutex:
            if not self._over:
                with contextlib.suppress(OSError):
                    self.directory.unlink(self.name)
        self.keep()


class Staging:
    """The reserved directory of one root. Used from threads; its calls raise OSError but for what is said."""

    def __init__(self, place: Place, host: Host, directories_held_max: int) -> None:
        self._place = place
        self._host = host
        self._parts: dict[str, Directory] = {}
        self._mutex = threading.Lock()
        self._settled = Settled(directories_held_max)

    # -- staging names

    def part(self, name: str) -> Directory:
        """One of the directories "writes", "uploads", "locks", made when the first is wanted. Ours to close."""
        with self._mutex:
            if not self._parts:
                self._parts = self._prepared()
            return self._parts[name]

    def _prepared(self) -> dict[str, Directory]:
        parts = {}
        with self._place.enter_root() as root:
            root.make(RESERVED)
            with root.enter(RESERVED) as reserved:
                for name in ("writes", "uploads", "locks"):
                    reserved.make(name)
                    parts[name] = reserved.enter(name)
                reserved.sync()
                _check_names_differ(reserved, self._host.random(4).hex())
            root.sync()
        with contextlib.suppress(PermissionError):  # whoever made the root may not have synced its name
            self._host.files.sync_directory(self._place.root.resolve().parent)
        sweep(parts["writes"], lambda status: True)
        return parts

    def create(self) -> Staged:
        """A new and empty one, with a name that nobody else has."""
        directory = self.part("writes")
        while True:
            name = self._host.random(16).hex()
            staged = Staged(directory, name, directory.create(name))
            if staged.file.lock(wait=False) and staged.file.status().linked:
                return staged
            staged.keep()  # swept in the moment before it was locked

    # -- paths

    def publish(self, staged: Staged, path: str, turn: Turn, condition: Condition = unconditional) -> str:
        """Give it that path, durably, if the condition holds of what is there; the new ETag. What is staged must be
        synced; it is closed afterwards. PreconditionFailed as the condition says, Conflict (reason "path"), Forbidden.
        """
        with staged.busy():
            parent, etag = self._renamed(staged, path, turn, condition)
            with parent, _durable(path, condition):
                parent.sync()
        staged.keep()
        return etag

    def _renamed(self, staged: Staged, path: str, turn: Turn, condition: Condition) -> tuple[Directory, str]:
        """Its directory, open, and the new ETag."""
        with self._locked(_lock_of(path)) as lock:
            for _ in range(ATTEMPTS):
                try:
                    return self._renamed_once(staged, path, turn, condition, lock)
                except FileNotFoundError:
                    continue  # its directory was empty still, and somebody removed it
            with self._locked(REMOVING):
                try:
                    return self._renamed_once(staged, path, turn, condition, lock)
                except FileNotFoundError:
                    message = f"{path}: other programs remove its directory again and again"
                    raise Unavailable(message, reason="service") from None

    def _renamed_once(
        self, staged: Staged, path: str, turn: Turn, condition: Condition, lock: TreeFile
    ) -> tuple[Directory, str]:
        *names, last = path.split("/")
        parent = self._enter_made(names)
        try:
            found = parent.status(last)
            if found is not None and found.kind == "directory":
                raise Conflict(f"{path}: a directory is there", reason="path")
            condition(check_regular(found, path))
            turn.claim()
            self._date(staged.file, lock)
            staged.directory.rename(staged.name, parent, last)
            return parent, etag_of(staged.file.status())
        except BaseException:
            parent.close()
            raise

    def check(self, path: str, condition: Condition) -> None:
        """See early whether the condition fails now; what it must hold against is known in ``publish`` only."""
        condition(self._place.find(path))

    def delete(self, path: str, turn: Turn, condition: Condition = unconditional) -> None:
        """Remove the file at path, if the condition holds of it. No error if nothing is there."""
        parent = self._unlinked(path, turn, condition)
        if parent is not None:
            with parent, _durable(path, condition):
                parent.sync()

    def _unlinked(self, path: str, turn: Turn, condition: Condition) -> Directory | None:
        *names, last = path.split("/")
        with self._locked(_lock_of(path)):
            try:
                parent = self._place.enter(names)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                found = check_regular(parent.status(last), path)
                if found is not None:
                    condition(found)
                    turn.claim()
                    parent.unlink(last)
            except BaseException:
                parent.close()
                raise
            return parent  # also when it was gone: who unlinked it may not have come to its sync

    def delete_all(self, paths: list[str]) -> dict[str, OSError | OstrakaError]:
        """Delete each; those that failed. One directory is synced once for many."""
        failed: dict[str, OSError | OstrakaError] = {}
        unsynced: dict[tuple[int, int], tuple[Directory, list[str]]] = {}
        for path in paths:
            try:
                parent = self._unlinked(path, Turn(), unconditional)
            except (OSError, OstrakaError) as error:
                failed[path] = error
                continue
            if parent is None:
                continue
            kept, of_it = unsynced.setdefault(parent.identity, (parent, []))
            of_it.append(path)
            if kept is not parent:
                parent.close()
            elif len(unsynced) >= DIRECTORIES_OPEN:
                failed |= _synced(unsynced)
        return failed | _synced(unsynced)

    # -- directories

    def _enter_made(self, names: list[str]) -> Directory:
        """The directory of these names, made where it is absent, and durable with all above it."""
        here = self._place.enter_root()
        for name in names:
            try:
                try:
                    below = here.enter(name)
                except FileNotFoundError:
                    here.make(name)
                    below = here.enter(name)
                self._settled.settle(here, name, below)
            finally:
                here.close()
            here = below
        return here

    def remove_directory(self, path: str) -> bool:
        """Remove it with the empty directories in it; whether it is gone. It stays whole if anything else is in it."""
        *names, last = path.split("/")
        try:
            with self._locked(REMOVING), self._place.enter(names) as parent:
                if not remove_empty(parent, last):
                    return False
                parent.sync()
        except (FileNotFoundError, NotADirectoryError):
            pass
        return True

    def close(self) -> None:
        """Directories that a thread is still using are closed when it is done with them."""
        with self._mutex:
            self._parts = {}
        self._settled.close()

    # -- locks and times

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[TreeFile]:
        locks = self.part("locks")
        try:
            lock = locks.open(name, write=True)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                locks.create(name).close()
            lock = locks.open(name, write=True)
        try:
            lock.lock()
            yield lock
        finally:
            lock.close()

    def _date(self, file: TreeFile, lock: TreeFile) -> None:
        """Give the file a modification time that no file had under this lock."""
        kept = bytearray(8)
        lock.preadv([kept], 0)  # of a new one nothing, which is 0
        last = int.from_bytes(kept, "big")
        now = int(self._host.clock.time() * 1e9)
        if last > now + FUTURE_MAX:
            last = 0
        for step in STEPS:
            file.set_modified(max(now, last + step))
            given = file.status().modified
            if given > last:
                break
        lock.pwritev([max(given, last).to_bytes(8, "big")], 0)


def _lock_of(path: str) -> str:
    return f"{int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), 'big') % LOCKS:02x}"


def _synced(unsynced: dict[tuple[int, int], tuple[Directory, list[str]]]) -> dict[str, OSError]:
    """Sync and close the directories; the paths in those that could not be synced."""
    failed: dict[str, OSError] = {}
    while unsynced:
        directory, paths = unsynced.popitem()[1]
        with directory:
            try:
                directory.sync()
            except OSError as error:
                failed |= dict.fromkeys(paths, error)
    return failed


@contextlib.contextmanager
def _durable(path: str, condition: Condition) -> Iterator[None]:
    """A change under a condition that was made, and may not last: neither a success nor a failed condition."""
    try:
        yield
    except OSError as error:
        if condition is unconditional:
            raise
        raise Unavailable(f"{path}: it was changed, and may not last ({error.strerror})", reason="unknown") from error


def sweep(directory: Directory, wanted: Callable[[Status], bool]) -> int:
    """Unlink the files in it that are wanted away and that nobody has locked; how many."""
    count = 0
    for name, kind in list(directory.entries()):
        if kind != "file":
            continue
        with contextlib.suppress(FileNotFoundError), contextlib.closing(directory.open(name, write=True)) as file:
            if file.lock(wait=False) and wanted(file.status()) and is_at(directory, name, file):
                directory.unlink(name)
                count += 1
    return count


def is_at(directory: Directory, name: str, file: TreeFile) -> bool:
    """Whether this open file is what has that name: since it was opened, it may have got another."""
    found = directory.status(name)
    return found is not None and found.identity == file.status().identity


def _check_names_differ(directory: Directory, token: str) -> None:
    """Refused if names that are different here are one and the same to this file system."""
    probe = f"probe-\u00e9-{token}"
    directory.create(probe).close()
    try:
        for other in (probe.upper(), f"probe-e\u0301-{token}"):
            if directory.status(other) is not None:
                raise Refused(
                    "this file system takes different names for one (letter case or accents), so that paths would be"
                    " lost under one another: keep the root on another one",
                    reason="config",
                )
    finally:
        directory.unlink(probe)
