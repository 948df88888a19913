"""What a tired person writes, at every call of the library and of the fixture: one line that names it, nothing lost."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ostraka
from ostraka.errors import Absent, Exists, Full, Invalid, OstrakaError, Refused, Unavailable
from ostraka.library import Bucket, Store
from ostraka.testing import serve
from ostraka.testing.powercut import PowerCutDisk
from ostraka.testing.processes import ServerFailed

Slip = Callable[[Store, Bucket, Path], object]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a file and a directory of other things."""
    made = tmp_path_factory.mktemp("place")
    (made / "file").write_text("file")
    (made / "foreign").mkdir()
    (made / "foreign" / "letter.txt").write_text("dear")
    return made


@pytest.fixture(scope="module")
def store(place: Path) -> Iterator[Store]:
    """A store in which there is something to be lost; it is there still when all slips were made."""
    with ostraka.open(place / "store") as store:
        bucket = store.create_bucket("photos")
        for key in ("t", "h", "e", "r", "there"):
            bucket.put(key, b"there", content_type="text/plain")
        yield store
        assert [(entry.key, entry.size) for entry in bucket.list()] == [(k, 5) for k in ("e", "h", "r", "t", "there")]
        assert bucket.head("there").attributes.headers == {"content-type": "text/plain"}
        assert [made.name for made in store.buckets()] == ["photos"]
        assert list(bucket.uploads()) == []


def one_line(error: BaseException, *says: str) -> None:
    text = str(error)
    assert "\n" not in text
    for word in says:
        assert word in text, f"{word!r} is not in {text!r}"


KEYS: list[tuple[Any, list[str]]] = [
    ("", ["empty key"]),
    (7, ["a key", "7"]),
    (None, ["a key", "None"]),
    (b"k", ["a key", "b'k'"]),
    ("k" * 1025, ["1025", "1024"]),
    ("\ud800", ["Unicode"]),
]
AT_KEYS: dict[str, Callable[[Bucket, Any], object]] = {
    "put": lambda bucket, key: bucket.put(key, b"1"),
    "get": lambda bucket, key: bucket.get(key),
    "open": lambda bucket, key: bucket.open(key),
    "head": lambda bucket, key: bucket.head(key),
    "exists": lambda bucket, key: bucket.exists(key),
    "delete": lambda bucket, key: bucket.delete(key),
    "delete_many": lambda bucket, key: bucket.delete_many([key]),
    "copy": lambda bucket, key: bucket.copy(key, "x"),
    "copy to": lambda bucket, key: bucket.copy("there", key),
    "upload": lambda bucket, key: bucket.upload(key),
    "upload_of": lambda bucket, key: bucket.upload_of(key, "0" * 32).put(1, b"1"),
}


@pytest.mark.parametrize("call", AT_KEYS)
def test_a_wrong_key_is_named_at_every_call(store: Store, call: str) -> None:
    bucket = store.bucket("photos")
    for key, says in KEYS:
        with pytest.raises(Invalid) as caught:
            AT_KEYS[call](bucket, key)
        one_line(caught.value, *says)
    if call in ("get", "open", "head", "copy"):
        with pytest.raises(Absent) as absent:
            AT_KEYS[call](bucket, "absent")
        one_line(absent.value, "'absent'")


AT_BUCKETS: dict[str, Slip] = {
    "put": lambda store, bucket, place: bucket.put("k", b"1"),
    "get": lambda store, bucket, place: bucket.get("k"),
    "exists": lambda store, bucket, place: bucket.exists("k"),
    "delete": lambda store, bucket, place: bucket.delete("k"),
    "delete_many": lambda store, bucket, place: bucket.delete_many(["k"]),
    "copy": lambda store, bucket, place: bucket.copy("k", "x"),
    "copy to": lambda store, bucket, place: store.bucket("photos").copy("there", "x", to_bucket="gone"),
    "upload": lambda store, bucket, place: bucket.upload("k"),
    "uploads": lambda store, bucket, place: list(bucket.uploads()),
    "list": lambda store, bucket, place: list(bucket.list()),
    "page": lambda store, bucket, place: bucket.page(),
    "versions": lambda store, bucket, place: list(bucket.versions()),
    "set_versioning": lambda store, bucket, place: bucket.set_versioning(True),
    "set_storage": lambda store, bucket, place: bucket.set_storage(compression="lz4"),
    "info": lambda store, bucket, place: bucket.info(),
    "bucket": lambda store, bucket, place: store.bucket("gone"),
    "delete_bucket": lambda store, bucket, place: store.delete_bucket("gone"),
}


