"""The XML that operations answer with, by the service model; and who is named in it."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ostraka.http import Response
from ostraka.s3.ops.call import Call, canonical_id
from ostraka.s3.xml import encode_output, url_encode

XML_TYPE = ("Content-Type", "application/xml")


def answer(call: Call, value: Mapping[str, Any], headers: Sequence[tuple[str, str]] = ()) -> Response:
    """200 with the operation's document; ``value`` has the model's members."""
    return Response(200, [XML_TYPE, *headers], encode_output(call.operation, value))


def document(body: bytes, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """200 with a document that is written already."""
    return Response(200, [XML_TYPE, *headers], body)


@functools.lru_cache(4096)
def names_of(account: str) -> tuple[str, str]:
    """(canonical id, display name) of an account."""
    return canonical_id(account), account


def owner(account: str) -> dict[str, str]:
    """An Owner or Initiator."""
    return {"ID": canonical_id(account), "DisplayName": account}


def checksums(values: Mapping[str, str], kind: str = "") -> dict[str, str]:
    """ChecksumCRC32 and its like, and their type."""
    members = {f"Checksum{a}": v for a, v in values.items()}
    if members and kind:
        members["ChecksumType"] = kind
    return members


def tag_set(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """The TagSet member."""
    return [{"Key": k, "Value": v} for k, v in tags.items()]


def owner_full_control(account: str) -> dict[str, Any]:
    """The access control list of everything: its owner may do all."""
    grantee = {"Type": "CanonicalUser", **owner(account)}
    return {"Owner": owner(account), "Grants": [{"Grantee": grantee, "Permission": "FULL_CONTROL"}]}


def written(text: str, encoding_type: str) -> str:
    """A key or prefix as encoding-type wants it."""
    return url_encode(text) if encoding_type else text


def quoted(etag: str) -> str:
    return f'"{etag}"'
