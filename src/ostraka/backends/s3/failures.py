"""S3's error codes, and where they stand in an answer."""

from typing import Final

from ostraka.backends.remote import failures
from ostraka.backends.remote.documents import parsed, text
from ostraka.backends.remote.failures import Meaning, error_of
from ostraka.backends.remote.wire import Answer
from ostraka.errors import Absent, Invalid, OstrakaError, Unavailable

_CODES: Final[dict[str, Meaning]] = {
    "NoSuchKey": failures.ABSENT,
    "NoSuchVersion": Meaning(Absent, "path", "that version is not there"),
    "NoSuchUpload": Meaning(Absent, "upload", "the upload was ended by somebody else"),
    "NoSuchBucket": Meaning(Invalid, "config", "the bucket does not exist"),
    "InvalidBucketName": Meaning(Invalid, "config", "no bucket can have this name"),
    "PermanentRedirect": Meaning(Invalid, "config", "the bucket is in another region, or behind another endpoint"),
    "AuthorizationHeaderMalformed": failures.CONFIG,  # the region is not the one that was signed for
    "KeyTooLongError": failures.PATH,
    "EntityTooLarge": failures.TOO_LARGE,
    "AccessDenied": failures.ACCESS,
    "AllAccessDisabled": failures.ACCESS,
    "AccountProblem": failures.ACCESS,
    "InvalidAccessKeyId": failures.CREDENTIALS,
    "SignatureDoesNotMatch": failures.CREDENTIALS,
    "ExpiredToken": failures.CREDENTIALS,
    "InvalidToken": failures.CREDENTIALS,
    "TokenRefreshRequired": failures.CREDENTIALS,
    "InvalidSecurity": failures.CREDENTIALS,
    "RequestTimeTooSkewed": failures.CLOCK,
    "PreconditionFailed": failures.CHANGED,
    "ConditionalRequestConflict": failures.RIVAL,
    "OperationAborted": failures.RIVAL,
    "InvalidRange": failures.RANGE,
    "RequestTimeout": failures.TIMEOUT,
    "SlowDown": failures.THROTTLED,
    "TooManyRequests": failures.THROTTLED,
    "Throttling": failures.THROTTLED,
    "ThrottlingException": failures.THROTTLED,
    "RequestLimitExceeded": failures.THROTTLED,
    "BadDigest": failures.DAMAGED,
    "XAmzContentSHA256Mismatch": failures.DAMAGED,
    "IncompleteBody": failures.DAMAGED,
    "InternalError": failures.SERVICE,
    "NotImplemented": failures.NOT_BUILT,
    "InsufficientStorage": failures.FULL,
    "QuotaExceeded": failures.FULL,
}


def failure(answer: Answer, what: str) -> OstrakaError:
    """The error of an answer; ``what`` it is about: a key, or the bucket's name."""
    return error_of(_CODES, what, answer.status, *told(answer))


def named(code: str, words: str, what: str) -> OstrakaError:
    """The error of a code in a document whose status said nothing of it."""
    return error_of(_CODES, what, 500, code, words)


def told(answer: Answer) -> tuple[str, str]:
    """(code, message) of the error document; empty where there is none, as after HEAD."""
    if not answer.body:
        return "", ""
    try:
        root = parsed(answer.body)
    except Unavailable:
        return "", ""
    return text(root, "Code"), text(root, "Message")
