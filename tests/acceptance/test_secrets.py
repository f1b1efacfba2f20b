"""No secret is ever shown: not in logs, errors, answers, representations, nor in the list of processes."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.pretty import pretty_repr

import liveness
from liveness.access import Access
from liveness.embedded import NatsServer
from liveness.errors import SettingsError
from liveness.page import Page
from liveness.settings import Settings, load
from liveness.store import Database
from tests.acceptance.conftest import Liveness, Serve, all_of

# In every secret of this file, so that a piece of one is found as well.
MARK = "s3cr3t"
# Every setting that is one, or has one in it.
SECRETS = {
    "postgres_dsn": f"postgresql://postgres:{MARK}pg@127.0.0.1:1/x",
    "nats_url": f"nats://service:{MARK}url@127.0.0.1:1",
    "nats_system_url": f"nats://system:{MARK}sys@127.0.0.1:1",
    "nats_password": f"{MARK}password",
    "nats_token": f"{MARK}token",
    "http_token": f"{MARK}-0123456789",
}
# Every setting that names a file with one.
FILES = {
    "postgres_dsn_file": SECRETS["postgres_dsn"],
    "postgres_password_file": SECRETS["nats_password"],
    "nats_password_file": SECRETS["nats_password"],
    "nats_token_file": SECRETS["nats_token"],
    "nats_nkey_file": f"SU{MARK}",
    "nats_credentials_file": f"-----BEGIN NATS USER JWT-----\n{MARK}\n------END NATS USER JWT------\n",
    "nats_system_credentials_file": f"-----BEGIN NATS USER JWT-----\n{MARK}\n------END NATS USER JWT------\n",
    "nats_key_file": f"-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----\n",
    "http_token_file": SECRETS["http_token"],
}
# What is answered without the token, and what with it alone, with which status.
OUTSIDE = ("/livez", "/readyz", "/login")
WITHIN = {
    "/": 200,
    "/metrics": 200,
    "/events": 200,
    "/why": 400,
    "/why?worker=w1": 404,
    "/why/w1": 404,
    "/page.css": 200,
    "/page.js": 200,
    "/icon.svg": 200,
}
MALFORMED = [
    "postgresql://u:{}/x@127.0.0.1/db",
    "postgresql://u:{}#x@127.0.0.1/db",
    "postgresql://u:{}?x@127.0.0.1/db",
    "postgresql://u:{}\u2100@127.0.0.1/db",
    "postgresql://u:[{}@127.0.0.1/db",
    "postgresql://u:x{}x@127.0.0.1:port/db",
    "{}",
    "u:{}@127.0.0.1",
    "host=127.0.0.1 password={}",
    "postgresql://u@127.0.0.1/db?password={}&sslmode=nonsense",
    "postgresql://u:{}@/db?host=a,b&port=1,2,3",
]


def test_every_secret_setting_is_in_this_file() -> None:
    """Whoever adds one tells this test of it, too."""
    shown = load({}, **SECRETS | {"nats_url": SECRETS["nats_url"], "nats_password": "", "nats_token": ""})[0]
    hidden = {name for name, value in shown.__rich_repr__() if value == "(hidden)"}

    assert hidden | {"nats_password", "nats_token"} == set(SECRETS)
    named = {name for name in Settings.__struct_fields__ if name.endswith("_file")}
    assert named - set(FILES) == {"nats_ca_file", "nats_certificate_file"}


def test_every_route_is_in_this_file() -> None:
    """Whoever adds one tells this test of it, too."""
    asked = [path.partition("?")[0] for path in (*WITHIN, *OUTSIDE)]
    for route in Page(Settings(), lambda: None, list).routes():
        assert any(route.path_regex.match(path) for path in asked), route.path


def structs() -> Iterator[type[msgspec.Struct]]:
    """Yield every struct of the package."""
    for module in pkgutil.walk_packages(liveness.__path__, "liveness."):
        if module.name != "liveness.__main__":
            importlib.import_module(module.name)
    left = [msgspec.Struct]
    while left:
        for found in left.pop().__subclasses__():
            left.append(found)
            # Those of the tests are not ours to judge.
            if found.__module__.startswith("liveness."):
                yield found


async def test_no_representation_shows_a_secret() -> None:
    """Of whatever holds one: those that do are the settings, and what is made of them to log in."""
    words = ("password", "token", "dsn", "nats_url", "seed", "secret")
    holding = {
        one.__name__ for one in structs() if any(word in field for field in one.__struct_fields__ for word in words)
    }
    assert holding == {"Settings", "HttpSettings", "PostgresSettings", "NatsSettings", "Access"}

    login = {"nats_password": "", "nats_token": ""}
    for made in (
        load({}, **SECRETS | login)[0],
        load({}, nats_user="service", nats_password=SECRETS["nats_password"])[0],
        load({}, nats_user="service", nats_password=SECRETS["nats_password"])[0].nats_access,
        Access(token=SECRETS["nats_token"]),
        Database(SECRETS["postgres_dsn"], 1.0),
    ):
        for shown in (repr(made), str(made), f"{made}", pretty_repr(made)):
            assert MARK not in shown


@pytest.mark.parametrize("address", MALFORMED)
async def test_a_malformed_address_of_postgres_is_complained_of_without_its_password(address: str) -> None:
    """Nor does what went wrong before it hang on the error, for whoever logs that."""
    with pytest.raises(SettingsError, match="postgres_dsn cannot be used") as refused:
        await Database(address.format(MARK)).connect()

    assert MARK not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.__suppress_context__
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "address", ["nats://u:{},b@127.0.0.1:4222", "nats://u:x@127.0.0.1:port", "u:{}@", "ftp://u:{}@h"]
)
def test_a_malformed_address_of_nats_is_complained_of_without_its_password(address: str) -> None:
    """A comma in it makes two servers of one."""
    from liveness.addresses import servers_of  # noqa: PLC0415

    with pytest.raises(ValueError, match="nats_url names") as refused:
        servers_of(address.format(MARK))

    assert MARK not in str(refused.value)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_cannot_be_used_is_complained_of_without_what_is_in_it(name: str, tmp_path: Path) -> None:
    """One that others can read, and one that holds something else."""
    file = tmp_path / "secret"
    file.write_text(FILES[name], encoding="utf-8")
    file.chmod(0o644)
    others: dict[str, Any] = {
        "nats_password_file": {"nats_user": "u"},
        "nats_key_file": {"nats_certificate_file": str(file)},
    }.get(name, {})

    made, warnings = load({}, **{name: str(file)}, **others)
    said = [*warnings, *made.login_warnings(), repr(made)]
    try:
        made.nats_access.options()
        made.nats_system_access.options()
    except SettingsError as error:
        said.append(str(error))

    assert any(f"{name} = " in line and "chmod 0400" in line for line in said)
    assert not any(MARK in line for line in said)


def test_a_password_is_asked_for_once(tmp_path: Path) -> None:
    """Two that contradict each other are refused, and an address in a file is read."""
    file = tmp_path / "dsn"
    file.write_text("postgresql://u:p@h/db\n", encoding="utf-8")
    assert load({}, postgres_dsn_file=str(file))[0].postgres_dsn == "postgresql://u:p@h/db"
    for both in (
        {"postgres_dsn_file": str(file), "postgres_dsn": "postgresql://h/db"},
        {"postgres_dsn_file": str(file), "postgres_password_file": str(file)},
        {"postgres_password_file": str(file), "postgres_dsn": "postgresql://u@h/db?password=p"},
    ):
        with pytest.raises(SettingsError, match="leave one"):
            load({}, **both)


async def test_a_service_shows_none_whatever_becomes_of_it(
    liveness: Liveness, serve: Serve, dsn: str, tmp_path: Path
) -> None:
    """Where all goes well, and where an address cannot be used, nobody answers, or nobody lets it in."""
    nats = NatsServer(
        tmp_path / "locked",
        config=f'authorization {{ users = [{{ user: "service", password: "{SECRETS["nats_password"]}" }}] }}',
    )
    await nats.start()
    right: dict[str, Any] = {
        "postgres_dsn": dsn.replace("postgres@", f"postgres:{MARK}pg@"),
        "nats_url": f"nats://127.0.0.1:{nats.port}",
        "nats_user": "service",
        "nats_password": SECRETS["nats_password"],
        "nats_system_url": f"nats://system:{MARK}sys@127.0.0.1:{nats.port}",
        "http_token": SECRETS["http_token"],
        "log_level": "debug",
    }
    nobody = {"nats_user": "", "nats_password": ""}
    try:
        service = await serve(**right)
        await service.logged("advisories_refused")
        answers = [await service.get(path) for path in (*WITHIN, *OUTSIDE)]
        assert [status for status, _ in answers] == [401] * len(WITHIN) + [200] * len(OUTSIDE)
        inside = [await service.get(path, authorization=f"Bearer {SECRETS['http_token']}") for path in WITHIN]
        assert dict(zip(WITHIN, (status for status, _ in inside), strict=True)) == WITHIN
        answers += inside
        process = Path(f"/proc/{service.process.pid}/cmdline").read_text()  # noqa: ASYNC240 - no file at all
        runs = await all_of(
            liveness("status", "--json", **right),
            liveness("check", "--json", **right),
            liveness("serve", **right | {"nats_url": f"nats://service:{MARK},x@127.0.0.1:{nats.port}", **nobody}),
            # A token that is wrong, and a Postgres that nobody has.
            liveness("check", **right | nobody | {name: SECRETS[name] for name in ("nats_token", "postgres_dsn")}),
            liveness("serve", "--postgres-dsn", f"postgresql://u:{MARK}@127.0.0.1:port/x", **right),
        )
        await service.stop()
    finally:
        await nats.stop()

    assert [ran.code for ran in runs] == [0, 1, 2, 1, 2]
    said = [process, *service.lines, *(body for _, body in answers), *(ran.out + ran.err for ran in runs)]
    assert not [line for line in said if MARK in line]
    assert "--postgres-dsn has a password in it, which everybody on this machine can see" in runs[-1].err
