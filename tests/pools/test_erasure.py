"""Any m of k+m shards may be lost, whichever they are, and whichever kernel computes."""

import os
import random
from itertools import combinations

import pytest

from ostraka.errors import Invalid
from ostraka.pools import erasure
from ostraka.pools.erasure import Codec, IsaL, Kernel, Plain, codec, kernel

SEED = 20261120
SMALL = [(1, 0), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (3, 2), (4, 2), (5, 3), (8, 2)]
LARGE = [(12, 4), (10, 4), (16, 8), (1, 8)]


def shards(c: Codec, size: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    data = [rng.randbytes(size) for _ in range(c.k)]
    parity = [memoryview(bytearray(size)) for _ in range(c.m)]
    c.encode(data, parity)
    return data + [bytes(p) for p in parity]


def lose(c: Codec, whole: list[bytes], lost: tuple[int, ...]) -> None:
    present = {i: s for i, s in enumerate(whole) if i not in lost}
    out = [memoryview(bytearray(len(whole[0]))) for _ in lost]
    c.reconstruct(present, lost, out)
    assert [bytes(o) for o in out] == [whole[i] for i in lost], (c.k, c.m, lost)


@pytest.mark.parametrize(("k", "m"), SMALL)
@pytest.mark.parametrize("size", [8, 104, 4096])
def test_every_pattern_of_up_to_m_lost_shards_is_rebuilt(k: int, m: int, size: int) -> None:
    c = codec(k, m)
    whole = shards(c, size, SEED)
    for count in range(1, m + 1):
        for lost in combinations(range(k + m), count):
            lose(c, whole, lost)


@pytest.mark.parametrize(("k", "m"), LARGE)
def test_large_geometries_rebuild_any_loss_that_was_tried(k: int, m: int) -> None:
    rng = random.Random(SEED)
    c = codec(k, m)
    whole = shards(c, 64, SEED)
    for _ in range(60):
        lose(c, whole, tuple(sorted(rng.sample(range(k + m), rng.randint(1, m)))))


def test_one_lost_shard_is_rebuilt_alone_from_any_k_others() -> None:
    c = codec(4, 2)
    whole = shards(c, 128, SEED)
    for chosen in combinations(range(6), 4):
        for wanted in set(range(6)) - set(chosen):
            out = [memoryview(bytearray(128))]
            c.reconstruct({i: whole[i] for i in chosen}, [wanted], out)
            assert bytes(out[0]) == whole[wanted]


def isa_l() -> list[Kernel]:
    found: list[Kernel] = []
    for path in dict.fromkeys(erasure.libraries()):
        try:
            found.append(IsaL(path))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("k", "m"), [(1, 2), (2, 1), (4, 2), (12, 4), (16, 8)])
def test_all_kernels_give_the_same_bytes(k: int, m: int) -> None:
    expected = shards(Codec(k, m, Plain()), 1000, SEED)
    assert isa_l(), "pyeclib's wheel brings ISA-L"
    for fast in isa_l():
        assert shards(Codec(k, m, fast), 1000, SEED) == expected, fast.name
        lost = tuple(range(m))
        lose(Codec(k, m, fast), expected, lost)
        lose(Codec(k, m, Plain()), expected, lost)


def test_the_parity_of_a_known_body_never_changes() -> None:
    """The worked example of docs/decisions/erasure.md: a store written today is read for ever."""
    parity = [memoryview(bytearray(4)) for _ in range(2)]
    codec(2, 2).encode([b"\x01\x02\x03\x04", b"\x10\x20\x30\x40"], parity)
    assert [p.hex() for p in parity] == WORKED


WORKED = ["75ea9fc9", "fce519d7"]  # 0x75 = 0x01 * inv(2) ^ 0x10 * inv(3) = 0x8e ^ 0xfb, by hand


def test_one_data_shard_means_plain_copies() -> None:
    assert shards(codec(1, 3), 64, SEED) == shards(codec(1, 0), 64, SEED) * 4


def test_the_fast_kernel_is_the_one_in_use() -> None:
    assert kernel().name.endswith(".so.2") or "libisal" in kernel().name


def test_a_geometry_out_of_bounds_is_refused_by_name() -> None:
    for k, m in ((0, 1), (17, 2), (4, 9), (4, -1)):
        with pytest.raises(Invalid, match=f"{k}\\+{m}"):
            codec(k, m)


def test_the_committed_binding_is_what_its_generator_writes() -> None:
    import runpy

    here = os.path.dirname(__file__)
    module = runpy.run_path(os.path.join(here, "../../bench/isal_abi.py"))
    assert module["TARGET"].read_text() == module["generate"]()
