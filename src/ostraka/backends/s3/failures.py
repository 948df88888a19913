"""What an answer of S3 that is no success means, by its status and its error code: never by its words."""

from typing import Final, NamedTuple

from ostraka.backends.remote.documents import parsed, text
from ostraka.backends.remote.wire import Answer
from ostraka.errors import (
    Absent,
    Conflict,
    Forbidden,
    Full,
    Invalid,
    NotSupported,
    OstrakaError,
    PreconditionFailed,
    TooLarge,
    Unavailable,
)


class _Meaning(NamedTuple):
    kind: type[OstrakaError]
    reason: str
    words: str = ""  # in place of the store's own


_CREDENTIALS = _Meaning(Forbidden, "credentials")
_ACCESS = _Meaning(Forbidden, "access")
_THROTTLED = _Meaning(Unavailable, "throttled")
_DAMAGED = _Meaning(Unavailable, "connection", "the bytes were damaged on their way")

_CODES: Final[dict[str, _Meaning]] = {
    "NoSuchKey": _Meaning(Absent, "path", "nothing is there"),
    "NoSuchVersion": _Meaning(Absent, "path", "that version is not there"),
    "NoSuchUpload": _Meaning(Absent, "upload", "the upload was ended by somebody else"),
    "NoSuchBucket": _Meaning(Invalid, "config", "the bucket does not exist"),
    "InvalidBucketName": _Meaning(Invalid, "config", "no bucket can have this name"),
    "PermanentRedirect": _Meaning(Invalid, "config", "the bucket is in another region, or behind another endpoint"),
    "AuthorizationHeaderMalformed": _Meaning(Invalid, "config"),  # the region is not the one that was signed for
    "KeyTooLongError": _Meaning(Invalid, "path"),
    "EntityTooLarge": _Meaning(TooLarge, "size"),
    "AccessDenied": _ACCESS,
    "AllAccessDisabled": _ACCESS,
    "AccountProblem": _ACCESS,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "ExpiredToken": _CREDENTIALS,
    "InvalidToken": _CREDENTIALS,
    "TokenRefreshRequired": _CREDENTIALS,
    "InvalidSecurity": _CREDENTIALS,
    "RequestTimeTooSkewed": _Meaning(Forbidden, "credentials", "this machine's clock and the store's differ too much"),
    "PreconditionFailed": _Meaning(PreconditionFailed, "changed", "it was changed"),
    "ConditionalRequestConflict": _Meaning(Conflict, "rival", "another write of it was under way"),
    "OperationAborted": _Meaning(Conflict, "rival", "another write of it was under way"),
    "InvalidRange": _Meaning(Invalid, "range"),
    "RequestTimeout": _Meaning(Unavailable, "timeout"),
    "SlowDown": _THROTTLED,
    "TooManyRequests": _THROTTLED,
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "RequestLimitExceeded": _THROTTLED,
    "BadDigest": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    "IncompleteBody": _DAMAGED,
    "InternalError": _Meaning(Unavailable, "service"),
    "NotImplemented": _Meaning(NotSupported, "service"),
    "InsufficientStorage": _Meaning(Full, "disk"),
    "QuotaExceeded": _Meaning(Full, "disk"),
}

_STATUSES: Final[dict[int, _Meaning]] = {
    301: _CODES["PermanentRedirect"],
    307: _CODES["PermanentRedirect"],
    308: _CODES["PermanentRedirect"],
    401: _CREDENTIALS,
    403: _ACCESS,
    404: _CODES["NoSuchKey"],
    408: _CODES["RequestTimeout"],
    409: _CODES["OperationAborted"],
    412: _CODES["PreconditionFailed"],
    413: _CODES["EntityTooLarge"],
    416: _CODES["InvalidRange"],
    429: _THROTTLED,
    501: _CODES["NotImplemented"],
    503: _THROTTLED,
    504: _CODES["RequestTimeout"],
    507: _CODES["InsufficientStorage"],
}


def failure(answer: Answer, what: str) -> OstrakaError:
    """The error; ``what`` it is about: a path, or the bucket's name."""
    code, words = told(answer)
    return named(code, words, what, answer.status)


def named(code: str, words: str, what: str, status: int = 500) -> OstrakaError:
    """The error of this code, or else of this status."""
    meaning = _CODES.get(code) or _STATUSES.get(status)
    if meaning is None:
        meaning = _Meaning(Unavailable, "service") if status >= 500 else _Meaning(Invalid, "request")
    told_so = f"{code or f'status {status}'}: {words}" if words else code or f"status {status}"
    return meaning.kind(f"{what}: {meaning.words or told_so}", reason=meaning.reason)


def told(answer: Answer) -> tuple[str, str]:
    """(code, message) of the error document; empty where there is none, as after HEAD."""
    if not answer.body:
        return "", ""
    try:
        root = parsed(answer.body)
    except Unavailable:
        return "", ""
    return text(root, "Code"), text(root, "Message")
