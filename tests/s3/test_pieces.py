"""The rules of S3 that need no server: ranges, conditions, names, tags, metadata, cross-origin matching, accounts."""

import asyncio

import pytest

from ostraka.errors import Exists, Invalid
from ostraka.http import Headers
from ostraka.limits import LIMITS
from ostraka.objects.types import Attributes, ObjectInfo
from ostraka.s3 import cors
from ostraka.s3.errors import S3Error
from ostraka.s3.ops import tags
from ostraka.s3.ops.attributes import attributes_of, decode_metadata, encode_metadata
from ostraka.s3.ops.call import valid_bucket_name
from ostraka.s3.ops.conditions import check_copy_source, check_read, write_conditions
from ostraka.s3.ops.listings import read_token, token
from ostraka.s3.ops.ranges import parse_copy_range, parse_range
from ostraka.s3.ops.times import http_date, parse_http_date
from ostraka.store.accounts import StateAccounts


def info(etag: str = "abc", modified: float = 1_000_000.7) -> ObjectInfo:
    return ObjectInfo("b", "k", 10, etag, modified, "null", False, True, False, "o", Attributes())


def headers(**fields: str) -> Headers:
    return Headers.of([(n.replace("_", "-"), v) for n, v in fields.items()])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 4)),
        ("bytes=2-", (2, 8)),
        ("bytes=-3", (7, 3)),
        ("bytes=-300", (0, 10)),
        ("bytes=0-99999", (0, 10)),
        ("BYTES=1-2", (1, 2)),
        ("bytes=1-2,4-5", None),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-b", None),
        ("bytes=", None),
        ("items=0-1", None),
        ("bytes 0-1", None),
        ("bytes=\u0661-5", None),
        ("bytes=--5", None),
    ],
)
def test_a_range_is_read_as_s3_reads_it(value: str, expected: tuple[int, int] | None) -> None:
    assert parse_range(value, 10) == expected


@pytest.mark.parametrize(("value", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)])
def test_a_range_past_the_end_cannot_be_satisfied(value: str, size: int) -> None:
    with pytest.raises(Invalid) as e:
        parse_range(value, size)
    assert e.value.reason == "range"


def test_a_copy_range_must_lie_within_the_source() -> None:
    assert parse_copy_range("bytes=0-9", 10) == (0, 10)
    for bad in ("bytes=0-10", "bytes=5-", "bytes=-5", "0-5", "bytes=5-4"):
        with pytest.raises(Invalid):
            parse_copy_range(bad, 10)


# -- conditional reads


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, ""),
        ({"if_match": '"abc"'}, ""),
        ({"if_match": "abc"}, ""),
        ({"if_match": '"x", "abc"'}, ""),
        ({"if_match": "*"}, ""),
        ({"if_match": '"x"'}, "PreconditionFailed"),
        ({"if_none_match": '"abc"'}, "NotModified"),
        ({"if_none_match": "*"}, "NotModified"),
        ({"if_none_match": 'W/"abc"'}, "NotModified"),
        ({"if_none_match": '"x"'}, ""),
        ({"if_modified_since": http_date(1_000_000)}, "NotModified"),
        ({"if_modified_since": http_date(999_999)}, ""),
        ({"if_unmodified_since": http_date(999_999)}, "PreconditionFailed"),
        ({"if_unmodified_since": http_date(1_000_000)}, ""),
        ({"if_modified_since": "yesterday"}, ""),
        ({"if_match": '"abc"', "if_unmodified_since": http_date(1)}, ""),
        ({"if_match": '"x"', "if_none_match": '"abc"'}, "PreconditionFailed"),
        ({"if_none_match": '"x"', "if_modified_since": http_date(2_000_000)}, ""),
        ({"if_none_match": '"abc"', "if_modified_since": http_date(1)}, "NotModified"),
    ],
)
def test_conditions_of_a_read_are_evaluated_in_s3s_order(fields: dict[str, str], outcome: str) -> None:
    try:
        check_read(headers(**fields), info())
    except S3Error as e:
        assert e.code == outcome
        if outcome == "NotModified":
            assert e.headers["ETag"] == '"abc"'
    else:
        assert outcome == ""


@pytest.mark.parametrize(
    ("name", "value", "fails"),
    [
        ("if_match", '"x"', True),
        ("if_match", '"abc"', False),
        ("if_none_match", '"abc"', True),
        ("if_modified_since", http_date(1_000_000), True),
        ("if_unmodified_since", http_date(1), True),
    ],
)
def test_a_failed_condition_on_a_copys_source_is_412(name: str, value: str, fails: bool) -> None:
    given = headers(**{"x_amz_copy_source_" + name: value})
    if not fails:
        check_copy_source(given, info())
        return
    with pytest.raises(S3Error) as e:
        check_copy_source(given, info())
    assert e.value.status == 412


