"""The S3 door: from a request of http/ to its response, through address, CORS, signature, route and permission.

Every answer carries a request id; every failure is an XML document with S3's code, and a HEAD's failure its status
only. What an exception does not say for sure is a 500 or 503, never a 404 (law 3).
"""

import base64
import logging
import re
from collections.abc import Awaitable, Callable

import msgspec

from ostraka.errors import Conflict, OstrakaError
from ostraka.host import Host
from ostraka.http import Headers, Request, Response
from ostraka.limits import Limits
from ostraka.objects.types import Account, DeleteMarker, Objects
from ostraka.s3 import cors
from ostraka.s3.address import Address, resolve
from ostraka.s3.auth import Authenticated, Secret, authenticate
from ostraka.s3.checksums import BY_HEADER
from ostraka.s3.errors import S3Error, from_error
from ostraka.s3.ops.call import Call, Config, Door, is_owner
from ostraka.s3.ops.documents import XML_TYPE
from ostraka.s3.ops.registry import HANDLERS
from ostraka.s3.ops.times import http_date
from ostraka.s3.query import Query, parse_query
from ostraka.s3.route import PREFLIGHT, route
from ostraka.s3.xml import error_document
from ostraka.store.accounts import Accounts

_log = logging.getLogger("ostraka.s3")
BUCKET_NAME_MAX = 255  # characters; no bucket that was ever made here has more than 63
_OPEN_TO_ALL_ACCOUNTS = frozenset(("ListBuckets", "CreateBucket"))
_unprintable = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]").sub  # a client's parser must find the code
# Checksums in a presigned URL are those of the empty body that there was when it was signed: S3 ignores them, too.
_NOT_HOISTED = frozenset(BY_HEADER) | {"x-amz-sdk-checksum-algorithm", "x-amz-trailer"}
_EXPECTED_OWNER = "x-amz-expected-bucket-owner"


class AccessRecord(msgspec.Struct, gc=False):
    """What the access log and the metrics are told of one answer. ``size``: bytes of the body, None if unknown."""

    request_id: str
    operation: str = ""
    account: str = ""
    access_key: str = ""
    bucket: str = ""
    key: str = ""
    status: int = 0
    code: str = ""  # S3's error code, or ""
    framing: str = ""  # how the request's body was protected and framed (x-amz-content-sha256's words)
    size: int | None = None
    received: int = 0  # bytes of the request's body that were read


OnAnswer = Callable[[Request, AccessRecord], None]


