"""The faults of a power-cut disk: which operations wait, fail or lie. It knows nothing of files or of FUSE."""

import fnmatch
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass


def failure(number: int) -> OSError:
    """The error that the kernel would give for this errno."""
    return OSError(number, os.strerror(number))


@dataclass(slots=True)
class Rule:
    """Operations that match wait, then fail."""

    ops: list[str]  # none: all
    pattern: str = "*"  # of the path in the mount
    errno: int = 0
    delay: float = 0.0
    stall: bool = False
    count: int = -1  # how many times; -1: until healed
    skip: int = 0  # this many matching operations pass first


class Faults:
    """What was ordered and is not healed yet. Waiting happens in the caller's thread, so it must hold no lock."""

    __slots__ = ("_awake", "_mutex", "_rules", "flips", "ignored_syncs")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._rules: list[Rule] = []
        self._awake = threading.Event()
        self.ignored_syncs: list[str] = []
        self.flips: tuple[random.Random, int, str] | None = None

    def add(self, rule: Rule) -> None:
        with self._mutex:
            self._rules.append(rule)

    def heal(self) -> None:
        """All faults end; what was stalled goes on."""
        with self._mutex:
            self._rules = []
            self.flips = None
            self.ignored_syncs = []
            awake, self._awake = self._awake, threading.Event()
        awake.set()

    def meet(self, op: str, path: str, counts: Counter[str]) -> None:
        """Wait, or fail with OSError, as the rules say."""
        for rule in self._rules:
            if (rule.ops and op not in rule.ops) or not fnmatch.fnmatch(path, rule.pattern):
                continue
            with self._mutex:
                awake = self._awake
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.count == 0:
                    continue
                rule.count -= 1 if rule.count > 0 else 0
                counts["stalled"] += rule.stall
            if rule.stall:
                awake.wait()
            if rule.delay:
                time.sleep(rule.delay)
            if rule.errno:
                raise failure(rule.errno)

    def ignores(self, sync: str, path: str) -> bool:
        """Whether a sync of this kind and path is a lie."""
        return any(fnmatch.fnmatch(f"{sync}:{path}", pattern) for pattern in self.ignored_syncs)

    def spoil(self, path: str, data: bytes, counts: Counter[str]) -> bytes:
        """What a read returns: the data, or one bit of it flipped."""
        flips = self.flips
        if flips is None or not data:
            return data
        rng, one_in, pattern = flips
        with self._mutex:
            if not fnmatch.fnmatch(path, pattern) or rng.randrange(one_in):
                return data
            spoiled = bytearray(data)
            spoiled[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            counts["flipped"] += 1
        return bytes(spoiled)
