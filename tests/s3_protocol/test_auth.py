"""A signature that botocore made verifies; a request that was changed after signing does not."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth as BotocoreV4
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from s3_signing import (
    ACCESS,
    NOW,
    SECRET,
    HmacV1Auth,
    HmacV1QueryAuth,
    Request,
    S3SigV4Auth,
    S3SigV4QueryAuth,
    check,
    signed,
)

from ostraka.limits import LIMITS
from ostraka.s3.auth import Authenticated, Payload, Secret, authenticate, canonical
from ostraka.s3.auth.sigv4 import SigningKeys, derive_key
from ostraka.s3.errors import S3Error

SIGNERS = [S3SigV4Auth, S3SigV4QueryAuth, HmacV1Auth, HmacV1QueryAuth]


def refused(request: Request, now: float = NOW, virtual_bucket: str | None = None) -> S3Error:
    with pytest.raises(S3Error) as caught:
        check(request, now, virtual_bucket)
    return caught.value


def who(auth: Authenticated) -> str:
    assert auth.identity is not None
    return auth.identity.access_key


@pytest.mark.parametrize("signer", SIGNERS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "POST"])
def test_what_botocore_signs_verifies(signer: type, method: str) -> None:
    target = "/bucket/a%20b/c%2Bd//e~f?versionId=abc%2Fd&response-content-type=text%2Fplain&partNumber=3"
    auth = check(signed(signer, method, target, {"content-type": "text/plain"}))
    assert who(auth) == ACCESS
    assert auth.identity is not None
    assert auth.identity.owner == "me"
    assert auth.version == (4 if "V4" in signer.__name__ else 2)
    assert auth.presigned == ("Query" in signer.__name__)


@pytest.mark.parametrize("signer", SIGNERS)
def test_another_method_path_or_secret_does_not_match(signer: type) -> None:
    request = signed(signer, "GET", "/bucket/key?versionId=1")
    for changed in (
        replace(request, method="DELETE"),
        replace(request, raw_path=b"/bucket/other"),
        replace(request, raw_path=b"/bucket//key"),
        replace(request, raw_query=request.raw_query.replace(b"versionId=1", b"versionId=2")),
    ):
        error = refused(changed)
        assert error.code == "SignatureDoesNotMatch"
        assert error.fields["AWSAccessKeyId"] == ACCESS
        assert error.fields["StringToSign"]
    assert refused(signed(signer, access="NOBODY")).code == "InvalidAccessKeyId"
    assert refused(signed(signer, secret="wrong")).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("signer", SIGNERS)
def test_an_unsigned_amz_header_is_refused(signer: type) -> None:
    request = signed(signer, "PUT").with_more(("x-amz-acl", "public-read"))
    assert refused(request).code == ("AccessDenied" if "V4" in signer.__name__ else "SignatureDoesNotMatch")


def test_the_error_shows_what_was_signed() -> None:
    error = refused(signed(S3SigV4Auth, secret="wrong"))
    assert error.fields["CanonicalRequest"].startswith("GET\n/bucket/key\n\nhost:")
    assert error.fields["StringToSign"].startswith("AWS4-HMAC-SHA256\n")
    assert bytes.fromhex(error.fields["StringToSignBytes"]).decode() == error.fields["StringToSign"]


def test_host_must_be_signed() -> None:
    request = signed(S3SigV4Auth)
    text = (request.headers.get("authorization") or "").replace("SignedHeaders=host;", "SignedHeaders=")
    error = refused(request.with_headers(authorization=text))
    assert (error.code, error.fields["HeadersNotSigned"]) == ("AccessDenied", "host")
    assert refused(request.with_headers(host="elsewhere")).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("offset", [-901, 901])
@pytest.mark.parametrize("signer", [S3SigV4Auth, HmacV1Auth])
def test_a_clock_that_is_off(signer: type, offset: float) -> None:
    error = refused(signed(signer), NOW + offset)
    assert error.code == "RequestTimeTooSkewed"
    assert error.fields["MaxAllowedSkewMilliseconds"] == "900000"
    assert check(signed(signer), NOW + offset - (1 if offset > 0 else -1)).identity


@pytest.mark.parametrize("signer", [S3SigV4QueryAuth, HmacV1QueryAuth])
def test_a_presigned_url_expires(signer: type) -> None:
    request = signed(signer, expires=60)
    assert check(request, NOW + 59).identity
    error = refused(request, NOW + 61)
    assert (error.code, error.message) == ("AccessDenied", "Request has expired")
    if signer is S3SigV4QueryAuth:
        assert refused(request, NOW - 1000).message == "Request is not valid yet"


def test_expiry_bounds() -> None:
    week = 7 * 24 * 3600
    assert check(signed(S3SigV4QueryAuth, expires=week)).identity
    for expires in (week + 1, -1):
        assert refused(signed(S3SigV4QueryAuth, expires=expires)).code == "AuthorizationQueryParametersError"
    text = signed(S3SigV4QueryAuth)
    broken = replace(text, raw_query=text.raw_query.replace(b"X-Amz-Expires=3600", b"X-Amz-Expires=x"))
    assert refused(broken).code == "AuthorizationQueryParametersError"


@pytest.mark.parametrize("name", [b"Algorithm", b"Credential", b"Date", b"Expires", b"SignedHeaders", b"Signature"])
def test_a_presigned_url_needs_each_parameter_once(name: bytes) -> None:
    request = signed(S3SigV4QueryAuth)
    pairs = request.raw_query.split(b"&")
    without = b"&".join(p for p in pairs if not p.startswith(b"X-Amz-" + name))
    assert refused(replace(request, raw_query=without)).code == "AuthorizationQueryParametersError"
    twice = [p for p in pairs if p.startswith(b"X-Amz-" + name)]
    error = refused(replace(request, raw_query=b"&".join(pairs + twice)))
    assert error.code == "AuthorizationQueryParametersError"


def test_a_version_2_url_needs_each_parameter_once() -> None:
    request = signed(HmacV1QueryAuth)
    for name in (b"Expires", b"Signature", b"AWSAccessKeyId"):
        pairs = request.raw_query.split(b"&")
        without = replace(request, raw_query=b"&".join(p for p in pairs if not p.startswith(name)))
        if name == b"Signature":
            assert refused(without).code == "AccessDenied"
        else:
            assert refused(without).code == "AccessDenied"
        twice = replace(request, raw_query=request.raw_query + b"&" + next(p for p in pairs if p.startswith(name)))
        assert refused(twice).code == "InvalidArgument"


@pytest.mark.parametrize("sub", [b"legal-hold", b"retention", b"encryption", b"renameObject", b"publicAccessBlock"])
def test_a_version_2_url_cannot_be_turned_into_another_operation(sub: bytes) -> None:
    request = signed(HmacV1QueryAuth, "PUT")
    assert refused(replace(request, raw_query=request.raw_query + b"&" + sub)).code == "AccessDenied"
    more = replace(request, raw_query=request.raw_query + b"&acl")
    assert refused(more).code == "SignatureDoesNotMatch"


def test_both_ways_at_once_are_refused() -> None:
    header, query = signed(S3SigV4Auth), signed(S3SigV4QueryAuth)
    assert refused(replace(header, raw_query=query.raw_query)).code == "InvalidArgument"
    twice = header.with_more(("authorization", header.headers.get("authorization") or ""))
    assert refused(twice).code == "AuthorizationHeaderMalformed"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda a: "Bearer x", "InvalidArgument"),
        (lambda a: "AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        (lambda a: "AWS4-HMAC-SHA256 nonsense", "AuthorizationHeaderMalformed"),
        (lambda a: a.replace("Credential=", "Cred="), "AuthorizationHeaderMalformed"),
        (lambda a: a.replace("/s3/", "/sqs/"), "AuthorizationHeaderMalformed"),
        (lambda a: a.replace("/aws4_request", "/aws5"), "AuthorizationHeaderMalformed"),
        (lambda a: a.replace("/2026", "/2025"), "AuthorizationHeaderMalformed"),
        (lambda a: a[:-1], "AuthorizationHeaderMalformed"),
        (lambda a: a[:-1] + "G", "AuthorizationHeaderMalformed"),
        (lambda a: a[:-64] + "0" * 64, "SignatureDoesNotMatch"),
        (lambda a: a + ", Signature=" + "0" * 64, "AuthorizationHeaderMalformed"),
        (lambda a: a.replace("eu-central-1", "us-east-1"), "SignatureDoesNotMatch"),
        (lambda a: a.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "NotImplemented"),
        (lambda a: "AWS ", "InvalidArgument"),
        (lambda a: "AWS a", "InvalidArgument"),
    ],
)
def test_malformed_authorization(change, code: str) -> None:  # type: ignore[no-untyped-def]
    request = signed(S3SigV4Auth)
    text = change(request.headers.get("authorization"))
    assert refused(request.with_headers(authorization=text)).code == code


def test_parts_of_the_header_in_any_order_and_spacing() -> None:
    request = signed(S3SigV4Auth)
    credential, names, signature = (request.headers.get("authorization") or "")[17:].split(", ")
    for text in (f"{signature},{names},{credential}", f"{credential},{names},{signature}"):
        assert check(request.with_headers(authorization=f"AWS4-HMAC-SHA256 {text}")).identity


@pytest.mark.parametrize("access", ["GK31c2f218", "a/b", "a,b", "a b", "ключ"])
def test_any_key_format_is_accepted(access: str) -> None:
    request = signed(S3SigV4Auth, access=access)
    auth = authenticate(request, lambda a: Secret(SECRET) if a == access else None, NOW, LIMITS)
    assert who(auth) == access


@pytest.mark.parametrize("region", ["", "us-east-1", "garage", "any where"])
def test_any_region_is_accepted(region: str) -> None:
    assert check(signed(S3SigV4Auth, region=region)).region == region


def test_session_tokens() -> None:
    for signer in SIGNERS:
        request = signed(signer, token="t0ken")
        assert refused(request).code == "InvalidToken"
        good = authenticate(request, lambda a: Secret(SECRET, token="t0ken"), NOW, LIMITS)
        assert good.identity is not None
        with pytest.raises(S3Error) as caught:
            authenticate(signed(signer), lambda a: Secret(SECRET, token="t0ken"), NOW, LIMITS)
        assert caught.value.code == "InvalidToken"


def test_the_payload_hash_is_demanded_and_understood() -> None:
    request = signed(S3SigV4Auth, "PUT", data=b"hello")
    auth = check(request)
    assert auth.payload is Payload.SIGNED
    assert auth.payload_sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert refused(request.with_headers(x_amz_content_sha256=None)).code == "InvalidRequest"
    assert refused(request.with_headers(x_amz_content_sha256="0" * 64)).code == "SignatureDoesNotMatch"
    assert refused(request.with_headers(x_amz_content_sha256="xyz")).code == "InvalidArgument"
    ecdsa = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"
    assert refused(request.with_headers(x_amz_content_sha256=ecdsa)).code == "NotImplemented"


def test_a_date_is_demanded() -> None:
    for bad in (None, "yesterday", "20261399T000000Z"):
        request = signed(S3SigV4Auth).with_headers(x_amz_date=bad)
        assert refused(request).code == "AccessDenied"
    dated = signed(S3SigV4Auth, headers={"Date": "Mon, 21 Sep 2026 14:13:20 GMT"})
    assert dated.headers.get("x-amz-date") is None
    assert check(dated).identity


@pytest.mark.parametrize("access", ["x" * 1000, "\udcff", "a\udce4/b"])
def test_what_cannot_be_an_access_key_is_never_looked_up(access: str) -> None:
    def lookup(_: str) -> Secret | None:
        raise AssertionError("looked up")

    request = signed(S3SigV4Auth)
    v4 = (request.headers.get("authorization") or "").replace(ACCESS, access)
    for text in (v4, f"AWS {access}:c2ln"):
        with pytest.raises(S3Error) as caught:
            authenticate(request.with_headers(authorization=text), lookup, NOW, LIMITS)
        assert caught.value.code == "InvalidAccessKeyId"


def test_nobody_signed() -> None:
    plain = Request("GET", b"/b/k", b"versionId=1", signed(S3SigV4Auth).headers).with_headers(authorization=None)
    assert check(plain.with_headers(x_amz_content_sha256=None)).identity is None


def test_aws_chunked_is_seen_where_only_the_encoding_says_so() -> None:
    headers = {"content-encoding": "gzip,aws-chunked", "x-amz-decoded-content-length": "5"}
    for signer in (HmacV1Auth, S3SigV4QueryAuth, HmacV1QueryAuth):
        assert check(signed(signer, "PUT", headers=headers)).payload is Payload.CHUNKED_UNSIGNED_TRAILER


def test_hoisted_parameters_of_presigned_urls_come_back() -> None:
    request = signed(HmacV1QueryAuth, "PUT", headers={"x-amz-acl": "private", "x-amz-meta-a": "b c"})
    bare = request.with_headers(x_amz_acl=None, x_amz_meta_a=None)
    assert check(bare).hoisted == {"x-amz-acl": "private", "x-amz-meta-a": "b c"}
    changed = replace(bare, raw_query=bare.raw_query.replace(b"private", b"public-read"))
    assert refused(changed).code == "SignatureDoesNotMatch"
    v4 = signed(S3SigV4QueryAuth, "PUT", "/b/k?x-amz-storage-class=STANDARD")
    assert check(v4).hoisted == {"x-amz-storage-class": "STANDARD"}


def test_virtual_host_style_is_part_of_a_version_2_signature() -> None:
    request = signed(HmacV1QueryAuth, "GET", "/bucket/key")
    virtual = replace(request, raw_path=b"/key")
    assert check(virtual, virtual_bucket="bucket").identity
    assert refused(virtual, virtual_bucket="other").code == "SignatureDoesNotMatch"


def test_repeated_and_spaced_headers() -> None:
    headers = {"x-amz-meta-a": "  one   two\tthree ", "x-amz-meta-b": "ü"}
    assert check(signed(S3SigV4Auth, "PUT", headers=headers)).identity
    request = signed(S3SigV4Auth, "PUT", headers={"x-amz-meta-c": "one,two"})
    split = request.with_headers(x_amz_meta_c=None).with_more(("x-amz-meta-c", "one"), ("x-amz-meta-c", " two"))
    assert check(split).identity


def test_secrets_are_in_no_repr() -> None:
    auth = check(signed(S3SigV4Auth, headers={}))
    assert "EXAMPLEKEY" not in repr(Secret("EXAMPLEKEY", "me", "EXAMPLEKEY")) + repr(auth)


def test_signing_keys_are_bounded() -> None:
    keys = SigningKeys(size_max=2)
    for region in "abc":
        keys.keep("s", "20260101", region, derive_key("s", "20260101", region))
    assert len(keys._keys) == 2
    assert keys.get("s", "20260101", "a") == derive_key("s", "20260101", "a")


ODD = st.text(st.sampled_from("aZ09-._~/ +%=&?#*'()!@:;,[]äλ\u20ac\U0001f600"), max_size=12)


@seed(2)
@settings(max_examples=300, deadline=None)
@given(ODD, st.lists(st.tuples(ODD.filter(bool), ODD), max_size=4))
def test_canonical_requests_of_odd_keys_and_queries_match_botocore(key: str, query: list[tuple[str, str]]) -> None:
    path = "/b/" + quote(key, safe="/~")
    text = "&".join(f"{quote(n, safe='~')}={quote(v, safe='~')}" for n, v in query)
    request = AWSRequest("GET", f"http://h{path}" + (f"?{text}" if text else ""))
    theirs = BotocoreV4(Credentials("a", "b"), "s3", "r")
    assert canonical.query(text.encode()) == theirs.canonical_query_string(request)
    assert canonical.path(path.encode()) == path
    assert check(signed(S3SigV4Auth, "GET", path + (f"?{text}" if text else ""))).identity


def test_paths_that_arrive_unencoded_mean_what_they_say() -> None:
    assert canonical.path(b"/b/a+b(c)'%7e%41") == "/b/a%2Bb%28c%29%27~A"
    assert canonical.path("/b/ä".encode()) == "/b/%C3%A4"
    assert canonical.query(b"b=2&a-b=1&a=3&c&d=x+y") == "a=3&a-b=1&b=2&c=&d=x%20y"
