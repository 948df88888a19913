"""How a store is: its disks, its room, what it holds, its jobs; and what is wrong, each with the way out."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from ostraka import __version__
from ostraka.jobs import report, state_copies
from ostraka.jobs.ground import in_thread, within
from ostraka.jobs.rebalance import old_geometries
from ostraka.objects.rows import BUCKET
from ostraka.state import rows_under
from ostraka.store import disks
from ostraka.store.holdings import holdings
from ostraka.store.jobs import jobs_of
from ostraka.store.store import Store


async def status(store: Store) -> dict[str, Any]:
    """All of it; none of it takes longer for a larger store."""
    listed = await disks.list_disks(store)
    epoch, meta = store.membership.epoch, store.state.meta()
    carriers = state_copies.carriers(epoch)
    serving = store.serving
    jobs = jobs_of(store)
    hurt = await in_thread(report.hurt, store.state)
    old = old_geometries(store)
    return {
        "version": __version__,
        "store_id": store.membership.store_id.hex(),
        "url": serving.url if serving else None,
        "pid": serving.pid if serving else None,
        "k": epoch.k,
        "m": epoch.m,
        "old_geometries": [f"{k}+{m}" for k, m in old],
        "bears": min([epoch.m, *(m for _, m in old)]),
        "epoch": epoch.number,
        "read_only": store.membership.read_only or None,
        "disks": listed["disks"],
        "state": {
            "copies": len(carriers),
            "wanted": min(epoch.m + 1, sum(not member.draining for member in epoch.members)),
            "disks": [member.number for member in carriers],
            "commit": meta.commit,
            "log_bytes": meta.log_bytes,
            "snapshot_bytes": meta.snapshot_size,
        },
        "room": await _room(store, listed["disks"]),
        "holds": _holds(store),
        "jobs": report.rows(jobs),
        "hurt": hurt,
        "problems": _problems(store, listed["disks"], jobs, hurt, meta.stopped),
        "warnings": list(store.recovered.warnings),
    }


async def _room(store: Store, listed: list[dict[str, Any]]) -> dict[str, int]:
    """Bytes of objects that still fit, and that fit in all, as erasure coding has it and beyond what is held back."""
    answering = {
        row["number"]: Path(row["path"])
        for row in listed
        if row["free"] is not None and row["path"] and row["status"] != "draining"
    }
    try:
        devices = await within(
            store.limits.disk_seconds_max,
            lambda: {number: store.host.files.device(path) for number, path in answering.items()},
        )
    except (OSError, TimeoutError):
        devices = {}
    shared = Counter(devices.values())  # disks on one device have its room between them
    free, total = [], []
    for number, device in devices.items():
        disk = store.disks.get(number)
        if disk is not None:
            free.append(disk.space.left() // shared[device])
            total.append(disk.space.free()[1] // shared[device])
    k, m = store.membership.k, store.membership.m

    def usable(sizes: list[int]) -> int:
        if len(sizes) <= m:
            return 0
        if len(sizes) <= k + m:  # every stripe has a shard on each: the smallest one decides
            return min(sizes) * (len(sizes) - m)
        return sum(sizes) * k // (k + m)

    return {"free": usable(free), "total": usable(total)}


def _holds(store: Store) -> dict[str, Any]:
    """Buckets, live objects with their bytes, and what keeps them. ``counted``: whether that is known."""
    found = holdings(store.state)
    buckets = sum(1 for _ in rows_under(store.state, BUCKET))
    if found is None:
        return {"buckets": buckets, "counted": False}
    return {"buckets": buckets, "counted": True, **msgspec.to_builtins(found)}


_DISK_TROUBLE = {
    "missing": "is missing: bring it back and name its directory, or",
    "down": "is out of service: see the log for why, bring it back, or",
    "vanished": "is not there any more: mount it again and start the server again, or",
    "hangs": "does not answer: see the kernel's log (dmesg); if it stays so,",
}


def _problems(
    store: Store, listed: list[dict[str, Any]], jobs: list[report.JobReport], hurt: int, stopped: str
) -> list[dict[str, str]]:
    """What somebody has to do something about."""
    found: list[dict[str, str]] = []

    def tell(what: str, way_out: str) -> None:
        found.append({"what": what, "way_out": way_out})

    epoch = store.membership.epoch
    if store.membership.read_only:
        tell("the store is read-only", store.membership.read_only)
    if stopped:
        tell(f"no commit is taken: {stopped}", "start the server again: that recovers the state")
    for disk in listed:
        trouble = _DISK_TROUBLE.get(disk["status"])
        where = f" ({disk['path']})" if disk["path"] else ""
        if trouble:
            what, _, way_out = trouble.partition(": ")
            replace = f"`ostraka disk replace {disk['number']} NEW` rebuilds it on an empty directory"
            tell(f"disk {disk['number']}{where} {what}", f"{way_out} {replace}")
        elif disk["status"] == "healing":
            way_out = "wait: `ostraka job ls` shows how far it is" if store.jobs else "serve the store: that heals it"
            tell(f"disk {disk['number']}{where} is not healed yet", way_out)
        on_disk = store.disks.get(disk["number"])
        if on_disk is not None and not trouble and not on_disk.space.left():
            way_out = "delete objects, add a disk (`ostraka disk add`), or take a larger one (`ostraka disk replace`)"
            tell(f"disk {disk['number']}{where} has no room left for writes", way_out)
        elif on_disk is not None and not trouble and on_disk.space.pressure():
            way_out = "add a disk (`ostraka disk add`), or delete objects, before it is full"
            tell(f"disk {disk['number']}{where} is nearly full: writers are slowed down", way_out)
    wanted = min(epoch.m + 1, len(state_copies.staying(epoch)))
    copies = len(state_copies.carriers(epoch))
    if copies < wanted:
        tell(f"{copies} of {wanted} copies of the state are current", "the heal job makes others: `ostraka job ls`")
    if hurt:
        tell(f"{hurt} stripes have a bad shard that readers met", "wait: the heal job mends them; else `ostraka fsck`")
    locked = store.keyring.complaint()
    if locked:
        what, _, way_out = locked.partition(": ")
        tell(f"what is encrypted can be neither read nor written: {what}", way_out)
    for job in jobs:
        if job.status == "failed":
            tell(f"job {job.name} fails: {job.note}", "it is tried again every minute; the log says more")
        elif job.paused_means:
            tell(
                f"job {job.name} is paused, by {job.paused_by}: {job.paused_means}", f"`ostraka job resume {job.name}`"
            )
    return found