@pytest.mark.parametrize("call", AT_BUCKETS)
def test_a_bucket_that_is_gone_is_named_at_every_call(store: Store, place: Path, call: str) -> None:
    gone = store.create_bucket("gone")
    store.delete_bucket("gone")
    with pytest.raises(Absent) as caught:
        AT_BUCKETS[call](store, gone, place)
    one_line(caught.value, "bucket", "'gone'")


SLIPS: dict[str, tuple[type[BaseException], list[str], Slip]] = {
    "a bucket's name": (Invalid, ["No Good", "lower case"], lambda s, b, p: s.create_bucket("No Good")),
    "no bucket's name": (Invalid, ["None"], lambda s, b, p: s.create_bucket(None)),  # type: ignore[arg-type]
    "a bucket that is there": (Exists, ["photos"], lambda s, b, p: s.create_bucket("photos")),
    "a bucket that is not empty": (Exists, ["photos", "not empty"], lambda s, b, p: s.delete_bucket("photos")),
    "a compression": (Invalid, ["'gzip'", "zstd"], lambda s, b, p: b.set_storage(compression="gzip")),
    "a cut": (Invalid, ["3 MiB", "128 KiB"], lambda s, b, p: b.set_storage(cut="cdc:3MiB")),
    "a cut's type": (Invalid, ["5", "text"], lambda s, b, p: b.set_storage(cut=5)),  # type: ignore[arg-type]
    "one key for several": (Invalid, ["'there'", "list"], lambda s, b, p: b.delete_many("there")),
    "a version": (Invalid, ["nonsense"], lambda s, b, p: b.get("there", version_id="nonsense")),
    "a version's type": (Invalid, ["5"], lambda s, b, p: b.get("there", version_id=5)),  # type: ignore[arg-type]
    "a version to delete": (Invalid, ["nonsense"], lambda s, b, p: b.delete("there", version_id="nonsense")),
    "an offset": (Invalid, ["there", "5 bytes", "-1"], lambda s, b, p: b.get("there", offset=-1)),
    "an offset's type": (Invalid, ["'1'"], lambda s, b, p: b.get("there", offset="1")),  # type: ignore[arg-type]
    "a length": (Invalid, ["there"], lambda s, b, p: b.get("there", length=-1)),
    "an empty etag": (Invalid, ["if_match", "''"], lambda s, b, p: b.put("there", b"x", if_match="")),
    "no etag": (Invalid, ["if_match", "5"], lambda s, b, p: b.put("there", b"x", if_match=5)),  # type: ignore[arg-type]
    "an empty etag to delete": (Invalid, ["if_match"], lambda s, b, p: b.delete("there", if_match="")),
    "a limit": (Invalid, ["-1"], lambda s, b, p: b.page(limit=-1)),
    "a prefix": (Invalid, ["7"], lambda s, b, p: list(b.list(7))),  # type: ignore[arg-type]
    "a file that is absent": (FileNotFoundError, ["absent"], lambda s, b, p: b.put("k", p / "absent")),
    "a directory for a file": (IsADirectoryError, ["foreign"], lambda s, b, p: b.put("k", p / "foreign")),
    "a path as text": (Invalid, ["Path"], lambda s, b, p: b.put("k", str(p / "file"))),  # type: ignore[arg-type]
    "a file of text": (Invalid, ["binary"], lambda s, b, p: b.put("k", io.StringIO("x"))),  # type: ignore[arg-type]
    "a file that is closed": (Invalid, ["closed"], lambda s, b, p: b.put("k", closed(p / "file"))),
    "a file to write": (Invalid, ["read"], lambda s, b, p: b.put("k", (p / "written").open("ab"))),
    "pieces of text": (Invalid, ["pieces of bytes", "str"], lambda s, b, p: b.put("k", ["x"])),  # type: ignore[list-item]
    "pieces of numbers": (Invalid, ["int"], lambda s, b, p: b.put("k", [1, 2])),  # type: ignore[list-item]
    "metadata's name": (Invalid, ["'a b'"], lambda s, b, p: b.put("k", b"", metadata={"a b": "x"})),
    "metadata's value": (Invalid, ["'a'", "1"], lambda s, b, p: b.put("k", b"", metadata={"a": 1})),  # type: ignore[dict-item]
    "metadata's text": (Invalid, ["'a'", "Unicode"], lambda s, b, p: b.put("k", b"", metadata={"a": "\ud800"})),
    "metadata's size": (Invalid, ["100001", "2048"], lambda s, b, p: b.put("k", b"", metadata={"a": "x" * 100_000})),
    "a header": (Invalid, ["x-foo", "cache-control"], lambda s, b, p: b.put("k", b"", headers={"x-foo": "x"})),
    "a header's lines": (Invalid, ["expires"], lambda s, b, p: b.put("k", b"", headers={"expires": "x\r\nA: y"})),
    "a type's lines": (Invalid, ["content_type"], lambda s, b, p: b.put("k", b"", content_type="x\ny")),
    "a type": (Invalid, ["content_type", "5"], lambda s, b, p: b.upload("k", content_type=5)),  # type: ignore[arg-type]
    "tags": (Invalid, ["tags", "10"], lambda s, b, p: b.put("k", b"", tags={str(n): "" for n in range(11)})),
    "a tag": (Invalid, ["TagKey"], lambda s, b, p: b.put("k", b"", tags={"t" * 129: ""})),
    "a tag's value": (Invalid, ["'t'", "1"], lambda s, b, p: b.put("k", b"", tags={"t": 1})),  # type: ignore[dict-item]
    "an upload": (Absent, ["'nonsense'"], lambda s, b, p: b.upload_of("k", "nonsense").put(1, b"")),
    "an upload to complete": (Absent, ["'nonsense'"], lambda s, b, p: b.upload_of("k", "nonsense").complete()),
    "a part": (Invalid, ["10000"], lambda s, b, p: in_upload(b, lambda upload: upload.put(0, b""))),
    "a part's type": (Invalid, ["'1'"], lambda s, b, p: in_upload(b, lambda upload: upload.put("1", b""))),
    "no part": (Invalid, ["at least one part"], lambda s, b, p: in_upload(b, lambda upload: upload.complete())),
    "small parts": (Invalid, ["5242880"], lambda s, b, p: in_upload(b, small_parts)),
    "a reader that is closed": (Invalid, ["there", "open the object again"], lambda s, b, p: read_closed(b)),
}  # fmt: skip


