"""What cannot be a store is refused before anything of it is made."""

import os
from pathlib import Path

import pytest

from ostraka.errors import Invalid, OstrakaError, Refused
from ostraka.host import Host
from ostraka.store.recovery import hold


@pytest.mark.parametrize(
    ("names", "error", "says"),
    [
        (["a", "a"], Invalid, "named twice"),
        (["a", "b/../a"], Invalid, "named twice"),
        (["a", "a/b"], Invalid, "lies inside"),
        (["file"], Refused, "is not a directory"),
        (["file/a"], Refused, "is not a directory"),
        ([], Invalid, "no directory was named"),
    ],
)
def test_a_refusal_leaves_nothing_behind(
    tmp_path: Path, names: list[str], error: type[OstrakaError], says: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(error, match=says), hold([tmp_path / n for n in names], Host(), make=True):
        pass
    assert os.listdir(tmp_path) == ["file"]


def test_who_only_looks_for_a_store_leaves_a_directory_that_is_none_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with hold([tmp_path / "empty", tmp_path / "absent"], Host(), make=False):
        assert os.listdir(tmp_path / "empty") == []
        assert os.listdir(tmp_path) == ["empty"]
