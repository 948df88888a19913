"""Which operation a request is: decided by the service model, never by what we happened to build.

A sub-resource in the query (``?acl``) selects an operation of that sub-resource or none at all: a request with a
known marker never falls through to the plain operation on the same name, so that ``DELETE /b/k?acl`` cannot delete
the object. Unknown parameters are ignored, as AWS does.
"""

from collections.abc import Mapping
from typing import Protocol

from ostraka.s3.errors import S3Error
from ostraka.s3.model import OPERATIONS, Operation
from ostraka.s3.query import Query

POST_OBJECT = "PostObject"  # an HTML form upload: not an operation of the model
PREFLIGHT = "Preflight"

_METHODS = frozenset(("GET", "HEAD", "PUT", "POST", "DELETE"))
_SCOPES = ("service", "bucket", "key")


class Headers(Protocol):
    def get(self, name: str, /) -> str | None: ...


class _Table:
    """Operations of one (method, scope): the plain ones, and those that a word in the query selects."""

    def __init__(self, operations: list[Operation]) -> None:
        self.plain: dict[str, str] = {}  # selecting header or "" -> operation
        self.marked: dict[str, list[Operation]] = {}  # marker without its value -> operations
        self.needed: dict[str, list[Operation]] = {}  # required query member of unmarked operations
        for op in operations:
            if op.markers:
                self.marked.setdefault(op.markers[0].partition("=")[0], []).append(op)
            elif op.needs:
                for word in op.needs:
                    self.needed.setdefault(word, []).append(op)
            else:
                self.plain[op.header] = op.name
        for candidates in (*self.marked.values(), *self.needed.values()):
            candidates.sort(key=lambda op: (-len(op.needs), not op.header))


def _tables() -> dict[tuple[str, str], _Table]:
    chosen: dict[tuple[str, str], list[Operation]] = {(m, s): [] for m in _METHODS for s in _SCOPES}
    for op in OPERATIONS.values():
        if op.scope in _SCOPES and not op.deprecated and op.name != "ListDirectoryBuckets":
            chosen[op.method, op.scope].append(op)
    return {place: _Table(ops) for place, ops in chosen.items()}


_TABLES = _tables()
# Every sub-resource of the model with the scopes in which it exists. "list-type" only chooses between versions
# of one listing, so it is no sub-resource.
_MARKERS: dict[str, set[str]] = {}
for (_, _scope), _table in _TABLES.items():
    for _marker in _table.marked:
        if _marker != "list-type":
            _MARKERS.setdefault(_marker, set()).add(_scope)


def route(method: str, bucket: str | None, key: str | None, query: Query, headers: Headers) -> str:
    """The name of the operation of the model, or POST_OBJECT, or PREFLIGHT.

    Raises S3Error: MethodNotAllowed, InvalidArgument (two sub-resources at once), InvalidRequest or
    NoLoggingStatusForKey (a bucket's sub-resource on a key), PreconditionFailed (a POST that is no form).
    """
    if method == "OPTIONS":
        return PREFLIGHT
    scope = "service" if bucket is None else "bucket" if key is None else "key"
    table = _TABLES.get((method, scope))
    if table is None:
        raise _not_allowed(method, scope)
    if query:
        operation = _by_query(table, method, scope, query, headers)
        if operation is not None:
            return operation
    if "x-amz-copy-source" in table.plain and headers.get("x-amz-copy-source") is not None:
        return table.plain["x-amz-copy-source"]
    name = table.plain.get("")
    if name is not None:
        return name
    if method == "POST" and scope == "bucket":
        if (headers.get("content-type") or "").lower().startswith("multipart/form-data"):
            return POST_OBJECT
        condition = "Bucket POST must be of the enclosure-type multipart/form-data"
        raise S3Error("PreconditionFailed", fields={"Condition": condition})
    raise _not_allowed(method, scope)


def _by_query(table: _Table, method: str, scope: str, query: Query, headers: Headers) -> str | None:
    names = dict(query)
    found: list[str] = []
    for name in names:
        if name in _MARKERS and name not in found:
            found.append(name)
    if len(found) > 1 and scope != "service":
        both = ", ".join(sorted(found))
        fields = {"ArgumentName": "ResourceType", "ArgumentValue": found[0]}
        raise S3Error("InvalidArgument", f"Conflicting query string parameters: {both}", fields=fields)
    if found and scope != "service":
        candidates = table.marked.get(found[0])
        if candidates is None:
            raise _wrong_place(found[0], method, scope)
        return _best(candidates, names, headers)
    for name in names:
        for op in table.marked.get(name, ()):  # list-type=2
            if f"{name}={names[name]}" in op.markers:
                return op.name
    for name in names:
        if name in table.needed:
            return _best(table.needed[name], names, headers)
    return None


def _best(candidates: list[Operation], names: Mapping[str, str], headers: Headers) -> str:
    """The most specific operation whose selectors are all there; else the one that demands what is missing."""
    for op in candidates:
        if all(word in names for word in op.needs) and (not op.header or headers.get(op.header) is not None):
            return op.name
    fitting = [op for op in candidates if not op.header or headers.get(op.header) is not None]
    return fitting[0].name


def _not_allowed(method: str, scope: str, resource: str = "") -> S3Error:
    allowed = ", ".join(sorted(m for m, s in _TABLES if s == scope and (_TABLES[m, s].plain or m == "POST")))
    kind = resource or {"service": "SERVICE", "bucket": "BUCKET", "key": "OBJECT"}[scope]
    return S3Error(
        "MethodNotAllowed", fields={"Method": method, "ResourceType": kind.upper()}, headers={"allow": allowed}
    )


def _wrong_place(marker: str, method: str, scope: str) -> S3Error:
    if scope == "key" and scope not in _MARKERS[marker] and method in ("GET", "HEAD", "PUT"):
        if marker == "logging":
            return S3Error("NoLoggingStatusForKey")
        return S3Error("InvalidRequest", f"There is no such thing as the ?{marker} sub-resource for a key")
    return _not_allowed(method, scope, marker)
