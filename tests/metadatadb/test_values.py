"""Keys and values come back as they were, or are refused when they are written."""

import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostraka.errors import Invalid, TooLarge
from ostraka.metadatadb.values import Codec, KeyCodec


class Owner(msgspec.Struct, frozen=True):
    name: str
    age: int = 0


class Turned(msgspec.Struct, frozen=True):
    """The same fields in another order, as a newer version of a program may have them."""

    age: int
    name: str


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: float


class Model(pydantic.BaseModel):
    at: datetime.datetime
    tags: list[str] = []


class At(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)

    at: datetime.datetime


class Colour(enum.Enum):
    RED = "red"


NOW = datetime.datetime(2026, 11, 21, 15, 4, 5, 678, datetime.UTC)

KEYS: list[tuple[Any, Any, str]] = [
    (str, "ä/\u2028", '"ä/\u2028"'),
    (int, -5, "-5"),
    (int, 1 << 70, "1180591620717411303424"),
    (bool, True, "true"),
    (float, 1, "1.0"),
    (float, -0.0, "0.0"),
    (bytes, b"\xff\x00", '"/wA="'),
    (uuid.UUID, uuid.UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
    (Colour, Colour.RED, '"red"'),
    (
        datetime.datetime,
        NOW.astimezone(datetime.timezone(datetime.timedelta(hours=3))),
        '"2026-11-21T15:04:05.000678Z"',
    ),
    (decimal.Decimal, decimal.Decimal("1.500"), '"1.5"'),
    (tuple[int, str], (1, "a"), '[1,"a"]'),
    (frozenset[int], frozenset([3, 1, 2]), "[1,2,3]"),
    (Owner, Owner("ann", 3), '{"age":3,"name":"ann"}'),
    (Turned, Turned(3, "ann"), '{"age":3,"name":"ann"}'),
    (Point, Point(1, 2.0), '{"x":1,"y":2.0}'),
    (At, At(at=NOW), '{"at":"2026-11-21T15:04:05.000678Z"}'),
    (int | None, None, "null"),
    (Any, ("a", (1, 2.5)), '["a",[1,2.5]]'),
]


@pytest.mark.parametrize(("kind", "key", "text"), KEYS, ids=lambda p: str(p)[:40])
def test_a_key_has_one_spelling_and_comes_back(kind: Any, key: Any, text: str) -> None:
    codec = KeyCodec(kind)
    assert codec.encode_key(key) == text
    back = codec.decode_key(text)
    assert back == key
    assert isinstance(back, type(key)) or kind is float
    assert hash(back) == hash(key)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (int, True),
        (int, "1"),
        (str, 1),
        (str, "\ud800"),
        (float, float("nan")),
        (float, float("inf")),
        (Any, [1]),
        (Any, {"a": 1}),
        (Any, b"bytes"),
        (Any, Owner("ann")),
        (Any, object()),
        (tuple[int, ...], (1, "a")),
        (Owner, Point(1, 2.0)),
    ],
)
def test_a_key_that_would_not_come_back_is_refused(kind: Any, key: Any) -> None:
    with pytest.raises(Invalid):
        KeyCodec(kind).encode_key(key)


@settings(max_examples=30)
@given(st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.tuples(st.text(), st.integers())))
def test_any_key_of_json_comes_back(key: Any) -> None:
    codec: KeyCodec[Any] = KeyCodec(Any)
    try:
        text = codec.encode_key(key)
    except Invalid:
        assert any(0xD800 <= ord(c) < 0xE000 for c in str(key))
        return
    assert codec.decode_key(text) == key


VALUES: list[tuple[Any, Any, bytes]] = [
    (Any, {"b": [1, 2.5, None, "x"], "a": {}}, b'{"a":{},"b":[1,2.5,null,"x"]}'),
    (str, "x", b'"x"'),
    (int, (1 << 53) + 1, b"9007199254740993"),
    (dict[int, str], {10: "ten", 9: "nine"}, b'{"10":"ten","9":"nine"}'),
    (set[int], {2, 1}, b"[1,2]"),
    (list[Owner], [Owner("ann")], b'[{"age":0,"name":"ann"}]'),
    (Model, Model(at=NOW, tags=["x"]), b'{"at":"2026-11-21T15:04:05.000678Z","tags":["x"]}'),
    (list[Model], [Model(at=NOW)], b'[{"at":"2026-11-21T15:04:05.000678Z","tags":[]}]'),
    (str | None, None, b"null"),
    (bytes, b"\x00", b'"AA=="'),
]


@pytest.mark.parametrize(("kind", "value", "text"), VALUES, ids=lambda p: str(p)[:40])
def test_a_value_has_one_spelling_and_comes_back(kind: Any, value: Any, text: bytes) -> None:
    codec = Codec(kind)
    assert bytes(codec.encode(value)) == text
    assert codec.decode(text) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Any, float("nan")),
        (Any, {"a": float("inf")}),
        (float | None, float("nan")),
        (list[float | None], [float("-inf")]),
        (Any, {1: 2}),
        (Any, (1, 2)),
        (Any, Owner("ann")),
        (Any, Model(at=NOW)),
        (Owner, {"age": 3}),
        (Owner, Owner(name=5)),  # type: ignore[arg-type]
        (int, "1"),
        (str, None),
        (Any, "\ud800"),
    ],
)
def test_a_value_that_would_not_come_back_is_refused(kind: Any, value: Any) -> None:
    with pytest.raises(Invalid) as refused:
        Codec(kind).encode(value)
    assert refused.value.reason == "value"


def test_what_cannot_be_decoded_is_refused_with_the_handle() -> None:
    class Opaque:
        pass

    for kind in (Owner | Turned, list[int] | set[str]):
        with pytest.raises(Invalid):
            Codec(kind)
    with pytest.raises(Invalid):
        Codec(Opaque).encode(Opaque())


def test_what_is_stored_as_another_type_is_told_to_the_reader() -> None:
    for text in (b'"x"', b'{"name":"ann","age":"old"}', b"\xff", b"[" * 5000):
        with pytest.raises(Invalid) as refused:
            Codec(Owner).decode(text)
        assert refused.value.reason == "type"
    with pytest.raises(Invalid):
        Codec(Model).decode(b'{"at":"never"}')


def test_sizes_are_bounded() -> None:
    with pytest.raises(TooLarge):
        Codec(str).encode("x" * (1 << 20))
    with pytest.raises(TooLarge):
        KeyCodec(str).encode_key("x" * 4095)
    assert KeyCodec(str).encode_key("x" * 4094)
