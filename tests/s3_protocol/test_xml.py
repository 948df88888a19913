"""What botocore writes we read, what we write botocore reads, for every shape of the model; hostile XML is refused."""

import datetime
import random
from typing import Any

import botocore.session
import pytest
from botocore import parsers, serialize
from botocore.handlers import escape_xml_payload
from botocore.model import OperationModel, Shape

from ostraka.objects.types import Attributes, Listed, ObjectInfo
from ostraka.s3 import xml
from ostraka.s3.errors import S3Error
from ostraka.s3.model import OPERATIONS, body_of

SERVICE = botocore.session.get_session().get_service_model("s3")
SERIALIZER = serialize.create_serializer("rest-xml", include_validation=False)
PARSER = parsers.create_parser("rest-xml")
ROUTED = {n: o for n, o in OPERATIONS.items() if not o.deprecated}
WITH_XML_INPUT = sorted(n for n, o in ROUTED.items() if body_of(o.input) and body_of(o.input)[1])  # type: ignore[index]
WITH_XML_OUTPUT = sorted(n for n, o in ROUTED.items() if body_of(o.output) and n != "SelectObjectContent")
TEXT = ["a", "<&>\"'", " two  spaces ", "ä€😀", "]]>", "line\nbreak", "tab\t.", "cr\r.", "x" * 300]


def sample(shape: Shape, rng: random.Random, depth: int = 0) -> Any:
    """A random value of a botocore shape, as its users write it."""
    if shape.type_name == "structure":
        out = {}
        for name, member in shape.members.items():
            if name in shape.required_members or (depth < 6 and rng.random() < 0.7):
                out[name] = sample(member, rng, depth + 1)
        return out
    if shape.type_name == "list":
        return [sample(shape.member, rng, depth + 1) for _ in range(rng.randint(1, 3))]
    if shape.type_name == "map":
        return {"k": "v"}
    if shape.type_name == "timestamp":
        return datetime.datetime(2026, rng.randint(1, 12), rng.randint(1, 28), 1, 2, 3, tzinfo=datetime.UTC)
    if shape.type_name == "boolean":
        return rng.random() < 0.5
    if shape.type_name in ("integer", "long"):
        return rng.randint(0, 10**6)
    if shape.type_name == "blob":
        return "text"
    enum = getattr(shape, "enum", None)
    return rng.choice(enum) if enum else rng.choice(TEXT)


def operation(name: str) -> OperationModel:
    return SERVICE.operation_model(name)


