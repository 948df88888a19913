"""From directories on a command line to a store: what each is, whether to format, which of them may be trusted.

Three steps, each a plain function so that a test can walk every case: `survey` looks and changes nothing; `judge`
decides, and refuses with the way out; `form` formats. The order of writes in `form` makes a crash at any point leave
directories that the same command finishes: every directory first gets a superblock that says "not formed yet", and
only then, one after the other, those that say "formed". Nothing is acknowledged before the last.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ostraka.errors import Corrupt, Invalid, OstrakaError, Refused, Unavailable
from ostraka.host import Files, Host
from ostraka.nodes import superblock
from ostraka.nodes.superblock import Epoch, Member, Superblock

DISKS_MAX = 256
DATA_SHARDS_MAX = 16
PARITY_SHARDS_MAX = 8
HARMLESS = frozenset({"lost+found", "lock", "control.sock"})  # none of them holds anything


@dataclass(frozen=True, slots=True)
class Found:
    """What one directory is. "blank": absent or empty; "foreign": something that is not ours is in it."""

    path: Path
    kind: Literal["blank", "forming", "formed", "foreign", "unreadable"]
    block: Superblock | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Opening:
    """A store that can be opened. Numbers are disk numbers of the epoch's members."""

    store_id: bytes
    epoch: Epoch
    present: dict[int, Path]  # current: everything they hold counts
    stale: dict[int, Path]  # came back: state copy and index are to be discarded
    missing: dict[int, str]  # why
    warnings: list[str] = field(default_factory=list)


def default_geometry(disks: int) -> tuple[int, int]:
    """(k, m) for that many disks: one disk 1+0; 2-3 disks m=1; 4-8 m=2; 9-16 m=4; more 12+4."""
    if disks == 1:
        return 1, 0
    if disks > 16:
        return 12, 4
    m = 1 if disks <= 3 else 2 if disks <= 8 else 4
    return disks - m, m


def check_geometry(k: int, m: int, disks: int) -> None:
    """Raises Invalid if k+m cannot be kept on that many disks."""
    if not 1 <= k <= DATA_SHARDS_MAX or not 0 <= m <= PARITY_SHARDS_MAX:
        raise Invalid(f"--ec {k}+{m}: K is 1 to {DATA_SHARDS_MAX}, M is 0 to {PARITY_SHARDS_MAX}", reason="geometry")
    if k + m > disks:
        raise Invalid(
            f"--ec {k}+{m} needs {k + m} directories, only {disks} named: name more, or choose a smaller K+M",
            reason="geometry",
        )


def check_apart(paths: Sequence[Path]) -> list[Path]:
    """The directories, which need not exist yet, without symbolic links. Raises Invalid for none, too many, repeated
    or nested ones."""
    if not paths:
        raise Invalid("no directory was named: ostraka serve DIR [DIR...]", reason="directories")
    if len(paths) > DISKS_MAX:
        raise Invalid(f"{len(paths)} directories: at most {DISKS_MAX} are possible", reason="directories")
    real = [Path(os.path.realpath(p)) for p in paths]
    for i, a in enumerate(real):
        for j, b in enumerate(real):
            if i < j and a == b:
                raise Invalid(f"{paths[j]} is named twice: each disk is a directory of its own", reason="repeated")
            if i != j and a in b.parents:
                raise Invalid(
                    f"{paths[j]} lies inside {paths[i]}: each disk is a directory of its own", reason="nested"
                )
    return real


def survey(paths: Sequence[Path], files: Files) -> tuple[list[Found], list[str]]:
    """Look at every directory; returns what they are, and warnings. Raises what check_apart does."""
    real = check_apart(paths)
    found = [_look(p, files) for p in real]
    devices: dict[int, list[Path]] = {}
    for path in real:
        with contextlib.suppress(OSError):
            devices.setdefault(files.device(path), []).append(path)
    warnings = [
        f"{', '.join(map(str, same))} are on one device: if it fails, all of them are lost at once"
        for same in devices.values()
        if len(same) > 1
    ]
    return found, warnings


def _look(path: Path, files: Files) -> Found:
    try:
        names = [n for n in files.names(path) if n not in HARMLESS]
    except FileNotFoundError:
        return Found(path, "blank")
    except NotADirectoryError:
        raise Invalid(
            f"{path} is not a directory: name a directory (it need not exist yet)", reason="directory"
        ) from None
    except PermissionError:
        raise Invalid(
            f"{path} cannot be read by this user: change its owner or its mode", reason="permission"
        ) from None
    except OSError as e:
        return Found(path, "unreadable", error=os.strerror(e.errno or errno.EIO))
    try:
        block = superblock.read(files, path)
    except Corrupt as e:
        return Found(path, "unreadable", error=e.message)
    except OSError as e:
        return Found(path, "unreadable", error=os.strerror(e.errno or errno.EIO))
    if block is not None:
        return Found(path, "formed" if block.formed else "forming", block)
    return Found(path, "foreign" if _strangers(names) else "blank")


