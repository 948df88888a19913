"""Cross-origin rules of a bucket: their limits, their matching, and the headers that follow from a match."""

from collections.abc import Sequence

import msgspec

from ostraka.objects.types import Bucket
from ostraka.s3.errors import S3Error

SETTING = "cors"
RULES_MAX = 100
METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """One CORSRule, as the bucket's owner gave it."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: int | None = None
    id: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Rule, ...])


def pack(rules: Sequence[Rule]) -> bytes:
    """The rules as a bucket keeps them."""
    return _encoder.encode(tuple(rules))


def rules_of(bucket: Bucket) -> tuple[Rule, ...]:
    """The bucket's rules; none when it has no configuration."""
    setting = bucket.settings.get(SETTING)
    return _decoder.decode(setting) if setting else ()


def check(rules: Sequence[Rule]) -> None:
    """Raises S3Error for a configuration that S3 does not accept."""
    if not 0 < len(rules) <= RULES_MAX:
        raise S3Error("MalformedXML")
    for rule in rules:
        if not rule.origins or not rule.methods or len(rule.id) > 255:
            raise S3Error("MalformedXML")
        for method in rule.methods:
            if method not in METHODS:
                message = f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
                raise S3Error("InvalidRequest", message)
        for name, values in (("AllowedOrigin", rule.origins), ("AllowedHeader", rule.headers)):
            for value in values:
                if value.count("*") > 1:
                    raise S3Error("InvalidRequest", f'{name} "{value}" can not have more than one wildcard.')
        for value in rule.expose:
            if "*" in value:
                raise S3Error(
                    "InvalidRequest",
                    f'ExposeHeader "{value}" contains wildcard. We currently do not support wildcard for ExposeHeader.',
                )
            if not value or not value.isascii() or not value.isprintable():
                raise S3Error("InvalidRequest", f'ExposeHeader "{value}" contains invalid character.')


def match(rules: Sequence[Rule], origin: str, method: str, headers: Sequence[str] = ()) -> tuple[Rule, str] | None:
    """The first rule that allows it, and the origin pattern that matched. ``headers``: lower-case names asked for."""
    for rule in rules:
        if method not in rule.methods:
            continue
        for pattern in rule.origins:
            if _fits(pattern, origin):
                patterns = [p.lower() for p in rule.headers]
                if all(any(_fits(p, h) for p in patterns) for h in headers):
                    return rule, pattern
                break
    return None


def _fits(pattern: str, text: str) -> bool:
    if "*" not in pattern:
        return pattern == text
    before, _, after = pattern.partition("*")
    return len(text) >= len(before) + len(after) and text.startswith(before) and text.endswith(after)


def answer_headers(rule: Rule, pattern: str, origin: str, asked: Sequence[str] = ()) -> list[tuple[str, str]]:
    """What a response to a matching request says."""
    everyone = pattern == "*"
    headers = [
        ("Access-Control-Allow-Origin", "*" if everyone else origin),
        ("Access-Control-Allow-Methods", ", ".join(rule.methods)),
    ]
    if asked:
        headers.append(("Access-Control-Allow-Headers", ", ".join(asked)))
    if rule.expose:
        headers.append(("Access-Control-Expose-Headers", ", ".join(rule.expose)))
    if rule.max_age is not None:
        headers.append(("Access-Control-Max-Age", str(rule.max_age)))
    if not everyone:
        headers.append(("Access-Control-Allow-Credentials", "true"))
    headers.append(("Vary", VARY))
    return headers


def preflight(
    rules: Sequence[Rule], origin: str | None, method: str | None, asked: str | None
) -> list[tuple[str, str]]:
    """The headers that answer an OPTIONS request; raises S3Error when it may not be."""
    if not origin:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    if method not in METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method or 'null'}")
    if not rules:
        raise forbidden("CORSResponse: CORS is not enabled for this bucket.", method)
    names = [h.strip().lower() for h in (asked or "").split(",") if h.strip()]
    found = match(rules, origin, method, names)
    if found is None:
        raise forbidden(
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, "
            "request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted "
            "by the resource's CORS spec.",
            method,
        )
    return answer_headers(*found, origin, names)


def forbidden(message: str, method: str) -> S3Error:
    return S3Error("AccessForbidden", message, fields={"Method": method, "ResourceType": "BUCKET"})
