"""Keys and values between a program and the store: canonical JSON, of what JSON has, msgspec structs, dataclasses,
enums, dates, UUIDs, bytes and what else msgspec knows, and pydantic models (which are recognised, not imported).

Canonical: equal values have equal bytes, whatever the order in which their fields were written, so that a comparison
is one of bytes and a key is found by whoever spells it. What would not come back as it was is refused when it is
written, not discovered by the one who reads.
"""

import datetime
import decimal
import math
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from ostraka.errors import Invalid, TooLarge
from ostraka.limits import LIMITS, Limits

T = TypeVar("T")
K = TypeVar("K")

_PLAIN = (str, int, bool)  # come back as they were without being tried


def _to_json(value: Any) -> Any:
    if hasattr(type(value), "__get_pydantic_core_schema__"):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"values of type {type(value).__name__} have no JSON form")


def _from_json(kind: type[T], value: Any) -> T:
    if hasattr(kind, "__get_pydantic_core_schema__"):
        found: T = kind.model_validate(value)  # type: ignore[attr-defined]
        return found
    raise NotImplementedError(f"values of type {kind.__name__} have no JSON form")


_ENCODER = msgspec.json.Encoder(enc_hook=_to_json, order="sorted")


def type_name(kind: Any) -> str:
    """A type as people write it."""
    return kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)


class Codec(Generic[T]):
    """The values of one type. ``kind``: anything that msgspec can decode into; Any is what JSON itself has."""

    def __init__(self, kind: type[T] | Any = Any, limits: Limits = LIMITS) -> None:
        self.kind = kind
        self._limit = limits.metadatadb_value_bytes_max
        self._key_limit = limits.metadatadb_key_bytes_max
        self._plain = kind in _PLAIN
        try:
            self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind, dec_hook=_from_json)
        except TypeError as e:
            raise Invalid(f"values of type {type_name(kind)} cannot be kept: {e}", reason="type") from None

    def encode(self, value: T) -> Raw:
        """Canonical JSON. Invalid (reason "value") for what the type does not allow or JSON cannot give back."""
        text = self._text(value)
        if len(text) > self._limit:
            raise TooLarge(f"a value of {len(text)} bytes of JSON: at most {self._limit}", reason="value")
        if not (self._plain and type(value) is self.kind):
            self._try(value, text)
        return Raw(text)

    def decode(self, text: bytes) -> T:
        """The value. Invalid (reason "type") if what is stored is of another type."""
        try:
            return self._decoder.decode(text)
        except (ValueError, NotImplementedError, RecursionError) as e:
            raise Invalid(f"what is stored is no {type_name(self.kind)}: {e}", reason="type") from None

    def _text(self, value: T) -> bytes:
        try:
            try:
                return _ENCODER.encode(value)
            except TypeError:  # keys that are no text, which the encoder cannot sort
                return _ENCODER.encode(msgspec.to_builtins(value, str_keys=True, enc_hook=_to_json))
        except (TypeError, ValueError, NotImplementedError, RecursionError) as e:
            raise Invalid(f"{_short(value)} cannot be kept as JSON: {e}", reason="value") from None

    def _try(self, value: T, text: bytes) -> T:
        try:
            back = self._decoder.decode(text)
        except (ValueError, NotImplementedError, RecursionError) as e:
            raise Invalid(f"{_short(value)} is no {type_name(self.kind)}: {e}", reason="value") from None
        if self.kind is Any and back != value:
            raise Invalid(
                f"{_short(value)} would come back as {_short(back)}: name its type when the handle is made",
                reason="value",
            )
        if b"null" in text and not _finite(msgspec.to_builtins(value, enc_hook=_to_json)):
            raise Invalid(f"{_short(value)}: JSON has neither infinities nor NaN", reason="value")
        return back


class KeyCodec(Codec[K]):
    """The keys, or members of a set, of one hashable type."""

    def encode_key(self, key: K) -> str:
        """The canonical JSON text. Invalid (reason "key") for what is not hashable, of another type, or too long."""
        text = self._text(key) if self._plain and type(key) is self.kind else self._canonical(key)
        if len(text) > self._key_limit:
            raise TooLarge(f"a key of {len(text)} bytes of JSON: at most {self._key_limit}", reason="key")
        return text.decode()

    def decode_key(self, text: str) -> K:
        key: K = _hashable(self.decode(text.encode()))
        return key

    def _canonical(self, key: K) -> bytes:
        try:
            hash(key)
        except TypeError:
            raise Invalid(f"{_short(key)}: a key must be hashable", reason="key") from None
        normal = _normal(key)
        text = self._text(normal)
        back = _hashable(msgspec.json.decode(text) if self.kind is Any else self._try(normal, text))
        if back != normal:
            raise Invalid(f"the key {_short(key)} would come back as {_short(back)}", reason="key")
        return self._text(back)


def _normal(key: Any) -> Any:
    """One spelling of what Python holds for equal."""
    match key:
        case float():
            return key + 0.0  # -0.0 becomes 0.0
        case tuple() if type(key) is tuple:
            return tuple(map(_normal, key))
        case frozenset():
            return frozenset(map(_normal, key))
        case datetime.datetime() if key.tzinfo is not None:
            return key.astimezone(datetime.UTC)
        case decimal.Decimal():
            return key.normalize()
        case _:
            return key


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


def _finite(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_finite, value.values()))
        case list() | tuple() | set() | frozenset():
            return all(map(_finite, value))
        case _:
            return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
