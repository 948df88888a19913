"""Checksums agree with independent implementations, and a wrong one is refused with AWS's code."""

import base64
import binascii
import hashlib
import random

import pytest
from awscrt import checksums as crt
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from s3_signing import Headers

from ostraka.s3 import checksums
from ostraka.s3.checksums import ALGORITHMS, COMPOSITE, FULL_OBJECT, checksum, composite, full_object, multipart_choice
from ostraka.s3.digests import Digests, Expected, expected_of, verify_bytes
from ostraka.s3.errors import BodyError, S3Error

CHECK = b"123456789"  # the customary check input of CRC catalogues
VECTORS = {  # from the catalogue of parametrised CRCs, and of each algorithm's publication
    "CRC32": "cbf43926",
    "CRC32C": "e3069283",
    "CRC64NVME": "ae8b14860a799888",
    "SHA1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "MD5": "25f9e794323b453885f5181f1b624d0b",
}


def bitwise_crc(data: bytes, polynomial: int, bits: int) -> int:
    """A reflected CRC, one bit at a time."""
    mask = (1 << bits) - 1
    crc = mask
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
    return crc ^ mask


def independent(name: str, data: bytes) -> bytes:
    """The digest by a library or program that checksums.py does not use."""
    if name == "CRC32":
        return binascii.crc32(data).to_bytes(4, "big")
    if name == "CRC32C":
        return bitwise_crc(data, 0x82F63B78, 32).to_bytes(4, "big")
    if name == "CRC64NVME":
        return bitwise_crc(data, 0x9A6C9329AC4BC9B5, 64).to_bytes(8, "big")
    if name.startswith("XXHASH"):
        new = {"XXHASH64": "new_xxhash64", "XXHASH3": "new_xxhash3_64", "XXHASH128": "new_xxhash3_128"}[name]
        h = getattr(crt.XXHash, new)()
        h.update(data)
        digest: bytes = h.finalize()
        return digest
    return hashlib.new(name.lower(), data).digest()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_published_vectors_and_independent_libraries(name: str) -> None:
    if name in VECTORS:
        assert base64.b64decode(checksum(name, CHECK)).hex() == VECTORS[name]
    rng = random.Random(3)
    for size in (0, 1, 63, 64, 65, 4096, 10_001):
        data = rng.randbytes(size)
        assert base64.b64decode(checksum(name, data)) == independent(name, data)
        assert len(base64.b64decode(checksum(name, data))) == ALGORITHMS[name].size


@pytest.mark.parametrize("name", ALGORITHMS)
@seed(5)
@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=4))
def test_pieces_hash_as_the_whole(name: str, data: bytes, cuts: list[int]) -> None:
    h, start = ALGORITHMS[name].new(), 0
    for cut in [*sorted(cuts), len(data)]:
        h.update(memoryview(data)[start:cut])
        start = max(start, cut)
    assert base64.b64encode(h.digest()).decode() == checksum(name, data)


@pytest.mark.parametrize("name", [n for n, a in ALGORITHMS.items() if FULL_OBJECT in a.types])
def test_full_object_checksums_combine(name: str) -> None:
    rng = random.Random(4)
    for count in (1, 2, 7):
        parts = [rng.randbytes(rng.choice([0, 1, 5000])) for _ in range(count)]
        combined = full_object(name, [(checksum(name, p), len(p)) for p in parts])
        assert combined == checksum(name, b"".join(parts))
        assert checksums.assemble(name, FULL_OBJECT, [(checksum(name, p), len(p)) for p in parts]) == combined


def test_composite_checksums_are_of_the_parts_digests() -> None:
    parts = [b"a" * 10, b"b" * 20]
    digest = hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).digest()
    expected = base64.b64encode(digest).decode() + "-2"
    assert composite("SHA256", [checksum("SHA256", p) for p in parts]) == expected
    assert checksums.assemble("SHA256", COMPOSITE, [(checksum("SHA256", p), len(p)) for p in parts]) == expected
    with pytest.raises(ValueError):
        full_object("SHA256", [(checksum("SHA256", b""), 0)])