def closed(path: Path) -> Any:
    with path.open("rb") as file:
        return file


def in_upload(bucket: Bucket, slip: Callable[[Any], object]) -> None:
    with bucket.upload("k") as upload:
        slip(upload)


def small_parts(upload: Any) -> None:
    upload.put(1, b"1")
    upload.put(2, b"2")
    upload.complete()


def read_closed(bucket: Bucket) -> None:
    reader = bucket.open("there")
    reader.close()
    reader.read()


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named_and_nothing_is_done(store: Store, place: Path, slip: str) -> None:
    kind, says, make = SLIPS[slip]
    bucket = store.bucket("photos")
    with pytest.raises(kind) as caught:
        make(store, bucket, place)
    one_line(caught.value, *says)
    assert not bucket.exists("k")


DIRECTORIES: dict[str, tuple[list[Any], dict[str, Any], type[BaseException], list[str]]] = {
    "none": ([], {}, Invalid, ["name at least one directory"]),
    "empty": ([""], {}, Invalid, ["''", "directory"]),
    "a list": ([["a", "b"]], {}, Invalid, ["['a', 'b']", "one after the other"]),
    "a number": ([5], {}, Invalid, ["5", "path"]),
    "nothing": ([None], {}, Invalid, ["None", "path"]),
    "a null byte": (["a\0b"], {}, Invalid, ["a\\x00b"]),
    "a URL": (["http://127.0.0.1:9000"], {}, Invalid, ["http://127.0.0.1:9000", "S3"]),
    "a bucket": (["s3://photos"], {}, Invalid, ["s3://photos"]),
    "twice": (["new", "new"], {}, Invalid, ["new", "named twice"]),
    "within another": (["new", "new/below"], {}, Invalid, ["new/below"]),
    "a file": (["file"], {}, Refused, ["file", "not a directory"]),
    "below a file": (["file/below"], {}, Refused, ["file/below", "not a directory"]),
    "other things": (["foreign"], {}, Refused, ["foreign", "empty directory"]),
    "too long": (["x" * 300], {}, Refused, ["xxx", "File name too long: name another directory"]),
    "a circle": (["circle/x"], {}, Refused, ["circle/x", "name another directory"]),
    "absent": (["absent"], {"existing": True}, Refused, ["absent", "no store"]),
    "a geometry": (["new"], {"ec": "four"}, Invalid, ["four", "K+M"]),
    "a geometry's type": (["new"], {"ec": 4}, Invalid, ["4", "K+M"]),
    "a geometry without disks": (["new"], {"ec": "4+2"}, Invalid, ["4+2", "6 directories"]),
}


