"""The state's copies: m+1 of them, on disks that are up; what the epoch says and where commits go are kept alike.

A copy is made in this order, so that a crash at any point leaves at worst a copy that nobody counts: the store's keys,
the copy itself, which from then on takes every commit, and last the epoch that says so.
"""

import contextlib
import logging
from pathlib import Path

import msgspec

from ostraka.errors import OstrakaError
from ostraka.jobs.ground import Ground, finish, in_thread
from ostraka.nodes import keys
from ostraka.nodes.superblock import Epoch, Member
from ostraka.state.truth import Copy

log = logging.getLogger("ostraka.jobs")

STATE = "state"  # the directory on a disk that carries a copy (store.store.STATE)


def carriers(epoch: Epoch) -> list[Member]:
    """Members whose copies count."""
    return [d for d in epoch.members if d.state and d.up]


def staying(epoch: Epoch) -> list[Member]:
    """Members that can carry a copy for good."""
    return [d for d in epoch.members if d.up and not d.draining]


async def restore(ground: Ground, *, override: bool = False, parity: int = 0) -> str | None:
    """Make copies until m+1 are on disks that are up, or no disk is left; what could not be done, or None.

    ``override``: an operator's word, that the epoch may change without a majority. ``parity``: an m that the store is
    to have next, if it is larger.
    """
    membership = ground.membership
    if membership.read_only and not override:
        return None
    problem: str | None = None
    tried: set[int] = set()
    while True:
        try:
            await _forget_lost(ground)
        except OstrakaError as error:
            return error.message
        epoch = membership.epoch
        if len([d for d in staying(epoch) if d.state]) >= min(max(epoch.m, parity) + 1, len(staying(epoch))):
            return problem or (None if parity else await _relieve(ground))
        free = [d for d in staying(epoch) if not d.state and d.number not in tried]
        if not free:
            return problem or "no disk is left for a copy of the state"
        # a disk that is new holds nothing else that could be lost with it
        member = max(free, key=lambda d: (d.healing, -d.number))
        tried.add(member.number)
        try:
            await make_copy(ground, member, override=override)
        except (OstrakaError, OSError) as error:
            problem = f"no copy of the state on disk {member.number}: {error}"
            log.error("%s", problem)


async def _relieve(ground: Ground) -> str | None:
    """There are copies enough: those on disks that are drained, and those beyond m+1, are taken out of use. First the
    epoch no longer counts them, then commits no longer go there: until then they are as good as any."""
    membership = ground.membership

    def change() -> None:
        with membership.exclusive():
            epoch = membership.epoch
            kept = [d.number for d in staying(epoch) if d.state][: epoch.m + 1]
            surplus = {d.number for d in carriers(epoch) if d.number not in kept}
            if len(kept) == epoch.m + 1 and surplus and not membership.read_only:
                log.info("disks %s need no copy of the state any more", ", ".join(map(str, sorted(surplus))))
                membership.change(
                    [msgspec.structs.replace(d, state=d.state and d.number not in surplus) for d in epoch.members]
                )

    try:
        await in_thread(change)
        await _forget_lost(ground)
    except OstrakaError as error:
        return error.message
    return None


async def make_copy(ground: Ground, member: Member, *, override: bool = False) -> None:
    """A copy of the state on the disk of this member. Raises what keeps it from being made."""
    membership = ground.membership
    path = membership.paths[member.number]
    await in_thread(_carry_keys, ground, path)
    await finish(ground.state.seed(Copy(member.disk_id, path / STATE), membership.epoch.number))
    await in_thread(_record, ground, member.number, override)
    log.info("disk %d (%s) carries a copy of the state now", member.number, path)


def _carry_keys(ground: Ground, path: Path) -> None:
    """The file from the first disk that has it whole: one that is damaged must not become two."""
    files, membership = ground.host.files, ground.membership
    problem: OSError | OstrakaError | None = None
    for carrier in carriers(membership.epoch):
        try:
            source = membership.paths[carrier.number] / keys.NAME
            content = files.read(source)
            keys.decode(content, str(source))
        except (OSError, KeyError, OstrakaError) as error:
            problem = OSError(str(error)) if isinstance(error, KeyError) else error
            continue
        files.publish(path / keys.NAME, content, mode=0o600)
        return
    raise problem or OSError("no disk carries the state")


def _record(ground: Ground, number: int, override: bool) -> None:
    membership = ground.membership
    with membership.exclusive():
        membership.change(
            [msgspec.structs.replace(d, state=True) if d.number == number else d for d in membership.epoch.members],
            override=override,
        )
        epoch = membership.epoch
    with contextlib.suppress(OstrakaError):
        ground.state.set_epoch_now(epoch.number)


async def _forget_lost(ground: Ground) -> None:
    """Commits no longer go to copies that do not count; the last copy is kept until there is another."""
    membership, state = ground.membership, ground.state
    epoch = membership.epoch
    counted = {d.disk_id for d in carriers(epoch)}
    copies = state.meta().copies
    if any(position.disk in counted for position in copies):
        for position in copies:
            if position.disk not in counted:
                await finish(state.drop(position.disk, epoch.number))
