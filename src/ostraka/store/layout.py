"""Where data lies, changed by an operator's word: a disk more, a disk less, another geometry (ENGINE 4).

Each command changes the membership in one epoch, and is done; the rest is the work of the rebalance job
(jobs/rebalance.py), which goes on whoever serves the store, and which status and `disk ls` tell about. Where nobody
serves it, the command does that work itself, to its end. Given again, each goes on where it was cut short.
"""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import msgspec

from ostraka.errors import Invalid, OstrakaError, Refused, Unavailable
from ostraka.jobs import heal, rebalance, state_copies
from ostraka.jobs.collect import Collect
from ostraka.jobs.ground import Budget, in_thread
from ostraka.jobs.heal import Heal
from ostraka.jobs.rebalance import Rebalance
from ostraka.jobs.records import RebalanceRecord
from ostraka.nodes import superblock
from ostraka.nodes.opening import DATA_SHARDS_MAX, PARITY_SHARDS_MAX, was_drained
from ostraka.nodes.superblock import Member
from ostraka.store import adoption
from ostraka.store.disks import Progress
from ostraka.store.store import Store

log = logging.getLogger("ostraka.store")

_PIECE_SECONDS = 0.5
_PIECE_ROWS = 5000
_WAIT_SECONDS = 0.2  # between two looks at a job that somebody else runs


# -- add


async def add(store: Store, progress: Progress, *, new: str) -> dict[str, Any]:
    """Adopt the directory ``new`` as one more disk. Raises Refused and Invalid before anything is changed."""
    path = Path(new).resolve()  # noqa: ASYNC240 - no file is read
    progress("adopting", 0, 1)
    await in_thread(adoption.probe, store)
    store.membership.up()
    joined = await in_thread(adoption.member_at, store, path)
    if joined is None:
        await in_thread(adoption.check_directory, store, path)
        ghost = await in_thread(adoption.unborn, store, path)

        def adopt() -> int:
            return adoption.adopt(store, path, instead_of=ghost, healing=False, override=False)

        number = await in_thread(adopt)
        log.info("disk %d (%s) is new", number, path)
    elif not joined.up:
        raise Refused(
            f"{path} is disk {joined.number} of this store, and out of service: stop the server and start it again "
            "with that directory",
            reason="member",
        )
    else:
        number = joined.number
        await in_thread(adoption.finished, store, path)
    progress("adopting", 1, 1)
    return {"new": number, "path": str(path), **await _work(store, progress)}


# -- drain


async def drain(store: Store, progress: Progress, *, disk: str, cancel: bool = False) -> dict[str, Any]:
    """Have a disk emptied, and taken out of the store when it is empty; ``cancel``: it stays after all."""
    await in_thread(adoption.probe, store)
    store.membership.up()
    if not cancel and await in_thread(_has_left, store, disk):  # the command was given before, and was carried out
        number = int(disk) if disk.isdigit() else None
        return {"disk": number, "path": disk, "left": True, **await _work(store, progress)}
    member = _named(store, disk)
    if cancel:
        if not member.draining:
            raise Refused(f"disk {member.number} is not being drained", reason="not-draining")
        await in_thread(_mark, store, member.number, False)
        log.warning("disk %d is no longer drained", member.number)
    elif not member.draining:
        await in_thread(_check_drain, store, member)
        await in_thread(_mark, store, member.number, True)
        log.warning("disk %d is drained, and leaves the store when it is empty", member.number)
    worked = await _work(store, progress)
    return {
        "disk": member.number,
        "path": str(store.membership.paths.get(member.number, member.path)),
        "left": store.membership.gone(member.number),
        **worked,
    }


def _named(store: Store, word: str) -> Member:
    members = store.membership.epoch.members
    found = next((d for d in members if adoption.names(store, word, d)), None)
    if found is None:
        raise Refused(f"{word} is no disk of this store: see `ostraka disk ls`", reason="which")
    return found


def _has_left(store: Store, word: str) -> bool:
    """Whether a disk was a member once, and was taken out of the store on purpose."""
    membership = store.membership
    if word.isdigit():
        return int(word) < membership.epoch.next_number and membership.gone(int(word))
    try:
        block = superblock.read(store.host.files, Path(word))
    except (OSError, OstrakaError):
        return False
    members = {d.disk_id for d in membership.epoch.members}
    return (
        block is not None
        and block.store_id == membership.store_id
        and block.disk_id not in members
        and was_drained(block)
    )


def _check_drain(store: Store, member: Member) -> None:
    """The others can hold what it holds."""
    epoch = store.membership.epoch
    number, width = member.number, epoch.k + epoch.m
    if not member.up:
        raise Refused(
            f"disk {number} is not in service: `ostraka disk forget {number}` gives it up, and what it held is rebuilt",
            reason="down",
        )
    others = [d for d in epoch.members if d.up and not d.draining and d.number != number]
    if len(others) < width:
        narrower = f", or choose a geometry that fits: `ostraka disk geometry {len(others) - epoch.m}+{epoch.m}`"
        raise Refused(
            f"disk {number} cannot be spared: {epoch.k}+{epoch.m} needs {width} disks, and {len(others)} others stay. "
            f"Add a disk first (`ostraka disk add DIR`){narrower if len(others) > epoch.m else ''}",
            reason="too-few",
        )
    files, paths = store.host.files, store.membership.paths
    held = adoption.holds(store, number)
    room: dict[int, int] = {}  # by device: disks on one have its room between them
    for other in others:
        disk = store.disks.get(other.number)
        with contextlib.suppress(OSError, KeyError):  # one that fails has no room
            room[files.device(paths[other.number])] = disk.space.left() if disk is not None else 0
    if held is not None and files.device(paths[number]) not in room and sum(room.values()) < held:
        raise Refused(
            f"disk {number} holds {held} bytes, and the others have room for {sum(room.values())}: add a disk first "
            "(`ostraka disk add DIR`), or delete objects",
            reason="room",
        )