@pytest.mark.parametrize("slip", DIRECTORIES)
def test_a_wrong_directory_is_named_and_nothing_is_made(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slip: str
) -> None:
    named, options, kind, says = DIRECTORIES[slip]
    (tmp_path / "file").write_text("file")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught, ostraka.open(*named, **options):
        pass
    one_line(caught.value, *says)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if "new" not in path.parts)
    assert left == ["circle", "file", "foreign", "foreign/letter.txt"]


def test_a_closed_store_says_so_at_every_call_and_lets_its_readers_go(tmp_path: Path) -> None:
    with ostraka.open(tmp_path / "store") as store:
        bucket = store.create_bucket("photos")
        bucket.put("k", b"1" * 5000)
        bucket.put("l", b"1")
        reader, listing = bucket.open("k"), iter(bucket.list())
        next(listing)
        upload = bucket.upload("large")
    for call in (
        lambda: bucket.put("k", b"2"), lambda: bucket.get("k"), lambda: bucket.delete("k"), lambda: bucket.page(),
        lambda: list(bucket.list()), lambda: bucket.upload("k"), lambda: upload.put(1, b"1"), lambda: reader.read(),
        lambda: store.buckets(), lambda: store.bucket("photos"), lambda: store.create_bucket("other"),
    ):  # fmt: skip
        with pytest.raises(Unavailable) as caught:
            call()
        one_line(caught.value, "the store is closed: open it again")
    reader.close()
    listing.close()  # type: ignore[attr-defined]
    with upload:
        pass
    with ostraka.open(tmp_path / "store") as store:
        assert store.bucket("photos").get("k") == b"1" * 5000


def test_a_call_of_another_thread_ends_when_the_store_is_closed(tmp_path: Path) -> None:
    begun, left = threading.Event(), threading.Event()
    ends: list[BaseException] = []

    def body() -> Iterator[bytes]:
        begun.set()
        assert left.wait(60)
        yield b"1"

    def write(bucket: Bucket) -> None:
        try:
            bucket.put("k", body())
        except OstrakaError as e:
            ends.append(e)

    with ostraka.open(tmp_path / "store") as store:
        writer = threading.Thread(target=write, args=[store.create_bucket("photos")])
        writer.start()
        assert begun.wait(60)
    writer.join(60)
    left.set()
    assert len(ends) == 1
    one_line(ends[0], "closed")


