"""Buckets and keys come out of the address exactly as the client named them."""

from urllib.parse import quote

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from ostraka.s3.address import Address, copy_source, host_bucket, resolve
from ostraka.s3.errors import S3Error

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@seed(1)
@settings(max_examples=300, deadline=None)
@given(KEYS)
def test_any_key_survives_both_styles(key: str) -> None:
    raw = quote(key, safe="/~").encode()
    assert resolve("127.0.0.1:9000", b"/bucket/" + raw) == Address("bucket", key)
    assert resolve("bucket.s3.test:9000", b"/" + raw, ["s3.test"]) == Address("bucket", key, True)


def test_nothing_is_normalised_and_decoding_happens_once() -> None:
    assert resolve(None, b"/b//a/./../c/") == Address("b", "/a/./../c/")
    assert resolve(None, b"/b/a+b%2Bc%2525") == Address("b", "a+b+c%25")
    assert resolve(None, b"/b/\xc3\xa4") == Address("b", "ä")


def test_a_bucket_with_and_without_a_slash() -> None:
    assert resolve(None, b"/") == Address(None, None)
    assert resolve(None, b"/b") == resolve(None, b"/b/") == Address("b", None)
    assert resolve("b.s3.test", b"/", ["s3.test"]) == Address("b", None, True)


def test_the_host_names_a_bucket_only_below_a_domain() -> None:
    domains = ["example.org", "s3.example.org"]
    assert host_bucket("a.b.s3.example.org:80", domains) == "a.b"
    assert host_bucket("S3.Example.org", domains) is None
    assert host_bucket("x.EXAMPLE.org.", domains) == "x"
    assert host_bucket("notexample.org", domains) is None
    assert host_bucket("[::1]:9000", domains) is None
    assert host_bucket("[::1]", domains) is None


@pytest.mark.parametrize("raw", [b"/b/%ff", b"/b/\xff", b"/b/%", b"/b/%g0", b"/b/%4", b"b/k", b"", b"http:"])
def test_what_cannot_be_decoded_is_an_invalid_uri(raw: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        resolve(None, raw)
    assert caught.value.code == "InvalidURI"


def test_copy_sources() -> None:
    assert copy_source("/b/a%20b?versionId=v1") == ("b", "a b", "v1")
    assert copy_source("b/a+b") == ("b", "a+b", None)
    assert copy_source("b%2Fa") == ("b", "a", None)
    assert copy_source("b/ä") == ("b", "ä", None)
    for bad in ("", "b", "/b/", "b/%ff", "//k"):
        with pytest.raises(S3Error) as caught:
            copy_source(bad)
        assert caught.value.code == "InvalidArgument"
