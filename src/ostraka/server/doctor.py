"""What a store needs of the machine and of its disks, looked at one by one before it is missed.

Each check is a function that gives findings: what was looked at, what was found, and the way out where it is not good.
What is written to try a disk has no name and is gone with its descriptor. A *problem* keeps the
store from working or puts data at risk; a *warning* will, some day or under load.
"""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import re
import resource
import stat
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ostraka import machine as supported
from ostraka.errors import OstrakaError
from ostraka.host import Host, mount_of
from ostraka.limits import LIMITS, MIB
from ostraka.nodes import opening as openings
from ostraka.nodes.keys import NAME as KEYS_NAME
from ostraka.nodes.space import held_back
from ostraka.pools.erasure import kernel
from ostraka.server.run import clients_within

Level = Literal["ok", "warning", "problem"]

PYTHON_MIN = (3, 11)
MEMORY_BYTES_MIN = 1024 * MIB  # available: chunk buffers, indexes, caches
FREE_SHARE_MIN = 0.1
INODES_MIN = 1000
SYNCS = 16
SYNC_SECONDS_MIN = 5e-6  # whatever it is that answers sooner, it is no storage
SYNC_SECONDS_MAX = 0.05
YEAR_MIN = 2025
TIMEX_SIZE = 256
STATUS_AT = 40  # in struct timex, on 64-bit Linux
STA_UNSYNC = 0x40

_IN_MEMORY = ("tmpfs", "ramfs")
_OVER_A_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|9p|afs|ceph|glusterfs|lustre|fuse\.(sshfs|s3fs|rclone|glusterfs|juicefs)"
)
_WITHOUT_CARE = re.compile(r"vfat|exfat|msdos|ntfs\d?|fuseblk")
_NO_BARRIERS = frozenset(("nobarrier", "barrier=0"))


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    about: str
    level: Level
    what: str
    way_out: str = ""


def machine(directories: int) -> Iterator[Check]:
    """The machine by itself, for a store of so many disks."""
    yield _system()
    yield _python()
    yield _libraries()
    yield _erasure()
    yield _descriptors(directories)
    yield _clock()
    yield _memory()
    yield _preload()


def _system() -> Check:
    what = f"{platform.system()} {platform.release()} on {platform.machine()}"
    try:
        supported.check()
    except OstrakaError as e:
        return Check("system", "problem", what, e.message)
    return Check("system", "ok", what)


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info[:2] >= PYTHON_MIN:
        return Check("python", "ok", version)
    return Check("python", "problem", version, f"install Python {'.'.join(map(str, PYTHON_MIN))} or newer")


def _libraries() -> Check:
    """The versions that are installed, held against those that the package asks for."""
    try:
        wanted = importlib.metadata.requires("ostraka") or []
    except importlib.metadata.PackageNotFoundError:
        return Check("libraries", "warning", "ostraka is not installed as a package", "pip install ostraka")
    found: list[str] = []
    wrong: list[str] = []
    for requirement in wanted:
        needed, _, condition = requirement.partition(";")
        m = re.match(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9.]+)$", needed.strip())
        if m is None or "extra" in condition:
            continue
        try:
            version = importlib.metadata.version(m[1])
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{m[1]} is missing")
            continue
        (found if _numbers(version) >= _numbers(m[2]) else wrong).append(f"{m[1]} {version}")
    if wrong:
        return Check("libraries", "problem", ", ".join(wrong), "pip install --upgrade ostraka")
    return Check("libraries", "ok", ", ".join(found))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def _erasure() -> Check:
    name = kernel().name
    if name != "python":
        return Check("erasure coding", "ok", name)
    return Check(
        "erasure coding",
        "warning",
        "ISA-L is not found: several disks work, and slowly",
        "pip install --force-reinstall pyeclib, or install the system's libisal2",
    )


