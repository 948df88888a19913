"""The store's keys: made once, rotated without data, brought under a new master key in one commit, lost with theirs."""

import asyncio
import os

import pytest

from ostraka.chunks.keyring import BY_ID, DEFAULT, decode
from ostraka.chunks.types import Recipe
from ostraka.errors import Absent, Corrupt, Exists, Invalid, NotSupported, TooLarge, Unavailable
from ostraka.limits import KIB
from ostraka.state import Mutation, Put

MASTER, NEW, OTHER = b"m" * 32, b"n" * 32, b"o" * 32


async def test_the_store_s_own_key_is_made_at_the_first_start_with_a_master_key_and_never_again(rig) -> None:
    assert not rig.ring().active
    with pytest.raises(NotSupported, match="OSTRAKA_MASTER_KEY"):
        rig.ring().domain()
    await rig.ring().prepare()
    assert not rig.rows(b"k")
    rings = [rig.ring(MASTER) for _ in range(4)]
    await asyncio.gather(*(ring.prepare() for ring in rings))
    domains = [ring.domain() for ring in rings]
    assert len({d.id for d in domains}) == len({d.secret for d in domains}) == 1
    assert [key.row.name for key in rig.ring().all()] == [DEFAULT]
    assert rig.ring().active, "a store that encrypted goes on to, and says that its master key is missing"


async def test_a_rotated_key_seals_with_its_new_version_and_opens_with_all(rig) -> None:
    await rig.keyring.prepare()
    entries = []
    for round_ in range(3):
        rig.recipe = Recipe(domain=rig.keyring.domain())
        assert rig.recipe.domain.version == round_ + 1
        entries.append((await rig.store(body := rig.noise(20 * KIB)), body))
        await rig.ring(MASTER).rotate(DEFAULT)  # by another process
    rig.chunks = rig.another(rig.ring(MASTER))
    for entry, body in entries:
        assert await rig.read(entry) == body


async def test_a_new_master_key_in_front_of_the_old_takes_over_in_one_commit(rig) -> None:
    await rig.keyring.prepare()
    await rig.keyring.create("kleio")
    await rig.keyring.rotate("kleio")
    rig.recipe = Recipe(domain=rig.keyring.domain("kleio"))
    entry = await rig.store(body := rig.noise(20 * KIB))
    before = rig.state.sequence
    both = rig.ring(NEW, MASTER)
    await asyncio.gather(both.prepare(), rig.ring(NEW, MASTER).prepare())
    assert rig.state.sequence == before + 1, "two processes at once, and one of them was enough"
    assert {key.row.master for key in both.all()} == {both.masters[0].fingerprint}
    assert await both.rewrap() == 0
    rig.chunks = rig.another(rig.ring(NEW))
    assert await rig.read(entry) == body
    assert rig.ring(NEW).domain("kleio").secret == rig.recipe.domain.secret
    with pytest.raises(Unavailable, match=both.masters[0].fingerprint.hex()):
        rig.ring(MASTER).domain("kleio")


async def test_with_another_master_key_nothing_is_made_or_changed(rig) -> None:
    await rig.keyring.prepare()
    rows = rig.rows(b"k")
    wrong = rig.ring(OTHER)
    await wrong.prepare()
    for attempt in (wrong.create("kleio"), wrong.rotate(DEFAULT)):
        with pytest.raises(Unavailable) as refused:
            await attempt
        assert refused.value.reason == "master-key"
    assert rig.rows(b"k") == rows
    assert wrong.active


async def test_names_are_names_and_are_given_once(rig) -> None:
    await rig.keyring.prepare()
    for name in ("", "a b", "a/b", "-a", "a-", "é", "a" * 129, "alias:x"):
        with pytest.raises(Invalid):
            await rig.keyring.create(name)
    await rig.keyring.create("a" * 128)
    await rig.keyring.create("kleio.2026_a-b")
    outcomes = await asyncio.gather(*(rig.ring(MASTER).create("x") for _ in range(3)), return_exceptions=True)
    assert sorted(type(o).__name__ for o in outcomes) == ["Exists", "Exists", "Key"]
    with pytest.raises(Exists):
        await rig.keyring.create(DEFAULT)
    with pytest.raises(Absent, match="ostraka key create y"):
        rig.keyring.domain("y")
    with pytest.raises(Invalid, match="32 bytes"):
        rig.ring(b"short")


async def test_a_key_has_a_bounded_number_of_versions(rig) -> None:
    await rig.keyring.prepare()
    for _ in range(rig.limits.key_versions_max - 1):
        await rig.keyring.rotate(DEFAULT)
    with pytest.raises(TooLarge):
        await rig.keyring.rotate(DEFAULT)


async def test_no_changed_byte_of_a_key_s_row_gives_a_key(rig) -> None:
    await rig.keyring.prepare()
    ((key, value),) = rig.rows(BY_ID).items()
    wanted = rig.keyring.domain()
    row = decode(value)
    for at in range(value.index(row.secret), len(value), 7):
        changed = bytearray(value)
        changed[at] ^= 1
        await rig.state.commit(Mutation((), [Put(key, bytes(changed))]))
        try:
            found = rig.ring(MASTER).domain()
        except (Corrupt, Unavailable):
            continue
        seal, _ = found.new(b"a thing", rig.host)
        wanted.open(seal, b"a thing")
        assert found.secret == wanted.secret, at


async def test_a_row_that_is_none_is_told_as_that(rig) -> None:
    for junk in (b"", b"\xc1", os.urandom(9), b"\x96" * 9):
        with pytest.raises(Corrupt):
            decode(junk)
