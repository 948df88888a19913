"""What a server answers: its XML as a tree, and its errors as our kinds.

A server may be newer than we are, or another one: what is not known in a document is passed over. It is hostile all the
same: no DTD, bounded depth and size.
"""

from collections.abc import Mapping
from typing import NoReturn
from xml.parsers import expat

from ostraka import errors
from ostraka.client.types import bad_bucket_name, no_bucket, no_object, place
from ostraka.errors import OstrakaError

DEPTH_MAX = 16
DOCUMENT_BYTES_MAX = 16 << 20  # a page of a thousand keys of a kilobyte, percent-encoded, and room


class Element:
    """An element: its text, and its children in order."""

    __slots__ = ("children", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.children: list[Element] = []

    def all(self, name: str) -> "list[Element]":
        return [child for child in self.children if child.name == name]

    def get(self, name: str) -> str:
        """The text of the first child of that name; "" if there is none."""
        return next((child.text for child in self.children if child.name == name), "")


ROOTS = frozenset(
    (
        "CompleteMultipartUploadResult",
        "CopyObjectResult",
        "CopyPartResult",
        "DeleteResult",
        "Error",
        "GetObjectAttributesResponse",
        "InitiateMultipartUploadResult",
        "ListAllMyBucketsResult",
        "ListBucketResult",
        "ListMultipartUploadsResult",
        "ListVersionsResult",
    )
)


def parse(document: bytes) -> Element:
    """The root of a document. Raises Unavailable for what is none: whatever answered, it was no S3 server."""
    root = Element("")
    open_: list[Element] = [root]
    texts: list[list[str]] = [[]]

    def start(name: str, attributes: Mapping[str, str]) -> None:
        if len(open_) > DEPTH_MAX:
            refuse()
        element = Element(name.rpartition(":")[2])
        open_[-1].children.append(element)
        open_.append(element)
        texts.append([])

    def end(name: str) -> None:
        open_.pop().text = "".join(texts.pop())

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(document, True)
        if root.children[0].name not in ROOTS:
            refuse()
    except (expat.ExpatError, ValueError, LookupError) as e:
        raise errors.Unavailable(f"what answered is no S3 server: {e}", reason="answer") from None
    return root.children[0]


def refuse(*_: object) -> NoReturn:
    raise ValueError("not the XML of an S3 server")


_KINDS: dict[str, type[OstrakaError]] = {
    "BadDigest": errors.Truncated,
    "ConditionalRequestConflict": errors.Conflict,
    "EntityTooLarge": errors.TooLarge,
    "IncompleteBody": errors.Truncated,
    "InsufficientStorage": errors.Full,
    "NotImplemented": errors.NotSupported,
    "OperationAborted": errors.Conflict,
    "PreconditionFailed": errors.PreconditionFailed,
    "RequestTimeout": errors.Unavailable,
    "XAmzContentSHA256Mismatch": errors.Truncated,
}

_CREDENTIALS = "set OSTRAKA_ROOT_ACCESS_KEY and OSTRAKA_ROOT_SECRET_KEY, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def failure(status: int, code: str, message: str, bucket: str, key: str, version_id: str = "") -> OstrakaError:
    """The error that an answer is. ``code`` is S3's, or "" where the answer had no document."""
    what = place(bucket, key) if bucket else "the server"
    if code == "NoSuchBucket":
        return no_bucket(bucket)
    if code in ("NoSuchKey", "NoSuchVersion") or (status == 404 and not code):
        return no_object(bucket, key, version_id)
    if not code and status == 400 and version_id:  # an answer to HEAD has no words
        return no_object(bucket, key, version_id)
    if code == "InvalidBucketName":
        return bad_bucket_name(bucket)
    if code == "NoSuchUpload":
        return errors.Absent(f"the upload to {what} is gone: somebody completed or aborted it", reason="upload")
    if code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
        return errors.Exists(f"there is a bucket {bucket!r} already", reason="bucket")
    if code == "BucketNotEmpty":
        return errors.Exists(f"bucket {bucket!r} is not empty", reason="bucket-not-empty")
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        wrong = "access key" if code == "InvalidAccessKeyId" else "secret key"
        return errors.Forbidden(f"the server does not know this {wrong}: {_CREDENTIALS}", reason="credentials")
    if code == "RequestTimeTooSkewed":
        return errors.Forbidden("this machine's clock and the server's are too far apart: set them", reason="clock")
    if status == 403:
        doubt = "" if code else ", or are not known there"
        return errors.Forbidden(f"{what}: these credentials do not allow that{doubt}", reason="access")
    said = f"{code or status}{': ' + message if message else ''}"
    if code in _KINDS:
        return _KINDS[code](f"{what}: {said}", reason=code)
    if status >= 500:
        return errors.Unavailable(f"{what}: the server could not ({said}); its log says why", reason=code or "server")
    return errors.Invalid(f"{what}: {said}", reason=code or "answer")
