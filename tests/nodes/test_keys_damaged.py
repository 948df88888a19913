"""Defects of how the store's keys are read, each by its name."""

import pytest

from ostraka.errors import Corrupt
from ostraka.host import Host
from ostraka.nodes import keys


def test_keys_that_are_no_text_any_more_are_corrupt() -> None:
    """A flipped bit that broke UTF-8 came through as UnicodeDecodeError, past every door."""
    whole = keys.encode(keys.create(b"s" * 16, Host(), None))
    assert keys.encode(keys.decode(whole, "keys.json")) == whole
    text = whole.index(b'"OSTRAKA') + 3
    for bit in (0x40, 0x80):
        with pytest.raises(Corrupt):
            keys.decode(whole[:text] + bytes([whole[text] ^ bit]) + whole[text + 1 :], "keys.json")
