"""URLs: what each names; what names nothing is refused in a clear sentence, which repeats no secret."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ostraka.backends import Address, LocalBackend, address
from ostraka.errors import Invalid


@pytest.mark.parametrize(
    ("url", "config", "path"),
    [
        ("s3://photos/2024/a.jpg", {"bucket": "photos"}, "2024/a.jpg"),
        ("s3://photos", {"bucket": "photos"}, ""),
        ("s3://b/a%3Fb%25c d+e#f", {"bucket": "b"}, "a?b%c d+e#f"),
        (
            "s3://b/?endpoint=http://127.0.0.1:9000&region=eu-west-1&path_style&ca_file=/ca.pem",
            {
                "bucket": "b",
                "endpoint": "http://127.0.0.1:9000",
                "region": "eu-west-1",
                "path_style": True,
                "ca_file": "/ca.pem",
            },
            "",
        ),
        ("s3://b/?conditional_writes=no", {"bucket": "b", "conditional_writes": False}, ""),
        ("s3://b/?profile=lab", {"bucket": "b", "credentials": {"from": "profile", "name": "lab"}}, ""),
        ("s3://b/?anonymous", {"bucket": "b", "credentials": {"from": "nobody"}}, ""),
        ("s3://b/?anonymous=false", {"bucket": "b"}, ""),
        ("s3://b/?instance", {"bucket": "b", "credentials": {"from": "instance"}}, ""),
        ("az://c/x/y?account=me", {"type": "azure", "container": "c", "account": "me"}, "x/y"),
        ("az://c/?identity=yes", {"type": "azure", "container": "c", "credentials": {"from": "identity"}}, ""),
        ("memory:a/b", {"type": "memory"}, "a/b"),
    ],
)
def test_a_url_names_a_backend_and_a_path(url: str, config: dict[str, Any], path: str) -> None:
    assert address(url) == Address({"type": "s3", **config} if "bucket" in config else config, path)


def test_a_files_root_is_the_one_that_is_there_or_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def made() -> None:
        async with LocalBackend(tmp_path / "known") as known:
            await known.write("a/b", b"")

    asyncio.run(made())
    monkeypatch.chdir(tmp_path)
    root = str(tmp_path)
    assert address("file:x/y") == Address({"type": "local", "root": f"{root}/x"}, "y")
    assert address(f"file://{root}/x/y") == Address({"type": "local", "root": f"{root}/x"}, "y")
    assert address(f"file://localhost{root}/x/") == Address({"type": "local", "root": f"{root}/x"}, "")
    assert address("file:known/a/b") == Address({"type": "local", "root": f"{root}/known"}, "a/b")
    assert address("file:known/new/") == Address({"type": "local", "root": f"{root}/known"}, "new/")
    assert address("file:known/a/b?root=known/a") == Address({"type": "local", "root": f"{root}/known/a"}, "b")
    assert address("file:.") == address("file:./") == Address({"type": "local", "root": root}, "")
    assert address("file:x/.") == Address({"type": "local", "root": f"{root}/x"}, "")
    assert address("file:/a?root=/") == Address({"type": "local", "root": "/"}, "a")


def test_a_path_is_made_a_place_of_its_own(tmp_path: Path) -> None:
    assert address("s3://b/state/").place() == address("s3://b/state").place()
    assert address("s3://b/state/").place() == Address({"type": "s3", "bucket": "b", "prefix": "state"}, "")
    assert address("az://c/x/y").place() == Address({"type": "azure", "container": "c", "prefix": "x/y"}, "")
    assert address("az://c").place() == address("az://c")
    assert address(f"file:{tmp_path}/x/y").place().config["root"] == f"{tmp_path}/x/y"
    for url in ("s3://b/a/../c", "s3://b//", "memory:a"):
        with pytest.raises(Invalid) as refused:
            address(url).place()
        assert refused.value.reason == "path"


@pytest.mark.parametrize(
    "url",
    [
        "s3://b/a%3Fb%25c d?endpoint=http://127.0.0.1:9000",
        "s3://b/",
        "az://c/é/?endpoint=http://127.0.0.1:1&account=me",
        "memory:a/b",
        "file:///data/x/a",
    ],
)
def test_an_address_tells_its_url(url: str) -> None:
    assert address(url).url() == url
    assert address(address(url).url("a?b%c")).path == "a?b%c"
    assert address("s3://b/x/").place().url("y") == "s3://b/x/y"


BAD = {
    "ftp://host/a": "'ftp://host/a': no such kind of URL; there are file:, s3:, az:, memory:",
    "s4://bucket/a": "did you mean s3:?",
    "a.txt": "no such kind of URL; there are file:, s3:, az:, memory:; a file is file:a.txt",
    "": "no such kind of URL",
    "s3://": "names no bucket",
    "az:///a": "names no container",
    "s3:bucket/a": "write s3://NAME/PATH",
    "s3://key:secret@bucket/a": "holds no key or secret",
    "s3://bucket/%FF": "no UTF-8",
    "s3://bucket/a?regoin=x": "have no option 'regoin'; there are endpoint, region",
    "s3://bucket/?region=a&region=b": "'region' is given twice",
    "s3://bucket/a?path_style=perhaps": "true or false",
    "s3://bucket/a?anonymous&instance": "one of profile, anonymous, instance, identity",
    "az://container/a?sv=2024&sig=secret": "have no option 'sv'",
    "s3://bucket/a?secret_key=secret": "secrets come from the environment",
    "memory:a?b=c": "there is none",
    "file:": "names no path",
    "file:../a": "no '..' and no control character",
    "file:a%00b": "no '..' and no control character",
    "file:a%0Ab": "no '..' and no control character",
    "file://host/a": "files of this machine are file:///PATH",
    "file:/a/b?root=/c": "not below the root",
}


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_url_is_refused_and_no_secret_is_repeated(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        address(url)
    assert BAD[url] in refused.value.message
    assert "secret@" not in refused.value.message
    assert "=secret" not in refused.value.message
    assert "\n" not in refused.value.message
