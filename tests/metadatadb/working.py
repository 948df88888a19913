"""A replica's work, and the books that are kept of it: what was begun, what was acknowledged, what was refused.

Used where replicas are tasks on virtual time (test_simulation.py) and where they are processes (test_soak.py). The
values are chosen so that every loss and every repetition shows: each addition has a token of its own, which goes into a
list, a set, a map and two counters at once.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ostraka.errors import Conflict, OstrakaError
from ostraka.metadatadb import AsyncNamespace

BEGUN: Final = "begun"  # and nobody was told what became of it
DONE: Final = "done"  # acknowledged as durable
REFUSED: Final = "refused"  # said not to have happened

Note = Callable[[str, str], None]
"""Keeps what became of something, by its name."""


class Ledger:
    """The last that was noted of each thing. Comparisons are noted as ``turn VALUE TOKEN``."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}

    def note(self, verdict: str, what: str) -> None:
        self._notes[what] = verdict

    def read(self, path: Path) -> None:
        """Add what a process noted; the end of its last line may be missing."""
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                verdict, _, what = line[:-1].partition(" ")
                self.note(verdict, what)

    def tokens(self, verdict: str) -> set[str]:
        return {what for what, v in self._notes.items() if v == verdict and not what.startswith("turn ")}

    def turns(self, verdict: str) -> Counter[int]:
        """Of which values a comparison had that outcome, and how often."""
        turns = [what for what, v in self._notes.items() if v == verdict and what.startswith("turn ")]
        return Counter(int(what.split()[1]) for what in turns)


class Worker:
    """Writes to a namespace, checks what it reads, and keeps the books."""

    def __init__(self, name: str, chance: random.Random, note: Note, *, durable_at_once: bool) -> None:
        self.name = name
        self.chance = chance
        self.note = note
        self.durable_at_once = durable_at_once
        self.waiting: set[str] = set()  # periodic: applied, and not flushed
        self._count = 0
        self.namespace: AsyncNamespace

    async def work(self, steps: int, pace: float = 1.0) -> None:
        """So many steps, each after ``pace`` seconds on average."""
        for _ in range(steps):
            await asyncio.sleep(self.chance.expovariate(1 / pace))
            await self.step()

    async def step(self) -> None:
        steps = [self.add, self.add, self.add, self.transfer, self.compare, self.flush, self.burst]
        await self.chance.choice(steps)()
        self.look()

    def look(self) -> None:
        """What must be so in every view."""
        left, right = self.namespace.int("left"), self.namespace.int("right")
        assert left.get() + right.get() == 0, f"half of a batch: {left.get()} and {right.get()}"
        entries = self.namespace.list("log", str).entries()
        assert len(set(entries)) == len(entries), f"twice: {Counter(entries).most_common(1)}"

    def _token(self) -> str:
        self._count += 1
        return f"{self.name}-{self._count:05}"

    async def add(self) -> None:
        token = self._token()
        self.note(BEGUN, token)
        ns = self.namespace
        try:
            async with ns.batch():
                await ns.list("log", str).append(token)
                await ns.set("seen").add(token)
                await ns.int("count").add(1)
                await ns.int_map("by replica").add(self.name, 1)
                await ns.map("last", str, str).set(self.name, token)
        except Conflict:
            self.note(REFUSED, token)
        except OstrakaError:
            pass  # it may have happened
        else:
            if self.durable_at_once:
                self.note(DONE, token)
            else:
                self.waiting.add(token)

    async def burst(self) -> None:
        await asyncio.gather(*(self.add() for _ in range(self.chance.randrange(1, 12))))

    async def transfer(self) -> None:
        amount = self.chance.randrange(-50, 50)
        try:
            async with self.namespace.batch():
                await self.namespace.int("left").add(amount)
                await self.namespace.int("right").add(-amount)
        except OstrakaError:
            pass

    async def compare(self) -> None:
        value = self.namespace.int("turn")
        seen = value.get()
        turn = f"turn {seen} {self._token()}"
        self.note(BEGUN, turn)
        try:
            self.note(DONE if await value.compare_and_set(seen, seen + 1) else REFUSED, turn)
        except Conflict:
            self.note(REFUSED, turn)
        except OstrakaError:
            pass

    async def flush(self) -> None:
        before = set(self.waiting)
        try:
            await self.namespace.flush()
        except OstrakaError:
            return
        self.flushed(before)

    def flushed(self, tokens: set[str]) -> None:
        """All of them are durable now."""
        self.waiting -= tokens
        for token in tokens:
            self.note(DONE, token)


def dump(namespace: AsyncNamespace) -> dict[str, Any]:
    """All that is held; the order of names and keys does not count, that of lists does."""
    state = namespace._scope.copy.view.fork()
    state.purge()
    return {name: (held.kind, held.value, held.expires, held.key_expires) for name, held in state.names.items()}


def check(namespace: AsyncNamespace, ledger: Ledger) -> None:
    """What is held is what was acknowledged, once, and of the rest only what may have happened."""
    entries = namespace.list("log", str).entries()
    assert len(set(entries)) == len(entries), f"twice: {Counter(entries).most_common(1)}"
    known = set(entries)
    done, refused = ledger.tokens(DONE), ledger.tokens(REFUSED)
    assert not done - known, f"lost: {sorted(done - known)}"
    assert not refused & known, f"came although refused: {sorted(refused & known)}"
    assert not known - done - ledger.tokens(BEGUN), "from nowhere"
    assert namespace.set("seen").members() == known
    assert namespace.int("count").get() == len(known)
    assert namespace.int_map("by replica").entries() == Counter(token.rpartition("-")[0] for token in known)
    assert namespace.int("left").get() + namespace.int("right").get() == 0
    turn, won = namespace.int("turn").get(), ledger.turns(DONE)
    assert not [value for value, times in won.items() if times > 1], "two won the same turn"
    assert won.total() <= turn <= won.total() + ledger.turns(BEGUN).total()
    for replica, last in namespace.map("last", str, str).entries().items():
        assert last in known
        assert last.rpartition("-")[0] == replica
