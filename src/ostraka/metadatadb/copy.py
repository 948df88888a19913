"""The copy of a namespace that a replica holds: what is settled, and on top of it what is known and not settled yet.

    settled   the state after all entries up to the head's, in the order that can change no more
    loose     entries of the journal that are not settled, in the order of their ids
    frozen    an entry of ours that is being settled just now (periodic)
    pending   transactions of ours that are part of no entry yet (periodic)
    view      settled + loose + frozen + pending: what queries see

The view is kept by applying what is new, and made anew only if something came to lie before what it shows already.
An entry is loose only if the one before it of the same writer is settled or loose: a listing that missed one shows
later ones in vain. Does no input or output. Queries and local writes may come from any thread: ``mutex`` guards the
view; all else belongs to the event loop.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ostraka.metadatadb.answering import answer
from ostraka.metadatadb.applying import Outcome, apply
from ostraka.metadatadb.format import Entry, Head
from ostraka.metadatadb.operations import Clear, Transaction, key_of
from ostraka.metadatadb.queries import Question
from ostraka.metadatadb.stamps import Writers
from ostraka.metadatadb.state import State

T = TypeVar("T")

Touched = dict[str, set[str] | None]
"""Names that may have changed, and which of their keys; None: all of it."""


def touch(touched: Touched | None, transactions: Iterable[Transaction], state: State) -> None:
    """Add what these transactions are about, if anybody wants to know."""
    if touched is None:
        return
    for transaction in transactions:
        for op in transaction.ops:
            if isinstance(op, Clear):
                touched.update(dict.fromkeys(state.names))
            elif not op.expects:
                key, keys = key_of(op), touched.setdefault(op.name, set())
                if key is None:
                    touched[op.name] = None
                elif keys is not None:
                    keys.add(key)


class Copy:
    """One namespace in memory."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.settled = State()
        self.writers = Writers()
        self.head: Head | None = None
        self.etag: str | None = None  # of that head
        self.sequence = 0  # of the last entry that is settled
        self.loose: list[Entry] = []
        self.frozen: Entry | None = None
        self.pending: list[Transaction] = []
        self.view = State()
        self.touched: Touched | None = None  # since somebody took it; None: nobody wants to know
        self._known: dict[str, Entry] = {}  # entries that are not settled; loose is what of them has its turn
        self._reached: dict[str, str] = {}  # of each writer in loose, the stamp of its last entry there
        self._shown: list[str] = []  # ids of the entries that the view shows beyond what is settled, in order

    @property
    def commit(self) -> int:
        """How many heads there have been."""
        return self.head.about.commit if self.head else 0

    def query(self, query: Question[T], now: int) -> T:
        with self.mutex:
            return answer(self.view, query, now)

    def missing(self, listed: Mapping[str, tuple[str, str]]) -> list[str]:
        """The ids among these entries that are neither known nor settled."""
        return [i for i, (stamp, w) in listed.items() if i not in self._known and not self.writers.settled(stamp, w)]

    def stuck(self) -> int:
        """How many entries wait for one before them that nobody has seen."""
        return len(self._known) - len(self.loose)

    def add(self, entries: Iterable[Entry]) -> dict[str, list[Outcome]]:
        """Entries of the journal are known from now on. What became of the transactions of each that is newly shown."""
        new = [e for e in entries if not self.writers.settled(e.stamp, e.writer) and e.id not in self._known]
        for entry in new:
            self._known[entry.id] = entry
        if len(new) == 1 and self._comes_last(new[0]):
            return self._append(new[0])
        return self._arrange([])

    def _comes_last(self, entry: Entry) -> bool:
        """Whether all that is known but this entry is shown already, and it comes after all of that."""
        alone = self.frozen is None and not self.pending and len(self._known) == len(self.loose) + 1
        return alone and (not self._shown or self._shown[-1] < entry.id) and self.writers.follows(entry, self._reached)

    def _append(self, entry: Entry) -> dict[str, list[Outcome]]:
        """As _arrange, for an entry that comes last: most do, and what it costs does not grow with the journal."""
        self.loose.append(entry)
        self._reached[entry.writer] = entry.stamp
        with self.mutex:
            self._shown.append(entry.id)
            return {entry.id: self._show(entry)}

    def settle(
        self, entries: list[Entry], head: Head, etag: str, state: State | None = None
    ) -> dict[str, list[Outcome]]:
        """These entries, in this order, are what that head adds. ``state``: what comes of it, if somebody knows."""
        if state is None:
            for entry in entries:
                for transaction in entry.transactions:
                    apply(self.settled, transaction)
        else:
            self.settled = state
        for entry in entries:
            self.writers.settle(entry)
        return self._lead(entries, head, etag)

    def replace(self, state: State, writers: Writers, entries: list[Entry], head: Head, etag: str) -> None:
        """Begin anew from a snapshot and the entries of a head that come after it."""
        for entry in entries:
            for transaction in entry.transactions:
                apply(state, transaction)
            writers.settle(entry)
        old, self.settled, self.writers, self._shown = self.view, state, writers, ["before the snapshot"]
        self._lead([], head, etag)
        if self.touched is not None:
            names = old.names.keys() | self.view.names.keys()
            differing = dict.fromkeys(n for n in names if old.names.get(n) != self.view.names.get(n))
            with self.mutex:
                self.touched.update(differing)

    def _lead(self, entries: list[Entry], head: Head, etag: str) -> dict[str, list[Outcome]]:
        self.head, self.etag, self.sequence = head, etag, head.about.sequence
        self.writers.forgotten = head.about.forgotten
        self._known = {i: e for i, e in self._known.items() if not self.writers.settled(e.stamp, e.writer)}
        if self.frozen and self.writers.settled(self.frozen.stamp, self.frozen.writer):
            self.frozen = None
        return self._arrange(entries)

    def _arrange(self, settled: list[Entry]) -> dict[str, list[Outcome]]:
        """Show what is known, after these entries have been settled."""
        self.loose = self._in_turn()
        tail = [*self.loose, *([self.frozen] if self.frozen else [])]
        order = [*settled, *tail]
        with self.mutex:
            shown = len(self._shown)
            undisturbed = self._shown == [e.id for e in order[:shown]] and (shown == len(order) or not self.pending)
            if undisturbed:
                outcomes = {entry.id: self._show(entry) for entry in order[shown:]}
            else:
                self.view = self.settled.fork()
                touch(self.touched, [*(t for e in order for t in e.transactions), *self.pending], self.view)
                outcomes = {entry.id: self._show(entry) for entry in tail}
                for transaction in self.pending:
                    apply(self.view, transaction)
            self._shown = [entry.id for entry in tail]
        return outcomes

    def _in_turn(self) -> list[Entry]:
        reached: dict[str, str] = {}
        found = []
        for id in sorted(self._known):
            entry = self._known[id]
            if self.writers.follows(entry, reached):
                reached[entry.writer] = entry.stamp
                found.append(entry)
        self._reached = reached
        return found

    def _show(self, entry: Entry) -> list[Outcome]:
        touch(self.touched, entry.transactions, self.view)
        return [apply(self.view, transaction) for transaction in entry.transactions]

    def take_touched(self) -> Touched:
        """What may have changed since this was asked last."""
        with self.mutex:
            touched, self.touched = self.touched or {}, {}
            return touched

    def touch_expired(self, since: int, now: int) -> None:
        """What expired between these moments has changed."""
        with self.mutex:
            for name, held in self.view.names.items() if self.touched is not None else ():
                assert self.touched is not None
                gone = {key for key, at in held.key_expires.items() if since < at <= now}
                if since < held.expires <= now:
                    self.touched[name] = None
                elif gone and (keys := self.touched.setdefault(name, set())) is not None:
                    keys |= gone

    def take(self, transaction: Transaction) -> Outcome:
        """Show a transaction that is part of no entry. The mutex is held."""
        touch(self.touched, (transaction,), self.view)
        return apply(self.view, transaction)

    # -- what only the periodic discipline does

    def pend(self, transaction: Transaction) -> Outcome:
        """Show a transaction before it is part of an entry, if it has an effect. The mutex is held."""
        outcome = self.take(transaction)
        if outcome is Outcome.DONE:
            self.pending.append(transaction)
        return outcome

    def freeze(self, entry: Entry) -> None:
        """The first pending transactions are this entry."""
        with self.mutex:
            del self.pending[: len(entry.transactions)]
            self.frozen = entry
            self._shown.append(entry.id)
