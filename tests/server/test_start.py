"""How a server starts, and how one that cannot says so: one clear line, a status, and no traceback."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
from client_tls import Authority
from server_processes import Served, serve_briefly


def assert_one_line(done: tuple[int, str, str], message: str, status: int) -> None:
    code, out, err = done
    lines = err.strip().splitlines()
    assert code == status, err
    assert out == ""
    assert len(lines) == 1, err
    assert lines[0].startswith("ostraka: "), err
    assert re.search(message, lines[0]), err


def test_the_first_line_of_json_tells_the_bound_url(served: Served) -> None:
    assert served.greeting["url"].startswith("http://127.0.0.1:")
    assert served.address[1] != 0
    assert served.greeting["ec"] == "1+0"
    assert served.greeting["workers"] == 2
    assert served.greeting["disks"] == 1
    assert served.get("/-/health/live") == (200, b"alive\n")


def test_its_log_is_json_too(tmp_path: Path) -> None:
    with Served(tmp_path, environment={"OSTRAKA_PORT": "tcp://10.0.0.1:9000"}) as server:
        pass
    warnings = [e for e in map(json.loads, server.log) if e["level"] == "warning"]
    assert [w["message"] for w in warnings] == ["not settings of Ostraka, and ignored: OSTRAKA_PORT"]


@pytest.mark.parametrize(
    ("words", "environment", "message", "status"),
    [
        ([], {}, "no directory was named", 2),
        (["S", "--listen", "nonsense"], {}, "HOST:PORT", 2),
        (["S", "--listen", "127.0.0.1:99999"], {}, "HOST:PORT", 2),
        (["S", "--listen", "203.0.113.1:0"], {}, "cannot listen on 203.0.113.1:0", 4),
        (["S", "--ec", "4"], {}, "4\\+2", 2),
        (["S", "--ec", "4+2"], {}, "4\\+2|disks", 2),
        (["S", "--workers", "many"], {}, "no whole number", 2),
        (["S", "--log-level", "loud"], {}, "no log level", 2),
        (["S", "--tls-cert", "x.pem"], {}, "go together", 2),
        (["S", "--tls-cert", "/absent.pem", "--tls-key", "/absent.key"], {}, "/absent.pem does not exist", 2),
        (["S", "--tls-cert", "/etc/hostname", "--tls-key", "/etc/hostname"], {}, "--tls-cert /etc/hostname", 2),
        (["S", "--access-log", "/absent/access.log"], {}, "--access-log /absent/access.log", 2),
        (["S", "--config", "/absent.toml"], {}, "/absent.toml", 2),
        (["S", "--existing"], {}, "there is no store in", 1),
        (["S", "S"], {}, "named twice", 2),
        (["S", "S/nested"], {}, "nested lies inside", 2),
        (["/etc/hostname"], {}, "/etc/hostname is not a directory", 1),
        (["/proc/absent"], {}, "/proc/absent", 1),
        (["S"], {"OSTRAKA_LISTN": "x"}, "did you mean OSTRAKA_LISTEN", 2),
        (["S"], {"OSTRAKA_ROOT_ACCESS_KEY": "alone"}, "go together", 2),
        (["S"], {"OSTRAKA_ACCOUNTS": "name:key"}, "account 1 is not name:access:secret", 2),
        (["S"], {"OSTRAKA_ACCOUNTS": "root:key:secret"}, "root is not an account to create", 2),
        (["S"], {"OSTRAKA_BUCKETS": "bucket:nobody"}, "there is no account 'nobody'", 2),
        (["S"], {"OSTRAKA_BUCKETS": "Not-A-Name"}, "'Not-A-Name'", 2),
        (["S"], {"OSTRAKA_ROOT_SECRET_KEY_FILE": "/absent"}, "/absent", 2),
    ],
)
def test_a_start_that_cannot_be_is_one_line(
    words: list[str], environment: dict[str, str], message: str, status: int, tmp_path: Path
) -> None:
    words = [f"{tmp_path}/{w}" if w.startswith("S") else w for w in words]
    if "--listen" not in words:
        words += ["--listen", "127.0.0.1:0"]
    assert_one_line(serve_briefly(*words, environment=environment), message, status)


def test_a_flag_that_is_not_known_is_named() -> None:
    status, out, err = serve_briefly("store", "--lisen", "x")
    assert status == 2
    assert "--lisen" in err
    assert "--listen" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[serve]\nlistne = 'x'", "'listne'; did you mean 'listen'"),
        ("[server]\n", "'server'; did you mean 'serve'"),
        ("[serve\n", "no TOML"),
        ("[[account]]\nname = 'a'\naccess-key = 'k'\n", "needs name, access-key and secret-key"),
        ("[[account]]\nname = 'a'\naccess-key = 'k'\nsecret = 's'\n", "'secret'; did you mean"),
        ("[serve]\nworkers = -1", "not between 0 and 256"),
    ],
)
def test_a_file_of_settings_with_a_mistake_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text(content)
    done = serve_briefly(str(tmp_path / "store"), "--config", str(tmp_path / "o.toml"))
    assert_one_line(done, re.escape(message), 2)


@pytest.mark.parametrize("reuse", [False, True])
def test_an_occupied_port_is_told_and_nothing_is_formatted(reuse: bool, tmp_path: Path) -> None:
    with socket.socket() as other:
        if reuse:  # as another server of ours sets it
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        done = serve_briefly(str(tmp_path / "store"), "--listen", listen)
    assert_one_line(done, f"cannot listen on {listen}: Address already in use", 4)
    assert not (tmp_path / "store" / "superblock").exists()


def test_a_second_server_on_one_store_is_refused_and_names_the_first(served: Served) -> None:
    done = serve_briefly(str(served.store), "--listen", "127.0.0.1:0")
    assert_one_line(done, f"is in use by process {served.pid}", 1)
    served.client().list_buckets()


def test_a_directory_that_this_user_may_not_write_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o555)
    prefix = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("setpriv is not installed")
        # another user, who may read everything (else he could not read this Python) and write nothing
        only = "-all,+dac_read_search"
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set", only]
        prefix += ["--inh-caps", only, "--ambient-caps", only]
    done = serve_briefly(str(store), "--listen", "127.0.0.1:0", prefix=prefix)
    assert_one_line(done, "cannot be written by this user", 1)


def test_a_port_that_plain_http_is_sent_to_is_still_served_over_tls(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.server()
    with Served(tmp_path, "--tls-cert", str(certificate), "--tls-key", str(key)) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with socket.create_connection(server.address, timeout=30) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" not in plain.recv(1000)
        server.client_of(server.access_key, server.secret_key, verify=str(authority.bundle)).list_buckets()


def test_settings_come_from_flag_environment_and_file_in_that_order(tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text(
        f"[serve]\ndirectories = ['{tmp_path}/unused']\nworkers = 3\nregion = 'from-file'\nlisten = '127.0.0.1:1'\n"
    )
    environment = {"OSTRAKA_CONFIG": str(tmp_path / "o.toml"), "OSTRAKA_REGION": "from-environment"}
    with Served(tmp_path, environment=environment) as server:
        assert server.greeting["region"] == "from-environment"
        assert server.greeting["workers"] == 2
        assert not (tmp_path / "unused").exists()


def test_virtual_host_style_and_path_style_reach_the_same_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def on_loopback(host: str, *rest: object, **more: object) -> object:
        return resolve("127.0.0.1" if str(host).endswith("s3.test") else host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", on_loopback)
    with Served(tmp_path, "--domain", "s3.test", "--domain", "other.example") as server:
        url = f"http://s3.test:{server.address[1]}"
        virtual = server.client_of(
            server.access_key, server.secret_key, url=url, s3={"addressing_style": "virtual"}, signature_version="s3v4"
        )
        virtual.create_bucket(Bucket="a-bucket")
        virtual.put_object(Bucket="a-bucket", Key="a-bucket/k +", Body=b"virtual")
        path = server.client()
        assert path.get_object(Bucket="a-bucket", Key="a-bucket/k +")["Body"].read() == b"virtual"
        assert [o["Key"] for o in virtual.list_objects_v2(Bucket="a-bucket")["Contents"]] == ["a-bucket/k +"]
        assert [b["Name"] for b in virtual.list_buckets()["Buckets"]] == ["a-bucket"]
