"""Typed access to the facts of the S3 service model (_model.py): operations, shapes, enumerations.

Structures are read from their compact notation when first asked for, so that a worker that never sees a lifecycle
configuration never holds one. It knows nothing of HTTP, XML or what we have built.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from ostraka.s3 import _model

Scope = Literal["service", "bucket", "key", "other"]

RESPONSE_ALGORITHMS: tuple[str, ...] = _model.RESPONSE_ALGORITHMS
ENUMS: dict[str, frozenset[str]] = {name: frozenset(values.split()) for name, values in _model.ENUMS.items()}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. ``markers`` are the sub-resource names of its URI, ``needs`` its required query members."""

    name: str
    method: str
    scope: str
    markers: tuple[str, ...]
    needs: tuple[str, ...]
    header: str  # a header that selects it ("x-amz-copy-source"), or ""
    status: int  # of its success
    input: str  # structure names, "" where there is none
    output: str
    errors: tuple[str, ...]
    algorithm_member: str  # the input member that names the request's checksum algorithm
    checksum_required: bool  # a request without Content-MD5 or a checksum is refused
    deprecated: bool


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a structure.

    ``location`` is "" (XML body), h header, H header prefix, q query, u path or s status.
    """

    name: str
    type: str
    location: str
    wire: str  # its name on the wire: header (lower case), query parameter, element or attribute
    required: bool
    flattened: bool
    attribute: bool
    streaming: bool


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure; ``payload`` names the member that is the whole body, or is ""."""

    name: str
    payload: str
    prefix: str  # XML namespace of its own ("xsi"), or ""
    uri: str
    wire: str  # element name where the member gives none, or ""
    members: tuple[Member, ...]

    def member(self, name: str) -> Member:
        """The member of that name; KeyError if there is none."""
        for m in self.members:
            if m.name == name:
                return m
        raise KeyError(f"{self.name}.{name}")


@dataclass(frozen=True, slots=True)
class List:
    """A list. ``item`` is its items' type, ``wire`` their element name when the list is not flattened."""

    item: str
    wire: str
    flattened: bool


def _operation(name: str) -> Operation:
    method, scope, markers, needs, header, status, given, output, errors, member, required, old = _model.OPERATIONS[
        name
    ]
    return Operation(
        name, method, scope, tuple(markers.split()), tuple(needs.split()), header, status, given, output,
        tuple(errors.split()), member, required, old,
    )  # fmt: skip


OPERATIONS: dict[str, Operation] = {name: _operation(name) for name in _model.OPERATIONS}
LISTS: dict[str, List] = {name: List(*row) for name, row in _model.LISTS.items()}
MAPS: dict[str, tuple[str, str]] = _model.MAPS


def _member(text: str) -> Member:
    body = text.rstrip("!*^~")
    flags = text[len(body) :]
    name, _, rest = body.partition("=")
    location, wire = "", name
    if "@" in rest:
        rest, _, place = rest.partition("@")
        location, _, wire = place.partition(":")
    elif "#" in rest:
        rest, _, wire = rest.partition("#")
    return Member(name, rest, location, wire, "!" in flags, "*" in flags, "^" in flags, "~" in flags)


@cache
def structure(name: str) -> Structure:
    """The structure of that name; KeyError if the model has none."""
    payload = prefix = uri = wire = ""
    members = []
    for word in _model.STRUCTS[name].split():
        if word.startswith("payload="):
            payload = word[8:]
        elif word.startswith("ns="):
            prefix, _, uri = word[3:].partition("=")
        elif word.startswith("name="):
            wire = word[5:]
        else:
            members.append(_member(word))
    return Structure(name, payload, prefix, uri, wire, tuple(members))


def is_structure(name: str) -> bool:
    return name in _model.STRUCTS


def body_of(shape: str) -> tuple[str, str] | None:
    """(type, element name) of the XML body of an input or output with a payload member; None without a body.

    An output without a payload member is itself the body: (its own name, "").
    """
    if not shape:
        return None
    struct = structure(shape)
    if struct.payload:
        m = struct.member(struct.payload)
        if m.streaming or m.type in ("blob", "string"):
            return None
        return m.type, m.wire
    return (shape, "") if any(not m.location for m in struct.members) else None
