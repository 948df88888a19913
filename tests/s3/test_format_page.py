"""The worked example of docs/format/access-rows.md is what the code reads and writes."""

import asyncio
import re
from pathlib import Path

from ostraka.state import MemoryState
from ostraka.store.accounts import StateAccounts

PAGE = Path(__file__).parents[2] / "docs" / "format" / "access-rows.md"


def test_the_page_shows_rows_as_they_are() -> None:
    shown = {
        name: bytes.fromhex(text)
        for name, text in re.findall(r"^(\w+ \w+): ((?:[0-9a-f]{2} ?)+)$", PAGE.read_text(), re.MULTILINE)
    }
    assert len(shown) == 4

    async def written() -> list[tuple[bytes, bytes]]:
        state = MemoryState()
        await StateAccounts(state, "root", "secret").put("kleio", "AK1", "clay")
        found = StateAccounts(state, "root", "secret").by_access_key("AK1")
        assert found is not None
        assert (found[0].name, found[1]) == ("kleio", "clay")
        return list(state.scan(b"", b"\xff", 10))

    assert asyncio.run(written()) == [
        (shown["key row"], shown["key value"]),
        (shown["name row"], shown["name value"]),
    ]