def test_a_write_knows_if_none_match_star_and_if_match_and_refuses_the_rest() -> None:
    assert write_conditions(headers(if_none_match="*")).if_none_match
    assert write_conditions(headers(if_match='"a"')).if_match == ("a",)
    for bad in ({"if_none_match": '"a"'}, {"if_modified_since": "x"}, {"if_match": "a", "if_none_match": "*"}):
        with pytest.raises(S3Error) as e:
            write_conditions(headers(**bad))
        assert e.value.code == "NotImplemented"


# -- names, times, tokens


@pytest.mark.parametrize("name", ["abc", "a.b", "0ab", "a" * 63, "my-bucket"])
def test_bucket_names_that_s3_allows(name: str) -> None:
    assert valid_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    ["ab", "a" * 64, "Abc", "a_b", "-ab", "ab-", "a..b", ".ab", "192.168.1.1", "xn--abc", "abc-s3alias", "a b", ""],
)
def test_bucket_names_that_s3_refuses(name: str) -> None:
    assert not valid_bucket_name(name)


def test_times_are_written_to_the_second_and_read_in_every_http_form() -> None:
    assert http_date(784111777.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
    for text in ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
                 "1994-11-06T08:49:37Z"):  # fmt: skip
        assert parse_http_date(text) == 784111777
    assert parse_http_date("soon") is None


@pytest.mark.parametrize("key", ["a", "ü/ 1+%", "a" * 1024, "\x01", "//"])
def test_a_continuation_token_gives_its_key_back(key: str) -> None:
    assert read_token(token(key)) == key


@pytest.mark.parametrize("text", ["a", "", "AAAA", "ü", token("abc")[:-4], "!!!!"])
def test_a_token_that_is_not_ours_is_an_invalid_argument(text: str) -> None:
    with pytest.raises(S3Error) as e:
        read_token(text)
    assert e.value.code == "InvalidArgument"


# -- tags and metadata


def test_tags_are_checked_as_s3_checks_them() -> None:
    assert tags.from_header("a=1&b=%C3%BC%20x&c=", 10) == {"a": "1", "b": "ü x", "c": ""}
    with pytest.raises(S3Error, match="BadRequest"):
        tags.from_header("&".join(f"k{i}=v" for i in range(11)), 10)
    with pytest.raises(S3Error, match="InvalidArgument"):
        tags.from_header("a=1&a=2", 10)
    for bad in (
        [("a" * 129, "")],
        [("a", "v" * 257)],
        [("aws:x", "")],
        [("", "x")],
        [("a", "\x00")],
        [("a", ""), ("a", "")],
    ):
        with pytest.raises(S3Error, match="InvalidTag"):
            tags.checked(bad, 10, "Object")


def test_metadata_beyond_ascii_travels_as_rfc_2047() -> None:
    assert encode_metadata("plain") == "plain"
    assert encode_metadata("grün") == "=?UTF-8?B?Z3LDvG4=?="
    assert decode_metadata("=?UTF-8?B?Z3LDvG4=?=") == "grün"
    assert decode_metadata("=?utf-8?Q?gr=C3=BCn?=") == "grün"
    assert decode_metadata("=?UTF-8?B?YWJj?=") == "=?UTF-8?B?YWJj?="  # nothing but ASCII: kept as it was sent
    assert decode_metadata("=?UTF-8?B?!!?=") == "=?UTF-8?B?!!?="
    assert decode_metadata("gr\udcfcn") == "grün"  # Latin-1 bytes


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("x-amz-server-side-encryption-by-hand", "AES256", "NotImplemented"),
        ("x-amz-copy-source-server-side-encryption", "AES256", "NotImplemented"),
        ("x-amz-object-lock-mode", "COMPLIANCE", "NotImplemented"),
        ("x-amz-object-lock-legal-hold", "ON", "NotImplemented"),
        ("x-amz-grant-read", "id=x", "NotImplemented"),
        ("x-amz-acl", "public-read", "NotImplemented"),
        ("x-amz-acl", "authenticated-read", "NotImplemented"),
        ("x-amz-acl", "everyone", "InvalidArgument"),
        ("x-amz-storage-class", "FAST", "InvalidStorageClass"),
        ("x-amz-website-redirect-location", "/x", "NotImplemented"),
        ("x-amz-write-offset-bytes", "0", "NotImplemented"),
    ],
)
def test_a_header_that_promises_what_is_not_built_is_refused_by_name(name: str, value: str, code: str) -> None:
    with pytest.raises(S3Error) as e:
        attributes_of(Headers.of([(name, value)]), LIMITS)
    assert e.value.code == code
    assert name in e.value.message or code != "NotImplemented"


