"""Signatures as who asks makes them: the published examples, and those that botocore makes of the same requests."""

from datetime import UTC, datetime
from random import Random

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ostraka.http import Headers
from ostraka.limits import LIMITS
from ostraka.s3.auth import Secret, authenticate
from ostraka.sigv4 import EMPTY_SHA256, UNSIGNED, Keys, Scope, path_of, presigned_query, query_of, signed_headers

NOW = datetime(2013, 5, 24, tzinfo=UTC)
EXAMPLE = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "examplebucket.s3.amazonaws.com"


def test_the_published_examples() -> None:
    """GET Object and List Objects of "Signature Calculations for the Authorization Header" in Amazon's S3 reference."""
    headers = {"host": HOST, "range": "bytes=0-9"}
    signed = signed_headers(EXAMPLE, Scope("us-east-1"), NOW.timestamp(), "GET", "/test.txt", "", headers, EMPTY_SHA256)
    wanted = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    assert signed["authorization"].rpartition("=")[2] == wanted
    query = query_of([("prefix", "J"), ("max-keys", "2")])
    signed = signed_headers(
        EXAMPLE, Scope("us-east-1"), NOW.timestamp(), "GET", "/", query, {"host": HOST}, EMPTY_SHA256
    )
    wanted = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    assert signed["authorization"].rpartition("=")[2] == wanted
    url = presigned_query(EXAMPLE, Scope("us-east-1"), NOW.timestamp(), "GET", HOST, "/test.txt", 86400)
    assert url.rpartition("=")[2] == "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"


@pytest.mark.parametrize(
    "key", ["k", "a b", "ä/ö", "%41", "a//b", "../x", "q?x=1&y", "plus+", "~tilde", "new\nline", "*'()!"]
)
def test_what_is_signed_here_verifies_at_the_server(key: str) -> None:
    now, keys = NOW.timestamp(), Keys("access", "secret", "token")
    path, query = path_of(f"/bucket/{key}"), query_of([("prefix", key), ("list-type", "2"), ("versions", "")])
    headers = {"host": "h:9000", "x-amz-meta-a": " two  blanks "}
    signed = signed_headers(keys, Scope("eu-somewhere"), now, "PUT", path, query, headers, UNSIGNED)

    class Request:
        method = "PUT"
        raw_path = path.encode()
        raw_query = query.encode()
        headers = Headers.of(list(signed.items()))

    secret = Secret("secret", "owner", "token")
    found = authenticate(Request(), {"access": secret}.get, now, LIMITS)
    assert found.identity is not None
    assert (found.identity.access_key, found.identity.owner) == ("access", "owner")
    assert "secret" not in repr(keys)


def test_names_are_in_order_before_values() -> None:
    assert query_of([("part-a", "1"), ("part", "2"), ("part", "1")]) == "part=1&part=2&part-a=1"


@pytest.mark.parametrize("token", ["", "of a session"])
def test_it_signs_as_botocore_does(token: str, seed: int) -> None:
    chance, keys = Random(seed), Keys("AK", "secret + /", token)
    signer = botocore.auth.S3SigV4Auth(Credentials("AK", "secret + /", token or None), "s3", "eu-west-1")
    for _ in range(40):
        key = "".join(chance.choice("aé /+&=?#%*~'(\U0001f3fa") for _ in range(12))
        query = {chance.choice(["a", "a-b", "B", "é"]): chance.choice(["", "x y", "a/b", "é+="]) for _ in range(3)}
        path, sent = path_of(f"/bucket/{key}"), query_of(query.items())
        headers = {"host": "127.0.0.1:9000", "x-amz-meta-a": "two  words ", "content-type": "text/plain"}
        request = AWSRequest("PUT", f"http://127.0.0.1:9000{path}?{sent}", headers, b"")
        signer.add_auth(request)
        moment = datetime.strptime(request.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        ours = signed_headers(keys, Scope("eu-west-1"), moment, "PUT", path, sent, headers, EMPTY_SHA256)
        assert ours["authorization"] == request.headers["Authorization"]
