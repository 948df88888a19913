"""Disks that come and go by an operator's word: listed, replaced, forgotten (ENGINE 3, 4).

`replace` in order, and why a crash between any two steps is mended by the same command given again:

1. the new directory is adopted (adoption.py);
2. the epoch that names it takes the old disk out for good, and calls the new one *healing*. It needs no majority, only
   N-m members;
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

from ostraka.errors import OstrakaError, Refused, Unavailable
from ostraka.jobs import heal, state_copies
from ostraka.jobs.ground import Budget, Courtesy, in_thread, within
from ostraka.jobs.heal import Heal
from ostraka.jobs.rebalance import old_geometries
from ostraka.jobs.stripes import Mended, Named
from ostraka.nodes.superblock import Member
from ostraka.store import adoption
from ostraka.store.recovery import DERIVED
from ostraka.store.store import Store

log = logging.getLogger("ostraka.store")

Progress = Callable[[str, int, int | None], None]

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
    for member, (status, free, total, holds) in zip(members, asked, strict=True):
        path = membership.paths.get(member.number)
        rows.append(
            {
                "number": member.number,
                "status": status,
                "state": member.state,
                "holds": holds,
                "free": free,
                "total": total,
                "path": str(path) if path is not None else member.path or None,
                "disk_id": member.disk_id.hex(),
            }
        )
    epoch = membership.epoch
    return {"disks": rows, "epoch": epoch.number, "k": epoch.k, "m": epoch.m, "read_only": membership.read_only}


_Told = tuple[str, int | None, int | None, int | None]


async def _ask(store: Store, member: Member) -> _Told:
    """(status, free bytes, bytes in all, bytes of shards that are alive) of a disk; one that hangs is not waited for
    longer than any other call."""
    path = store.membership.paths.get(member.number)
    if not member.up:
        return "missing" if path is None else "down", None, None, None
    if path is None:
        return "vanished", None, None, None

    def ask() -> _Told:
        if adoption.vanished(store, member.number):
            return "vanished", None, None, None
        try:
            return _status(store, member), *store.host.files.free(path), adoption.holds(store, member.number)
        except OSError:
            return _status(store, member), None, None, None

    try:
        return await within(store.limits.disk_seconds_max, ask)
    except TimeoutError:
        return "hangs", None, None, None


def _status(store: Store, member: Member) -> str:
    if member.healing:
        return "healing"
    if member.draining:
        return "draining"
    return "read-only" if store.membership.read_only else "up"


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
    await in_thread(adoption.probe, store)
    joined = await in_thread(adoption.member_at, store, path)
    if joined is not None:
        number = await _resume(store, joined, path, old)
        replaced = old or "?"
    else:
        target = _find(store, old)
        _check_loss(store, target)
        _check_serving(store, target)
        await in_thread(adoption.check_directory, store, path)
        number = await in_thread(_adopt, store, target, path)
        replaced = str(target.number)
    progress("adopting", 1, 1)
    await _let_go(store)
    repaired = await rebuild(store, progress)
    return {"old": replaced, "new": number, "path": str(path), **repaired}


async def _resume(store: Store, joined: Member, path: Path, old: str) -> int:
    """The command was given before, and got as far as the epoch."""
    if old and adoption.names(store, old, joined):
        raise Refused(f"{path} is disk {joined.number} itself", reason="member")
    if old and any(adoption.names(store, old, d) for d in store.membership.epoch.members):
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
    named = [d for d in members if adoption.names(store, old, d)]
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


def _check_loss(store: Store, target: Member) -> None:
    """Nothing may be given up that is not on the others."""
    epoch = store.membership.epoch
    others = [d for d in epoch.members if d.number != target.number and d.up]
    if target.up:
        others = [d for d in others if not d.healing]
    # stripes of an older geometry may bear less
    needed = len(epoch.members) - min([epoch.m, *(m for _, m in old_geometries(store))])
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


def _adopt(store: Store, target: Member, path: Path) -> int:
    return adoption.adopt(store, path, instead_of=target, healing=True, override=True)


def _rejoin(store: Store, joined: Member, path: Path) -> None:
    """A disk that was adopted before, and is not up: what it holds counts once it is verified."""
    membership = store.membership
    if joined.number in store.disks:
        raise Refused(
            f"disk {joined.number} failed while the store was open: stop the server, and give the command again",
            reason="serving",
        )
    store.held.take(path)
    for name in (adoption.MARKER, *DERIVED):
        adoption.wipe(path / name, store.host.files)
    with membership.exclusive():
        epoch = membership.epoch
        adoption.open_disk(store, joined.number, path)
        back = msgspec.structs.replace(
            joined, up=True, state=False, healing=True, since=epoch.number + 1, path=str(path)
        )
        membership.change([back if d.number == joined.number else d for d in epoch.members], override=True)


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
    await in_thread(adoption.probe, store)
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
        progress("rebuilding", *healing.passed)

    progress("copying the state", 0, None)
    problem = await state_copies.restore(store, override=True)
    if problem is not None:
        log.warning("%s", problem)
    healing, courtesy = Heal(store, told), Courtesy(store)
    while True:
        result = await healing.step(Budget(store.host.clock, _PIECE_SECONDS, _PIECE_ROWS))
        if not result.more:
            break
        await courtesy.rest()
    if heal.pending(store):
        raise Unavailable(
            f"{counts['repaired']} of {counts['examined']} stripes were rebuilt; {result.note or 'some are left'}: "
            "give the command again once all other disks are back, or leave it to the server, which goes on",
            reason="disks",
        )
    return dict(counts)
