"""The README's commands, run as they stand there in a Debian 12 that holds git, python3 and python3-pip alone."""

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import debian
import pytest

from ostraka.testing.processes import free_port, s3_client

needs_debian = pytest.mark.skipif(bool(debian.why_not()), reason=debian.why_not())


def commands() -> list[str]:
    """The indented lines below "Two commands"."""
    section = (debian.ROOT / "README.md").read_text().split("\n## Two commands\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^    (\S.*)$", section, re.MULTILINE)


@needs_debian
@pytest.mark.timeout(900)
@pytest.mark.parametrize("who", ["root", "potter"])
def test_the_first_command_installs_and_serves_on_a_bare_debian(who: str, tmp_path: Path) -> None:
    debian.make()
    listen = f"127.0.0.1:{free_port()}"  # the README's own port may be taken here
    url, body = f"http://{listen}", os.urandom(300_000)
    with debian.running(commands()[0], who, tmp_path, {"OSTRAKA_LISTEN": listen}) as server:
        assert url in server.wait_for("Ostraka serves")
        keys = json.loads((server.checkout / "data/keys.json").read_text())
        client = s3_client(url, keys["root_access_key"], keys["root_secret_key"])
        client.create_bucket(Bucket="photos")
        client.put_object(Bucket="photos", Key="amphora.jpg", Body=body)
        assert client.get_object(Bucket="photos", Key="amphora.jpg")["Body"].read() == body
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{url}/photos/amphora.jpg", timeout=30)
        assert server.interrupt() in (0, 128 + 2)
        assert "Traceback" not in server.said()


@needs_debian
@pytest.mark.slow
def test_the_second_command_installs_what_the_tests_need_and_passes_them(tmp_path: Path) -> None:
    (command,) = [c for c in commands() if c.startswith("scripts/")]
    debian.make()
    itself = "--ignore=tests/packaging/test_readme.py"  # else it would build a Debian in a Debian in a Debian
    with debian.running(f"{command} {itself}", "root", tmp_path, {}) as tests:
        status = tests.wait()
        print(tests.said()[-20_000:])
        assert status == 0


def test_the_readme_promises_two_commands() -> None:
    found = commands()
    assert "ostraka serve" in found[0]
    assert [c for c in found if c.startswith("scripts/")] == ["scripts/test"]
    assert subprocess.run(["bash", "-n", "-c", "\n".join(found)], check=False).returncode == 0