def test_what_a_write_keeps_is_what_it_was_given_without_framing() -> None:
    kept = attributes_of(
        Headers.of(
            [
                ("content-type", "text/plain"),
                ("content-encoding", "aws-chunked,gzip"),
                ("x-amz-meta-a", "1"),
                ("x-amz-meta-a", "2"),
                ("x-amz-tagging", "t=v"),
                ("x-amz-acl", "private"),
                ("x-amz-storage-class", "STANDARD"),
                ("authorization", "secret"),
            ]
        ),
        LIMITS,
    )
    assert kept == Attributes({"content-type": "text/plain", "content-encoding": "gzip"}, {"a": "1,2"}, {"t": "v"})
    assert attributes_of(Headers.of([("content-encoding", "aws-chunked")]), LIMITS) == Attributes()


def test_too_much_metadata_is_refused() -> None:
    attributes_of(Headers.of([("x-amz-meta-a", "x" * 2047)]), LIMITS)
    with pytest.raises(S3Error, match="MetadataTooLarge"):
        attributes_of(Headers.of([("x-amz-meta-a", "x" * 2048)]), LIMITS)


# -- cross-origin


def test_the_first_rule_that_fits_answers() -> None:
    rules = (
        cors.Rule(("https://a.example",), ("PUT",), ("x-*",), ("ETag",), 60),
        cors.Rule(("https://*.example",), ("GET", "PUT")),
        cors.Rule(("*",), ("GET",), ("*",)),
    )
    assert cors.match(rules, "https://a.example", "PUT", ["x-one"]) == (rules[0], "https://a.example")
    assert cors.match(rules, "https://a.example", "PUT", ["y"]) is None
    assert cors.match(rules, "https://b.example", "PUT") == (rules[1], "https://*.example")
    assert cors.match(rules, "http://c", "GET", ["anything"]) == (rules[2], "*")
    assert cors.match(rules, "http://c", "DELETE") is None
    answer = dict(cors.preflight(rules, "https://a.example", "PUT", "X-One"))
    assert answer["Access-Control-Allow-Origin"] == "https://a.example"
    assert answer["Access-Control-Allow-Headers"] == "x-one"
    assert answer["Access-Control-Max-Age"] == "60"
    assert dict(cors.preflight(rules, "http://c", "GET", None))["Access-Control-Allow-Origin"] == "*"
    for origin, method, code in (
        (None, "GET", "BadRequest"),
        ("x", "TRACE", "BadRequest"),
        ("x", "PUT", "AccessForbidden"),
    ):
        with pytest.raises(S3Error) as e:
            cors.preflight(rules, origin, method, None)
        assert e.value.code == code


def test_rules_that_s3_refuses() -> None:
    cors.check([cors.Rule(("*",), ("GET",))])
    for bad in (
        [],
        [cors.Rule(("*",), ("OPTIONS",))],
        [cors.Rule(("*a*",), ("GET",))],
        [cors.Rule(("*",), ("GET",), ("*a*",))],
        [cors.Rule(("*",), ("GET",), (), ("x-*",))],
        [cors.Rule((), ("GET",))],
        [cors.Rule(("*",), ("GET",))] * 101,
    ):
        with pytest.raises(S3Error):
            cors.check(bad)


# -- accounts


def test_an_account_is_seen_by_every_reader_of_the_state_at_once() -> None:
    from ostraka.state import MemoryState

    async def run() -> None:
        state = MemoryState()
        here, there = StateAccounts(state, "rk", "rs"), StateAccounts(state, "rk", "rs")
        assert there.by_access_key("k1") is None
        await here.put("ann", "k1", "s1")
        found = there.by_access_key("k1")
        assert found is not None
        assert (found[0].name, found[0].root, found[1]) == ("ann", False, "s1")
        await here.put("ann", "k1", "s2")
        assert there.by_access_key("k1")[1] == "s2"  # type: ignore[index]
        await here.put("ann", "k2", "s3")  # another key takes the old one's place
        assert there.by_access_key("k1") is None
        assert there.by_access_key("k2")[1] == "s3"  # type: ignore[index]
        with pytest.raises(Exists):
            await here.put("bob", "k2", "s4")
        with pytest.raises(Invalid):
            await here.put("root", "k9", "s")
        await here.put("bob", "rk", "s4")
        root = here.by_access_key("rk")
        assert root is not None
        assert root[0].root
        assert root[1] == "rs"
        assert list(here.names()) == [("ann", "k2"), ("bob", "rk")]
        await state.close()

    asyncio.run(run())
