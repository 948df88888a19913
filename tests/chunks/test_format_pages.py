"""The worked examples of docs/format/ are what the code reads and writes."""

import re
from pathlib import Path

from ostraka.chunks import frames, keyring, packs, rows, sealing
from ostraka.chunks.keyring import Keyring
from ostraka.chunks.sealing import AES_256_GCM, DataKey, Domain, Wrapper
from ostraka.chunks.types import RECIPE, Codec, Recipe
from ostraka.host import Host
from ostraka.state import Mutation, Put
from ostraka.state.memory import MemoryState

FORMATS = Path(__file__).parents[2] / "docs" / "format"
PLAIN = b"a" * 64 + bytes(range(64)) + b"the end."


def hex_examples(page: str) -> list[bytes]:
    blocks = re.findall(r"```hex\n(.*?)```", (FORMATS / page).read_text(), re.S)
    return [b"".join(bytes.fromhex(line.split("  ", 1)[1]) for line in block.splitlines()) for block in blocks]


def test_chunk_page() -> None:
    body, value, _ = hex_examples("chunk.md")
    row = rows.decode_chunk(value)
    assert rows.encode(row) == value
    assert (row.length, row.frame_size, row.stripe.length) == (136, 64, len(body))
    table = frames.parse(body[: row.table_size], row.length, row.stripe.length)
    assert list(table.codecs) == [1, 0, 0]
    pieces = frames.open_frames(memoryview(body)[row.table_size :], table, 0, 3)
    assert b"".join(pieces) == PLAIN
    room = memoryview(bytearray(row.table_size) + PLAIN)
    assert frames.build(room, row.table_size, len(PLAIN), 64).body == body


def test_chunk_page_tells_where_the_fields_are() -> None:
    body = hex_examples("chunk.md")[0]
    size = int.from_bytes(body[20:24], "big")
    count = int.from_bytes(body[12:16], "big")
    assert (body[:4], body[4], body[5]) == (b"OSTc", 1, 0)
    assert (size, count) == (128, 3)
    assert [int.from_bytes(body[32 + 16 * n : 36 + 16 * n], "big") for n in range(count)] == [17, 64, 8]


def test_chunk_page_has_a_frame_of_lz4() -> None:
    block = hex_examples("chunk.md")[2]
    assert frames.inflate(Codec.LZ4, block, 64) == b"a" * 64
    assert frames.compressor(Recipe(Codec.LZ4))(b"a" * 64) == block


def test_pack_page() -> None:
    body, value = hex_examples("pack.md")
    row = rows.decode_pack(value)
    assert rows.encode(row) == value
    slots = packs.parse(body)
    assert slots == rows.slots_of(row)
    plain = [packs.open_slot(memoryview(body)[s.offset : s.offset + s.stored], s) for s in slots]
    assert plain == [b"a small body", b"b" * 600]
    assert packs.build([(b"a small body", RECIPE), (b"b" * 600, RECIPE)]).body == body


def said(page: str) -> dict[str, bytes]:
    """The example's lines of the form ``name: hex``."""
    lines = re.findall(r"^([a-z ]+): ((?:[0-9a-f]{2} ?)+)$", (FORMATS / page).read_text(), re.M)
    return {name: bytes.fromhex(digits) for name, digits in lines}


def test_sealing_page() -> None:
    page, domain = said("sealing.md"), Domain(b"\1" * 8, 7, Wrapper(b"\2" * 32), b"\3" * 32)
    seal = sealing.SEAL.pack(domain.id, 7, AES_256_GCM, page["wrapped"])
    bound = b"\5" * 32 + sealing.PLACE.pack(1, 2, 0, 11)
    for key in (DataKey(b"\4" * 32, AES_256_GCM), domain.open(seal, sealing.of_chunk(b"\5" * 32))):
        assert key.seal(1, b"hello world", bound) == page["sealed"]
        assert key.open(1, page["sealed"], bound) == b"hello world"
        assert b"".join(mask.to_bytes(8, "big") for mask in key.masks(0, 2)) == page["masks"]


async def test_key_rows_page() -> None:
    page, state = said("key-rows.md"), MemoryState()
    row = keyring.decode(page["key value"])
    assert keyring.encode(row) == page["key value"]
    assert (row.name, row.created, [v.number for v in row.versions]) == ("clay", 1.0, [1])
    assert (keyring.id_key(b"\1" * 8), keyring.name_key("clay")) == (page["key row"], page["name row"])
    rows_ = [Put(page["key row"], page["key value"]), Put(page["name row"], page["name value"])]
    await state.commit(Mutation((), rows_))
    domain = Keyring(state, b"s" * 32, [b"m" * 32], host=Host()).domain("clay")
    assert (domain.id, domain.version, domain.secret) == (b"\1" * 8, 1, b"\3" * 32)
    seal, key = domain.new(b"a thing", Host())
    same = sealing.open_seal(Wrapper(b"\2" * 32), seal, b"a thing")
    assert same.open(0, key.seal(0, b"hello world", b""), b"") == b"hello world"
