"""What clients did and saw of one key, and whether any order of it can be true.

Each key is a small state machine: its versions, newest first. An operation is a step that may be taken from some states
and not from others; what was answered decides that (a GET that answered with an etag fits only a state whose newest
version has it). An operation takes effect once, between its call and its answer. One that was never answered takes
effect at some moment after its call, or never; at the latest before the store has been recovered (`History.recovered`).

`History.check` keeps every state that is possible so far, each with the open operations that took effect already. When
an answer leaves none, no order explains what was seen: an acknowledged write was lost, came back, or was mixed up.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

NULL = "null"
_CONFIGURATIONS_MAX = 5_000


class Version(NamedTuple):
    """One version of a key. ``etag`` "": a delete marker. ``id`` "": it was written, and its id never told."""

    id: str
    etag: str


State = tuple[Version, ...]  # newest first


class Step(NamedTuple):
    """What an operation does. ``take``: the state after it; None: it cannot have happened from here."""

    take: Callable[[State], State | None]
    changes: bool = True  # False: it only looks


# -- steps


def put(versioning: str, etag: str, version_id: str = "") -> Step:
    """A new newest version; "" as etag: a delete in a bucket with versioning."""

    def take(state: State) -> State:
        if versioning == "Enabled":
            return (Version(version_id, etag), *state)
        others = [version for version in state if version.id != NULL] if versioning else []
        return (Version(NULL, etag), *others)

    return Step(take)


def delete(versioning: str, version_id: str = "") -> Step:
    return put(versioning, "", version_id) if versioning else Step(lambda state: ())


def delete_version(version_id: str) -> Step:
    return Step(lambda state: tuple(version for version in state if version.id != version_id))


def current(state: State) -> str | None:
    """The etag that a GET answers with, or None."""
    return state[0].etag or None if state else None


def _looks(fits: Callable[[State], bool]) -> Step:
    return Step(lambda state: state if fits(state) else None, changes=False)


def sees(etag: str | None) -> Step:
    """A read of the newest version: its etag, or None where there was nothing."""
    return _looks(lambda state: current(state) == etag)


def sees_all(versions: State) -> Step:
    """A listing of all versions; those whose id was not known are named from now on."""

    def take(state: State) -> State | None:
        if len(state) != len(versions):
            return None
        for here, listed in zip(state, versions, strict=True):
            if here.etag != listed.etag or here.id not in ("", listed.id):
                return None
        return versions

    return Step(take)


def when(condition: Step, then: Step) -> Step:
    """``then``, from a state that fits the condition."""
    return Step(lambda state: None if condition.take(state) is None else then.take(state), then.changes)


exists = _looks(lambda state: current(state) is not None)


def differs(etag: str) -> Step:
    """There is an object, with another etag."""
    return _looks(lambda state: current(state) not in (None, etag))


# -- histories


@dataclass(slots=True, eq=False)
class Operation:
    """One call. ``began`` and ``ended`` count events, not seconds; ``ended`` None: it was never answered."""

    what: str
    step: Step
    began: int
    ended: int | None = None
    happened: bool = True  # False: it certainly had no effect
    who: str = ""


@dataclass(slots=True)
class Key:
    operations: list[Operation] = field(default_factory=list)


class Impossible(Exception):
    """No order explains what was seen of a key."""


class History:
    """Everything that clients did, key by key."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], Key] = {}
        self.events = 0
        self.recoveries: list[int] = []
        self.answered = 0
        self.unchecked = 0  # keys of which too many operations were open at once

    def _event(self) -> int:
        self.events += 1
        return self.events

    def begin(self, bucket: str, key: str, what: str, step: Step, who: str = "") -> Operation:
        """A call begins. ``step`` is what it will have done if it is never answered."""
        operation = Operation(what, step, self._event(), who=who)
        self.keys.setdefault((bucket, key), Key()).operations.append(operation)
        return operation

    def end(self, operation: Operation, step: Step | None = None) -> None:
        """It was answered: ``step`` is what the answer says was done."""
        operation.ended = self._event()
        self.answered += 1
        if step is not None:
            operation.step = step

    def refused(self, operation: Operation) -> None:
        """It was answered with an error that says that nothing was done."""
        operation.happened = False

    def recovered(self) -> None:
        """The store was recovered, alone: what was open before has happened, or never will."""
        self.recoveries.append(self._event())

    def check(self) -> None:
        """Raises Impossible."""
        for (bucket, name), key in sorted(self.keys.items()):
            try:
                self._check(f"{bucket}/{name}", key)
            except _TooMany:
                self.unchecked += 1

    def _check(self, name: str, key: Key) -> None:
        operations = [o for o in key.operations if o.happened]
        events: list[tuple[int, Operation | None]] = [(o.began, o) for o in operations]
        events += [(o.ended, o) for o in operations if o.ended is not None]
        events += [(moment, None) for moment in self.recoveries]
        events.sort(key=lambda event: event[0])
        possible = {_Configuration((), frozenset(), frozenset())}
        pending: dict[int, Operation] = {}
        for moment, operation in events:
            if operation is None:
                answered = frozenset(n for n, o in pending.items() if o.ended is not None)
                reached = _closed(possible, pending)
                possible = {_Configuration(c.state, c.done & answered, frozenset()) for c in reached}
                pending = {n: o for n, o in pending.items() if n in answered}
            elif moment == operation.began:
                pending[moment] = operation
            else:
                own = operation.began
                reached = _closed(possible, pending)
                possible = {c._replace(done=c.done - {own}) for c in reached if own in c.done}
                del pending[own]
                if not possible:
                    raise Impossible(_told(name, key, operation, {c.state for c in reached}))


