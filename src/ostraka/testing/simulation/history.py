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
_CONFIGURATIONS_MAX = 20_000


class Version(NamedTuple):
    """One version of a key. ``etag`` "": a delete marker. ``id`` "": it was written, and its id never told."""

    id: str
    etag: str


State = tuple[Version, ...]  # newest first
Step = Callable[[State], State | None]  # the state after it; None: it cannot have happened from here


# -- steps


def put(versioning: str, etag: str, version_id: str = "") -> Step:
    """A new newest version; "" as etag: a delete in a bucket with versioning."""

    def step(state: State) -> State:
        if versioning == "Enabled":
            return (Version(version_id, etag), *state)
        others = [version for version in state if version.id != NULL] if versioning else []
        return (Version(NULL, etag), *others)

    return step


def delete(versioning: str, version_id: str = "") -> Step:
    return put(versioning, "", version_id) if versioning else lambda state: ()


def delete_version(version_id: str) -> Step:
    return lambda state: tuple(version for version in state if version.id != version_id)


def current(state: State) -> str | None:
    """The etag that a GET answers with, or None."""
    return state[0].etag or None if state else None


def sees(etag: str | None) -> Step:
    """A read of the newest version: its etag, or None where there was nothing."""
    return lambda state: state if current(state) == etag else None


def sees_version(version_id: str, etag: str | None) -> Step:
    """A read of one version by its id. Versions whose id was never told cannot be asked for."""

    def step(state: State) -> State | None:
        found = [version.etag or None for version in state if version.id == version_id]
        return state if (found[0] if found else None) == etag else None

    return step


def sees_all(versions: State) -> Step:
    """A listing of all versions; those whose id was not known are named from now on."""

    def step(state: State) -> State | None:
        if len(state) != len(versions):
            return None
        for here, listed in zip(state, versions, strict=True):
            if here.etag != listed.etag or here.id not in ("", listed.id):
                return None
        return versions

    return step


def when(condition: Step, then: Step) -> Step:
    """``then``, from a state that fits the condition."""

    def step(state: State) -> State | None:
        return None if condition(state) is None else then(state)

    return step


def exists(state: State) -> State | None:
    return state if current(state) is not None else None


def differs(etag: str) -> Step:
    """There is an object, with another etag."""
    return lambda state: state if current(state) not in (None, etag) else None


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
            self._check(f"{bucket}/{name}", key)

    def _check(self, name: str, key: Key) -> None:
        operations = [o for o in key.operations if o.happened]
        events: list[tuple[int, Operation | None]] = [(o.began, o) for o in operations]
        events += [(o.ended, o) for o in operations if o.ended is not None]
        events += [(moment, None) for moment in self.recoveries]
        events.sort(key=lambda event: event[0])
        possible: set[tuple[State, frozenset[int]]] = {((), frozenset())}
        pending: dict[int, Operation] = {}
        for moment, operation in events:
            if operation is None:
                possible = {(state, frozenset()) for state, _ in _closed(possible, pending)}
                pending.clear()
            elif moment == operation.began:
                pending[operation.began] = operation
            else:
                own = operation.began
                reached = _closed(possible, pending)
                possible = {(state, done - {own}) for state, done in reached if own in done}
                pending.pop(own, None)
                if not possible:
                    raise Impossible(_told(name, key, operation, {state for state, _ in reached}))


def _closed(
    possible: Iterable[tuple[State, frozenset[int]]], pending: dict[int, Operation]
) -> set[tuple[State, frozenset[int]]]:
    """All configurations that are reached when any of the open operations take effect, in any order."""
    reached = set(possible)
    waiting = list(reached)
    while waiting:
        state, done = waiting.pop()
        for number, operation in pending.items():
            if number in done:
                continue
            after = operation.step(state)
            if after is None:
                continue
            found = (after, done | {number})
            if found not in reached:
                reached.add(found)
                waiting.append(found)
                if len(reached) > _CONFIGURATIONS_MAX:
                    raise RuntimeError("too many operations are open at once to be checked")
    return reached


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
