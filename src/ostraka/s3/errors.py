"""S3's errors: the table of codes, the exception that carries one, and the one place where errors.py is mapped.

Everything that S3 clients see as an error comes from ``CODES`` (code to status and default message, as AWS
publishes them) and, for errors of the rooms below, from ``from_error``'s table of (kind, reason). What a table does
not know is 500 InternalError with no detail: an unknown failure is never presented as an absence.
"""

from collections.abc import Mapping

from ostraka import errors
from ostraka.errors import OstrakaError, Truncated

# code: (HTTP status, default message)
CODES: dict[str, tuple[int, str]] = {
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
    "AccessDenied": (403, "Access Denied"),
    "AccessForbidden": (403, "CORSResponse: This CORS request is not allowed."),
    "AccountProblem": (403, "There is a problem with your account that prevents the operation from completing."),
    "AllAccessDisabled": (403, "All access to this resource has been disabled."),
    "AmbiguousGrantByEmailAddress": (400, "The email address belongs to more than one account."),
    "AnnotationLimitExceeded": (400, "The object has too many annotations."),
    "AnnotationNameTooLong": (400, "The annotation's name is too long."),
    "AuthorizationHeaderMalformed": (400, "The authorization header that you provided is not valid."),
    "AuthorizationQueryParametersError": (400, "The authorization query parameters are not valid."),
    "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
    "BadRequest": (400, "Bad Request"),
    "BucketAlreadyExists": (
        409,
        "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
        "Please select a different name and try again.",
    ),
    "BucketAlreadyOwnedByYou": (
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
    "ConditionalRequestConflict": (
        409,
        "The conditional request cannot succeed due to a conflicting operation against this resource.",
    ),
    "CredentialsNotSupported": (400, "This request does not support credentials."),
    "CrossLocationLoggingProhibited": (403, "Cross-location logging is not allowed."),
    "EncryptionTypeMismatch": (400, "The encryption type does not match that of the existing object."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size"),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size"),
    "ExpiredToken": (400, "The provided token has expired."),
    "IdempotencyParameterMismatch": (400, "The parameters differ from those of the first request with this token."),
    "IllegalLocationConstraintException": (
        400,
        "The unspecified location constraint is incompatible for the region specific endpoint this request was sent "
        "to.",
    ),
    "IllegalVersioningConfigurationException": (
        400,
        "The versioning configuration specified in the request is invalid.",
    ),
    "IncompleteBody": (400, "The request body terminated unexpectedly"),
    "IncorrectNumberOfFilesInPostRequest": (400, "POST requires exactly one file upload per request."),
    "InlineDataTooLarge": (400, "Inline data exceeds the maximum allowed size."),
    "InsufficientStorage": (507, "The store has no room left for this write. Free space, or add disks."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
    "InvalidAnnotationName": (400, "The annotation's name is not valid."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidBucketState": (409, "The request is not valid with the current state of the bucket."),
    "InvalidChunkSizeError": (403, "Only the last chunk is allowed to have a size less than 8192 bytes"),
    "InvalidDigest": (400, "The Content-MD5 you specified was invalid."),
    "InvalidEncryptionAlgorithmError": (400, "The encryption request that you specified is not valid."),
    "InvalidLocationConstraint": (400, "The specified location-constraint is not valid"),
    "InvalidObjectState": (403, "The operation is not valid for the current state of the object."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found.  The part may not have been uploaded, or the "
        "specified entity tag may not match the part's entity tag.",
    ),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
    "InvalidPartOrder": (
        400,
        "The list of parts was not in ascending order. Parts must be ordered by part number.",
    ),
    "InvalidPayer": (403, "All access to this object has been disabled."),
    "InvalidPolicyDocument": (400, "The content of the form does not meet the conditions of the policy document."),
    "InvalidPrefix": (400, "The prefix is not valid."),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidSecurity": (403, "The provided security credentials are not valid."),
    "InvalidStorageClass": (400, "The storage class you specified is not valid"),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidTargetBucketForLogging": (400, "The target bucket for logging cannot be used."),
    "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "InvalidWriteOffset": (400, "The write offset is not the object's current size."),
    "KMS.NotFoundException": (400, "The specified key does not exist."),
    "KeyTooLongError": (400, "Your key is too long"),
    "MalformedACLError": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "MalformedPolicy": (400, "The policy is not well-formed."),
    "MalformedTrailerError": (
        400,
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    ),
    "MalformedXML": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    "MaxMessageLengthExceeded": (400, "Your request was too big."),
    "MaxPostPreDataLengthExceededError": (
        400,
        "Your POST request fields preceding the upload file were too large.",
    ),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size"),
    "MetadataConfigurationNotFound": (404, "The metadata configuration was not found"),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingAuthenticationToken": (403, "Missing Authentication Token"),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingRequestBodyError": (400, "Request Body is empty"),
    "MissingSecurityHeader": (400, "Your request was missing a required header"),
    "NoLoggingStatusForKey": (400, "There is no such thing as a logging status sub-resource for a key."),
    "NoSuchAnnotation": (404, "The specified annotation does not exist."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
    "NoSuchConfiguration": (404, "The specified configuration does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
    "NoSuchObjectLockConfiguration": (404, "The specified object does not have a ObjectLock configuration"),
    "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found"),
    "NoSuchTagSet": (404, "The TagSet does not exist"),
    "NoSuchUpload": (
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed.",
    ),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration"),
    "NotImplemented": (501, "A header you provided implies functionality that is not implemented"),
    "NotModified": (304, "Not Modified"),
    "NotSignedUp": (403, "Your account is not signed up for this service."),
    "ObjectAlreadyInActiveTierError": (403, "The object is already in an active tier."),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket"),
    "ObjectNotInActiveTierError": (403, "The source object is not in an active tier."),
    "OperationAborted": (
        409,
        "A conflicting conditional operation is currently in progress against this resource. Please try again.",
    ),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found"),
    "PermanentRedirect": (301, "The bucket you are attempting to access must be addressed using another endpoint."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "Redirect": (307, "Temporary redirect."),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found"),
    "RequestExpired": (400, "Request has expired."),
    "RequestIsNotMultiPartContent": (400, "Bucket POST must be of the enclosure-type multipart/form-data."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
    "RequestTimeout": (
        400,
        "Your socket connection to the server was not read from or written to within the timeout period. Idle "
        "connections will be closed.",
    ),
    "RequestTorrentOfBucketError": (400, "Requesting the torrent file of a bucket is not permitted."),
    "RestoreAlreadyInProgress": (409, "Object restore is already in progress."),
    "ServerSideEncryptionConfigurationNotFoundError": (
        404,
        "The server side encryption configuration was not found",
    ),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided. Check your key and signing "
        "method.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
    "TemporaryRedirect": (307, "You are being redirected to the bucket while DNS updates."),
    "TokenRefreshRequired": (400, "The provided token must be refreshed."),
    "TooManyBuckets": (400, "You have attempted to create more buckets than allowed"),
    "TooManyParts": (400, "The object has too many parts."),
    "UnexpectedContent": (400, "This request does not support content."),
    "UnresolvableGrantByEmailAddress": (400, "The email address does not match any account on record."),
    "UnsupportedMediaType": (415, "The media type is not supported."),
    "UserKeyMustBeSpecified": (400, "The bucket POST must contain the specified field name."),
    "XAmzContentSHA256Mismatch": (
        400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
}


class S3Error(Exception):
    """An answer with an error document. ``fields`` are further elements of it, ``headers`` of the response.

    ``status`` follows from the code. A message of None is the code's default.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, default = CODES[code]
        text = default if message is None else message
        super().__init__(f"{code}: {text}")
        self.code = code
        self.message = text  # after the base class, which keeps a message of its own in a BodyError
        self.fields: dict[str, str] = dict(fields or ())
        self.headers: dict[str, str] = dict(headers or ())


class BodyError(S3Error, Truncated):
    """A body that is not what its sender declared: cut short, framed wrongly, or with a wrong digest.

    It is a ``Truncated`` as well, so that the rooms below know it for what it is.
    """

    def __init__(self, code: str, message: str | None = None, *, fields: Mapping[str, str] | None = None) -> None:
        S3Error.__init__(self, code, message, fields=fields)
        self.reason = code


# kind: {reason: code}; "" is for every other reason. A subclass is looked up before its base.
_KINDS: dict[type[OstrakaError], dict[str, str]] = {
    errors.Absent: {
        "": "NoSuchKey",
        "bucket": "NoSuchBucket",
        "key": "NoSuchKey",
        "delete-marker": "NoSuchKey",
        "version": "NoSuchVersion",
        "upload": "NoSuchUpload",
        "part": "InvalidPart",
        "tags": "NoSuchTagSet",
        "cors": "NoSuchCORSConfiguration",
        "kms-key": "KMS.NotFoundException",
    },
    errors.Overloaded: {"": "SlowDown"},
    errors.Unavailable: {"": "ServiceUnavailable"},
    errors.Corrupt: {"": "InternalError"},
    errors.Forbidden: {"": "AccessDenied"},
    errors.Conflict: {"": "OperationAborted", "conditional": "ConditionalRequestConflict"},
    errors.Exists: {
        "": "OperationAborted",
        "bucket-owned": "BucketAlreadyOwnedByYou",
        "bucket-taken": "BucketAlreadyExists",
        "bucket-not-empty": "BucketNotEmpty",
    },
    errors.PreconditionFailed: {"": "PreconditionFailed"},
    errors.TooLarge: {
        "": "EntityTooLarge",
        "key-too-long": "KeyTooLongError",
        "metadata": "MetadataTooLarge",
        "buckets": "TooManyBuckets",
        "request": "MaxMessageLengthExceeded",
        "tags": "BadRequest",
        "trailers": "MalformedTrailerError",
        "chunk": "InvalidRequest",
        "head": "MaxMessageLengthExceeded",
        "xml": "MalformedXML",
        "parts": "InvalidArgument",
    },
    errors.Invalid: {
        "": "InvalidArgument",
        "argument": "InvalidArgument",
        "version-id": "InvalidArgument",
        "request": "InvalidRequest",
        "bucket-name": "InvalidBucketName",
        "key-too-long": "KeyTooLongError",
        "metadata": "MetadataTooLarge",
        "part": "InvalidPart",
        "storage-class": "InvalidStorageClass",
        "part-order": "InvalidPartOrder",
        "part-small": "EntityTooSmall",
        "part-number": "InvalidPartNumber",
        "range": "InvalidRange",
        "digest": "InvalidDigest",
        "checksum": "BadDigest",
        "tag": "InvalidTag",
        "versioning": "IllegalVersioningConfigurationException",
        "chunk": "InvalidRequest",
        "trailers": "MalformedTrailerError",
        "uri": "InvalidURI",
        "xml": "MalformedXML",
        "length": "MissingContentLength",
        "size": "InvalidRequest",
        "entity-too-large": "EntityTooLarge",
        "entity-too-small": "EntityTooSmall",
        "customer-key-missing": "InvalidRequest",
        "customer-key-unwanted": "InvalidRequest",
    },
    errors.Truncated: {
        "": "IncompleteBody",
        "digest": "BadDigest",
        "stalled": "RequestTimeout",
        "timeout": "RequestTimeout",
    },
    errors.Full: {"": "InsufficientStorage"},
    errors.InUse: {"": "ServiceUnavailable"},
    errors.Refused: {"": "InternalError"},
    errors.NotSupported: {"": "NotImplemented"},
}

# Their message may name disks, paths or other people's data: the client gets the default one instead.
_SILENT = (errors.Unavailable, errors.Corrupt, errors.Full, errors.InUse, errors.Refused)
_OWN_MESSAGE = {
    "InvalidArgument",
    "InvalidRequest",
    "NotImplemented",
    "InvalidTag",
    "MetadataTooLarge",
    "BadRequest",
    "KMS.NotFoundException",
}


def from_error(
    exc: BaseException, *, bucket: str | None = None, key: str | None = None, method: str = "GET"
) -> S3Error:
    """The S3 answer to any exception; an S3Error is returned as it is.

    ``bucket``, ``key`` and ``method`` fill the fields that AWS adds to its NoSuch* errors and to 405. A delete marker
    in the way (``Absent(reason="delete-marker")``) gets its headers, and 405 if it was named by its version id.
    """
    if isinstance(exc, S3Error):
        return exc
    kind = next((k for k in type(exc).__mro__ if k in _KINDS), None)
    if kind is None or not isinstance(exc, OstrakaError):
        return S3Error("InternalError")
    reasons = _KINDS[kind]
    code = reasons.get(exc.reason) or reasons[""]
    if exc.reason == "delete-marker":
        return _delete_marker(exc, key, method)
    if exc.reason == "version-id":
        given = {"ArgumentName": "versionId", "ArgumentValue": getattr(exc, "version_id", "")}
        return S3Error(code, "Invalid version id specified", fields=given)
    fields: dict[str, str] = {}
    if code in ("NoSuchBucket", "BucketNotEmpty", "BucketAlreadyExists", "BucketAlreadyOwnedByYou") and bucket:
        fields["BucketName"] = bucket
    elif code in ("NoSuchKey", "NoSuchVersion") and key:
        fields["Key"] = key
    elif kind is errors.PreconditionFailed and exc.reason in ("if-match", "if-none-match"):
        fields["Condition"] = "If-Match" if exc.reason == "if-match" else "If-None-Match"
    tell = (code in _OWN_MESSAGE and not isinstance(exc, _SILENT)) or exc.reason == "master-key"
    headers = {"retry-after": "1"} if code in ("SlowDown", "ServiceUnavailable") else None
    return S3Error(code, exc.message if tell and exc.message else None, fields=fields, headers=headers)


def _delete_marker(exc: OstrakaError, key: str | None, method: str) -> S3Error:
    headers = {"x-amz-delete-marker": "true"}
    version = getattr(exc, "version_id", None)
    if version:
        headers["x-amz-version-id"] = str(version)
    if getattr(exc, "named", False):
        fields = {"Method": method, "ResourceType": "DeleteMarker"}
        return S3Error("MethodNotAllowed", fields=fields, headers=headers | {"allow": "DELETE"})
    return S3Error("NoSuchKey", fields={"Key": key} if key else None, headers=headers)