def still_disks(paths: Sequence[Path], files: Files) -> list[Path]:
    """The directories that may be disks of their store, for who knows that it is there and that disks may have left it:
    without those that have no superblock, and those that the newest epoch does not name. One that cannot be read stays;
    all do, if none would."""
    blocks: dict[Path, Superblock | None] = {}
    for path in paths:
        try:
            block = superblock.read(files, path)
        except (OSError, OstrakaError):
            blocks[path] = None
        else:
            if block is not None:
                blocks[path] = block
    newest = max((b.epoch for b in blocks.values() if b is not None), key=lambda epoch: epoch.number, default=None)
    members = {d.disk_id for d in newest.members} if newest is not None else set()
    kept = [path for path, block in blocks.items() if block is None or block.disk_id in members]
    return kept or list(paths)


def is_foreign(path: Path, files: Files) -> bool:
    """Whether something that is not ours is in it, and no disk. False for what cannot be looked at."""
    try:
        names = [n for n in files.names(path) if n not in HARMLESS]
    except OSError:
        return False
    return superblock.NAME not in names and _strangers(names)


def _strangers(names: Sequence[str]) -> bool:
    """Whether there is more than what a crash leaves before the first superblock is published."""
    return not all(name.startswith(".superblock.") for name in names)


def follow_hints(found: Sequence[Found], files: Files) -> list[Found]:
    """Disks that joined while the store was served, where they joined, if no directory that was named is them.

    So a server that recovers before its command line was edited still has all its disks.
    """
    here = {f.block.disk_id for f in found if f.block}
    blocks = [f.block for f in found if f.kind == "formed" and f.block]
    if not blocks:
        return []
    newest = max(blocks, key=lambda b: b.epoch.number)
    joined = []
    for member in newest.epoch.members:
        if member.path and member.disk_id not in here:
            there = _look(Path(member.path), files)
            if there.block and (there.block.store_id, there.block.disk_id) == (newest.store_id, member.disk_id):
                joined.append(there)
    return joined


def judge(
    found: Sequence[Found],
    *,
    ec: tuple[int, int] | None = None,
    existing: bool = False,
    joined: Sequence[Found] = (),
) -> Opening | None:
    """Decide: an Opening, or None when the directories are to be formatted. Raises Refused, Unavailable, Invalid.

    ``joined``: disks that nobody named, found by their hints; the directories they took over from may be named still.
    """
    formed = [f for f in found if f.kind == "formed"]
    if not formed:
        _check_blank(found, ec, existing)
        return None
    stores = {f.block.store_id for f in formed if f.block}
    if len(stores) > 1:
        lines = "; ".join(f"{f.path} belongs to store {f.block.store_id.hex()[:8]}" for f in formed if f.block)
        raise Refused(f"these directories are of different stores: {lines}. Name those of one store", reason="foreign")
    store_id = stores.pop()
    newest = _newest(formed)
    if ec is not None and ec != (newest.k, newest.m):
        raise Refused(
            f"the geometry of the store is {newest.k}+{newest.m}, and it cannot be opened as --ec {ec[0]}+{ec[1]}: "
            "leave --ec out (`ostraka disk geometry` changes it)",
            reason="geometry",
        )
    return _match(found, store_id, newest, joined)


def _check_blank(found: Sequence[Found], ec: tuple[int, int] | None, existing: bool) -> None:
    for f in found:
        if f.kind == "foreign":
            way_out = (
                "(is something not mounted?)" if existing else "name an empty directory, or one that does not exist"
            )
            raise Refused(f"{f.path} is not empty and is no Ostraka disk: {way_out}", reason="foreign")
        if f.kind == "unreadable":
            raise Unavailable(
                f"{f.path} cannot be read: {f.error}; bring the disk back, or restore that file from a backup",
                reason="unreadable",
            )
    if existing:
        raise Refused(
            f"there is no store in {', '.join(str(f.path) for f in found)}, and none was to be made "
            "(is something not mounted?)",
            reason="no-store",
        )
    k, m = ec or default_geometry(len(found))
    check_geometry(k, m, len(found))


def _newest(formed: Sequence[Found]) -> Epoch:
    epochs = {f.block.epoch.id: f.block.epoch for f in formed if f.block}
    newest = max(epochs.values(), key=lambda e: e.number)
    for other in epochs.values():
        if not newest.descends_from(other):
            paths = ", ".join(str(f.path) for f in formed if f.block and f.block.epoch.id == other.id)
            raise Refused(
                f"the store was changed apart: {paths} went another way after epoch {other.number}. Start with the "
                "directories of one side only; those of the other can then come back through `ostraka disk replace`",
                reason="diverged",
            )
    return newest