class _TooMany(Exception):
    """So many operations are open at once that not every order of them can be tried."""


class _Configuration(NamedTuple):
    """A state that is possible, and which of the open operations have taken effect: answered later, or never."""

    state: State
    done: frozenset[int]
    done_unanswered: frozenset[int]


def _closed(possible: Iterable[_Configuration], pending: dict[int, Operation]) -> set[_Configuration]:
    """All configurations that are reached when any of the open operations take effect, in any order.

    Who only looks has looked as soon as it could: that rules nothing out. And of two configurations that differ only in
    operations that are never answered, the one that used up fewer of them allows all that the other does.
    """
    looks = [(number, o.step.take) for number, o in pending.items() if not o.step.changes]
    changes = [(number, o.step.take, o.ended is not None) for number, o in pending.items() if o.step.changes]
    least: dict[tuple[State, frozenset[int]], list[frozenset[int]]] = {}
    waiting: list[_Configuration] = []

    def reach(state: State, done: frozenset[int], unanswered: frozenset[int]) -> None:
        seen = [number for number, take in looks if number not in done and take(state) is not None]
        if seen:
            done = done.union(seen)
        known = least.setdefault((state, done), [])
        if any(other <= unanswered for other in known):
            return
        known[:] = [other for other in known if not unanswered <= other]
        known.append(unanswered)
        waiting.append(_Configuration(state, done, unanswered))
        if len(waiting) > _CONFIGURATIONS_MAX:
            raise _TooMany

    for configuration in possible:
        reach(*configuration)
    at = 0
    while at < len(waiting):
        state, done, unanswered = waiting[at]
        at += 1
        if unanswered not in least[state, done]:
            continue
        for number, take, answered in changes:
            if number in done or number in unanswered:
                continue
            after = take(state)
            if after is not None:
                own = frozenset((number,))
                reach(after, done | own if answered else done, unanswered if answered else unanswered | own)
    return {_Configuration(state, done, least_of) for (state, done), found in least.items() for least_of in found}


def _told(name: str, key: Key, last: Operation, states: set[State]) -> str:
    lines = [f"{name}: no order of these explains the answer to the last one"]
    for operation in key.operations:
        if operation.began > (last.ended or 0):
            break
        ended = "refused" if not operation.happened else "unanswered" if operation.ended is None else operation.ended
        mark = "  <<" if operation is last else ""
        lines.append(f"  {operation.began}..{ended} {operation.who} {operation.what}{mark}")
    lines.append(f"  states that were possible: {sorted(states)[:10]}")
    return "\n".join(lines)
