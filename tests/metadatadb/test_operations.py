"""What operations do to a state, and what queries say of it: a table of meanings, and a model."""

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from ostraka.errors import Invalid
from ostraka.metadatadb import operations as o
from ostraka.metadatadb import queries as q
from ostraka.metadatadb.answering import ANSWER, answer
from ostraka.metadatadb.applying import APPLY, Outcome, apply
from ostraka.metadatadb.format import SnapshotLine, read_snapshot, write_snapshot
from ostraka.metadatadb.operations import INT64_MAX, INT64_MIN, OPERATIONS, Op, Transaction
from ostraka.metadatadb.queries import QUERIES
from ostraka.metadatadb.state import State

BIG = (1 << 53) + 1  # what a float cannot hold


def after(*ops: Op, at: int = 1, state: State | None = None) -> State:
    state = state or State()
    assert apply(state, Transaction(at, ops)) is Outcome.DONE
    return state


def holds(state: State) -> dict[str, Any]:
    """What is held now, by name."""
    now = state.time
    live = {name: state.live(name, now) for name in state.names}
    found = {}
    for name, held in live.items():
        if held is not None:
            keys = isinstance(held.value, dict)
            value = {k: v for k, v in held.value.items() if held.has(k, now)} if keys else held.value
            found[name] = (held.kind, value)
    return found


def test_every_operation_and_query_has_a_meaning() -> None:
    assert set(APPLY) == set(OPERATIONS) == set(get_args(o.Op))
    assert set(ANSWER) == set(QUERIES) == set(get_args(q.Query))
    tags = [kind.__struct_config__.tag for kind in OPERATIONS]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("number", [0, 1, -1, BIG, -BIG, 1 << 60, INT64_MAX, INT64_MIN])
def test_integers_are_exact_on_their_way(number: int) -> None:
    ops = (
        o.IntSet("n", number),
        o.IntMapAdd("m", '"k"', number),
        o.IntExpect("n", number),
        o.MapSet("v", "1", Raw(b"%d" % number)),
    )
    wire = msgspec.json.encode(Transaction(5, ops))
    back = msgspec.json.decode(wire, type=Transaction)
    assert back == Transaction(5, ops)
    state = after(*back.ops[:2])
    _, state = read_snapshot("p", write_snapshot(state, SnapshotLine(1, 1, {}, 2)))
    assert answer(state, q.IntGet("n"), 1) == number
    assert answer(state, q.IntMapGet("m", '"k"'), 1) == number


@pytest.mark.parametrize("number", [INT64_MAX + 1, INT64_MIN - 1])
def test_an_integer_of_more_than_64_bits_is_refused_on_the_wire(number: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(o.IntAdd("n", number)), type=Op)


