"""How a directory becomes a disk of the store, for `disk replace` and `disk add`; and which disk a word means.

A directory is adopted in two steps, and a crash between any two moments is mended by the same command given again:

1. it gets a marker, then an empty shard index. It is no disk of the store yet: with the marker in it the command wipes
   what it left there and begins again;
2. one epoch names it, under a new number. State carriers are written first and the new disk last, so if it has a
   superblock they all know it. Given again, the command finds the directory to be a disk of the store.

If the crash came while the epoch was being written, the others may know of a disk that has no superblock yet, and that
holds nothing: the marker tells, and that member is replaced by the new one (`unborn`).
"""

import contextlib
import logging
import os
from pathlib import Path

import msgspec

from ostraka.errors import Corrupt, Invalid, OstrakaError, Refused, Unavailable
from ostraka.host import Files
from ostraka.nodes import keys, superblock
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.opening import DISKS_MAX, HARMLESS
from ostraka.nodes.superblock import Member
from ostraka.store.store import Store

log = logging.getLogger("ostraka.store")

MARKER = "adopting"  # in a directory that has begun to be adopted: it holds nothing of anybody
OURS = frozenset({MARKER, "segments", "shards", "state", keys.NAME})


# -- which disk


def names(store: Store, word: str, member: Member) -> bool:
    if word.isdigit():
        return int(word) == member.number
    path = store.membership.paths.get(member.number) or (Path(member.path) if member.path else None)
    if path is not None and os.path.realpath(word) == os.path.realpath(path):
        return True
    try:
        block = superblock.read(store.host.files, Path(word))
    except (OSError, OstrakaError):
        return False
    return block is not None and block.store_id == store.membership.store_id and block.disk_id == member.disk_id


def vanished(store: Store, number: int) -> str:
    """Why the directory of a disk that should be up is certainly not that disk any more; "" if it may well be."""
    path = store.membership.paths.get(number)
    if path is None:
        return "no directory is known"
    try:
        return "" if superblock.read(store.host.files, path) is not None else "its superblock is gone"
    except OSError as error:
        return str(error)
    except OstrakaError:
        return ""  # damaged: that is for fsck


def probe(store: Store) -> None:
    """Disks that went away unnoticed, because nobody has written since, are recorded as down."""
    for member in store.membership.epoch.members:
        if member.up and (why := vanished(store, member.number)):
            with contextlib.suppress(Unavailable):  # no majority is left: the store is read-only, and we go on
                store.membership.evict(member.number, why)


def holds(store: Store, number: int) -> int | None:
    """Bytes of shards that are alive on a disk, as its index has it; None if it cannot be asked. Raises OSError."""
    disk = store.disks.get(number)
    if disk is None:
        return None
    try:
        return sum(info.live for info in disk.segments())
    except OstrakaError:
        return None


# -- adopting


def member_at(store: Store, path: Path) -> Member | None:
    """The member whose disk this directory is, if it is one of this store's. Raises Refused for another store's."""
    try:
        block = superblock.read(store.host.files, path)
    except Corrupt as error:
        raise Refused(f"{path}: {error.message}; name an empty directory", reason="foreign") from None
    if block is None:
        return None
    if block.store_id != store.membership.store_id:
        raise Refused(f"{path} is a disk of another store: name an empty directory", reason="foreign")
    member = next((d for d in store.membership.epoch.members if d.disk_id == block.disk_id), None)
    if member is None:
        raise Refused(
            f"{path} was replaced or forgotten and is no disk of this store any more: empty it first", reason="foreign"
        )
    return member


def check_directory(store: Store, path: Path) -> None:
    """NEW is absent, empty, or what this command left there when it was cut short."""
    for other in store.membership.paths.values():
        real = Path(os.path.realpath(other))
        if path == real or real in path.parents or path in real.parents:
            raise Invalid(f"{path} overlaps with {real}: each disk is a directory of its own", reason="nested")
    try:
        names = set(store.host.files.names(path)) - HARMLESS
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise Invalid(f"{path} is not a directory", reason="directory") from None
    there = {name for name in names if not name.startswith((".superblock.", f".{MARKER}."))}
    if there and (MARKER not in there or there - OURS):
        raise Refused(f"{path} is not empty: name an empty directory, or one that does not exist", reason="foreign")
    devices = {store.host.files.device(p) for n, p in store.membership.paths.items() if _is_up(store, n)}
    if store.host.files.device(path) in devices:
        log.warning("%s is on the same device as another disk: if it fails, both are lost at once", path)


def _is_up(store: Store, number: int) -> bool:
    member = store.membership.epoch.member(number)
    return member is not None and member.up


def prepare(store: Store, path: Path) -> None:
    """Step 1."""
    files = store.host.files
    files.mkdir(path)
    files.sync_directory(path.parent)
    store.held.take(path)  # ours as the others are, for as long as the store is open
    files.publish(path / MARKER, msgspec.json.encode({"store": store.membership.store_id.hex()}), mode=0o600)
    for name in OURS - {MARKER}:
        wipe(path / name, files)


def adopt(store: Store, path: Path, *, instead_of: Member | None, healing: bool, override: bool) -> int:
    """Both steps; the number of the new disk. ``instead_of`` leaves with the same epoch. ``healing``: there is
    something that it should hold. ``override``: see `Membership.change`."""
    membership = store.membership
    prepare(store, path)
    with membership.exclusive():
        if not override:
            membership.up()  # raises while too few disks are here to agree on anything
        epoch = membership.epoch
        number = epoch.next_number
        members = [d for d in epoch.members if instead_of is None or d.number != instead_of.number]
        if len(members) >= DISKS_MAX:
            raise Refused(f"the store has {len(members)} disks: more are not possible", reason="too-many")
        open_disk(store, number, path)
        fresh = Member(
            number=number,
            disk_id=store.host.random(16),
            up=True,
            state=False,
            since=epoch.number + 1,
            healing=healing,
            path=str(path),
        )
        if instead_of is not None:
            log.warning("disk %d is replaced by disk %d (%s)", instead_of.number, number, path)
        membership.change([*members, fresh], next_number=number + 1, override=override)
    finished(store, path)
    return number


def unborn(store: Store, path: Path) -> Member | None:
    """The member that an adoption of this directory named in an epoch, if it was cut short while that was written."""
    files = store.host.files
    try:
        if files.exists(path / superblock.NAME) or not files.exists(path / MARKER):
            return None
    except OSError:
        return None
    return next((d for d in store.membership.epoch.members if not d.up and d.path == str(path)), None)


def finished(store: Store, path: Path) -> None:
    """The epoch names the disk: its marker goes."""
    wipe(path / MARKER, store.host.files)


def open_disk(store: Store, number: int, path: Path) -> None:
    """Open the disk as its owner does, so that the other processes find an index that they can share."""
    disk = LocalDisk.open_owner(path, number, store.membership.store_id, store.incarnation, store.host, store.limits)
    store.disks[number] = disk
    store.membership.add_disk(number, path, disk)


def wipe(path: Path, files: Files) -> None:
    with contextlib.suppress(FileNotFoundError):
        files.remove_tree(path)