OPENING = """
import sys, ostraka
try:
    with ostraka.open(sys.argv[1]) as store:
        store.create_bucket("photos").put("k", open(sys.argv[2], "rb"))
except ostraka.errors.OstrakaError as e:
    print(type(e).__name__, e)
"""


def test_who_may_not_write_is_told(tmp_path: Path) -> None:
    prefix = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("setpriv is not installed")
        only = "-all,+dac_read_search"
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set", only]
        prefix += ["--inh-caps", only, "--ambient-caps", only]
    (tmp_path / "mine").mkdir(mode=0o555)
    with ostraka.open(tmp_path / "store") as store:
        store.create_bucket("photos").put("k", b"kept")
    for path in (tmp_path / "mine", tmp_path / "mine" / "new", tmp_path / "store"):
        words = [*prefix, sys.executable, "-c", OPENING, str(path), __file__]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done
        last = done.stdout.splitlines()
        assert len(last) == 1, done
        assert str(path) in last[0], done
        assert "written by this user" in last[0], done
    assert os.listdir(tmp_path / "mine") == []
    with ostraka.open(tmp_path / "store") as store:
        assert store.bucket("photos").get("k") == b"kept"


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        store_path = Path(disk.path) / "store"
        with ostraka.open(store_path) as store:
            bucket = store.create_bucket("photos")
            bucket.put("kept", b"kept")
            disk.limit_space(0)
            for write in (
                lambda: bucket.put("small", b"1" * 100_000),
                lambda: bucket.put("large", b"1" * 9_000_000),
                lambda: in_upload(bucket, lambda upload: upload.put(1, b"1" * 9_000_000)),
            ):
                with pytest.raises(Full) as caught:
                    write()
                one_line(caught.value)
            assert [entry.key for entry in bucket.list()] == ["kept"]
            assert bucket.get("kept") == b"kept"
            disk.heal()


SERVED: dict[str, tuple[list[Any], dict[str, Any], list[str]]] = {
    "a file": ([], {"directories": "file"}, ["file", "not a directory"]),
    "other things": ([], {"directories": ["foreign"]}, ["foreign", "empty directory"]),
    "a flag": (["--nonsense"], {}, ["--nonsense", "--help"]),
    "workers": ([], {"workers": "x"}, ["'x'", "--workers"]),
    "an address": (["--listen", "nonsense"], {}, ["nonsense", "HOST:PORT"]),
}


@pytest.mark.parametrize("slip", SERVED)
def test_a_fixture_that_cannot_begin_says_why_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slip: str
) -> None:
    arguments, options, says = SERVED[slip]
    (tmp_path / "file").write_text("file")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ServerFailed) as caught, serve(*arguments, **options):
        pass
    one_line(caught.value, "ostraka serve: ", *says)


def test_a_fixture_whose_port_or_store_is_taken_says_by_whom(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ServerFailed) as caught, serve("--listen", listen):
            pass
        one_line(caught.value, listen, "choose another --listen")
    with ostraka.open(tmp_path / "store"):
        with pytest.raises(ServerFailed) as caught, serve(directories=tmp_path / "store"):
            pass
        one_line(caught.value, f"in use by process {os.getpid()}")


BEGINNING = """
import os, signal
from ostraka.testing import processes, serve
read = processes.ServerProcess._read
def begun(self, stream):
    print(self.pid, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    return read(self, stream)
processes.ServerProcess._read = begun
with serve():
    print("served", flush=True)
    signal.pause()
"""


def test_ctrl_c_while_a_fixture_begins_leaves_no_server() -> None:
    done = subprocess.run([sys.executable, "-c", BEGINNING], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGINT, done
    pid = int(done.stdout.split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
