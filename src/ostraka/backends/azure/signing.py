"""Azure's signatures: Shared Key for requests, a shared access signature (SAS) for URLs that are handed on."""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlencode

from ostraka.errors import Forbidden

VERSION: Final = "2021-12-02"  # of the protocol that every request speaks
_SIGNED: Final = (  # in this order; the date is in x-ms-date
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"),
    *("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)
_PERMISSIONS: Final = {"GET": "r", "HEAD": "r", "PUT": "cw", "DELETE": "d"}


@dataclass(frozen=True, slots=True)
class Access:
    """Where an account is, and what opens it: a key, a SAS, a token, or nothing. Secrets show in no representation."""

    account: str
    endpoint: str  # https://ACCOUNT.blob.core.windows.net, no "/" at its end
    key: str = ""  # base64
    sas: str = ""  # a query, without the "?"
    token: str = ""

    def __repr__(self) -> str:
        return f"Access({self.account!r}, {self.endpoint!r}, ...)"


def query_string(parameters: Mapping[str, str]) -> str:
    return urlencode(parameters, quote_via=quote, safe="~")


def signed_headers(
    access: Access,
    now: float,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    size: int = 0,
) -> dict[str, str]:
    """The headers (names in lower case) with what opens the account; a SAS is in the URL. ``path`` is the URL's."""
    signed = {**headers, "x-ms-date": _http_date(int(now))}
    if access.key:
        given = {**signed, "content-length": str(size) if size else ""}
        lines = [method, *(given.get(name, "") for name in _SIGNED)]
        lines += [f"{name}:{value}" for name, value in sorted(signed.items()) if name.startswith("x-ms-")]
        lines.append(f"/{access.account}{path}")
        lines += [f"{name}:{value}" for name, value in sorted(query.items())]
        signed["authorization"] = f"SharedKey {access.account}:{signature(access.key, lines)}"
    elif access.token:
        signed["authorization"] = f"Bearer {access.token}"
    return signed


def blob_sas(access: Access, now: float, container: str, blob: str, method: str, seconds: float) -> str:
    """The query of a URL that does this to one blob, without other credentials."""
    # begins a little ago: who is handed it may have a clock that is behind ours
    start, end = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t)) for t in (now - 300, now + seconds))
    permissions = _PERMISSIONS[method]
    resource = f"/blob/{access.account}/{container}/{blob}"
    lines = [permissions, start, end, resource, "", "", "", VERSION, "b", "", "", "", "", "", "", ""]
    fields = {"sp": permissions, "st": start, "se": end, "sv": VERSION, "sr": "b"}
    return query_string({**fields, "sig": signature(access.key, lines)})


def signature(key: str, lines: list[str]) -> str:
    try:
        secret = base64.b64decode(key, validate=True)
    except ValueError:
        raise Forbidden("the account's key is not in base64", reason="credentials") from None
    return base64.b64encode(hmac.digest(secret, "\n".join(lines).encode(), hashlib.sha256)).decode()


@lru_cache(16)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
