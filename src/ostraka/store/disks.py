"""Disks that come and go by an operator's word: listed, replaced, forgotten (ENGINE 3, 4).

`replace` in order, and why a crash between any two steps is mended by the same command given again:

1. the new directory gets a marker, then an empty shard index. It is no disk of the store yet: with the marker in it the
   command wipes what it left there and begins again;
2. one epoch takes the old disk out for good and the new one in, under a new number, *healing*. It needs no majority,
   only N-m members. State carriers are written first and the new disk last, so if it has a superblock they all know it;
3. the state's copies are brought to m+1, and every stripe that named the old disk is made whole (jobs/heal.py). Given
   again, the command finds the new directory to be a disk of the store, joins it if need be, and goes on from here; so
   does the heal job, if nobody gives it again.

Nothing is erased from the old disk, by any step.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ostraka.errors import Corrupt, Invalid, OstrakaError, Refused, Unavailable
from ostraka.host import Files
from ostraka.jobs import heal, state_copies
from ostraka.jobs.ground import Budget, in_thread, within
from ostraka.jobs.heal import Heal
from ostraka.jobs.stripes import Mended, Named
from ostraka.nodes import keys, superblock
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.opening import HARMLESS
from ostraka.nodes.superblock import Member
from ostraka.store.recovery import DERIVED
from ostraka.store.store import Store

log = logging.getLogger("ostraka.store")

Progress = Callable[[str, int, int | None], None]

MARKER = "adopting"  # in a directory that `disk replace` has begun to adopt: it holds nothing of anybody
OURS = frozenset({MARKER, "segments", "shards", "state", keys.NAME})
_PIECE_SECONDS = 0.5
_PIECE_ROWS = 5000


# -- ls


async def list_disks(store: Store) -> dict[str, Any]:
    """Every member of the store, with what is known of it here."""
    membership = store.membership
    membership.disk(-1)  # takes over what another process changed
    members = membership.epoch.members
    asked = await asyncio.gather(*(_ask(store, member) for member in members))
    rows = []
    for member, (status, free, total) in zip(members, asked, strict=True):
        path = membership.paths.get(member.number)
        rows.append(
            {
                "number": member.number,
                "status": status,
                "state": member.state,
                "free": free,
                "total": total,
                "path": str(path) if path is not None else member.path or None,
                "disk_id": member.disk_id.hex(),
            }
        )
    epoch = membership.epoch
    return {"disks": rows, "epoch": epoch.number, "k": epoch.k, "m": epoch.m, "read_only": membership.read_only}


async def _ask(store: Store, member: Member) -> tuple[str, int | None, int | None]:
    """(status, free bytes, bytes in all) of a disk; one that hangs is not waited for longer than any other call."""
    path = store.membership.paths.get(member.number)
    if not member.up:
        return "missing" if path is None else "down", None, None
    if path is None:
        return "vanished", None, None

    def ask() -> tuple[str, int | None, int | None]:
        if vanished(store, member.number):
            return "vanished", None, None
        try:
            return _status(store, member), *store.host.files.free(path)
        except OSError:
            return _status(store, member), None, None

    try:
        return await within(store.limits.disk_seconds_max, ask)
    except TimeoutError:
        return "hangs", None, None


def _status(store: Store, member: Member) -> str:
    if member.healing:
        return "healing"
    return "read-only" if store.membership.read_only else "up"


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


def _probe(store: Store) -> None:
    """Disks that went away unnoticed, because nobody has written since, are recorded as down."""
    for member in store.membership.epoch.members:
        if member.up and (why := vanished(store, member.number)):
            with contextlib.suppress(Unavailable):  # no majority is left: the store is read-only, and we go on
                store.membership.evict(member.number, why)


# -- replace


async def replace(store: Store, progress: Progress, *, old: str, new: str) -> dict[str, Any]:
    """Adopt the directory ``new`` in place of the disk ``old`` (number, directory, or "": the one that is lost).

    Raises Refused and Invalid, each with the way out, before anything is changed.
    """
    try:
        async with heal.turn(store):  # from before the epoch on: else the job heals first, and nobody is told of it
            return await _replace(store, progress, old, Path(new).resolve())  # noqa: ASYNC240 - no file is read
    finally:
        if not _others(store):  # nobody serves: who opens the store next takes the lock with the others
            store.held.close()


async def _replace(store: Store, progress: Progress, old: str, path: Path) -> dict[str, Any]:
    progress("adopting", 0, 1)
    await in_thread(_probe, store)
    joined = await in_thread(_member_at, store, path)
    if joined is not None:
        number = await _resume(store, joined, path, old)
        replaced = old or "?"
    else:
        target = _find(store, old)
        _check_loss(store, target)
        _check_serving(store, target)
        await in_thread(_check_directory, store, path)
        number = await in_thread(_adopt, store, target, path)
        replaced = str(target.number)
    progress("adopting", 1, 1)
    await _let_go(store)
    repaired = await rebuild(store, progress)
    return {"old": replaced, "new": number, "path": str(path), **repaired}


def _member_at(store: Store, path: Path) -> Member | None:
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


async def _resume(store: Store, joined: Member, path: Path, old: str) -> int:
    """The command was given before, and got as far as the epoch."""
    if old and _names(store, old, joined):
        raise Refused(f"{path} is disk {joined.number} itself", reason="member")
    if old and any(_names(store, old, d) for d in store.membership.epoch.members):
        raise Refused(f"{path} is disk {joined.number} of this store: name an empty directory", reason="member")
    if joined.up and not joined.healing:
        raise Refused(
            f"{path} is disk {joined.number} of this store, and whole: nothing is to be done", reason="member"
        )
    if not joined.up:
        await in_thread(_rejoin, store, joined, path)
    return joined.number


def _find(store: Store, old: str) -> Member:
    """The member that is to go."""
    members = store.membership.epoch.members
    lost = [d for d in members if not d.up]
    numbers = ", ".join(str(d.number) for d in lost)
    if not old:
        if len(lost) == 1:
            return lost[0]
        if lost:
            raise Refused(f"disks {numbers} are lost: say which one, `ostraka disk replace OLD NEW`", reason="which")
        raise Refused("no disk is lost: name the one to replace, by its directory", reason="which")
    named = [d for d in members if _names(store, old, d)]
    if not named:
        hint = f"lost are {numbers}" if lost else "none is lost"
        raise Refused(f"{old} is no disk of this store ({hint}; see `ostraka disk ls`)", reason="which")
    member = named[0]
    if member.up and not os.path.isabs(old):
        raise Refused(
            f"disk {member.number} is up and well: to replace it all the same, name it by its directory "
            f"({store.membership.paths.get(member.number)})",
            reason="up",
        )
    return member


def _names(store: Store, word: str, member: Member) -> bool:
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


def _check_loss(store: Store, target: Member) -> None:
    """Nothing may be given up that is not on the others."""
    epoch = store.membership.epoch
    others = [d for d in epoch.members if d.number != target.number and d.up]
    if target.up:
        others = [d for d in others if not d.healing]
    needed = len(epoch.members) - epoch.m
    if len(others) >= needed:
        return
    if target.up:
        raise Refused(
            f"disk {target.number} cannot be spared: only {len(others)} of the other disks are whole, and {needed} are "
            "needed to rebuild what it holds",
            reason="too-few",
        )
    raise Refused(
        f"only {len(others)} of {len(epoch.members)} disks are here, and {needed} are needed to rebuild the lost one: "
        "bring another one back first",
        reason="too-few",
    )


def _check_serving(store: Store, target: Member) -> None:
    """A disk that is up is not taken away under the processes that map its files."""
    path = store.membership.paths.get(target.number)
    if target.up and path is not None and _others(store):
        raise Refused(
            f"disk {target.number} is in use by the server: stop the server, give the command again, and start with "
            "the new directory in place of the old one",
            reason="serving",
        )


def _others(store: Store) -> set[bytes]:
    """Processes that serve the store beside this one."""
    return store.live_incarnations() - {store.incarnation}


def _check_directory(store: Store, path: Path) -> None:
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


def _adopt(store: Store, target: Member, path: Path) -> int:
    """Steps 1 and 2; the number of the new disk."""
    membership, files = store.membership, store.host.files
    files.mkdir(path)
    files.sync_directory(path.parent)
    _hold(store, path)
    files.publish(path / MARKER, msgspec.json.encode({"store": membership.store_id.hex()}), mode=0o600)
    for name in OURS - {MARKER}:
        _wipe(path / name, files)
    with membership.exclusive():
        epoch = membership.epoch
        number = epoch.next_number
        _open(store, number, path)
        fresh = Member(
            number=number,
            disk_id=store.host.random(16),
            up=True,
            state=False,
            since=epoch.number + 1,
            healing=True,
            path=str(path),
        )
        log.warning("disk %d is replaced by disk %d (%s)", target.number, number, path)
        members = [d for d in epoch.members if d.number != target.number]
        membership.change([*members, fresh], next_number=number + 1, override=True)
    files.unlink(path / MARKER)
    return number


def _rejoin(store: Store, joined: Member, path: Path) -> None:
    """A disk that was adopted before, and is not up: what it holds counts once it is verified."""
    membership = store.membership
    if joined.number in store.disks:
        raise Refused(
            f"disk {joined.number} failed while the store was open: stop the server, and give the command again",
            reason="serving",
        )
    _hold(store, path)
    for name in (MARKER, *DERIVED):
        _wipe(path / name, store.host.files)
    with membership.exclusive():
        epoch = membership.epoch
        _open(store, joined.number, path)
        back = msgspec.structs.replace(
            joined, up=True, state=False, healing=True, since=epoch.number + 1, path=str(path)
        )
        membership.change([back if d.number == joined.number else d for d in epoch.members], override=True)


def _open(store: Store, number: int, path: Path) -> None:
    """Open the disk as its owner does, so that the other processes find an index that they can share."""
    disk = LocalDisk.open_owner(path, number, store.membership.store_id, store.incarnation, store.host, store.limits)
    store.disks[number] = disk
    store.membership.add_disk(number, path, disk)


def _wipe(path: Path, files: Files) -> None:
    with contextlib.suppress(FileNotFoundError):
        files.remove_tree(path)


def _hold(store: Store, path: Path) -> None:
    """The new directory is ours as the others are, for as long as the store is open."""
    store.held.take(path)


async def _let_go(store: Store) -> None:
    """Close disks that are no members any more; nothing of them is needed again."""
    for number, disk in list(store.disks.items()):
        if store.membership.gone(number):
            store.disks.pop(number)
            with contextlib.suppress(OSError, OstrakaError):
                await in_thread(disk.close)


# -- forget


async def forget(store: Store, progress: Progress, *, old: str) -> dict[str, Any]:
    """Take a lost member out for good; what it held is rebuilt on the others, as narrower stripes where need be."""
    await in_thread(_probe, store)
    target = _find(store, old)
    epoch = store.membership.epoch
    if target.up:
        raise Refused(f"disk {target.number} is up: replace it (`ostraka disk replace OLD NEW`)", reason="up")
    left = len(epoch.members) - 1
    if left < epoch.m + 1:
        raise Refused(
            f"without disk {target.number} there are {left} disks left, and with {epoch.k}+{epoch.m} nothing can be "
            f"written on fewer than {epoch.m + 1}: replace it instead, `ostraka disk replace {target.number} NEW`",
            reason="too-few",
        )
    _check_loss(store, target)

    def change() -> None:
        with store.membership.exclusive():
            members = [d for d in store.membership.epoch.members if d.number != target.number]
            store.membership.change(members, override=True)

    progress("forgetting", 0, 1)
    async with heal.turn(store):
        await in_thread(change)
        log.warning("disk %d is forgotten", target.number)
        progress("forgetting", 1, 1)
        await _let_go(store)
        repaired = await rebuild(store, progress)
    return {"old": target.number, **repaired}


# -- rebuilding


async def rebuild(store: Store, progress: Progress) -> dict[str, Any]:
    """Bring the state's copies to m+1 and heal all that can be; counts of stripes. The caller has the heal job's turn.

    Raises Unavailable when some could not be made whole: the heal job goes on while the store is served.
    """
    counts = {"examined": 0, "repaired": 0, "lost": 0}

    def told(named: Named, result: Mended) -> None:
        counts["examined"] += 1
        counts["repaired"] += result.rebuilt
        counts["lost"] += result.outcome == "lost"
        if result.outcome == "lost":
            log.error("%s is damaged beyond repair: %s", named.name, result.note)
        progress("rebuilding", counts["examined"], None)

    progress("copying the state", 0, None)
    problem = await state_copies.restore(store, override=True)
    if problem is not None:
        log.warning("%s", problem)
    healing = Heal(store, told)
    while True:
        result = await healing.step(Budget(store.host.clock, _PIECE_SECONDS, _PIECE_ROWS))
        if not result.more:
            break
    if heal.pending(store):
        raise Unavailable(
            f"{counts['repaired']} of {counts['examined']} stripes were rebuilt; {result.note or 'some are left'}: "
            "give the command again once all other disks are back, or leave it to the server, which goes on",
            reason="disks",
        )
    return dict(counts)
