"""Every kind of error has an S3 answer, and the four answers that must never be confused stay four."""

import inspect

import pytest

from ostraka import errors
from ostraka.errors import Absent, Corrupt, Forbidden, OstrakaError, Overloaded, Truncated, Unavailable
from ostraka.s3.errors import _KINDS, CODES, BodyError, S3Error, from_error
from ostraka.s3.xml import error_document

KINDS = [
    k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, OstrakaError) and k is not OstrakaError
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_mapped_by_itself(kind: type[OstrakaError]) -> None:
    assert kind in _KINDS
    for reason, code in _KINDS[kind].items():
        assert code in CODES, (kind, reason)
    assert from_error(kind("x", reason="a word nobody knows")).code == _KINDS[kind][""]


@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_but_absence_is_404(kind: type[OstrakaError]) -> None:
    for reason in _KINDS[kind]:
        if not issubclass(kind, Absent):
            assert from_error(kind("x", reason=reason)).status != 404


def test_the_four_answers() -> None:
    answers = [from_error(k("x")).status for k in (Absent, Unavailable, Corrupt, Forbidden)]
    assert answers == [404, 503, 500, 403]
    assert from_error(Overloaded("x")).code == "SlowDown"
    assert from_error(ValueError("x")).code == "InternalError"
    assert from_error(OstrakaError("x")).code == "InternalError"


def test_internal_detail_does_not_leak() -> None:
    for kind in (Unavailable, Corrupt, errors.Full, errors.InUse, errors.Refused, ValueError):
        assert "/disk0" not in from_error(kind("/disk0 is gone")).message


def test_a_delete_marker_in_the_way() -> None:
    exc = Absent("deleted", reason="delete-marker")
    exc.version_id, exc.named = "v1", False  # type: ignore[attr-defined]
    plain = from_error(exc, key="k")
    assert (plain.code, plain.headers["x-amz-delete-marker"]) == ("NoSuchKey", "true")
    exc.named = True  # type: ignore[attr-defined]
    named = from_error(exc, key="k")
    assert (named.code, named.headers["allow"], named.headers["x-amz-version-id"]) == (
        "MethodNotAllowed",
        "DELETE",
        "v1",
    )


def test_fields_of_absence() -> None:
    assert from_error(Absent("", reason="bucket"), bucket="b").fields == {"BucketName": "b"}
    assert from_error(Absent("", reason="key"), key="k").fields == {"Key": "k"}


def test_a_body_error_is_truncated_and_keeps_its_code() -> None:
    exc = BodyError("BadDigest")
    assert isinstance(exc, Truncated)
    assert from_error(exc) is exc


def test_an_error_document_escapes_what_the_client_sent() -> None:
    error = S3Error("NoSuchKey", fields={"Key": "<&\x01\udce4>"})
    text = error_document(error, "ID", "HOST", "/b/<k>").decode()
    assert "<Error><Code>NoSuchKey</Code>" in text
    assert "<Key>&lt;&amp;&#x1;?&gt;</Key>" in text
    assert "<Resource>/b/&lt;k&gt;</Resource>" in text