def _descriptors(directories: int) -> Check:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return Check("open files", "ok", "no limit")
    clients = clients_within(most, LIMITS, max(directories, 1))
    if clients >= LIMITS.connections_max:
        return Check("open files", "ok", f"up to {most}")
    wanted = most + 2 * (LIMITS.connections_max - clients)
    return Check(
        "open files",
        "warning",
        f"up to {most}: each worker takes {clients} clients at most",
        f"allow {wanted} (ulimit -n, or LimitNOFILE= of systemd)",
    )


def _clock() -> Check:
    now = time.time()
    if time.gmtime(now).tm_year < YEAR_MIN:
        return Check(
            "clock", "problem", time.strftime("%Y-%m-%d", time.gmtime(now)), "set it; signatures carry the time"
        )
    timex = ctypes.create_string_buffer(TIMEX_SIZE)
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None).adjtimex(timex) >= 0:
            status = int.from_bytes(timex.raw[STATUS_AT : STATUS_AT + 4], sys.byteorder)
            if status & STA_UNSYNC:
                minutes = LIMITS.clock_skew_seconds_max / 60
                way_out = f"run chrony or systemd-timesyncd: clients {minutes:g} minutes off are refused"
                return Check("clock", "warning", "nothing keeps it right", way_out)
    return Check("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def _memory() -> Check:
    facts = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M))
    available = int(facts.get("MemAvailable", 0)) * 1024
    what = f"{available // MIB} MiB available"
    if available >= MEMORY_BYTES_MIN:
        return Check("memory", "ok", what)
    return Check("memory", "warning", what, f"have {MEMORY_BYTES_MIN // MIB} MiB, or fewer --workers")


def _preload() -> Check:
    preloaded = os.environ.get("LD_PRELOAD", "")
    if "eatmydata" in preloaded:
        return Check("LD_PRELOAD", "problem", preloaded, "unset it: it swallows the syncs that make writes durable")
    return Check("LD_PRELOAD", "ok", preloaded or "nothing")


# -- directories


def disks(paths: Sequence[Path], host: Host) -> Iterator[Check]:
    """Each directory, and what they are together."""
    try:
        openings.check_apart(paths)
    except OstrakaError as e:
        yield Check("directories", "problem", e.message)
    for path in paths:
        yield from _directory(path)
    yield from _together(paths, host)