def _match(found: Sequence[Found], store_id: bytes, epoch: Epoch, joined: Sequence[Found]) -> Opening:
    by_id = {d.disk_id: d for d in epoch.members}
    present: dict[int, Path] = {}
    stale: dict[int, Path] = {}
    blank: list[Found] = []
    warnings = [f"{f.path} joined the store while it was served: name it when you start the store" for f in joined]
    for f in [*found, *joined]:
        if f.kind == "foreign" or f.kind == "blank":
            blank.append(f)
        elif f.kind == "unreadable":
            blank.append(f)
            warnings.append(f"{f.path} cannot be read and counts as missing: {f.error}")
        else:
            assert f.block is not None
            member = by_id.get(f.block.disk_id)
            if f.block.store_id != store_id:
                blank.append(f)
            elif member is None and was_drained(f.block):
                warnings.append(f"{f.path} was drained and is no disk of this store any more: leave it out")
            elif member is None and joined:
                warnings.append(f"{f.path} was replaced and is no disk of this store any more: leave it out")
            elif member is None:
                raise Refused(
                    f"{f.path} was replaced or forgotten and is no disk of this store any more: leave it out, or empty "
                    "it and bring it in with `ostraka disk replace`",
                    reason="not-a-member",
                )
            elif member.number in present or member.number in stale:
                raise Refused(
                    f"{f.path} is a copy of {present.get(member.number) or stale[member.number]}: name one",
                    reason="copy",
                )
            elif member.up and (f.block.epoch.number >= member.since if f.block.formed else f.block.epoch == epoch):
                present[member.number] = f.path
            else:
                stale[member.number] = f.path
    absent = [d for d in epoch.members if d.number not in present and d.number not in stale]
    strange = [f for f in blank if f.kind != "unreadable"]  # what cannot be read may be anything, and is left alone
    if len(strange) > len(absent) + len(joined):
        names = ", ".join(str(f.path) for f in blank)
        raise Refused(
            f"{names}: not a disk of this store, and none of its disks is missing: leave it out "
            "(to take over from a lost disk: `ostraka disk replace OLD NEW`)",
            reason="extra",
        )
    for f in blank:
        warnings.append(
            f"{f.path} is {'empty' if f.kind == 'blank' else 'not a disk of this store'} and counts as missing "
            "(not mounted?); to rebuild onto it: `ostraka disk replace`"
        )
    missing = {d.number: "no directory that was named is this disk" for d in absent}
    if not any(d.state and d.number in present for d in epoch.members):
        raise Refused(
            f"no directory that was named carries a current copy of the state (epoch {epoch.number}): bring back one "
            f"of the disks {', '.join(str(d.number) for d in epoch.members if d.state)}; older copies are never read",
            reason="stale-state",
        )
    count, minority = len(present), len(epoch.members) // 2
    if count + len(stale) > minority:  # enough for an epoch that takes back those that were away: their shards count
        count += len(stale)
    if count < epoch.k and count <= minority:
        raise Refused(
            f"only {len(present)} of {len(epoch.members)} disks are here, and reading needs {epoch.k}: name the others "
            f"({', '.join(str(n) for n in sorted(missing))}), or bring them back",
            reason="too-few",
        )
    return Opening(store_id, epoch, present, stale, missing, warnings)


def was_drained(block: Superblock) -> bool:
    """Whether a disk that is no member any more was on its way out when it last heard of the others."""
    return any(d.disk_id == block.disk_id and d.draining for d in block.epoch.members)


Prepare = Callable[[bytes, Epoch, Mapping[int, Path]], None]


def form(paths: Sequence[Path], k: int, m: int, host: Host, prepare: Prepare) -> Opening:
    """Format blank or half-formatted directories as one store. Everything is on stable storage when it returns.

    ``prepare(store id, epoch, paths)`` makes durable what a formed store must have (keys, state copies); it runs
    after every directory says "forming" and before the first says "formed".
    """
    store_id = host.random(16)
    members = tuple(
        Member(number=i, disk_id=host.random(16), up=True, state=i <= m, since=1) for i in range(len(paths))
    )
    epoch = Epoch(number=1, id=host.random(16), k=k, m=m, members=members, next_number=len(paths), history=())
    numbered = {d.number: p for d, p in zip(members, paths, strict=True)}
    for formed in (False, True):
        if formed:
            prepare(store_id, epoch, numbered)
        for member, path in zip(members, paths, strict=True):
            if not formed:
                host.files.mkdir(path)
                host.files.sync_directory(path.parent)
            superblock.write(host.files, path, Superblock(store_id, member.disk_id, formed, epoch))
    return Opening(store_id, epoch, numbered, {}, {})


def finish(opening: Opening, found: Sequence[Found], host: Host) -> None:
    """Complete a format that a crash interrupted between the superblocks that say "formed"."""
    for f in found:
        if f.kind == "forming" and f.block and f.path in opening.present.values():
            superblock.write(host.files, f.path, Superblock(f.block.store_id, f.block.disk_id, True, f.block.epoch))
