"""From directories to a store that can be opened: the owner's part, done once before anybody serves.

What it does, in this order, each step safe to be interrupted and done again:

1. look at the directories and judge them (nodes/opening.py); format if that is what they are for;
2. discard state copy and index of disks that come back stale: they missed acknowledged commits;
3. record in one epoch which disks are missing, and which came back (they are *healing* until the heal job has verified
   their shards); where no majority can be had, leave the epoch alone: the store is read-only;
4. recover the state from its current copies (state/), and each disk's shard index (nodes/local.py);
5. fence the incarnations of all former processes: we hold the store's lock, so none is alive.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from ostraka.errors import Refused, Unavailable
from ostraka.host import Files, Host
from ostraka.nodes import keys as keyring
from ostraka.nodes import opening as openings
from ostraka.nodes import superblock
from ostraka.nodes.keys import Keys
from ostraka.nodes.membership import Membership
from ostraka.nodes.superblock import Epoch, Member
from ostraka.shared import Shared
from ostraka.state.seed import format_copy
from ostraka.state.truth import Copy

log = logging.getLogger("ostraka.store")

LOCK = "lock"
STATE = "state"  # directory, on disks that carry a copy of the state
INDEX = "index"  # directory of the state's index, on one of them
DERIVED = (STATE, INDEX, "shards")  # of a disk that came back: what it says there is outdated


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What every process of the store needs to know to open it."""

    store_id: bytes
    epoch: Epoch
    paths: dict[int, str]  # disks that can be used, by number
    missing: dict[int, str]  # why
    index: str  # directory of the state's index
    keys: Keys
    root_given: bool  # root's keys are those of this run, whatever is stored
    formatted: bool
    warnings: list[str]


@contextlib.contextmanager
def hold(paths: Sequence[Path], host: Host, *, make: bool) -> Iterator[None]:
    """Own the store in these directories, which are made if ``make`` allows it. Raises InUse with the other's pid."""
    openings.check_apart(paths)
    with contextlib.ExitStack() as stack:
        for path in sorted(set(paths)):
            if _is_no_directory(path):
                raise Refused(
                    f"{path} is not a directory: name a directory (it need not exist yet)", reason="directory"
                )
            try:
                if make:
                    host.files.mkdir(path)
                    if openings.is_foreign(path, host.files):  # it is refused, or counts as missing: no lock is left
                        continue
                elif not _is_disk(path):
                    continue
                stack.enter_context(host.files.lock(path / LOCK))
            except FileNotFoundError:
                continue
            except PermissionError:
                raise Refused(
                    f"{path} cannot be written by this user: change its owner or its mode", reason="permission"
                ) from None
            except OSError as e:
                if e.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                    raise Refused(f"{path}: {e.strerror}: name another directory", reason="directory") from None
                # a dead disk: it will count as missing
                log.warning("%s cannot be locked: %s", path, e.strerror)
        yield


class Held:
    """Locks of directories that nobody named: of disks that joined while the store was served."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._locks = contextlib.ExitStack()
        self._paths: set[str] = set()

    def take(self, path: Path) -> None:
        """Own that directory as the others are owned; nothing more if it is ours already. InUse."""
        real = os.path.realpath(path)
        if real not in self._paths:
            self._locks.enter_context(self._host.files.lock(path / LOCK))
            self._paths.add(real)

    def take_others(self, paths: Iterable[Path], named: Iterable[Path]) -> None:
        """Own those of the paths that `hold` did not see, as far as they can be locked. InUse."""
        known = {os.path.realpath(path) for path in named}
        for path in paths:
            if os.path.realpath(path) not in known:
                try:
                    self.take(path)
                except OSError as e:  # a dead disk
                    log.warning("%s cannot be locked: %s", path, e.strerror)

    def close(self) -> None:
        self._paths.clear()
        self._locks.close()


def _is_disk(path: Path) -> bool:
    """Whether a disk is there, or was: who only looks for a store leaves no lock in a directory that is none."""
    for name in (superblock.NAME, LOCK):
        try:
            os.lstat(path / name)
        except FileNotFoundError:
            continue
        except OSError:  # whatever it is: the lock will tell
            pass
        return True
    return False


def _is_no_directory(path: Path) -> bool:
    """Whether path, or what it lies in, is a file."""
    nearest = next(p for p in (path, *path.parents) if os.path.lexists(p))
    return os.path.exists(nearest) and not os.path.isdir(nearest)  # neither raises on a dead disk


def survey_and_judge(
    paths: Sequence[Path], ec: tuple[int, int] | None, existing: bool, root: tuple[str, str] | None, host: Host
) -> tuple[openings.Opening, Keys, bool]:
    """Step 1; also says whether it formatted."""
    found, warnings = openings.survey(paths, host.files)
    joined = openings.follow_hints(found, host.files)
    opening = openings.judge(found, ec=ec, existing=existing, joined=joined)
    formatted = opening is None
    if opening is None:
        k, m = ec or openings.default_geometry(len(paths))
        made: list[Keys] = []

        def prepare(store_id: bytes, epoch: Epoch, numbered: Mapping[int, Path]) -> None:
            made.append(keyring.create(store_id, host, root))
            for member in epoch.members:
                disk = numbered[member.number]
                discard_derived(disk, host.files)  # of a format that a crash ended
                if member.state:
                    format_copy(host, store_id, Copy(member.disk_id, disk / STATE), epoch.number)
                    keyring.write(made[0], [disk], host)  # syncs the directory, for the state's copy as well

        opening = openings.form([Path(f.path) for f in found], k, m, host, prepare)
        keys = made[0]
    else:
        openings.finish(opening, found, host)
        carriers = [opening.present[d.number] for d in opening.epoch.members if d.state and d.number in opening.present]
        keys = keyring.load(opening.store_id, carriers, host, root)
    opening.warnings[:0] = warnings
    return opening, keys, formatted


def discard_derived(disk: Path, files: Files) -> None:
    """Remove state copy, state index and shard index from a disk; its shards stay."""
    for name in DERIVED:
        with contextlib.suppress(FileNotFoundError):
            files.remove_tree(disk / name)


def take_in(opening: openings.Opening, host: Host, shared: Shared) -> Membership:
    """Steps 2 and 3: a membership that says what is true now."""
    for number, path in list(opening.stale.items()):
        log.warning("%s (disk %d) was away: its state copy and index are discarded, its shards verified", path, number)
        try:
            discard_derived(path, host.files)
        except OSError as e:  # it can be read and not be changed: as good as missing
            opening.stale.pop(number)
            opening.missing[number] = f"{path} was away, and what is outdated there cannot be removed: {e}"
            opening.warnings.append(f"{opening.missing[number]}: it counts as missing")
    paths = opening.present | opening.stale
    members = Membership(
        opening.store_id, opening.epoch, {}, opening.present, host, shared.epoch, lock_path=shared.epoch_lock
    )
    wanted = [_as_found(d, opening) for d in opening.epoch.members]
    if wanted == list(opening.epoch.members):
        with contextlib.suppress(Unavailable):  # the store is read-only, and says so
            members.settle()
    else:
        members.paths.update(opening.stale)
        try:
            with members.exclusive():
                members.change(wanted)
        except Unavailable as e:
            log.error("%s", e)
            members.paths = {n: p for n, p in paths.items() if n in opening.present}
    return members


def _as_found(member: Member, opening: openings.Opening) -> Member:
    if member.number in opening.missing:
        return msgspec.structs.replace(member, up=False)
    if member.number in opening.stale:
        return msgspec.structs.replace(member, up=True, state=False, healing=True, since=opening.epoch.number + 1)
    return member