def _mark(store: Store, number: int, draining: bool) -> None:
    membership = store.membership
    with membership.exclusive():
        membership.up()
        epoch = membership.epoch
        since = epoch.number + 1 if draining else 0
        membership.change(
            [msgspec.structs.replace(d, draining=since) if d.number == number else d for d in epoch.members]
        )


# -- geometry


async def geometry(store: Store, progress: Progress, *, k: int, m: int, convert: bool = False) -> dict[str, Any]:
    """Write new stripes with k+m; ``convert``: and have those that are there rewritten."""
    await in_thread(adoption.probe, store)
    store.membership.up()
    epoch = store.membership.epoch
    before = (epoch.k, epoch.m)
    _check_geometry(k, m, len(state_copies.staying(epoch)))
    async with heal.turn(store):
        record = rebalance.load(store)
        old = tuple(sorted({*record.old, before} - {(k, m)})) if record.old or before != (k, m) else ()
        if convert or before != (k, m):
            await rebalance.save(store, RebalanceRecord(old=old, convert=convert or record.convert))
        if before != (k, m):
            problem = await state_copies.restore(store, parity=m)
            if problem is not None:
                raise Unavailable(f"{k}+{m} needs {m + 1} copies of the state: {problem}", reason="state")

            def change() -> None:
                with store.membership.exclusive():
                    store.membership.up()
                    store.membership.change(store.membership.epoch.members, geometry=(k, m))

            await in_thread(change)
            log.warning("new stripes are %d+%d from now on; they were %d+%d", k, m, *before)
    worked = await _work(store, progress)
    return {
        "k": k,
        "m": m,
        "before": f"{before[0]}+{before[1]}",
        "old": [f"{k}+{m}" for k, m in rebalance.old_geometries(store)],
        **worked,
    }


def _check_geometry(k: int, m: int, disks: int) -> None:
    if not 1 <= k <= DATA_SHARDS_MAX or not 0 <= m <= PARITY_SHARDS_MAX:
        raise Invalid(f"{k}+{m}: K is 1 to {DATA_SHARDS_MAX}, M is 0 to {PARITY_SHARDS_MAX}", reason="geometry")
    if k + m > disks:
        raise Refused(
            f"{k}+{m} needs {k + m} disks, and {disks} are up and stay: add disks first (`ostraka disk add DIR`)",
            reason="geometry",
        )


# -- the work


async def _work(store: Store, progress: Progress) -> dict[str, Any]:
    """Where nobody runs jobs, do here what they would do. ``done``: nothing is left to be moved."""
    if store.jobs is not None:
        store.jobs.wake()
        return {"done": False, "moved": 0}
    async with heal.turn(store):
        return await run(store, progress)


async def run(store: Store, progress: Progress) -> dict[str, Any]:
    """Move what is to be moved, by a caller that has the turn. Raises Unavailable when some could not be."""
    collect, healing, job = Collect(store), Heal(store), Rebalance(store)
    while True:
        budget = Budget(store.host.clock, _PIECE_SECONDS, _PIECE_ROWS)
        await collect.run_once(budget)  # fences processes that died
        if heal.pending(store):
            await healing.step(Budget(store.host.clock, _PIECE_SECONDS, _PIECE_ROWS))
        await state_copies.restore(store)
        result = await job.step(Budget(store.host.clock, _PIECE_SECONDS, _PIECE_ROWS))
        progress("rebalancing", result.done, result.total)
        if not rebalance.pending(store):
            return {"done": True, "moved": job.record.moved}
        if job.record.left or (result.again_in is not None and heal.pending(store)):
            raise Unavailable(
                f"{result.note}: give the command again once all disks are back, or leave it to the server, which "
                "goes on",
                reason="disks",
            )
        if not result.more:
            await asyncio.sleep(_WAIT_SECONDS)


async def wait(store: Store, progress: Progress, *, disk: int | None = None) -> dict[str, Any]:
    """Until the rebalance job has nothing left to do, telling how far it is. ``disk``: one that is to leave."""
    while rebalance.pending(store) and not rebalance.waits_for_opening(store):
        told = next((job for job in store.jobs.report() if job.name == Rebalance.name), None) if store.jobs else None
        if told is None:
            break
        if told.status == "failed":
            raise Unavailable(f"{told.note}: it is tried again every minute", reason="job")
        if told.status == "paused":
            raise Unavailable(
                f"rebalance is paused, by {told.paused_by}: `ostraka job resume rebalance` lets it go on",
                reason="paused",
            )
        progress(told.note or "rebalancing", told.done, told.total)
        await asyncio.sleep(_WAIT_SECONDS)
    record = rebalance.load(store)
    result = {"done": not rebalance.pending(store), "moved": record.moved, "held": record.held}
    return result if disk is None else {**result, "left": store.membership.gone(disk)}