def test_unknown_fields_and_operations_are_refused_on_the_wire() -> None:
    for text in (b'{"op":"int-add","name":"n","delta":1,"more":2}', b'{"op":"int-pow","name":"n"}', b'{"name":"n"}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text, type=Op)


ARITHMETIC: list[tuple[int, Callable[[], Op], int]] = [
    (100, lambda: o.IntAdd("n", 5), 105),
    (100, lambda: o.IntMul("n", 3), 300),
    (300, lambda: o.IntDiv("n", 4), 75),
    (7, lambda: o.IntDiv("n", -2), -3),
    (-7, lambda: o.IntDiv("n", 2), -3),
    (-7, lambda: o.IntDiv("n", -2), 3),
    (7, lambda: o.IntDiv("n", 0), 7),
    (INT64_MAX, lambda: o.IntAdd("n", 1), INT64_MIN),
    (INT64_MIN, lambda: o.IntAdd("n", -1), INT64_MAX),
    (INT64_MAX, lambda: o.IntMul("n", 2), -2),
    (INT64_MIN, lambda: o.IntMul("n", -1), INT64_MIN),
    (INT64_MIN, lambda: o.IntDiv("n", -1), INT64_MIN),
    (1 << 32, lambda: o.IntMul("n", 1 << 32), 0),
    (BIG, lambda: o.IntDiv("n", 1), BIG),
]


@pytest.mark.parametrize(("before", "op", "expected"), ARITHMETIC)
def test_arithmetic_is_of_64_bits(before: int, op: Callable[[], Op], expected: int) -> None:
    assert answer(after(o.IntSet("n", before), op()), q.IntGet("n"), 1) == expected
    keyed: Any = {o.IntAdd: o.IntMapAdd, o.IntMul: o.IntMapMul, o.IntDiv: o.IntMapDiv}[type(op())]
    operand = msgspec.structs.astuple(op())[1]
    assert answer(after(o.IntMapSet("m", "1", before), keyed("m", "1", operand)), q.IntMapGet("m", "1"), 1) == expected


@settings(max_examples=50)
@given(st.lists(st.integers(INT64_MIN, INT64_MAX), max_size=20), st.randoms(use_true_random=False))
def test_additions_give_the_same_in_any_order(deltas: list[int], chance: Any) -> None:
    shuffled = deltas.copy()
    chance.shuffle(shuffled)
    one, other = (after(*(o.IntAdd("n", d) for d in order)) for order in (deltas, shuffled))
    assert answer(one, q.IntGet("n"), 1) == answer(other, q.IntGet("n"), 1)


def test_what_is_absent_counts_as_nothing() -> None:
    state = State()
    assert answer(state, q.ScalarGet("x"), 1) is None
    assert answer(state, q.IntGet("x"), 1) == 0
    assert answer(state, q.IntMapGet("x", "1"), 1) == 0
    assert answer(state, q.MapGet("x", "1"), 1) is None
    assert answer(state, q.SetContains("x", "1"), 1) is False
    assert [answer(state, k("x"), 1) for k in (q.IntMapKeys, q.SetMembers, q.MapKeys, q.ListEntries)] == [[]] * 4
    assert [answer(state, k("x"), 1) for k in (q.IntMapEntries, q.MapEntries)] == [{}] * 2
    assert answer(state, q.ListLen("x"), 1) == answer(state, q.Size("x"), 1) == 0
    assert answer(state, q.Expiry("x"), 1) is None
    after(o.IntMapDelete("a", "1"), o.SetRemove("b", "1"), o.MapDelete("c", "1"), o.ListTrim("d", 0), state=state)
    after(o.ScalarDelete("e"), o.Drop("f"), o.Expire("g", 5), o.Expire("h", 5, "1"), o.Clear(), state=state)
    assert state.names == {}
    assert state.size == 0
    after(o.IntMul("i", 3), o.IntMapMul("m", "1", 3), o.IntMapDiv("m", "2", 3), state=state)
    assert answer(state, q.IntMapEntries("m"), 1) == {"1": 0, "2": 0}


def test_a_stored_null_is_a_value() -> None:
    state = after(o.ScalarSet("s", Raw(b"null")), o.MapSet("m", "1", Raw(b"null")))
    assert answer(state, q.ScalarGet("s"), 1) == b"null"
    assert apply(state, Transaction(1, (o.ScalarExpect("s"), o.Drop("s")))) is Outcome.UNMET
    assert apply(state, Transaction(1, (o.MapExpect("m", "1", Raw(b"null")), o.Drop("m")))) is Outcome.DONE
    assert list(state.names) == ["s"]


SOME: list[Op] = [
    o.ScalarSet("x", Raw(b"1")),
    o.IntSet("x", 1),
    o.IntMapSet("x", "1", 1),
    o.SetAdd("x", "1"),
    o.MapSet("x", "1", Raw(b"1")),
    o.ListAppend("x", Raw(b"1")),
]


@pytest.mark.parametrize("first", SOME, ids=lambda op: op.kind)
@pytest.mark.parametrize("second", SOME, ids=lambda op: op.kind)
def test_a_name_has_one_kind_until_it_is_dropped(first: Op, second: Op) -> None:
    state = after(first)
    before = holds(state)
    if first.kind is second.kind:
        after(second, state=state)
        return
    assert apply(state, Transaction(2, (o.IntAdd("other", 1), second))) is Outcome.REFUSED
    assert holds(state) == before, "the refused transaction left something behind"
    for query in (q.ScalarGet("x"), q.IntGet("x"), q.ListLen("x")):
        if query.kind is not first.kind:
            with pytest.raises(Invalid) as refused:
                answer(state, query, 2)
            assert refused.value.reason == "kind"
    after(o.Drop("x"), second, state=state)
    assert answer(state, q.Names(""), 2) == {"x": second.kind}
    after(o.Clear(), first, state=state)
    assert answer(state, q.Names(""), 2) == {"x": first.kind}


def test_deleting_a_scalar_frees_its_name() -> None:
    state = after(o.ScalarSet("x", Raw(b"1")))
    after(o.ScalarDelete("x"), o.IntAdd("x", 1), state=state)
    assert answer(state, q.Names(""), 1) == {"x": o.Kind.INT}


EXPECTATIONS: list[tuple[Op, bool]] = [
    (o.ScalarExpect("s", Raw(b'"v"')), True),
    (o.ScalarExpect("s", Raw(b'"w"')), False),
    (o.ScalarExpect("s"), False),
    (o.ScalarExpect("absent"), True),
    (o.ScalarExpect("absent", Raw(b"0")), False),
    (o.IntExpect("i", 3), True),
    (o.IntExpect("i", 0), False),
    (o.IntExpect("absent", 0), True),
    (o.IntMapExpect("n", "1", 4), True),
    (o.IntMapExpect("n", "2", 0), True),
    (o.IntMapExpect("n", "1", 0), False),
    (o.MapExpect("m", "1", Raw(b"[]")), True),
    (o.MapExpect("m", "1"), False),
    (o.MapExpect("m", "2"), True),
    (o.SetExpect("t", "1", True), True),
    (o.SetExpect("t", "1", False), False),
    (o.SetExpect("t", "2", False), True),
    (o.SetExpect("absent", "1", True), False),
]


@pytest.mark.parametrize(("expectation", "met"), EXPECTATIONS)
def test_a_transaction_has_effect_only_if_all_it_expects_is_so(expectation: Op, met: bool) -> None:
    state = after(
        o.ScalarSet("s", Raw(b'"v"')),
        o.IntSet("i", 3),
        o.IntMapSet("n", "1", 4),
        o.MapSet("m", "1", Raw(b"[]")),
        o.SetAdd("t", "1"),
    )
    before = holds(state)
    outcome = apply(state, Transaction(2, (o.IntAdd("done", 1), expectation)))
    assert outcome is (Outcome.DONE if met else Outcome.UNMET)
    assert holds(state) == (before | {"done": (o.Kind.INT, 1)} if met else before)


def test_expectations_are_of_what_was_before_the_transaction() -> None:
    state = after(o.IntSet("i", 1))
    after(o.IntSet("i", 2), o.IntExpect("i", 1), state=state)
    assert answer(state, q.IntGet("i"), 1) == 2


# -- time


def test_what_expired_is_absent_and_starts_anew() -> None:
    state = after(
        o.ScalarSet("s", Raw(b"1"), 10),
        o.IntSet("i", 5, 10),
        o.IntMapSet("n", "1", 5, 10),
        o.IntMapSet("n", "2", 7),
        o.SetAdd("t", "1", 10),
        o.MapSet("m", "1", Raw(b"1"), 10),
    )
    assert answer(state, q.IntGet("i"), 9) == 5
    assert [answer(state, query, 10) for query in (q.ScalarGet("s"), q.IntGet("i"), q.IntMapGet("n", "1"))] == [
        None,
        0,
        0,
    ]
    assert answer(state, q.IntMapEntries("n"), 10) == {"2": 7}
    assert answer(state, q.Size("n"), 10) == 1
    assert answer(state, q.SetMembers("t"), 10) == answer(state, q.MapKeys("m"), 10) == []
    assert not answer(state, q.SetContains("t", "1"), 10)
    assert answer(state, q.MapGet("m", "1"), 10) is None
    assert "s" not in answer(state, q.Names(""), 10)
    after(o.IntAdd("i", 1), o.IntMapAdd("n", "1", 1), o.IntSet("s", 3), at=10, state=state)
    assert answer(state, q.IntGet("i"), 10) == 1
    assert answer(state, q.IntMapGet("n", "1"), 10**6) == 1
    assert answer(state, q.IntGet("s"), 10) == 3


def test_an_addition_keeps_the_time_to_live_and_a_set_ends_it() -> None:
    state = after(o.IntSet("i", 5, 10), o.IntMapSet("n", "1", 5, 10), o.SetAdd("t", "1", 10))
    after(o.IntAdd("i", 1), o.IntMapAdd("n", "1", 1), state=state)
    assert answer(state, q.Expiry("i"), 1) == answer(state, q.Expiry("n", "1"), 1) == 10
    after(o.IntSet("i", 1), o.IntMapSet("n", "1", 1), o.SetAdd("t", "1"), state=state)
    assert [answer(state, e, 1) for e in (q.Expiry("i"), q.Expiry("n", "1"), q.Expiry("t", "1"))] == [0, 0, 0]


def test_expire_gives_and_takes_a_time_to_live() -> None:
    state = after(o.MapSet("m", "1", Raw(b"1")), o.MapSet("m", "2", Raw(b"2")), o.ListAppend("l", Raw(b"1")))
    after(o.Expire("m", 10, "1"), o.Expire("l", 20), o.Expire("m", 10, "absent"), state=state)
    assert answer(state, q.MapKeys("m"), 10) == ["2"]
    assert answer(state, q.ListLen("l"), 19) == 1
    assert answer(state, q.ListLen("l"), 20) == 0
    after(o.Expire("m", 0, "1"), o.Expire("l", 0), state=state)
    assert answer(state, q.MapKeys("m"), 10**6) == ["1", "2"]
    assert answer(state, q.Expiry("m", "absent"), 1) is None


def test_time_passes_by_transactions_only_so_that_replays_agree() -> None:
    """A replica whose clock is behind writes to what another one's transaction has seen expire."""
    state = after(o.IntSet("i", 5, 10))
    after(o.SetAdd("t", "1"), at=50, state=state)
    after(o.IntAdd("i", 1), at=3, state=state)
    assert answer(state, q.IntGet("i"), 3) == 1


def test_purging_is_seen_by_nobody() -> None:
    state = after(
        o.IntMapSet("n", "1", 5, 10), o.IntMapSet("n", "2", 5), o.ScalarSet("s", Raw(b"1"), 10), o.IntSet("i", 1)
    )
    after(o.SetAdd("t", "1"), at=10, state=state)
    before = holds(state)
    state.purge()
    assert holds(state) == before
    assert set(state.names) == {"n", "i", "t"}
    assert state.names["n"].value == {"2": 5}


# -- a model

names = st.sampled_from("abc")
keys = st.sampled_from(["1", "2", '"k"'])
values = st.sampled_from([Raw(b"1"), Raw(b'"v"'), Raw(b"null"), Raw(b'{"a":[1]}')])
numbers = st.one_of(st.integers(-3, 3), st.sampled_from([INT64_MAX, INT64_MIN, BIG]))
moments = st.sampled_from([0, 0, 5, 15, 25])
operations = st.one_of(
    st.builds(o.ScalarSet, names, values, moments),
    st.builds(o.ScalarDelete, names),
    st.builds(o.ScalarExpect, names, st.one_of(values, st.just(UNSET))),
    st.builds(o.IntSet, names, numbers, moments),
    st.builds(o.IntAdd, names, numbers),
    st.builds(o.IntMul, names, numbers),
    st.builds(o.IntDiv, names, numbers),
    st.builds(o.IntExpect, names, numbers),
    st.builds(o.IntMapSet, names, keys, numbers, moments),
    st.builds(o.IntMapAdd, names, keys, numbers),
    st.builds(o.IntMapMul, names, keys, numbers),
    st.builds(o.IntMapDiv, names, keys, numbers),
    st.builds(o.IntMapDelete, names, keys),
    st.builds(o.IntMapExpect, names, keys, numbers),
    st.builds(o.SetAdd, names, keys, moments),
    st.builds(o.SetRemove, names, keys),
    st.builds(o.SetExpect, names, keys, st.booleans()),
    st.builds(o.MapSet, names, keys, values, moments),
    st.builds(o.MapDelete, names, keys),
    st.builds(o.MapExpect, names, keys, st.one_of(values, st.just(UNSET))),
    st.builds(o.ListAppend, names, values),
    st.builds(o.ListTrim, names, st.integers(0, 3)),
    st.builds(o.Expire, names, moments, st.one_of(keys, st.none())),
    st.builds(o.Drop, names),
    st.builds(o.Clear),
)
transactions = st.builds(Transaction, st.integers(1, 30), st.lists(operations, min_size=1, max_size=3).map(tuple))


@settings(max_examples=60)
@given(st.lists(transactions, max_size=15), st.integers(0, 15))
def test_a_fork_and_a_snapshot_are_what_the_state_is(steps: list[Transaction], cut: int) -> None:
    """Replaying from a fork, or from a snapshot (purged, as one is), comes to the same; the size is what is there."""
    whole = State()
    for step in steps[:cut]:
        apply(whole, step)
    fork, purged = whole.fork(), whole.fork()
    purged.purge()
    data = write_snapshot(purged, SnapshotLine(1, purged.time, {}, len(purged.names)))
    _, loaded = read_snapshot("p", data)
    outcomes = [[apply(state, step) for step in steps[cut:]] for state in (whole, fork, loaded)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert holds(whole) == holds(fork) == holds(loaded)
    for state in (whole, fork, purged, loaded):
        assert state.size == sum(len(name) + held.size() for name, held in state.names.items())


@settings(max_examples=40)
@given(st.lists(transactions, max_size=10), st.lists(transactions, max_size=10))
def test_what_a_fork_does_the_other_does_not_see(before: list[Transaction], then: list[Transaction]) -> None:
    state, alone = State(), State()
    for step in before:
        apply(state, step)
        apply(alone, step)
    fork = state.fork()
    for step in then:
        apply(fork, step)
    assert holds(state) == holds(alone)
    twice = state.fork()
    for step in then:
        apply(twice, step)
    assert holds(twice) == holds(fork)


class Model:
    """The same meanings, told naively: everything is copied, nothing is kept of what expired."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[str, Any, int]] = {}  # kind, value or {key: (value, expires)}, expires
        self.time = 0

    def step(self, t: Transaction) -> str:
        self.time = max(self.time, t.at)
        self.names = {n: self.fresh(v) for n, v in self.names.items() if not 0 < v[2] <= self.time}
        before = dict(self.names)
        for op in t.ops:
            if op.expects and not self.expected(op, before):
                self.names = before
                return "unmet"
        kinds = {n: v[0] for n, v in self.names.items()}  # within a transaction, also of what expires in it
        for op in t.ops:
            if op.kind is not None and kinds.get(op.name, op.kind) != op.kind:
                self.names = before
                return "refused"
            self.one(op)
            if isinstance(op, o.Clear):
                kinds = {}
            elif isinstance(op, o.Drop | o.ScalarDelete):
                kinds.pop(op.name, None)
            elif op.kind is not None and not op.expects:
                kinds[op.name] = op.kind
            self.names = {n: self.fresh(v) for n, v in self.names.items() if not 0 < v[2] <= self.time}
        return "done"

    def fresh(self, v: tuple[str, Any, int]) -> tuple[str, Any, int]:
        if isinstance(v[1], dict):
            return v[0], {k: e for k, e in v[1].items() if not 0 < e[1] <= self.time}, v[2]
        return v

    def expected(self, op: Any, names: dict[str, tuple[str, Any, int]]) -> bool:
        kind, value, _ = names.get(op.name, ("", None, 0))
        key = getattr(op, "key", getattr(op, "member", None))
        found: Any = value
        if key is not None:
            found = value.get(key, (UNSET, 0))[0] if isinstance(value, dict) else UNSET
        elif not kind:
            found = UNSET
        if isinstance(op, o.SetExpect):
            return (found is not UNSET) == op.present
        if isinstance(op, o.IntExpect | o.IntMapExpect):
            return bool((0 if found is UNSET else found) == op.value)
        return bool(found == (op.value if op.value is UNSET else bytes(op.value)))

    def one(self, op: Any) -> None:
        name = type(op).__name__
        kind, value, expires = self.names.get(op.name, (op.kind, None, 0))
        match op:
            case o.Clear():
                self.names = {}
            case o.Drop() | o.ScalarDelete():
                self.names = {n: v for n, v in self.names.items() if n != op.name}
            case o.ScalarSet():
                self.put(op.name, (kind, bytes(op.value), op.expires))
            case o.IntSet():
                self.put(op.name, (kind, op.value, op.expires))
            case o.IntAdd() | o.IntMul() | o.IntDiv():
                self.put(op.name, (kind, self.calculate(name, value or 0, op), expires))
            case o.IntMapAdd() | o.IntMapMul() | o.IntMapDiv():
                old, until = (value or {}).get(op.key, (0, 0))
                self.put(op.name, (kind, {**(value or {}), op.key: (self.calculate(name, old, op), until)}, expires))
            case o.IntMapSet():
                self.put(op.name, (kind, {**(value or {}), op.key: (op.value, op.expires)}, expires))
            case o.MapSet():
                self.put(op.name, (kind, {**(value or {}), op.key: (bytes(op.value), op.expires)}, expires))
            case o.SetAdd():
                self.put(op.name, (kind, {**(value or {}), op.member: (None, op.expires)}, expires))
            case o.IntMapDelete() | o.MapDelete() | o.SetRemove():
                if value is not None:
                    key = o.key_of(op)
                    self.put(op.name, (kind, {k: e for k, e in value.items() if k != key}, expires))
            case o.ListAppend():
                self.put(op.name, (kind, [*(value or []), bytes(op.value)], expires))
            case o.ListTrim():
                if value is not None:
                    self.put(op.name, (kind, value[len(value) - op.keep :] if op.keep < len(value) else value, expires))
            case o.Expire() if value is not None:
                if op.key is None:
                    self.put(op.name, (kind, value, op.expires))
                elif isinstance(value, dict) and op.key in value:
                    self.put(op.name, (kind, {**value, op.key: (value[op.key][0], op.expires)}, expires))

    def put(self, name: str, value: tuple[str, Any, int]) -> None:
        self.names = {**self.names, name: value}

    @staticmethod
    def calculate(name: str, number: int, op: Any) -> int:
        if name.endswith("Add"):
            exact = number + op.delta
        elif name.endswith("Mul"):
            exact = number * op.factor
        else:
            exact = (
                int(abs(number) // abs(op.divisor) * (1 if (number < 0) == (op.divisor < 0) else -1))
                if op.divisor
                else number
            )
        return int.from_bytes((exact % (1 << 64)).to_bytes(8, "big"), "big", signed=True)

    def holds(self) -> dict[str, Any]:
        return {
            n: (kind, {k: e[0] for k, e in v.items()} if isinstance(v, dict) else v)
            for n, (kind, v, _) in self.names.items()
        }


@settings(max_examples=100)
@given(st.lists(transactions, max_size=15))
def test_a_naive_model_says_the_same(steps: list[Transaction]) -> None:
    state, model = State(), Model()
    for step in steps:
        assert apply(state, step).value == model.step(step)
        assert holds(state) == model.holds()
