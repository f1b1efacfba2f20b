"""How a process logs in to NATS: what excludes each other, what its files have to hold, and what is never shown."""

import io
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import nkeys
import pytest
from rich.console import Console

from liveness.access import Access
from liveness.addresses import asks_for_tls, log_in
from liveness.client.connection import Connection
from liveness.client.problems import Problems
from liveness.errors import AccessError, SettingsError
from liveness.refusals import refusal_of
from liveness.settings import Settings, load

SECRET = "correct-horse"  # noqa: S105 - a test's own
SEED = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER).decode()
URL = "nats://127.0.0.1:4222"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"user": "a", "password": SECRET, "token": SECRET}, "nats_user and nats_token are two ways"),
        ({"nkey_file": "/n", "credentials_file": "/c"}, "nats_nkey_file and nats_credentials_file are two ways"),
        ({"user": "a", "password": SECRET, "password_file": "/p"}, "nats_password and nats_password_file are both"),
        ({"token": SECRET, "token_file": "/t"}, "nats_token and nats_token_file are both"),
        ({"password": SECRET}, "nats_password is given and nats_user is not"),
        ({"user": "a"}, "nats_user = 'a' has no password: give nats_password_file"),
        ({"certificate_file": "/c.pem"}, "nats_certificate_file = '/c.pem' is of no use without nats_key_file"),
        ({"key_file": "/k.pem"}, "nats_key_file = '/k.pem' is of no use without nats_certificate_file"),
        ({"inbox_prefix": "inbox"}, "nats_inbox_prefix = 'inbox' is no inbox"),
        ({"inbox_prefix": "_INBOX.*"}, r"nats_inbox_prefix = '_INBOX.\*' is no inbox"),
        ({"inbox_prefix": "_INBOX."}, "nats_inbox_prefix"),
    ],
)
def test_what_excludes_each_other_is_refused(given: dict[str, Any], words: str) -> None:
    """By the setting and what to do, without a secret; as an argument and as a setting alike."""
    with pytest.raises(ValueError, match=words) as caught:
        Access(**given)
    assert SECRET not in str(caught.value)
    with pytest.raises(SettingsError, match=words) as of_settings:
        load({f"LIVENESS_NATS_{name.upper()}": value for name, value in given.items()})
    assert SECRET not in str(of_settings.value)


