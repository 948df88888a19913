"""The worked examples of docs/format/ are what the code reads and writes."""

import re
from pathlib import Path

from ostraka.objects import tiers
from ostraka.pools.backend_pool import decode_header, encode
from ostraka.pools.types import Owner

FORMATS = Path(__file__).parents[2] / "docs" / "format"


def hex_examples(page: str) -> list[bytes]:
    blocks = re.findall(r"```hex[ a-z]*\n(.*?)```", (FORMATS / page).read_text(), re.S)
    return [b"".join(bytes.fromhex(line.split("  ", 1)[1]) for line in block.splitlines()) for block in blocks]


def test_pool_object_page() -> None:
    (whole,) = hex_examples("pool-object.md")
    header = decode_header(whole)
    assert (header.owner, header.owner_id, header.length, header.cell_size) == (Owner.CHUNK, bytes(range(32)), 20, 16)
    assert b"".join(encode(header, memoryview(b"a body of 20 bytes!!"))) == whole


def test_pool_rows_page() -> None:
    key, value = hex_examples("pool-rows.md")
    number, row = tiers.decode(key, value)
    assert (number, row.name, row.storage_class, row.cache_bytes) == (1, "cold", "GLACIER_IR", 1 << 30)
    assert (tiers.pool_key(number), tiers.encode(row)) == (key, value)