@pytest.mark.parametrize("name", WITH_XML_INPUT)
def test_every_request_that_botocore_writes_is_read(name: str) -> None:
    model = operation(name)
    payload = model.input_shape.serialization["payload"]
    rng = random.Random(name)
    for _ in range(8):
        value = sample(model.input_shape.members[payload], rng)
        params = dict.fromkeys(model.input_shape.required_members, "x") | {payload: value}
        request = SERIALIZER.serialize_to_request(params, model)
        escape_xml_payload(request)
        body = request["body"]
        decoded = xml.decode_payload(name, body)
        assert decoded == value
        bare = body.replace(b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', b"")
        assert xml.decode_payload(name, bare) == value


@pytest.mark.parametrize("name", WITH_XML_OUTPUT)
def test_every_answer_that_we_write_botocore_reads(name: str) -> None:
    model = operation(name)
    output = model.output_shape
    payload = output.serialization.get("payload")
    rng = random.Random(name)
    for _ in range(8):
        value = sample(output.members[payload] if payload else output, rng)
        if not payload:
            value = {n: v for n, v in value.items() if not output.members[n].serialization.get("location")}
        if name == "GetBucketLocation":
            value = {"LocationConstraint": "eu-west-1"}
        body = xml.encode_output(name, value)
        parsed = PARSER.parse({"body": body, "headers": {}, "status_code": 200}, output)
        parsed.pop("ResponseMetadata")
        if name == "GetBucketLocation":  # botocore reads it in a handler of its own
            assert b">eu-west-1</LocationConstraint>" in body
            continue
        assert (parsed.get(payload, {}) if payload else parsed) == value


def refused(shape: str, root: str, text: str | bytes, **more: Any) -> str:
    with pytest.raises(S3Error) as caught:
        xml.decode(shape, text.encode() if isinstance(text, str) else text, root=root, **more)
    return caught.value.code


TAGGING = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"


def test_namespaces_and_prefixes_do_not_matter() -> None:
    right = {"TagSet": [{"Key": "a", "Value": "b"}]}
    for text in (
        TAGGING,
        TAGGING.replace("<Tagging>", '<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'),
        TAGGING.replace("<", "<s3:").replace("<s3:/", "</s3:").replace("Tagging>", 'Tagging xmlns:s3="u">', 1),
        '<?xml version="1.0" encoding="UTF-8"?>\n' + TAGGING.replace("><", ">\n  <"),
    ):
        assert xml.decode("Tagging", text.encode(), root="Tagging") == right


def test_keys_keep_their_blanks() -> None:
    text = b"<Delete><Object><Key> a  b\n</Key></Object><Object><Key></Key></Object><Quiet>TRUE</Quiet></Delete>"
    assert xml.decode("Delete", text, root="Delete") == {"Objects": [{"Key": " a  b\n"}, {"Key": ""}], "Quiet": True}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not xml",
        TAGGING[:-3],
        TAGGING + "x",
        TAGGING.replace("Tagging", "Tags"),
        TAGGING.replace("<Tag>", "<Tag><More/>"),
        TAGGING.replace("<Key>a</Key>", ""),
        TAGGING.replace("<Key>a</Key>", "<Key>a</Key><Key>c</Key>"),
        TAGGING.replace("<Key>a</Key>", "<Key><b/></Key>"),
        TAGGING.replace("<TagSet>", "<TagSet>text"),
        TAGGING.replace("</TagSet>", "</TagSet><TagSet/>"),
        TAGGING.replace("<Tagging>", "<Tagging>" * 1000),
        "<Tagging/>",
        "<!DOCTYPE Tagging>" + TAGGING,
        '<!DOCTYPE x [<!ENTITY a "b">]>' + TAGGING.replace(">a<", ">&a;<"),
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + TAGGING.replace(">a<", ">&a;<"),
        TAGGING.replace(">a<", ">&a;<"),
        TAGGING.replace(">a<", ">&#0;<"),
        '<?xml version="1.0" encoding="ebcdic-cp-be"?>' + TAGGING,
    ],
)
def test_what_is_not_the_document_is_malformed(text: str) -> None:
    assert refused("Tagging", "Tagging", text) == "MalformedXML"
    assert refused("Tagging", "Tagging", text, code="MalformedACLError") == "MalformedACLError"


def test_xml_bombs_are_refused_at_once() -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 20))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]>' + TAGGING.replace(">a<", ">&e19;<")
    assert refused("Tagging", "Tagging", bomb) == "MalformedXML"
    quadratic = f'<!DOCTYPE x [<!ENTITY a "{"b" * 100_000}">]>' + TAGGING.replace(">a<", ">" + "&a;" * 1000 + "<")
    assert refused("Tagging", "Tagging", quadratic) == "MalformedXML"


def test_values_must_be_of_their_type() -> None:
    for status in ("", "enabled", "On"):
        text = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"
        assert refused("VersioningConfiguration", "VersioningConfiguration", text) == "MalformedXML"
    for number in ("", "x", "1.5", "0x1", "9" * 30, "\u0661"):
        text = f"<CompleteMultipartUpload><Part><PartNumber>{number}</PartNumber></Part></CompleteMultipartUpload>"
        assert refused("CompletedMultipartUpload", "CompleteMultipartUpload", text) == "MalformedXML"
    assert refused("Delete", "Delete", "<Delete><Object><Key>a</Key></Object><Quiet>x</Quiet></Delete>")


def test_lists_are_bounded() -> None:
    text = "<Delete>" + "<Object><Key>a</Key></Object>" * 5 + "</Delete>"
    assert len(xml.decode("Delete", text.encode(), root="Delete", items_max=5)["Objects"]) == 5
    assert refused("Delete", "Delete", text, items_max=4) == "MalformedXML"


def test_any_region_is_a_location() -> None:
    text = b"<CreateBucketConfiguration><LocationConstraint>garage</LocationConstraint></CreateBucketConfiguration>"
    assert xml.decode_payload("CreateBucket", text) == {"LocationConstraint": "garage"}
    assert xml.decode_payload("CreateBucket", b"") is None


