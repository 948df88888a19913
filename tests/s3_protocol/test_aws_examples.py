"""The worked examples of AWS's own documentation of Signature Version 4."""

import calendar

import pytest
from s3_signing import Headers, Request

from ostraka.limits import LIMITS
from ostraka.s3.auth import Authenticated, ChunkSigning, Payload, Secret, authenticate
from ostraka.s3.auth.sigv4 import derive_key
from ostraka.s3.bodies import ChunkVerifier
from ostraka.s3.errors import S3Error

ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
NOW = float(calendar.timegm((2013, 5, 24, 0, 0, 0)))
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SCOPE = "20130524/us-east-1/s3/aws4_request"


def verify(method: str, path: bytes, query: bytes, names: str, signature: str, **headers: str) -> Authenticated:
    items = [("host", headers.pop("host", "examplebucket.s3.amazonaws.com"))]
    items += [(n.replace("_", "-"), v) for n, v in headers.items()]
    if signature:
        text = f"AWS4-HMAC-SHA256 Credential={ACCESS}/{SCOPE},SignedHeaders={names},Signature={signature}"
        items.append(("authorization", text))
    request = Request(method, path, query, Headers(items))
    return authenticate(request, lambda a: Secret(SECRET) if a == ACCESS else None, NOW, LIMITS)


def test_get_object() -> None:
    verify(
        "GET", b"/test.txt", b"", "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        range="bytes=0-9", x_amz_content_sha256=EMPTY, x_amz_date="20130524T000000Z",
    )  # fmt: skip


def test_put_object() -> None:
    verify(
        "PUT", b"/test%24file.text", b"", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        date="Fri, 24 May 2013 00:00:00 GMT", x_amz_date="20130524T000000Z",
        x_amz_storage_class="REDUCED_REDUNDANCY",
        x_amz_content_sha256="44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        (b"lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (b"max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_bucket_reads(query: bytes, signature: str) -> None:
    names = "host;x-amz-content-sha256;x-amz-date"
    verify("GET", b"/", query, names, signature, x_amz_content_sha256=EMPTY, x_amz_date="20130524T000000Z")


def test_presigned() -> None:
    query = (
        b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F"
        b"aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature="
        b"aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    assert verify("GET", b"/test.txt", query, "", "").presigned


CHUNKS = (
    (65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"


def chunked(seed: str) -> ChunkVerifier:
    key = derive_key(SECRET, "20130524", "us-east-1")
    return ChunkVerifier(ChunkSigning(key, "20130524T000000Z", SCOPE, seed))


def test_the_seed_of_a_chunked_upload() -> None:
    names = (
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;"
        "x-amz-storage-class"
    )
    auth = verify(
        "PUT", b"/examplebucket/chunkObject.txt", b"", names, SEED, host="s3.amazonaws.com",
        content_encoding="aws-chunked", content_length="66824", x_amz_date="20130524T000000Z",
        x_amz_storage_class="REDUCED_REDUNDANCY", x_amz_decoded_content_length="66560",
        x_amz_content_sha256="STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    )  # fmt: skip
    assert auth.payload is Payload.CHUNKED_SIGNED
    assert auth.chunks is not None
    assert (auth.chunks.seed, auth.chunks.scope) == (SEED, SCOPE)


def test_chunk_signatures() -> None:
    verifier = chunked(SEED)
    for size, signature in CHUNKS:
        verifier.announce(size, signature)
        verifier.update(b"a" * size)
    verifier.end(None)
    verifier.finish()


def test_a_changed_chunk_does_not_match() -> None:
    verifier = chunked(SEED)
    verifier.announce(*CHUNKS[0])
    with pytest.raises(S3Error) as caught:
        verifier.update(b"a" * 65535 + b"b")
    assert caught.value.code == "SignatureDoesNotMatch"


TRAILED = (
    (65536, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
    (1024, "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
    (0, "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"),
)


def test_chunk_and_trailer_signatures() -> None:
    verifier = chunked("106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e")
    for size, signature in TRAILED:
        verifier.announce(size, signature)
        verifier.update(b"a" * size)
    verifier.end(
        (b"x-amz-checksum-crc32c:sOO8/Q==\n", "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435")
    )
    verifier.finish()
