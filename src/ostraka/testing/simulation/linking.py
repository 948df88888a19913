"""The standard library's threads, and LMDB, as production code finds them: replaced by name while a schedule runs.

What `ostraka.host` gives goes through its seams. Threads, locks, queues, executors and LMDB production code takes from
modules, by import. `linked` puts those of a machine in their place, in every module of Ostraka that holds such a name,
as a linker would; nothing of the code itself is changed. A few numbers that are no limits (what is written ahead, what
is read at once) are made small in the same way, because they cost more than all the rest of a small schedule.
"""

import concurrent.futures
import contextlib
import gc
import importlib
import itertools
import pkgutil
import queue
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import lmdb

import ostraka
from ostraka.state import verify, walk
from ostraka.state.report import IndexReport
from ostraka.testing.simulation.loop import generators_are_closed_by_their_loops
from ostraka.testing.simulation.machine import Machine

SCHEDULES_PER_COLLECTION = 10  # of garbage: a collection takes as long as half a schedule
_schedules = itertools.count(1)
ROOMS = ("state", "segments", "nodes", "pools", "chunks", "objects", "jobs", "store")
SMALL: dict[tuple[str, str], object] = {
    ("ostraka.state.copies", "_ZERO_SIZE"): 4096,
    ("ostraka.state.copies", "_ZEROS"): bytes(4096),
    ("ostraka.state.log", "_SCAN_SIZE"): 16384,
    ("ostraka.segments.reader", "_SCAN_SIZE"): 8192,
    ("ostraka.nodes.recovery", "_HASH_BLOCK"): 65536,
    ("ostraka.nodes.lookup", "_VERIFY_SIZE"): 65536,
}


@lru_cache(maxsize=1)
def _places() -> list[tuple[ModuleType, str, str]]:
    """(module, name, what it stands for) of every name of the standard library that is to be replaced."""
    for room in ROOMS:
        package = importlib.import_module(f"{ostraka.__name__}.{room}")
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    wanted: list[tuple[object, str]] = [
        (threading, "threading"),
        (time, "time"),
        (lmdb, "lmdb"),
        (queue.SimpleQueue, "SimpleQueue"),
        (concurrent.futures.ThreadPoolExecutor, "ThreadPoolExecutor"),
        (concurrent.futures.wait, "wait"),
        (verify.check_index, "check_index"),
    ]
    places = []
    for module_name, module in sorted(sys.modules.items()):
        if module_name.split(".")[1:2] not in [[room] for room in ROOMS] or not module_name.startswith("ostraka."):
            continue
        for name, value in list(vars(module).items()):
            places += [(module, name, what) for original, what in wanted if value is original]
    return places


def _replacements(machine: Machine) -> dict[str, Any]:
    threads = machine.threads

    def check_index(path: Path, size_max: int, *, structure: bool = False) -> IndexReport:
        index = machine.open_map(path, size_max)
        try:
            return walk.inspect(index)
        finally:
            index.close()

    return {
        "threading": threads,
        "time": SimpleNamespace(sleep=lambda seconds: threads.scheduler.pause()),
        "lmdb": machine.lmdb,
        "SimpleQueue": threads.SimpleQueue,
        "ThreadPoolExecutor": threads.ThreadPoolExecutor,
        "wait": threads.wait,
        "check_index": check_index,
    }


@contextlib.contextmanager
def linked(machine: Machine) -> Iterator[None]:
    """Production code runs on this machine."""
    replacements = _replacements(machine)
    before: list[tuple[ModuleType, str, object]] = []
    small = [(sys.modules[module], name, value) for (module, name), value in SMALL.items()]
    changes = [(module, name, replacements[what]) for module, name, what in _places()]
    for module, name, value in [*changes, *small]:
        before.append((module, name, getattr(module, name)))
        setattr(module, name, value)
    gc.disable()  # when memory is collected must not depend on what ran before
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # of what died in the midst of something
    try:
        with generators_are_closed_by_their_loops():
            yield
    finally:
        if next(_schedules) % SCHEDULES_PER_COLLECTION == 0:
            gc.collect()
        gc.enable()
        sys.unraisablehook = hook
        for module, name, value in reversed(before):
            setattr(module, name, value)
