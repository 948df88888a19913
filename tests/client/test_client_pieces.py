"""The pieces of the client, each by itself: what is hostile is refused, what is compared."""

import base64
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostraka.client.answers import DEPTH_MAX, failure, parse
from ostraka.client.bodies import BytesBody, FileBody
from ostraka.client.crew import Crew, Stopped
from ostraka.client.types import Info, Part
from ostraka.client.verifying import Verifier
from ostraka.client.walk import Filter, files, path_in
from ostraka.client.wire import address_of
from ostraka.errors import Absent, Corrupt, Exists, Forbidden, Full, Invalid, OstrakaError, Truncated, Unavailable
from ostraka.host import Host
from ostraka.s3.checksums import checksum, composite


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html/>",
        b"<ListBucketResult>",
        b"<ListBucketResult/><ListBucketResult/>",
        b'<!DOCTYPE x [<!ENTITY e "e">]><ListBucketResult>&e;</ListBucketResult>',
        b"<ListBucketResult>" + b"<a>" * DEPTH_MAX + b"</a>" * DEPTH_MAX + b"</ListBucketResult>",
        b"\xff\xfe\x00",
        bytes(1000),
    ],
)
def test_what_is_no_answer_of_s3_is_unavailable(document: bytes) -> None:
    with pytest.raises(Unavailable, match="no S3 server"):
        parse(document)


def test_an_answer_is_read_whatever_else_is_in_it() -> None:
    root = parse(
        b'<n:ListBucketResult xmlns:n="x" a="b"><New>1</New><Name>b&amp;c</Name><Name>d</Name></n:ListBucketResult>'
    )
    assert (root.name, root.get("Name"), [e.text for e in root.all("Name")], root.get("Absent")) == (
        "ListBucketResult", "b&c", ["b&c", "d"], "")  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchBucket", Absent),
        (404, "NoSuchKey", Absent),
        (404, "", Absent),
        (403, "", Forbidden),
        (403, "InvalidAccessKeyId", Forbidden),
        (403, "SomethingNew", Forbidden),
        (409, "BucketNotEmpty", Exists),
        (507, "InsufficientStorage", Full),
        (400, "BadDigest", Truncated),
        (500, "InternalError", Unavailable),
        (503, "", Unavailable),
        (400, "SomethingNew", Invalid),
    ],
)
def test_the_four_answers_stay_four_over_the_wire(status: int, code: str, kind: type[OstrakaError]) -> None:
    assert type(failure(status, code, "words", "bucket", "key")) is kind


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://x", "http://", "http://h:0x", "http://h:99999", "http://h/p", "http://u@h"]
)
def test_what_is_no_server_s_url_is_invalid(url: str) -> None:
    with pytest.raises(Invalid, match="URL"):
        address_of(url)


def test_an_address_says_whether_it_is_this_machine() -> None:
    assert [address_of(u).loopback for u in ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1")] == [
        True
    ] * 3
    assert address_of("http://0.0.0.0:9000").host == "127.0.0.1"
    assert (address_of("https://example.org").port, address_of("http://example.org").loopback) == (443, False)


def test_exclusions_yield_to_inclusions_and_inclusions_alone_exclude_the_rest() -> None:
    names = ["a.jpg", "b.tmp", "x/a.jpg", "x/b.tmp"]

    def chosen(exclude: list[str], include: list[str]) -> list[str]:
        return [n for n in names if Filter(exclude, include)(n)]

    assert chosen([], []) == names
    assert chosen(["*.tmp"], []) == ["a.jpg", "x/a.jpg"]
    assert chosen([], ["x/*"]) == ["x/a.jpg", "x/b.tmp"]
    assert chosen(["*"], ["*.jpg"]) == ["a.jpg", "x/a.jpg"]
    assert chosen(["x/*"], ["*.tmp"]) == ["a.jpg", "b.tmp", "x/b.tmp"]


def test_a_directory_is_walked_in_the_order_of_keys(tmp_path: Path, seed: int) -> None:
    randomness = random.Random(seed)
    parts = ["a", "a-", "a.b", "a0", "ä", "B", "😀", "z"]
    keys = {"/".join(randomness.choices(parts, k=randomness.randint(1, 4))) + "f" for _ in range(200)}
    for key in keys:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(b"1")
    problems: list[str] = []
    walked = [found.key for found in files(tmp_path, problems.append)]
    assert walked == sorted(keys, key=str.encode)
    assert problems == []


