"""Operations: every change there is, as a closed sum of small frozen types. They say what; state.py says what follows.

Names are text. Keys and members are the canonical JSON text of what the program calls its key, values are canonical
JSON (values.py), integers are 64-bit and signed, moments are milliseconds since 1970 with 0 for never. What is absent
counts as 0, as empty, or as nothing to remove, so that no operation needs to know what was there.

An operation that *expects* changes nothing: the transaction that it is in takes effect only if every one of its
expectations holds before it. ``Expire`` and ``Drop`` are of every kind of name.
"""

import enum
import re
from typing import Annotated, ClassVar, get_args

import msgspec
from msgspec import UNSET, Raw, UnsetType

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
Moment = Count


class Kind(enum.StrEnum):
    """What a name holds; it holds nothing else until it is dropped."""

    SCALAR = "scalar"
    INT = "int"
    INT_MAP = "int-map"
    SET = "set"
    MAP = "map"
    LIST = "list"


def _tag(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


class Operation(msgspec.Struct, frozen=True, tag_field="op", tag=_tag, forbid_unknown_fields=True, omit_defaults=True):
    """One change of one name."""

    kind: ClassVar[Kind | None] = None  # of the name that it makes or needs; None: of whichever it has
    expects: ClassVar[bool] = False
    name: str


class ScalarSet(Operation, frozen=True):
    """The value is this. Last write wins."""

    kind = Kind.SCALAR
    value: Raw
    expires: Moment = 0


class ScalarDelete(Operation, frozen=True):
    """There is no value, and the name may hold another kind."""

    kind = Kind.SCALAR


class ScalarExpect(Operation, frozen=True):
    """The value is this, or there is none."""

    kind = Kind.SCALAR
    expects = True
    value: Raw | UnsetType = UNSET


class IntSet(Operation, frozen=True):
    kind = Kind.INT
    value: Int64
    expires: Moment = 0


class IntAdd(Operation, frozen=True):
    """Add; beyond 64 bits it wraps around, so that additions give the same sum in any order."""

    kind = Kind.INT
    delta: Int64


class IntMul(Operation, frozen=True):
    kind = Kind.INT
    factor: Int64


class IntDiv(Operation, frozen=True):
    """Divide, towards zero. A divisor of 0 changes nothing."""

    kind = Kind.INT
    divisor: Int64


class IntExpect(Operation, frozen=True):
    kind = Kind.INT
    expects = True
    value: Int64


class IntMapSet(Operation, frozen=True):
    kind = Kind.INT_MAP
    key: str
    value: Int64
    expires: Moment = 0


class IntMapAdd(Operation, frozen=True):
    kind = Kind.INT_MAP
    key: str
    delta: Int64


class IntMapMul(Operation, frozen=True):
    kind = Kind.INT_MAP
    key: str
    factor: Int64


class IntMapDiv(Operation, frozen=True):
    kind = Kind.INT_MAP
    key: str
    divisor: Int64


class IntMapDelete(Operation, frozen=True):
    kind = Kind.INT_MAP
    key: str


class IntMapExpect(Operation, frozen=True):
    kind = Kind.INT_MAP
    expects = True
    key: str
    value: Int64


class SetAdd(Operation, frozen=True):
    kind = Kind.SET
    member: str
    expires: Moment = 0


class SetRemove(Operation, frozen=True):
    kind = Kind.SET
    member: str


class SetExpect(Operation, frozen=True):
    """The member is in the set, or is not."""

    kind = Kind.SET
    expects = True
    member: str
    present: bool


class MapSet(Operation, frozen=True):
    """The value under the key is this. Last write of a key wins."""

    kind = Kind.MAP
    key: str
    value: Raw
    expires: Moment = 0


class MapDelete(Operation, frozen=True):
    kind = Kind.MAP
    key: str


class MapExpect(Operation, frozen=True):
    """The value under the key is this, or there is none."""

    kind = Kind.MAP
    expects = True
    key: str
    value: Raw | UnsetType = UNSET


class ListAppend(Operation, frozen=True):
    kind = Kind.LIST
    value: Raw


class ListTrim(Operation, frozen=True):
    """Keep the last so many values."""

    kind = Kind.LIST
    keep: Count


class Expire(Operation, frozen=True):
    """The name, or one key or member of it, is gone from that moment on; 0: it stays. Nothing happens to the absent."""

    expires: Moment
    key: str | None = None


class Drop(Operation, frozen=True):
    """The name holds nothing, and may hold another kind."""


class Clear(Operation, frozen=True):
    """No name holds anything."""

    name: str = ""


Op = (
    ScalarSet
    | ScalarDelete
    | ScalarExpect
    | IntSet
    | IntAdd
    | IntMul
    | IntDiv
    | IntExpect
    | IntMapSet
    | IntMapAdd
    | IntMapMul
    | IntMapDiv
    | IntMapDelete
    | IntMapExpect
    | SetAdd
    | SetRemove
    | SetExpect
    | MapSet
    | MapDelete
    | MapExpect
    | ListAppend
    | ListTrim
    | Expire
    | Drop
    | Clear
)

OPERATIONS: tuple[type[Operation], ...] = get_args(Op)


class Transaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Operations that take effect together or not at all. ``at``: the writer's clock, by which keys have expired."""

    at: Moment
    ops: tuple[Op, ...]

    @property
    def asks(self) -> bool:
        """Whether it must be settled before its writer goes on: it expects something, or clears everything."""
        for op in self.ops:  # noqa: SIM110 - every write asks this, and a generator takes longer
            if op.expects or type(op) is Clear:
                return True
        return False

    @property
    def size(self) -> int:
        """About how many bytes of JSON it is."""
        size = 0
        for op in self.ops:
            size += 64 + len(op.name) + len(key_of(op) or "")
            if isinstance(op, _WITH_VALUE):
                size += len(memoryview(op.value))
        return size


_WITH_VALUE = (ScalarSet, MapSet, ListAppend)


_KEY_FIELD = {o: f for o in OPERATIONS for f in o.__struct_fields__ if f in ("key", "member")}


def key_of(op: Op) -> str | None:
    """The key or member that it is about; None: the whole name."""
    field = _KEY_FIELD.get(type(op))
    return None if field is None else getattr(op, field)
