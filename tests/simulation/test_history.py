"""The checker of histories: what cannot be is refused, and what can be is not."""

import pytest

from ostraka.testing.simulation.history import (
    History,
    Impossible,
    Version,
    delete,
    delete_version,
    put,
    sees,
    sees_all,
    when,
)


class Told:
    """Operations on one key, in words."""

    def __init__(self) -> None:
        self.history = History()

    def put(self, etag: str, *, answered: bool = True) -> "object":
        operation = self.history.begin("b", "k", f"put {etag}", put("", etag))
        if answered:
            self.history.end(operation)
        return operation

    def delete(self) -> None:
        self.history.end(self.history.begin("b", "k", "delete", delete("")))

    def get(self, etag: str | None) -> None:
        self.history.end(self.history.begin("b", "k", f"get {etag}", sees(etag)))


def test_reads_see_the_last_write() -> None:
    told = Told()
    told.get(None)
    told.put("1")
    told.get("1")
    told.put("2")
    told.get("2")
    told.delete()
    told.get(None)
    told.history.check()


@pytest.mark.parametrize("seen", ["1", None])
def test_a_write_that_was_acknowledged_and_lost_is_found(seen: str | None) -> None:
    told = Told()
    told.put("1")
    told.put("2")
    told.get(seen)
    with pytest.raises(Impossible):
        told.history.check()


def test_a_write_in_flight_may_be_seen_or_not_but_not_both_ways() -> None:
    for seen, possible in ((("1", "2"), True), (("2", "2"), True), (("1", "1"), True), (("2", "1"), False)):
        told = Told()
        told.put("1")
        told.put("2", answered=False)
        for etag in seen:
            told.get(etag)
        if possible:
            told.history.check()
        else:
            with pytest.raises(Impossible):
                told.history.check()


def test_what_was_in_flight_at_a_crash_is_decided_when_the_store_was_recovered() -> None:
    told = Told()
    told.put("1")
    told.put("2", answered=False)
    told.history.recovered()
    told.get("1")
    told.history.check()
    told.get("2")
    with pytest.raises(Impossible):
        told.history.check()


def test_what_was_refused_certainly_did_not_happen() -> None:
    told = Told()
    told.put("1")
    refused = told.put("2", answered=False)
    told.history.refused(refused)  # type: ignore[arg-type]
    told.get("2")
    with pytest.raises(Impossible):
        told.history.check()


def test_of_two_that_both_may_only_create_one_has_to_fail() -> None:
    history = History()
    for etag in ("1", "2"):
        operation = history.begin("b", "k", "create", put("", etag))
        history.end(operation, when(sees(None), put("", etag)))
    with pytest.raises(Impossible):
        history.check()


def test_versions_are_kept_in_order_until_they_are_deleted_by_name() -> None:
    history = History()

    def do(what: str, step: object) -> None:
        history.end(history.begin("b", "k", what, step))  # type: ignore[arg-type]

    do("put", put("Enabled", "1", "v1"))
    do("put", put("Enabled", "2", "v2"))
    do("delete", delete("Enabled", "v3"))
    do("get", sees(None))
    do("versions", sees_all((Version("v3", ""), Version("v2", "2"), Version("v1", "1"))))
    do("delete v3", delete_version("v3"))
    do("get", sees("2"))
    history.check()
    do("versions", sees_all((Version("v1", "1"), Version("v2", "2"))))
    with pytest.raises(Impossible):
        history.check()