@pytest.mark.parametrize("key", ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a\0b", "x" * 256, "a/./b"])
def test_a_key_that_could_leave_the_directory_is_no_file(key: str) -> None:
    with pytest.raises(Invalid, match="no file"):
        path_in(Path("/somewhere"), key)


class Parts:
    """As a client: an object's parts."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts

    def parts(self, info: Info) -> Iterator[Part]:
        return iter(self._parts)


def info(body: bytes, checksums: dict[str, str], kind: str = "FULL_OBJECT", etag: str = "x-2") -> Info:
    return Info("b", "k", len(body), etag, 0.0, checksums=checksums, checksum_type=kind)


@pytest.mark.parametrize("name", ["CRC64NVME", "CRC32", "SHA256", "XXHASH64"])
@pytest.mark.parametrize("sizes", [[7], [100, 1], [64, 64, 64], [1, 1, 1, 500]])
def test_one_wrong_byte_anywhere_is_found_by_checksums_of_every_kind(seed: int, name: str, sizes: list[int]) -> None:
    randomness = random.Random(seed)
    body = randomness.randbytes(sum(sizes))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    sums = [checksum(name, body[s : s + size]) for s, size in zip(starts, sizes, strict=True)]
    parts: Any = Parts([Part(i, size, checksum=s) for i, (size, s) in enumerate(zip(sizes, sums, strict=True), 1)])
    whole = info(body, {name: checksum(name, body)})
    composed = info(body, {name: composite(name, sums)}, "COMPOSITE")
    for described in (whole, composed):
        for damaged in (False, True):
            given = bytearray(body)
            given[randomness.randrange(len(given))] ^= damaged
            verifier = Verifier(parts, described)
            at = 0
            while at < len(given):
                step = randomness.randint(1, 90)
                verifier.update(given[at : at + step])
                at += step
            if damaged:
                with pytest.raises(Corrupt, match="ostraka fsck"):
                    verifier.finish()
            else:
                verifier.finish()
    short = Verifier(parts, whole)
    short.update(body[:-1])
    with pytest.raises(Corrupt, match="try again"):
        short.finish()


def test_an_object_without_checksums_is_verified_by_the_md5_in_its_etag() -> None:
    etag = base64.b64decode(checksum("MD5", b"body")).hex()
    for given, good in ((b"body", True), (b"bodz", False)):
        verifier = Verifier(Parts([]), info(given, {}, etag=etag))  # type: ignore[arg-type]
        verifier.update(given)
        if good:
            verifier.finish()
        else:
            with pytest.raises(Corrupt):
                verifier.finish()


def test_a_body_can_be_read_again_and_a_file_that_became_shorter_is_told(tmp_path: Path, seed: int) -> None:
    body = random.Random(seed).randbytes(2_500_000)
    (tmp_path / "f").write_bytes(body)
    file = Host().files.open(tmp_path / "f")
    bodies = [BytesBody(body[1000:]), FileBody(file, tmp_path / "f", 1000, len(body) - 1000)]
    for each in bodies:
        for _ in range(2):
            assert b"".join(bytes(piece) for piece in each.pieces()) == body[1000:]
    (tmp_path / "f").write_bytes(body[:2000])
    with pytest.raises(Truncated, match="became shorter"):
        list(bodies[1].pieces())
    file.close()


class Waiting:
    """As a client: something that can be interrupted."""

    def __init__(self) -> None:
        self.interrupted = threading.Event()

    def interrupt(self) -> None:
        self.interrupted.set()


def test_an_interruption_waits_for_what_is_under_way_and_begins_nothing_more() -> None:
    client: Any = Waiting()
    begun, cleaned = [], []
    started = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        started.set()
        assert client.interrupted.wait(60)
        cleaned.append(number)
        error = OstrakaError("ended")
        error.add_note("and could not be cleaned up")
        raise error

    def works() -> Iterator[int]:
        yield 1
        assert started.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught, Crew(client, lambda size: None, width=2) as crew:
        list(crew.run(works(), work))
    assert begun == cleaned == [1]
    assert caught.value.__notes__ == ["and could not be cleaned up"]
    with pytest.raises(Stopped):
        crew.check()


def test_the_first_error_among_parts_ends_them_all() -> None:
    client: Any = Waiting()
    done = []

    def part(number: int) -> int:
        if number == 3:
            raise OstrakaError("third")
        done.append(number)
        return number

    with Crew(client, lambda size: None, width=1) as crew:
        assert sorted(crew.parts(lambda n=n: part(n) for n in (1, 2))) == [1, 2]  # type: ignore[misc]
        with pytest.raises(OstrakaError, match="third"):
            crew.parts(lambda n=n: part(n) for n in range(3, 1000))  # type: ignore[misc]
    assert len(done) < 10
