"""Who holds a lock holds it even where its pid cannot be written."""

import errno
import os
from pathlib import Path

import pytest

from ostraka.errors import InUse
from ostraka.host import SystemFiles


def test_a_full_disk_keeps_nobody_from_holding_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    files = SystemFiles()
    with files.lock(tmp_path / "lock"), pytest.raises(InUse), files.lock(tmp_path / "lock"):
        pass
    with files.lock(tmp_path / "lock"):
        pass
