"""Azure's error codes: in a header, so that HEAD has them too, or in the document."""

from typing import Final

from ostraka.backends.remote import failures
from ostraka.backends.remote.documents import parsed, text
from ostraka.backends.remote.failures import Meaning, error_of
from ostraka.backends.remote.wire import Answer
from ostraka.errors import Conflict, Invalid, OstrakaError, PreconditionFailed, Unavailable

_CODES: Final[dict[str, Meaning]] = {
    "BlobNotFound": failures.ABSENT,
    "ResourceNotFound": failures.ABSENT,
    "ContainerNotFound": Meaning(Invalid, "config", "the container does not exist"),
    "ContainerBeingDeleted": failures.SERVICE,
    "ContainerDisabled": failures.ACCESS,
    "AccountIsDisabled": failures.ACCESS,
    "AuthenticationFailed": failures.CREDENTIALS,
    "InvalidAuthenticationInfo": failures.CREDENTIALS,
    "NoAuthenticationInformation": failures.CREDENTIALS,
    "AuthorizationFailure": failures.ACCESS,
    "AuthorizationPermissionMismatch": failures.ACCESS,
    "InsufficientAccountPermissions": failures.ACCESS,
    "BlobAlreadyExists": Meaning(PreconditionFailed, "exists", "it is there already"),
    "ConditionNotMet": failures.CHANGED,
    "TargetConditionNotMet": failures.CHANGED,
    "LeaseIdMissing": Meaning(Conflict, "rival", "somebody holds a lease of it"),
    "BlobImmutableDueToPolicy": failures.ACCESS,
    "BlobArchived": failures.ACCESS,
    "InvalidBlockList": Meaning(Conflict, "rival", "another write of it ended while this one was under way"),
    "InvalidBlobOrBlock": failures.RIVAL,
    "InvalidRange": failures.RANGE,
    "InvalidResourceName": Meaning(Invalid, "config", "no container can have this name"),
    "OutOfRangeInput": failures.CONFIG,
    "RequestBodyTooLarge": failures.TOO_LARGE,
    "Md5Mismatch": failures.DAMAGED,
    "ServerBusy": failures.THROTTLED,
    "OperationTimedOut": failures.TIMEOUT,
    "InternalError": failures.SERVICE,
    "NotImplemented": failures.NOT_BUILT,
    "APINotImplemented": failures.NOT_BUILT,
}


def failure(answer: Answer, what: str) -> OstrakaError:
    """The error of an answer; ``what`` it is about: a key, or the container's name."""
    code, words = answer.headers.get("x-ms-error-code", ""), ""
    try:
        root = parsed(answer.body)
    except Unavailable:
        pass
    else:
        code, words = code or text(root, "Code"), text(root, "Message").partition("\n")[0]
    return named(answer.status, code, what, words)


def named(status: int, code: str, what: str, words: str = "") -> OstrakaError:
    """The error of a status and a code."""
    return error_of(_CODES, what, status, code, words)
