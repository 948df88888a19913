"""What request headers ask to be kept with an object, and what they ask for that we must refuse.

One pass over the headers of a write does both. A header that promises something which is not built (locks, grants,
public access, another storage class, a redirect) is refused by its name before a byte is stored; it is never
accepted and then not honoured. Metadata with characters beyond ASCII goes the way S3 sends it: RFC 2047.
"""

import base64
import binascii
import quopri
import re

from ostraka.http import Headers
from ostraka.limits import Limits
from ostraka.objects.tiers import STANDARD
from ostraka.objects.types import Attributes
from ostraka.s3 import model
from ostraka.s3.errors import S3Error
from ostraka.s3.ops import tags
from ostraka.s3.ops.conditions import not_implemented

META = "x-amz-meta-"
KEPT = frozenset(
    ("cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires")
)
NOTHING = Attributes()
_SSE, _COPIED = "x-amz-server-side-encryption", "x-amz-copy-source-server-side-encryption"
_CUSTOMER = ("-customer-algorithm", "-customer-key", "-customer-key-md5")
ENCRYPTION = frozenset(  # headers that ops/encryption.py understands
    [_SSE, *(_SSE + w for w in ("-aws-kms-key-id", "-context", "-bucket-key-enabled", *_CUSTOMER))]
    + [_COPIED + word for word in _CUSTOMER]
)

_PRIVATE = frozenset(("private", "bucket-owner-full-control"))  # what the owner has anyway
_CANNED = model.ENUMS["ObjectCannedACL"] | model.ENUMS["BucketCannedACL"]
_REFUSED = frozenset(
    (
        "x-amz-website-redirect-location",
        "x-amz-write-offset-bytes",
        "x-amz-bucket-object-lock-enabled",
        "x-amz-object-annotation-directive",
        "x-amz-if-match-last-modified-time",
        "x-amz-if-match-size",
    )
)
_REFUSED_FAMILIES = (
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-object-lock-",
    "x-amz-grant-",
)
_ENCODED_WORD = re.compile(r"=\?([A-Za-z0-9_-]+)\?([BbQq])\?([^?\s]*)\?=(?:\s+(?==\?))?")


def refuse_unbuilt(headers: Headers, *, encryption: bool = False) -> None:
    """Raises NotImplemented for the first header that promises something which is not built. ``encryption``: headers of
    that are for whoever asks (ops/encryption.py)."""
    for name, value in headers:
        if name.startswith("x-amz-") and not (encryption and name in ENCRYPTION):
            _refuse(name, value)


def _refuse(name: str, value: str) -> None:
    if name == "x-amz-acl":
        if value in _PRIVATE:
            return
        if value not in _CANNED:
            raise S3Error("InvalidArgument", None, fields={"ArgumentName": name, "ArgumentValue": value})
        raise not_implemented(name, f"{value}; only private is")
    if name == "x-amz-storage-class":
        if value in model.ENUMS["StorageClass"]:
            return  # the store says whether it has it
        raise S3Error("InvalidStorageClass", fields={"StorageClassRequested": value})
    if name == "x-amz-bucket-object-lock-enabled" and value.lower() == "false":
        return
    if name == "x-amz-object-ownership":
        if value == "BucketOwnerEnforced":
            return
        if value in model.ENUMS["ObjectOwnership"]:
            raise not_implemented(name, f"{value}; only BucketOwnerEnforced is")
        raise S3Error("InvalidArgument", None, fields={"ArgumentName": name, "ArgumentValue": value})
    if name in _REFUSED or name.startswith(_REFUSED_FAMILIES):
        raise not_implemented(name)


def attributes_of(headers: Headers, limits: Limits) -> Attributes:
    """Standard headers, user metadata and tags of a write, after refusing what is not built."""
    kept: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tag_set: dict[str, str] = {}
    storage_class = STANDARD
    for name, value in headers:
        if name.startswith("x-amz-"):
            if name.startswith(META):
                word = name[len(META) :]
                text = decode_metadata(value)
                metadata[word] = f"{metadata[word]},{text}" if word in metadata else text
            elif name == "x-amz-tagging":
                tag_set = tags.from_header(value, limits.tags_per_object_max)
            elif name not in ENCRYPTION:
                _refuse(name, value)
                if name == "x-amz-storage-class":
                    storage_class = value
        elif name in KEPT and value and name not in kept:
            kept[name] = as_text(value)
    encoding = kept.get("content-encoding")
    if encoding is not None and "aws-chunked" in encoding:
        rest = [e for e in (p.strip() for p in encoding.split(",")) if e and e.lower() != "aws-chunked"]
        if rest:
            kept["content-encoding"] = ",".join(rest)
        else:
            del kept["content-encoding"]
    if metadata:
        check_metadata(metadata, limits)
    if not (kept or metadata or tag_set) and storage_class == STANDARD:
        return NOTHING
    return Attributes(kept, metadata, tag_set, storage_class)


def check_metadata(metadata: dict[str, str], limits: Limits) -> None:
    """Raises MetadataTooLarge: names (without their prefix) and values count in UTF-8."""
    size = sum(len(k.encode()) + len(v.encode()) for k, v in metadata.items())
    if size > limits.metadata_bytes_max:
        fields = {"Size": str(size), "MaxSizeAllowed": str(limits.metadata_bytes_max)}
        raise S3Error("MetadataTooLarge", fields=fields)


def as_text(value: str) -> str:
    """A header's value as storable text: bytes that were not UTF-8 are read as Latin-1."""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value


def decode_metadata(value: str) -> str:
    """A metadata value as it is kept: RFC 2047 words that hold more than ASCII are decoded, the rest is verbatim."""
    if "=?" not in value:
        return as_text(value)
    try:
        text = _ENCODED_WORD.sub(_decoded_word, value)
    except (ValueError, LookupError, binascii.Error):
        return as_text(value)
    return value if text.isascii() else as_text(text)


def _decoded_word(match: re.Match[str]) -> str:
    charset, form, text = match.groups()
    if form in "Bb":
        return base64.b64decode(text, validate=True).decode(charset)
    return quopri.decodestring(text.encode("ascii"), header=True).decode(charset)


def encode_metadata(value: str) -> str:
    """A metadata value as a header: ASCII as it is, all else as one RFC 2047 word."""
    if value.isascii() and value.isprintable():
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="
