"""Requests' XML to dictionaries, by the shapes of the service model.

The document is hostile: no DTD, no entities of its own, nothing deeper than the model's shapes, nothing the model does
not name, lists of bounded length. Elements may be in S3's namespace, another or none. Whatever is wrong with a document
is one answer, MalformedXML.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NamedTuple, NoReturn
from xml.parsers import expat

from ostraka.limits import LIMITS
from ostraka.s3.errors import S3Error
from ostraka.s3.model import ENUMS, LISTS, OPERATIONS, Member, is_structure, structure

ITEMS_MAX = LIMITS.part_count_max  # of one list: none is longer than that of Complete
_OPEN_ENUMS = {"BucketLocationConstraint"}  # any region is a region here

Convert = Callable[[str], Any]


class _Entry(NamedTuple):
    """What an element in a structure is."""

    member: str
    list: bool  # wrapped: its children are the items
    flattened: bool  # each such element is one item
    item: str  # element name of a wrapped list's items
    shape: str  # structure of the element or item, or ""
    convert: Convert | None  # of a scalar


class _Plan(NamedTuple):
    elements: dict[str, _Entry]
    attributes: dict[str, tuple[str, Convert]]
    required: frozenset[str]


def _integer(text: str) -> int:
    digits = text.strip()
    if len(digits) > 20 or not digits.removeprefix("-").isascii() or not digits.removeprefix("-").isdigit():
        raise ValueError(digits)
    return int(digits)


def _boolean(text: str) -> bool:
    value = text.strip().lower()
    if value in ("true", "1"):
        return True
    if value in ("false", "0"):
        return False
    raise ValueError(value)


def _timestamp(text: str) -> datetime:
    value = text.strip()
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        when = parsedate_to_datetime(value)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _enum(name: str) -> Convert:
    values = ENUMS[name]

    def convert(text: str) -> str:
        if text not in values:
            raise ValueError(text)
        return text

    return str if name in _OPEN_ENUMS else convert


def _scalar(kind: str) -> Convert:
    if kind in ENUMS:
        return _enum(kind)
    base = kind.partition(".")[0]
    scalars: dict[str, Convert] = {
        "string": str, "blob": str, "integer": _integer, "long": _integer, "boolean": _boolean, "timestamp": _timestamp,
    }  # fmt: skip
    return scalars[base]


def _entry(m: Member) -> _Entry:
    if m.type in LISTS:
        row = LISTS[m.type]
        shape = row.item if is_structure(row.item) else ""
        convert = None if shape else _scalar(row.item)
        flattened = m.flattened or row.flattened
        return _Entry(m.name, not flattened, flattened, row.wire or "member", shape, convert)
    shape = m.type if is_structure(m.type) else ""
    return _Entry(m.name, False, False, "", shape, None if shape else _scalar(m.type))


def _local(name: str) -> str:
    return name.rpartition(":")[2]


@cache
def _plan(shape: str) -> _Plan:
    elements, attributes, required = {}, {}, set()
    for m in structure(shape).members:
        if m.location:
            continue
        wire = m.wire
        if wire == m.name and is_structure(m.type) and structure(m.type).wire:
            wire = structure(m.type).wire
        if m.attribute:
            attributes[_local(wire)] = (m.name, _scalar(m.type))
        elif m.type in LISTS and m.wire == m.name and (m.flattened or LISTS[m.type].flattened) and LISTS[m.type].wire:
            elements[LISTS[m.type].wire] = _entry(m)
        else:
            elements[wire] = _entry(m)
        if m.required:
            required.add(m.name)
    return _Plan(elements, attributes, frozenset(required))


class _Reader:
    """Expat's handlers over a stack: what is open is a structure, a wrapped list or a scalar."""

    def __init__(self, shape: str, root: str, items_max: int) -> None:
        self.value: dict[str, Any] = {}
        self._shape = shape
        self._root = root
        self._items_max = items_max
        self._stack: list[tuple[Any, _Plan | _Entry | None]] = []
        self._text: list[str] | None = None  # of the open scalar
        self._store: tuple[Any, _Entry] | None = None  # where the open scalar goes

    def start(self, name: str, attributes: dict[str, str]) -> None:
        local = _local(name)
        if self._text is not None:
            _refuse()
        if not self._stack:
            if local != self._root:
                _refuse()
            self._open(self.value, self._shape, attributes)
            return
        target, what = self._stack[-1]
        if isinstance(what, _Plan):
            entry = what.elements.get(local)
            if entry is None:
                _refuse()
            if entry.list:
                if entry.member in target:
                    _refuse()
                items: list[Any] = []
                target[entry.member] = items
                self._stack.append((items, entry))
                return
            if entry.flattened:
                target = target.setdefault(entry.member, [])
            elif entry.member in target:
                _refuse()
        elif isinstance(what, _Entry) and local in (what.item, "member"):
            entry = what
        else:
            _refuse()
        if isinstance(target, list) and len(target) >= self._items_max:
            _refuse()
        self._begin(target, entry, attributes)

    def _begin(self, target: Any, entry: _Entry, attributes: dict[str, str]) -> None:
        if not entry.shape:
            self._text = []
            self._store = (target, entry)
            if isinstance(target, dict):
                target[entry.member] = None  # taken: a second such element is refused
            return
        child: dict[str, Any] = {}
        if isinstance(target, list):
            target.append(child)
        else:
            target[entry.member] = child
        self._open(child, entry.shape, attributes)

    def _open(self, target: dict[str, Any], shape: str, attributes: dict[str, str]) -> None:
        plan = _plan(shape)
        if attributes and plan.attributes:
            for name, text in attributes.items():
                known = plan.attributes.get(_local(name))
                if known is not None:
                    target[known[0]] = known[1](text)
        self._stack.append((target, plan))

    def end(self, _name: str) -> None:
        if self._text is not None and self._store is not None:
            target, entry = self._store
            value = entry.convert("".join(self._text)) if entry.convert else None
            if isinstance(target, list):
                target.append(value)
            else:
                target[entry.member] = value
            self._text = self._store = None
            return
        target, what = self._stack.pop()
        if isinstance(what, _Plan) and not what.required <= target.keys():
            _refuse()

    def data(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)
        elif text.strip():
            _refuse()


def _refuse(*_: object) -> NoReturn:
    raise ValueError("not what the model says")


def decode(
    shape: str, data: bytes, *, root: str, items_max: int = ITEMS_MAX, code: str = "MalformedXML"
) -> dict[str, Any]:
    """The structure in ``data``, whose root element is ``root``; keys are the model's member names.

    Lists are lists, scalars str, int, bool or (UTC) datetime. Members that are absent are absent. Raises S3Error
    ``code`` for anything else than such a document.
    """
    reader = _Reader(shape, root, items_max)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.data
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, TypeError, OverflowError, LookupError):
        raise S3Error(code) from None
    return reader.value


def decode_payload(operation: str, data: bytes, *, items_max: int = ITEMS_MAX) -> dict[str, Any] | None:
    """The XML payload of an operation's request; None for an empty body where the model does not require one.

    Raises S3Error MissingRequestBodyError, MalformedXML, or MalformedACLError for an ACL.
    """
    given = structure(OPERATIONS[operation].input)
    member = given.member(given.payload)
    if not data:
        if member.required:
            raise S3Error("MissingRequestBodyError")
        return None
    code = "MalformedACLError" if member.type == "AccessControlPolicy" else "MalformedXML"
    return decode(member.type, data, root=member.wire, items_max=items_max, code=code)
