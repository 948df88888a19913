"""What both kinds of namespace, with asyncio and without, have in common: handles by name, batches, questions."""

import builtins
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Generic, TypeVar, overload

from ostraka.errors import Invalid, PreconditionFailed
from ostraka.metadatadb.handles import Handle, Int, IntMap, List, Map, Scalar, Set
from ostraka.metadatadb.operations import Kind, Op, Transaction
from ostraka.metadatadb.queries import Names, Question
from ostraka.metadatadb.replica import check_name
from ostraka.metadatadb.scope import Scope, Status
from ostraka.metadatadb.values import Codec, KeyCodec, type_name

N = TypeVar("N")
B = TypeVar("B")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
H = TypeVar("H", bound=Handle[Any, Any])


class Batch:
    """Operations that are gathered, for whom, and whether they still are."""

    def __init__(self, owner: "Naming[Any, Any]") -> None:
        self.owner = owner
        self.ops: builtins.list[Op] = []
        self.open = True


_batch: ContextVar[Batch | None] = ContextVar("metadatadb batch", default=None)


class Naming(Generic[N, B]):
    """A namespace's names. A handle is made, or retrieved, by its name; a name has one kind, and one type."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._handles: dict[str, Handle[N, B]] = {}

    @property
    def name(self) -> str:
        return self._scope.name

    # -- what the two kinds do differently

    def change(self, *ops: Op) -> N:
        """Apply operations, together: what handles do, and what a program may do without them."""
        raise NotImplementedError

    def ask(self, *ops: Op) -> B:
        """Apply operations if what they expect is so; whether it was. Answers when that is settled for all replicas."""
        raise NotImplementedError

    # -- questions, which never wait

    def query(self, query: Question[T]) -> T:
        return self._scope.query(query)

    def names(self, prefix: str = "") -> dict[str, Kind]:
        """All names that hold something, and what kind they are of."""
        return self._scope.query(Names(prefix))

    def status(self) -> Status:
        """How stale what is read is, what waits to become durable, and what went wrong last."""
        return self._scope.status()

    @property
    def staleness(self) -> float:
        """Seconds since the sync began that what is read has seen."""
        return self._scope.status().staleness

    def until(self, ttl: float | None) -> int:
        """Now and so many seconds, in milliseconds since 1970; 0 for None.

        Now is at least the latest moment that was seen: a replica whose clock is behind gives no time that is over.
        """
        if ttl is None:
            return 0
        if not 0 < ttl < 1e12:
            raise Invalid(f"a ttl of {ttl!r}: give seconds, more than 0, or None", reason="ttl")
        return max(self._scope.now(), self._scope.copy.view.time) + max(1, round(ttl * 1000))

    # -- handles

    @overload
    def scalar(self, name: str) -> Scalar[Any, N, B]: ...

    @overload
    def scalar(self, name: str, value: type[V]) -> Scalar[V, N, B]: ...

    @overload
    def scalar(self, name: str, value: Any) -> Scalar[Any, N, B]: ...

    def scalar(self, name: str, value: Any = Any) -> Scalar[Any, N, B]:
        """A single value of that type."""
        return self._handle(Scalar(self, name, Codec(value, self._scope.limits)))

    def int(self, name: str) -> Int[N, B]:
        """A 64-bit integer."""
        return self._handle(Int(self, name))

    @overload
    def int_map(self, name: str) -> IntMap[str, N, B]: ...

    @overload
    def int_map(self, name: str, key: type[K]) -> IntMap[K, N, B]: ...

    def int_map(self, name: str, key: Any = str) -> IntMap[Any, N, B]:
        """64-bit integers under keys of that type."""
        return self._handle(IntMap(self, name, KeyCodec(key, self._scope.limits)))

    @overload
    def set(self, name: str) -> Set[str, N, B]: ...

    @overload
    def set(self, name: str, member: type[K]) -> Set[K, N, B]: ...

    @overload
    def set(self, name: str, member: Any) -> Set[Any, N, B]: ...

    def set(self, name: str, member: Any = str) -> Set[Any, N, B]:
        """Members of that type."""
        return self._handle(Set(self, name, KeyCodec(member, self._scope.limits)))

    @overload
    def map(self, name: str) -> Map[str, Any, N, B]: ...

    @overload
    def map(self, name: str, key: type[K]) -> Map[K, Any, N, B]: ...

    @overload
    def map(self, name: str, key: type[K], value: type[V]) -> Map[K, V, N, B]: ...

    @overload
    def map(self, name: str, key: Any, value: Any) -> Map[Any, Any, N, B]: ...

    def map(self, name: str, key: Any = str, value: Any = Any) -> Map[Any, Any, N, B]:
        """Values under keys, of those types."""
        limits = self._scope.limits
        return self._handle(Map(self, name, KeyCodec(key, limits), Codec(value, limits)))

    @overload
    def list(self, name: str) -> List[Any, N, B]: ...

    @overload
    def list(self, name: str, value: type[V]) -> List[V, N, B]: ...

    @overload
    def list(self, name: str, value: Any) -> List[Any, N, B]: ...

    def list(self, name: str, value: Any = Any) -> List[Any, N, B]:
        """Values of that type, in order."""
        return self._handle(List(self, name, Codec(value, self._scope.limits)))

    def _handle(self, made: H) -> H:
        """The handle of that name: this one, or the one that was made before."""
        known = self._handles.get(made.name)
        if known is None:
            check_name(made.name, "a value", self._scope.limits)
            kind = self.names(made.name).get(made.name)
            if kind not in (None, made.kind):
                raise Invalid(f"{made.name!r} is of kind {kind}, not {made.kind}: choose another name", reason="kind")
            self._handles[made.name] = known = made
        if type(known) is not type(made):
            raise Invalid(f"{made.name!r} is in use as {known.kind}, not {made.kind}", reason="kind")
        if known.types != made.types:
            was, asked = (", ".join(map(type_name, h.types)) for h in (known, made))
            raise Invalid(f"{made.name!r} is in use with {was}, not {asked}", reason="type")
        return known

    # -- batches

    def transaction(self, ops: tuple[Op, ...]) -> Transaction:
        return Transaction(self._scope.now(), ops)

    def gathered(self, ops: tuple[Op, ...]) -> bool:
        """Whether a batch of this namespace is open here, and has taken them."""
        batch = _batch.get()
        if batch is None or not batch.open or batch.owner is not self:
            return False
        batch.ops.extend(ops)
        return True

    @contextlib.contextmanager
    def gathering(self) -> Iterator[builtins.list[Op]]:
        """Gather what this thread, or this task and those that it starts, change meanwhile."""
        outer = _batch.get()
        if outer is not None and outer.open:
            raise Invalid("a batch is open here already: end it first", reason="batch")
        batch = Batch(self)
        token = _batch.set(batch)
        try:
            yield batch.ops
        finally:
            batch.open = False
            _batch.reset(token)

    def unmet(self) -> PreconditionFailed:
        return PreconditionFailed(f"namespace {self.name!r}: what the batch expected is not so", reason="changed")
