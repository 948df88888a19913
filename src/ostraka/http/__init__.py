"""Ostraka's HTTP/1.1 layer: bytes to ``Request``, ``Response`` to bytes, and all that can go wrong between.

It knows nothing of S3. A handler is ``async def handler(request: Request) -> Response``; it reads ``request.body`` if
it wants it, is cancelled when its client leaves, and maps its own errors to responses. A plain function may answer at
once, or return what is to be awaited: an answer that needs no waiting then costs no turn of the loop.
"""

from ostraka.http._body import Body
from ostraka.http._messages import Buffer, Headers, Request, Response, ResponseBody
from ostraka.http._server import Handler, OnComplete, OnError, Server, bind

__all__ = [
    "Body",
    "Buffer",
    "Handler",
    "Headers",
    "OnComplete",
    "OnError",
    "Request",
    "Response",
    "ResponseBody",
    "Server",
    "bind",
]