def test_what_an_upload_may_choose() -> None:
    assert multipart_choice(None, None) == ("CRC64NVME", FULL_OBJECT)
    assert multipart_choice("crc32", None) == ("CRC32", COMPOSITE)
    assert multipart_choice("CRC32C", "FULL_OBJECT") == ("CRC32C", FULL_OBJECT)
    assert multipart_choice("CRC64NVME", None) == ("CRC64NVME", FULL_OBJECT)
    for algorithm, kind in (
        ("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("CRC7", None), ("CRC32", "x"), (None, COMPOSITE),
    ):  # fmt: skip
        with pytest.raises(S3Error) as caught:
            multipart_choice(algorithm, kind)
        assert caught.value.code == "InvalidRequest"


def expect(**headers: str) -> Expected:
    return expected_of(Headers([(n.replace("_", "-"), v) for n, v in headers.items()]))


def refusal(**headers: str) -> str:
    with pytest.raises(S3Error) as caught:
        expect(**headers)
    return caught.value.code


DATA = random.Random(6).randbytes((3 << 18) + 17)
MD5 = base64.b64encode(hashlib.md5(DATA).digest()).decode()


def finish(expected: Expected, data: bytes = DATA, **more: object) -> dict[str, str]:
    digests = Digests(expected, **more)  # type: ignore[arg-type]
    digests.update(memoryview(data))
    done = digests.finish()
    assert done.etag == hashlib.md5(data).hexdigest()
    assert done.checksum_type == FULL_OBJECT
    return dict(done.checksums)


def test_crc64nvme_is_added_when_none_is_sent() -> None:
    assert finish(Expected()) == {"CRC64NVME": checksum("CRC64NVME", DATA)}
    assert finish(Expected(), algorithm="SHA1") == {"SHA1": checksum("SHA1", DATA)}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_as_a_header_and_as_a_trailer(name: str) -> None:
    right, wrong = checksum(name, DATA), checksum(name, b"other")
    header = ALGORITHMS[name].header
    for value, good in ((right, True), (wrong, False)):
        given = expected_of(Headers([(header, value), ("x-amz-sdk-checksum-algorithm", name)]))
        trailing = expected_of(Headers([("x-amz-trailer", header), ("x-amz-sdk-checksum-algorithm", name)]))
        assert given.declared
        assert trailing.declared
        for expected, trailers in ((given, {}), (trailing, {header: value})):
            if good:
                assert finish(expected, trailers=lambda t=trailers: t) == {name: right}
            else:
                with pytest.raises(BodyError) as caught:
                    finish(expected, trailers=lambda t=trailers: t)
                assert caught.value.code == "BadDigest"


def test_a_trailer_that_is_missing_or_malformed() -> None:
    expected = expect(x_amz_trailer="x-amz-checksum-crc32")
    for trailers, code in (({}, "MalformedTrailerError"), ({"x-amz-checksum-crc32": "!"}, "InvalidRequest")):
        with pytest.raises(BodyError) as caught:
            finish(expected, trailers=lambda t=trailers: t)
        assert caught.value.code == code


def test_content_md5() -> None:
    assert finish(expect(content_md5=MD5))
    with pytest.raises(BodyError) as caught:
        finish(expect(content_md5=base64.b64encode(b"0" * 16).decode()))
    assert caught.value.code == "BadDigest"
    for bad in ("", "x", "AAAA", "not base64 at all!"):
        assert refusal(content_md5=bad) == "InvalidDigest"


def test_declarations_that_contradict_each_other() -> None:
    crc, sha = checksum("CRC32", b""), checksum("SHA1", b"")
    assert refusal(x_amz_checksum_crc32=crc, x_amz_checksum_sha1=sha) == "InvalidRequest"
    assert refusal(x_amz_checksum_crc32=crc, x_amz_trailer="x-amz-checksum-sha1") == "InvalidRequest"
    assert refusal(x_amz_checksum_crc32=sha) == "InvalidRequest"
    assert refusal(x_amz_checksum_crc32="x") == "InvalidRequest"
    assert refusal(x_amz_sdk_checksum_algorithm="CRC7", x_amz_checksum_crc32=crc) == "InvalidRequest"
    assert refusal(x_amz_sdk_checksum_algorithm="SHA1", x_amz_checksum_crc32=crc) == "InvalidRequest"
    assert refusal(x_amz_sdk_checksum_algorithm="CRC32") == "InvalidRequest"
    assert refusal(x_amz_trailer="x-amz-meta-a") == "InvalidRequest"
    assert refusal(x_amz_trailer="") == "InvalidRequest"
    with pytest.raises(S3Error) as caught:
        Digests(expect(x_amz_checksum_crc32=crc), algorithm="SHA256")
    assert caught.value.code == "InvalidRequest"


def test_a_configuration_body_is_verified_when_it_says_how() -> None:
    verify_bytes(expect(), b"anything")
    verify_bytes(expect(content_md5=MD5), DATA)
    with pytest.raises(BodyError):
        verify_bytes(expect(x_amz_checksum_crc32=checksum("CRC32", b"a")), b"b")


def test_content_md5_is_the_checksum_that_an_sdk_calls_md5() -> None:
    md5 = ("content-md5", "kAFQmDzST7DWlj99KOF/cg==")
    assert expected_of(Headers([md5, ("x-amz-sdk-checksum-algorithm", "MD5")])).md5 is not None
    with pytest.raises(S3Error, match="no corresponding"):
        expected_of(Headers([md5, ("x-amz-sdk-checksum-algorithm", "CRC32")]))
