"""Each disk gets keys in proportion to its weight, and as few as possible move when disks come or go."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ostraka.nodes.ring import order

weights = st.dictionaries(st.integers(0, 255), st.floats(0.1, 1000.0), min_size=1, max_size=12)


@given(st.binary(min_size=16, max_size=16), weights)
def test_the_order_is_of_all_disks_and_the_same_each_time_and_for_each_process(
    key: bytes, disks: dict[int, float]
) -> None:
    first = order(key, disks.items())
    assert sorted(first) == sorted(disks)
    assert first == order(key, sorted(disks.items(), reverse=True))


@given(st.binary(min_size=16, max_size=16), weights, st.data())
def test_a_disk_that_leaves_moves_nothing_but_its_own(key: bytes, disks: dict[int, float], data: st.DataObject) -> None:
    whole = order(key, disks.items())
    gone = data.draw(st.sampled_from(sorted(disks)))
    assert order(key, [(n, w) for n, w in disks.items() if n != gone]) == [n for n in whole if n != gone]


@given(st.binary(min_size=16, max_size=16), weights, st.floats(1.0, 10.0), st.data())
def test_a_disk_that_grows_only_comes_forward(
    key: bytes, disks: dict[int, float], factor: float, data: st.DataObject
) -> None:
    before = order(key, disks.items())
    grown = data.draw(st.sampled_from(sorted(disks)))
    after = order(key, [(n, w * factor if n == grown else w) for n, w in disks.items()])
    assert after.index(grown) <= before.index(grown)
    assert [n for n in after if n != grown] == [n for n in before if n != grown]


def test_keys_spread_by_weight(seed: int) -> None:
    rng = random.Random(seed)
    disks = {0: 1.0, 1: 1.0, 2: 2.0, 3: 4.0}
    first = Counter(order(rng.randbytes(16), disks.items())[0] for _ in range(20_000))
    for number, weight in disks.items():
        assert abs(first[number] / 20_000 - weight / 8) < 0.015, first


def test_shards_of_stripes_spread_over_equal_disks(seed: int) -> None:
    rng = random.Random(seed)
    used = Counter(n for _ in range(5000) for n in order(rng.randbytes(16), [(n, 4e12) for n in range(9)])[:6])
    assert max(used.values()) / min(used.values()) < 1.06, used


def test_a_disk_without_weight_is_never_chosen() -> None:
    assert order(b"k" * 16, [(1, 0.0), (2, 1.0), (3, -1.0)]) == [2]