def _directory(path: Path) -> Iterator[Check]:
    about = str(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        yield Check(
            about, "warning", "there is no such directory (`ostraka serve` makes it)", "is something not mounted?"
        )
        return
    except OSError as e:
        yield Check(
            about, "problem", e.strerror or str(e), "bring the disk back, or change the owner of what it lies in"
        )
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Check(about, "problem", "it is a file", "name a directory")
        return
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        who = f"user {os.geteuid()} may not write here"
        yield Check(about, "problem", who, f"chown -R {os.geteuid()} {path}, or be its owner (user {status.st_uid})")
        return
    for look in (_file_system, _room, _sync, _keys):
        try:
            yield from look(path, about)
        except OSError as e:
            yield Check(about, "problem", e.strerror or str(e), "see the kernel's log (dmesg)")
            return


def _file_system(path: Path, about: str) -> Iterator[Check]:
    kind, options = mount_of(path)
    if "ro" in options:
        yield Check(about, "problem", f"{kind or 'it'} is mounted read-only", "mount it for writing; see dmesg for why")
    elif kind in _IN_MEMORY:
        yield Check(about, "problem", f"{kind} is memory: a restart forgets it", "name a directory on a disk")
    elif _OVER_A_NETWORK.fullmatch(kind):
        what = f"{kind} is a network's: locks may reach no further than this machine"
        yield Check(about, "warning", what, "serve it from one machine only, or use disks of its own")
    elif kind == "overlay":
        what = "overlay is a container's own layer: it goes when the container does"
        yield Check(about, "warning", what, "mount a volume there")
    elif _WITHOUT_CARE.fullmatch(kind):
        yield Check(about, "warning", f"{kind} has no journal to rely on", "format the disk as ext4, xfs or btrfs")
    elif options & _NO_BARRIERS:
        what = f"{kind} is mounted with {', '.join(options & _NO_BARRIERS)}: a sync does not reach the disk"
        yield Check(about, "problem", what, "mount it without that option")
    else:
        yield Check(about, "ok", f"{kind or 'an unknown kind of file system'}, mounted for writing")


def _room(path: Path, about: str) -> Iterator[Check]:
    facts = os.statvfs(path)
    free, total = facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize
    what = f"{free // MIB} MiB free of {total // MIB}"
    if free < held_back(total, LIMITS.reserve_writes, LIMITS):
        yield Check(about, "problem", f"{what}: writes are refused", "make room, or take a larger disk")
    elif free < total * FREE_SHARE_MIN and free < 10 * LIMITS.reserve_bytes_max:
        yield Check(about, "warning", what, "make room: the last 5 % are held back for deletes and compaction")
    else:
        yield Check(about, "ok", what)
    if facts.f_files and facts.f_favail < INODES_MIN:
        yield Check(about, "problem", f"{facts.f_favail} inodes left", "make room for more files there")


def _sync(path: Path, about: str) -> Iterator[Check]:
    """How long a small write takes to be on stable storage, by a file without a name."""
    try:
        fd = os.open(path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as e:
        yield Check(about, "ok", f"not tried how long a sync takes ({e.strerror})")
        return
    took = []
    try:
        for number in range(SYNCS):
            os.pwrite(fd, os.urandom(4096), 4096 * number)
            began = time.perf_counter()
            os.fdatasync(fd)
            took.append(time.perf_counter() - began)
    finally:
        os.close(fd)
    median = statistics.median(took)
    what = f"a sync takes {median * 1000:.2f} ms"
    if median < SYNC_SECONDS_MIN:
        way_out = "find what swallows it: a cache that is told to lie, a container's setting, eatmydata"
        yield Check(about, "warning", f"{what}: no storage is that fast", way_out)
    elif median > SYNC_SECONDS_MAX:
        yield Check(about, "warning", f"{what}, and every write waits for one", "take a faster disk")
    else:
        yield Check(about, "ok", what)


def _keys(path: Path, about: str) -> Iterator[Check]:
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(os.stat(path / KEYS_NAME).st_mode)
        if mode & 0o077:
            what = f"{KEYS_NAME} can be read by others: whoever has it has the store"
            yield Check(about, "problem", what, f"chmod 600 {path / KEYS_NAME}, then `ostraka credentials rotate`")


def _together(paths: Sequence[Path], host: Host) -> Iterator[Check]:
    devices: dict[int, list[Path]] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            devices.setdefault(os.stat(path).st_dev, []).append(path)
    for same in devices.values():
        if len(same) > 1:
            names = ", ".join(map(str, same))
            what = f"{names} are on one device: if it fails, all of them are lost at once"
            yield Check("directories", "warning", what, "give each a disk of its own")
    try:
        found, _ = openings.survey(paths, host.files)
        opening = openings.judge(found, existing=any(f.kind in ("formed", "forming") for f in found))
    except OstrakaError as e:
        yield Check("store", "problem", e.message)
        return
    if opening is None:
        yield Check("store", "ok", f"none there yet: `ostraka serve` makes one of {len(paths)}")
        return
    k, m = opening.epoch.k, opening.epoch.m
    here, members = len(opening.present) + len(opening.stale), len(opening.epoch.members)
    what = f"{opening.store_id.hex()[:8]}, {k}+{m}, {here} of {members} disks are here"
    yield Check("store", "ok" if not opening.missing else "warning", what)
    for warning in opening.warnings:
        yield Check("store", "warning", warning)


def tally(checks: Sequence[Check]) -> Counter[Level]:
    """How many there are of each level."""
    return Counter(check.level for check in checks)