def test_two_ways_are_found_in_the_url_as_well() -> None:
    """Whoever stands in it logs in, too."""
    with pytest.raises(AccessError, match="nats_url says who logs in to NATS, and nats_token too") as caught:
        Access(token=SECRET).check(f"nats://a:{SECRET}@h")
    assert SECRET not in str(caught.value)
    assert log_in("nats://h:1, nats://token@h:2")
    assert not log_in("h:1,nats://h:2")
    assert asks_for_tls(["nats://h", "tls://h"])
    assert not asks_for_tls(["h:1"])


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("password_file", None, "cannot be read: No such file or directory"),
        ("password_file", "", "is empty, or no text"),
        ("token_file", " \n", "is empty, or no text"),
        ("nkey_file", "SUAB", "holds no nkey seed: it is one line that begins with SU"),
        ("nkey_file", SEED[:-9], "holds no nkey seed"),
        ("nkey_file", nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_ACCOUNT).decode(), "seed of something else"),
        ("credentials_file", SEED, "holds no user JWT and seed: make it with nsc"),
        ("ca_file", "no certificate", "holds no certificate in PEM"),
        ("ca_file", None, "cannot be read: No such file or directory"),
        ("certificate_file", "no certificate", "and nats_key_file are no PEM certificate and key"),
        ("certificate_file", None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_of_no_use_is_named(tmp_path: Path, field: str, text: str | None, words: str) -> None:
    """With the setting, the path and the fix, and without what is in it."""
    path = tmp_path / "file"
    if text is not None:
        path.write_text(text)
    given: dict[str, Any] = {field: path} | ({"user": "a"} if field == "password_file" else {})
    if field == "certificate_file":
        (tmp_path / "key").write_text("no key")
        given["key_file"] = tmp_path / "key"
    with pytest.raises(AccessError) as caught:
        Access(**given).options()
    assert str(caught.value).startswith(f"nats_{field} = {str(path)!r} ")
    assert words in str(caught.value)
    assert caught.value.__cause__ is None
    assert SEED[4:20] not in str(caught.value)


def test_files_are_read_anew(tmp_path: Path) -> None:
    """What is rotated beside a process that runs is used from its next connection on."""
    path = tmp_path / "password"
    path.write_text("first\n")
    access = Access(user="a", password_file=path)
    assert access.options() == {"user": "a", "password": "first"}
    path.write_text("second")
    assert access.options() == {"user": "a", "password": "second"}


def test_without_the_package_for_keys_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's installation is small, and has it only where it is asked for."""
    (tmp_path / "seed").write_text(SEED)
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(AccessError, match=r"nats_nkey_file needs the package nkeys.*pip install 'liveness\[nkeys\]'"):
        Access(nkey_file=tmp_path / "seed").options()


def test_secrets_that_others_can_read_are_warned_of(tmp_path: Path) -> None:
    """By the settings as well; a certificate is for everybody, and what is not there is an error and no warning."""
    path = tmp_path / "token"
    path.write_text(SECRET)
    path.chmod(0o640)
    assert Access(token_file=path, ca_file=path).warnings() == [
        f"nats_token_file = {str(path)!r} can be read by others (0640): chmod 0400 it"
    ]
    settings, _ = load({"LIVENESS_NATS_TOKEN_FILE": str(path), "LIVENESS_NATS_SYSTEM_CREDENTIALS_FILE": "/none"})
    assert settings.login_warnings() == Access(token_file=path).warnings()
    path.chmod(0o400)
    assert Access(token_file=path).warnings() == []
    assert Access(token_file=tmp_path / "none").warnings() == []


def test_a_secret_of_somebody_elses_is_read_by_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does Kubernetes give one, as root's: there is no other way, and nothing to warn of unless all may."""
    path = tmp_path / "token"
    path.write_text(SECRET)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    path.chmod(0o440)
    assert Access(token_file=path).warnings() == []
    path.chmod(0o444)
    assert len(Access(token_file=path).warnings()) == 1


def test_secrets_are_not_shown() -> None:
    """Neither by repr nor by rich."""
    access = Access(user="a", password=SECRET, server_name="nats.example")
    settings, _ = load(
        {
            "LIVENESS_NATS_USER": "a",
            "LIVENESS_NATS_PASSWORD": SECRET,
            "LIVENESS_POSTGRES_DSN": f"postgresql://u:{SECRET}@h/d",
            "LIVENESS_NATS_SYSTEM_URL": f"nats://u:{SECRET}@h",
        }
    )
    shown = io.StringIO()
    Console(file=shown, width=200).print(access, settings)
    for text in (repr(access), repr(settings), str(Access(token=SECRET)), shown.getvalue()):
        assert SECRET not in text
    assert repr(access) == ("Access(user='a', password='(hidden)', server_name='nats.example', inbox_prefix='_INBOX')")


def test_the_environment_says_the_same_to_a_worker_and_to_the_service(tmp_path: Path) -> None:
    """`Access.from_environment` reads what the settings read."""
    given = {"USER": "a", "PASSWORD_FILE": "/p", "CA_FILE": "/c", "SERVER_NAME": "n", "INBOX_PREFIX": "_INBOX_a"}
    environment = {f"LIVENESS_NATS_{name}": value for name, value in given.items()}
    access = Access.from_environment(environment)
    assert access == load(environment)[0].nats_access
    assert (access.user, access.password_file, access.inbox_prefix) == ("a", "/p", "_INBOX_a")
    assert {f"nats_{name}" for name in Access.__struct_fields__} < set(Settings.__struct_fields__)
    with pytest.raises(AccessError, match="nats_password_file = '/p'"):
        Connection(URL, "x", patience=1, problems=Problems("x"), access=access)
    # Where it is read again on every start, an empty variable says nothing.
    assert Access.from_environment({"LIVENESS_NATS_USER": "", "LIVENESS_NATS_TOKEN_FILE": str(tmp_path)}).user == ""


def test_the_system_account_has_a_login_of_its_own() -> None:
    """By the same certificates."""
    settings, _ = load(
        {
            "LIVENESS_NATS_USER": "a",
            "LIVENESS_NATS_PASSWORD": SECRET,
            "LIVENESS_NATS_CA_FILE": "/ca",
            "LIVENESS_NATS_SYSTEM_CREDENTIALS_FILE": "/creds",
        }
    )
    assert settings.nats_system_access == Access(credentials_file="/creds", ca_file="/ca")


def test_only_what_time_does_not_mend_is_a_refusal() -> None:
    """A server that is away, slow or about to restart is waited for."""
    for error in (OSError("refused"), TimeoutError(), ConnectionResetError("lost"), ValueError("x")):
        assert refusal_of(error, Access(), {}) is None
    assert refusal_of(TimeoutError(), Access(), {"tls_verify": True}) is None
    alert = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:1)")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    advice = "give nats_certificate_file and nats_key_file"
    assert refusal_of(alert, Access(), {}) == f"does not accept our certificate (certificate required): {advice}"
    assert refusal_of(Exception("nats: 'User Authentication Expired'"), Access(token="t"), {}) == (  # noqa: S106
        "refuses us: 'User Authentication Expired': check nats_token"
    )
