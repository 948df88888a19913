"""What a person writes of keys, values and changes in a metadata database, as its operations. Does no input or output.

A program names the types of its keys and values; here they are JSON in its canonical form.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ostraka.cli.output import printable
from ostraka.errors import Invalid
from ostraka.metadatadb import Kind
from ostraka.metadatadb import operations as o
from ostraka.metadatadb.handles import int64
from ostraka.metadatadb.operations import Op
from ostraka.metadatadb.values import Codec, KeyCodec

KEYED: Final = (Kind.MAP, Kind.INT_MAP, Kind.SET)

_VALUES: Codec[Any] = Codec()
_KEYS: KeyCodec[Any] = KeyCodec(Any)
_TAKES: Final = {Kind.MAP: "KEY and VALUE", Kind.INT_MAP: "KEY and NUMBER", Kind.SET: "MEMBER", Kind.INT: "NUMBER"}


def key(word: str, *, as_json: bool) -> str:
    """The canonical JSON text of a key or member."""
    if not as_json:
        return _KEYS.encode_key(word)
    try:
        return _KEYS.encode_key(_KEYS.decode_key(word))
    except Invalid as e:
        raise Invalid(
            f"the key {printable(word[:60])} is no JSON, or cannot be a key: {e.message}", reason="key"
        ) from None


def value(word: str, *, as_text: bool = False) -> Raw:
    """The canonical JSON of a value."""
    if as_text:
        return _VALUES.encode(word)
    try:
        found = msgspec.json.decode(word)
    except (msgspec.DecodeError, RecursionError) as e:
        way_out = "for text, give --text or write '\"...\"'"
        raise Invalid(f"{printable(word[:60])} is no JSON ({e}): {way_out}", reason="value") from None
    return _VALUES.encode(found)


@dataclass(frozen=True, slots=True)
class Change:
    """What a name of that kind is to become. ``value``: UNSET deletes the key, or without a key all of it.
    ``expected``: only if this is so before; UNSET: if there is nothing; None: whatever it is."""

    name: str
    kind: Kind
    key: str | None
    value: Raw | UnsetType
    expires: int = 0
    expected: Raw | UnsetType | None = None

    def operations(self) -> tuple[Op, ...]:
        """Invalid (reason "value", "ttl" or "expect") for what that kind cannot do."""
        change = self._delete() if self.value is UNSET else self._set(self.value)
        return (change,) if self.expected is None else (self._expect(self.expected), change)

    def _set(self, value: Raw) -> Op:
        key = self.key or ""
        match self.kind:
            case Kind.SCALAR:
                return o.ScalarSet(self.name, value, self.expires)
            case Kind.INT:
                return o.IntSet(self.name, self._integer(value), self.expires)
            case Kind.INT_MAP:
                return o.IntMapSet(self.name, key, self._integer(value), self.expires)
            case Kind.MAP:
                return o.MapSet(self.name, key, value, self.expires)
            case Kind.SET:
                return o.SetAdd(self.name, key, self.expires)
            case Kind.LIST:
                if self.expires:
                    raise Invalid(f"{self.name!r} is a list: its values have no time to live", reason="ttl")
                return o.ListAppend(self.name, value)

    def _delete(self) -> Op:
        if self.key is None:
            return o.Drop(self.name)
        match self.kind:
            case Kind.INT_MAP:
                return o.IntMapDelete(self.name, self.key)
            case Kind.SET:
                return o.SetRemove(self.name, self.key)
            case _:
                return o.MapDelete(self.name, self.key)

    def _expect(self, expected: Raw | UnsetType) -> Op:
        match self.kind, self.key:
            case Kind.SCALAR, _:
                return o.ScalarExpect(self.name, expected)
            case Kind.INT, _:  # what is absent counts as 0
                return o.IntExpect(self.name, 0 if expected is UNSET else self._integer(expected))
            case Kind.INT_MAP, str(key):
                return o.IntMapExpect(self.name, key, 0 if expected is UNSET else self._integer(expected))
            case Kind.MAP, str(key):
                return o.MapExpect(self.name, key, expected)
            case Kind.SET, str(key) if expected is UNSET:
                return o.SetExpect(self.name, key, present=False)
        raise Invalid(f"{self.name!r} is of kind {self.kind}: that cannot be expected of it", reason="expect")

    def _integer(self, value: Raw) -> int:
        return int64(msgspec.json.decode(value))


def taken(name: str, kind: Kind, words: tuple[str, ...], *, as_text: bool, json_key: bool) -> tuple[str | None, Raw]:
    """Key (or member) and value that these words stand for, of a name of that kind."""
    count = {Kind.MAP: 2, Kind.INT_MAP: 2}.get(kind, 1)
    if len(words) != count:
        raise Invalid(f"{name!r} is of kind {kind}: give it {_TAKES.get(kind, 'VALUE')}", reason="value")
    if kind is Kind.SET:
        return key(words[0], as_json=json_key), Raw(b"null")
    return (key(words[0], as_json=json_key) if kind in KEYED else None), value(words[-1], as_text=as_text)