class S3App:
    """The handler for ``http.Server``.

    ``on_answer(request, record)`` is called once for each request, when its response is made and before its body is
    sent; it must not block or raise.
    """

    def __init__(
        self,
        objects: Objects,
        accounts: Accounts,
        limits: Limits,
        host: Host,
        config: Config | None = None,
        *,
        on_answer: OnAnswer | None = None,
    ) -> None:
        self.door = Door(objects, limits, host, config or Config())
        self._accounts = accounts
        self._on_answer = on_answer
        self._clock = host.clock
        self._counter = int.from_bytes(host.random(8), "big")
        self.host_id = base64.b64encode(host.random(33)).decode()
        self._id_header = ("x-amz-id-2", self.host_id)

    def _lookup(self, access_key: str) -> Secret | None:
        found = self._accounts.by_access_key(access_key)
        return None if found is None else Secret(found[1], found[0])

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        """The answer; or, where the operation has to wait for something, the awaitable of it."""
        self._counter = (self._counter + 1) & 0xFFFF_FFFF_FFFF_FFFF
        record = AccessRecord(f"{self._counter:016X}")
        address = None
        try:
            headers = request.headers
            domains = self.door.config.domains
            address = resolve(headers.get("host") if domains else None, request.raw_path, domains)
            record.bucket, record.key = address.bucket or "", address.key or ""
            query = parse_query(request.raw_query) if request.raw_query else []
            if request.method == "OPTIONS":
                answer: Response | Awaitable[Response] = self._preflight(request, address, record)
            else:
                answer = self._answer(request, address, query, record)
        except Exception as e:
            answer = self._failed(request, address, e, record)
        if isinstance(answer, Response):
            return self._complete(request, address, answer, record)
        return self._wait(request, address, answer, record)

    async def _wait(
        self, request: Request, address: Address | None, answer: Awaitable[Response], record: AccessRecord
    ) -> Response:
        try:
            response = await answer
        except Exception as e:
            response = self._failed(request, address, e, record)
        return self._complete(request, address, response, record)

    def _complete(
        self, request: Request, address: Address | None, response: Response, record: AccessRecord
    ) -> Response:
        """The response with what every one carries, and counted."""
        answer = [("x-amz-request-id", record.request_id), self._id_header, *response.headers]
        if "origin" in request.headers and request.method != "OPTIONS" and address is not None and address.bucket:
            answer += self._cors_headers(request, address.bucket)
        response.headers = answer
        if self._on_answer is not None:
            record.status = response.status
            record.size = response.length if response.length is not None else _size(response)
            record.received = request.body.received
            self._on_answer(request, record)
        return response

    def _answer(
        self, request: Request, address: Address, query: Query, record: AccessRecord
    ) -> Response | Awaitable[Response]:
        virtual = address.bucket if address.virtual else None
        auth = authenticate(
            request, self._lookup, self._clock.time(), self.door.limits, virtual_bucket=virtual, query=query
        )
        record.framing = auth.payload.value
        operation = record.operation = route(request.method, address.bucket, address.key, query, request.headers)
        if auth.identity is None:
            raise self._anonymous(operation, address, query)
        account: Account = auth.identity.owner
        record.account, record.access_key = account.name, account.access_key
        headers = _with_hoisted(request.headers, auth)
        bucket, key = address.bucket or "", address.key or ""
        self._check_names(bucket, key)
        self._allow(account, operation, bucket, headers)
        handler = HANDLERS.get(operation)
        if handler is None:
            message = f"{operation} is not implemented"
            raise S3Error("NotImplemented", message, fields={"Operation": operation})
        return handler(Call(self.door, request, auth, headers, account, operation, bucket, key, query))

    def _anonymous(self, operation: str, address: Address, query: Query) -> S3Error:
        """Why a request without credentials is refused; a bucket that is not there is raised as Absent, as by S3."""
        if operation in ("GetObject", "HeadObject") and any(name.startswith("response-") for name, _ in query):
            message = "Request specific response headers cannot be used for anonymous GET requests."
            return S3Error("InvalidRequest", message)
        if address.bucket and operation != "CreateBucket":
            self._check_names(address.bucket, "")
            self.door.objects.bucket(address.bucket)
        return S3Error("AccessDenied")

    def _allow(self, account: Account, operation: str, bucket: str, headers: Headers) -> None:
        """Root may do all; an account what is in its own buckets. Raises AccessDenied, or Absent for the bucket."""
        if operation in _OPEN_TO_ALL_ACCOUNTS:
            return
        expected = headers.get(_EXPECTED_OWNER)
        if account.root and expected is None:
            return
        if not bucket:
            raise S3Error("AccessDenied")
        owner = self.door.objects.bucket(bucket).owner
        if not account.root and owner != account.name:
            raise S3Error("AccessDenied")
        if expected is not None and not is_owner(expected, owner):
            raise S3Error("AccessDenied")

    def _check_names(self, bucket: str, key: str) -> None:
        """What is too long to be a name is refused here, so that it never becomes a key of the state."""
        if len(bucket) > BUCKET_NAME_MAX:
            raise S3Error("InvalidBucketName", fields={"BucketName": bucket})
        limit = self.door.limits.key_bytes_max
        if len(key) * 4 > limit:
            size = len(key.encode())
            if size > limit:
                raise S3Error("KeyTooLongError", fields={"Size": str(size), "MaxSizeAllowed": str(limit)})

    # -- cross-origin

    def _preflight(self, request: Request, address: Address, record: AccessRecord) -> Response:
        record.operation = PREFLIGHT
        get = request.headers.get
        origin, method = get("origin"), get("access-control-request-method")
        if origin and method and not address.bucket:
            raise cors.forbidden("CORSResponse: Bucket not found", method)
        rules = cors.rules_of(self.door.objects.bucket(address.bucket)) if origin and method and address.bucket else ()
        return Response(200, cors.preflight(rules, origin, method, get("access-control-request-headers")))

    def _cors_headers(self, request: Request, bucket: str) -> list[tuple[str, str]]:
        """What an answer to a cross-origin request says; nothing when the bucket has no rule that fits."""
        origin = request.headers.get("origin")
        if not origin:
            return []
        try:
            rules = cors.rules_of(self.door.objects.bucket(bucket))
        except OstrakaError:
            return []
        found = cors.match(rules, origin, request.method)
        return cors.answer_headers(*found, origin) if found is not None else []

    # -- failures

    def _failed(self, request: Request, address: Address | None, error: Exception, record: AccessRecord) -> Response:
        if not isinstance(error, OstrakaError | S3Error):
            _log.exception("request %s failed: %s", record.request_id, record.operation or request.method)
        return self._failure(request, address, error, record)

    def _failure(
        self, request: Request, address: Address | None, error: BaseException, record: AccessRecord
    ) -> Response:
        bucket = address.bucket if address is not None else None
        key = address.key if address is not None else None
        failure = from_error(error, bucket=bucket, key=key, method=request.method)
        if isinstance(error, DeleteMarker) and error.named and request.method in ("GET", "HEAD"):
            failure.headers["Last-Modified"] = http_date(error.modified)
        if isinstance(error, Conflict) and ("if-match" in request.headers or "if-none-match" in request.headers):
            failure = S3Error("ConditionalRequestConflict")
        if failure.status >= 500 and failure.status != 501 and isinstance(error, OstrakaError):
            _log.error("request %s failed: %s: %s", record.request_id, record.operation, error)
        record.code = failure.code
        headers = list(failure.headers.items())
        if bucket:
            headers += self._region_of(bucket)
        if failure.status == 304:
            return Response(304, headers)
        headers.append(XML_TYPE)
        if request.method == "HEAD":
            return Response(failure.status, headers)
        resource = request.raw_path.decode("utf-8", "replace")
        failure.fields = {n: _unprintable("\ufffd", v) for n, v in failure.fields.items()}
        return Response(failure.status, headers, error_document(failure, record.request_id, self.host_id, resource))

    def _region_of(self, bucket: str) -> list[tuple[str, str]]:
        try:
            return [("x-amz-bucket-region", self.door.objects.bucket(bucket).region)]
        except OstrakaError:
            return []


def _with_hoisted(headers: Headers, auth: Authenticated) -> Headers:
    """The headers, and the x-amz-* parameters of a presigned URL that stand for headers."""
    if not auth.hoisted:
        return headers
    hoisted = [(n, v) for n, v in auth.hoisted.items() if n not in headers and n not in _NOT_HOISTED]
    return Headers.of([*headers, *hoisted]) if hoisted else headers


def _size(response: Response) -> int | None:
    body = response.body
    return len(body) if isinstance(body, bytes | bytearray | memoryview) else None