def test_a_body_that_must_be_there() -> None:
    with pytest.raises(S3Error) as caught:
        xml.decode_payload("PutBucketTagging", b"")
    assert caught.value.code == "MissingRequestBodyError"
    with pytest.raises(S3Error) as caught:
        xml.decode_payload("PutObjectAcl", b"<x/>")
    assert caught.value.code == "MalformedACLError"


def test_an_answer_never_silently_loses_a_member() -> None:
    with pytest.raises(ValueError):
        xml.encode_output("GetBucketVersioning", {"Staus": "Enabled"})
    with pytest.raises(ValueError):
        xml.encode_output("DeleteObjects", {"Deleted": "k"})


def test_documents_look_as_s3_writes_them() -> None:
    assert xml.encode_output("GetBucketLocation", {}).endswith(
        b'<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></LocationConstraint>'
    )
    text = xml.encode_output("CopyObject", {"ETag": '"abc"', "LastModified": 1_790_000_000.9})
    assert text.decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n<CopyObjectResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        "<ETag>&quot;abc&quot;</ETag><LastModified>2026-09-21T14:13:20.000Z</LastModified></CopyObjectResult>"
    )
    assert xml.escape("a\x00\x1f\r\n\ufffe") == "a&#x0;&#x1f;&#xd;&#xa;&#xfffe;"


def entry(key: str, **more: Any) -> Listed:
    return Listed(key, 5, "e" * 32, 1_790_000_000.0, "STANDARD", "acct", **more)


def test_listings_are_read_by_botocore() -> None:
    keys = [t.replace("\r", "") for t in TEXT]
    rows = [entry(k, checksum_algorithms=("CRC32",), checksum_type="FULL_OBJECT") for k in keys]
    for url in (False, True):
        body = xml.list_result(
            "ListBucketResult",
            [("Name", "b"), ("Prefix", ""), ("KeyCount", len(rows)), ("IsTruncated", True), ("Delimiter", None)],
            xml.contents(rows, url=url, owner=lambda a: ("id-" + a, a)),
            xml.common_prefixes(["p /"], url=url),
        )
        parsed = PARSER.parse(
            {"body": body, "headers": {}, "status_code": 200}, operation("ListObjectsV2").output_shape
        )
        names = [xml.url_encode(k) if url else k for k in keys]
        assert [c["Key"] for c in parsed["Contents"]] == names
        assert parsed["CommonPrefixes"] == [{"Prefix": "p%20/" if url else "p /"}]
        assert (parsed["IsTruncated"], parsed["KeyCount"]) == (True, len(keys))
        first = parsed["Contents"][0]
        assert first["Owner"] == {"ID": "id-acct", "DisplayName": "acct"}
        assert (first["ETag"], first["Size"]) == (f'"{"e" * 32}"', 5)
        assert (first["ChecksumAlgorithm"], first["ChecksumType"]) == (["CRC32"], "FULL_OBJECT")
        assert first["LastModified"].timestamp() == 1_790_000_000


def test_versions_are_read_by_botocore() -> None:
    def info(key: str, marker: bool) -> ObjectInfo:
        return ObjectInfo(
            "b", key, 5, "e" * 32, 1_790_000_000.0, "v1", True, True, marker, "acct", Attributes(),
            {"CRC32": "AAAAAA=="}, "FULL_OBJECT",
        )  # fmt: skip

    body = xml.list_result("ListVersionsResult", [("Name", "b")], xml.versions([info("a&b", False), info("c", True)]))
    parsed = PARSER.parse(
        {"body": body, "headers": {}, "status_code": 200}, operation("ListObjectVersions").output_shape
    )
    assert [(v["Key"], v["VersionId"], v["IsLatest"]) for v in parsed["Versions"]] == [("a&b", "v1", True)]
    assert [(v["Key"], v["VersionId"]) for v in parsed["DeleteMarkers"]] == [("c", "v1")]


def test_times_of_every_day() -> None:
    rng = random.Random(8)
    for _ in range(3000):
        seconds = rng.randint(0, 4_000_000_000)
        expected = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        assert xml.iso_time(seconds + rng.random()) == expected
