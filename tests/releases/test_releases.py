"""Formats of released versions open for ever: a small store of each release is opened, read whole, and written to."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from release_store import ACCESS, HERE, LAYOUTS, OTHER, SECRET, SIZE_MAX, contents, disks, serve, unpack

import ostraka
from ostraka.testing.processes import s3_client

ROOT = Path(__file__).parents[2]
RELEASES = sorted(path.name for path in HERE.iterdir() if path.is_dir() and path.name[0].isdigit())
of_each_release = pytest.mark.parametrize("release", RELEASES)
on_each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def expected(release: str, layout: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((HERE / release / f"{layout}.json").read_text())
    return found


@pytest.fixture
def stores(release: str, tmp_path: Path) -> Path:
    unpack(HERE / release, tmp_path)
    return tmp_path


@of_each_release
@on_each_layout
def test_a_store_of_a_release_opens_and_everything_in_it_is_as_it_was(release: str, layout: str, stores: Path) -> None:
    directories = disks(stores, layout)
    with serve(directories) as server:
        assert contents(server.client()) == expected(release, layout)
        other = s3_client(server.url, *OTHER[1:])
        assert other.get_object(Bucket="of-another-account", Key="k")["Body"].read()
        server.client().put_object(Bucket="plain", Key="written by a newer release", Body=b"1")
    fsck = [sys.executable, "-m", "ostraka", "fsck", *map(str, directories)]
    checked = subprocess.run(fsck, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with ostraka.open(*directories) as store:
        assert store.bucket("plain").get("written by a newer release") == b"1"


@of_each_release
@pytest.mark.parametrize("lost", range(LAYOUTS["three-disks"]))
def test_a_store_of_a_release_that_lost_a_disk_gives_everything_back(release: str, lost: int, stores: Path) -> None:
    directories = disks(stores, "three-disks")
    shutil.rmtree(directories.pop(lost))
    with serve(directories) as server:
        assert contents(server.client()) == expected(release, "three-disks")


@of_each_release
def test_a_release_takes_little_room_in_the_repository(release: str) -> None:
    assert sum(path.stat().st_size for path in (HERE / release).iterdir()) <= SIZE_MAX


def test_there_is_a_store_of_every_release_that_is_tagged_or_about_to_be() -> None:
    tags = subprocess.run(["git", "tag", "--list", "v*"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    released = {tag.removeprefix("v") for tag in tags.split()}
    if "dev" not in ostraka.__version__:
        released.add(ostraka.__version__)
    assert released <= set(RELEASES)


def test_the_stores_have_keys_that_protect_nothing() -> None:
    assert (ACCESS, SECRET) == ("releaseaccesskey", "releasesecretkey")
