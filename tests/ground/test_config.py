"""One name, three places; what is unknown is never passed over in silence."""

import base64
from pathlib import Path

import pytest

from ostraka.config import SERVE, AccountSetting, BucketSetting, master_keys, parse_geometry, parse_listen, resolve
from ostraka.errors import Invalid


def test_flag_wins_over_environment_and_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "o.toml"
    file.write_text('[serve]\nlisten = "1.1.1.1:1"\nregion = "r-file"\nworkers = 3\n')
    env = {"OSTRAKA_LISTEN": "2.2.2.2:2", "OSTRAKA_REGION": "r-env", "OSTRAKA_CONFIG": str(file)}
    chosen = resolve({"listen": "3.3.3.3:3"}, env)
    assert (chosen.listen, chosen.region, chosen.workers) == ("3.3.3.3:3", "r-env", 3)


def test_a_file_is_read_only_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ostraka.toml").write_text('[serve]\nlisten = "1.1.1.1:1"\n')
    monkeypatch.chdir(tmp_path)
    assert resolve({}, {}).listen == "127.0.0.1:9000"
    assert resolve({}, {}, config=str(tmp_path / "ostraka.toml")).listen == "1.1.1.1:1"


def test_every_setting_has_its_three_names_by_rule() -> None:
    for setting in SERVE:
        assert setting.variable == "OSTRAKA_" + setting.name.upper().replace("-", "_")


@pytest.mark.parametrize("slip", ["OSTRAKA_LSTEN", "OSTRAKA_LSITEN", "OSTRAKA_WORKER", "OSTRAKA_DOMAINS"])
def test_a_slip_of_the_pen_in_a_variable_is_refused_with_the_right_name(slip: str) -> None:
    with pytest.raises(Invalid, match="did you mean OSTRAKA_"):
        resolve({}, {slip: "1"})


def test_foreign_variables_are_named_in_one_warning_and_test_variables_ignored() -> None:
    chosen = resolve({}, {"OSTRAKA_PORT": "tcp://1", "OSTRAKA_SERVICE_HOST": "x", "OSTRAKA_TEST_ANY": "1"})
    assert len(chosen.warnings) == 1
    assert "OSTRAKA_PORT" in chosen.warnings[0]
    assert "OSTRAKA_SERVICE_HOST" in chosen.warnings[0]
    assert "TEST" not in chosen.warnings[0]


def test_an_unknown_key_of_the_file_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "o.toml"
    file.write_text('[serve]\nlisen = "x"\n')
    with pytest.raises(Invalid, match="did you mean 'listen'"):
        resolve({}, {}, config=str(file))
    file.write_text("[server]\n")
    with pytest.raises(Invalid, match="did you mean 'serve'"):
        resolve({}, {}, config=str(file))


def test_secrets_can_come_from_files_and_are_never_quoted_in_errors(tmp_path: Path) -> None:
    secret = tmp_path / "s"
    secret.write_text("hush\n")
    chosen = resolve({}, {"OSTRAKA_ROOT_ACCESS_KEY": "a", "OSTRAKA_ROOT_SECRET_KEY_FILE": str(secret)})
    assert (chosen.root_access_key, chosen.root_secret_key) == ("a", "hush")
    with pytest.raises(Invalid) as e:
        resolve({}, {"OSTRAKA_ACCOUNTS": "name:key:secret:with:colons"})
    assert "secret:with" not in str(e.value)
    with pytest.raises(Invalid, match="both set"):
        resolve({}, {"OSTRAKA_ROOT_SECRET_KEY": "x", "OSTRAKA_ROOT_SECRET_KEY_FILE": str(secret)})
    with pytest.raises(Invalid, match="go together"):
        resolve({}, {"OSTRAKA_ROOT_ACCESS_KEY": "x"})


def test_accounts_and_buckets(tmp_path: Path) -> None:
    file = tmp_path / "o.toml"
    file.write_text('[[account]]\nname = "odd"\naccess-key = "a,b:c"\nsecret-key = "d:e,f"\n')
    chosen = resolve({}, {"OSTRAKA_ACCOUNTS": "ann:AK:SK", "OSTRAKA_BUCKETS": "one, two:ann"}, config=str(file))
    assert chosen.accounts == (AccountSetting("odd", "a,b:c", "d:e,f"), AccountSetting("ann", "AK", "SK"))
    assert chosen.buckets == (BucketSetting("one"), BucketSetting("two", "ann"))


@pytest.mark.parametrize("text", ["", "4", "4+", "+2", "a+b", "4+2+1", "-4+2", "4-2"])
def test_a_geometry_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"4\+2"):
        parse_geometry(text)


def test_addresses() -> None:
    assert parse_listen("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_listen("[::1]:9000") == ("::1", 9000)
    assert parse_listen(":80") == ("0.0.0.0", 80)
    for bad in ("nine", "host", "host:", "host:99999", "::1:90"):
        with pytest.raises(Invalid, match="HOST:PORT"):
            parse_listen(bad)


@pytest.mark.parametrize("region", ["", "Us-East", "a b", "x" * 64, "-a"])
def test_a_region_that_no_client_could_sign_for_is_refused(region: str) -> None:
    with pytest.raises(Invalid, match="is no region"):
        resolve({"region": region}, {})


@pytest.mark.parametrize("domain", ["a b", "s3.example.org:9000", "-a.org", "a..b", "https://a"])
def test_a_domain_that_is_no_host_name_is_refused(domain: str) -> None:
    with pytest.raises(Invalid, match="is no domain"):
        resolve({"domain": ("fine.org", domain)}, {})
    assert resolve({"domain": ("localhost", "s3_1.example.org")}, {}).domain == ("localhost", "s3_1.example.org")


def test_master_keys_are_lines_of_base64_or_hex_and_are_never_shown(tmp_path: Path) -> None:
    first, second = bytes(range(32)), bytes(range(32, 64))
    file = tmp_path / "master"
    file.write_text(f"{base64.b64encode(first).decode()}\n\n  {second.hex()}\n")
    chosen = resolve({}, {"OSTRAKA_MASTER_KEY_FILE": str(file)})
    assert chosen.master_key == (first, second) == master_keys({"OSTRAKA_MASTER_KEY_FILE": str(file)})
    assert resolve({}, {"OSTRAKA_MASTER_KEY": first.hex()}).master_key == (first,)
    assert resolve({}, {}).master_key == master_keys({}) == ()
    assert str(first) not in repr(chosen)
    for wrong in ("hush", first.hex()[:-2], base64.b64encode(first[:31]).decode(), f"{first.hex()}\n{first.hex()}"):
        with pytest.raises(Invalid) as refused:
            resolve({}, {"OSTRAKA_MASTER_KEY": wrong})
        assert wrong.split("\n")[0] not in str(refused.value)
        assert "OSTRAKA_MASTER_KEY" in str(refused.value)
    with pytest.raises(Invalid, match="both set"):
        master_keys({"OSTRAKA_MASTER_KEY": first.hex(), "OSTRAKA_MASTER_KEY_FILE": str(file)})
