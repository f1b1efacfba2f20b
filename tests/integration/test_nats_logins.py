"""Every way of logging in to NATS, on real servers: each works, and is refused in one clear line when it is wrong."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nkeys
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from liveness import bus as bus_module
from liveness.access import Access
from liveness.bus import Bus
from liveness.client import Heartbeater
from liveness.client.connection import Connection
from liveness.client.problems import Problems, log
from liveness.embedded import NatsServer
from liveness.errors import AccessError, CannotStartError
from liveness.link import Link
from tests.conftest import SOON
from tests.integration.beats import spying
from tests.integration.certificates import Authority
from tests.integration.nkey_operator import Key, Operator

SECRET = "correct-horse"  # noqa: S105 - a test's own
HOST = "127.0.0.1"
# What a worker's signing key gives each of its users, by its name.
PAGE = (Path(__file__).parents[2] / "docs" / "nats.md").read_text(encoding="utf-8")
ROLE: dict[str, Any] = json.loads(PAGE.partition("```json\n")[2].partition("```")[0])


class Place:
    """A folder with secrets and certificates in it, and the servers that know them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nkey = Key(nkeys.PREFIX_BYTE_USER)
        self.operator = Operator(ROLE)
        self.ours, self.theirs = Authority(folder, "ours"), Authority(folder, "theirs")
        self.good = self.ours.vouch("good", HOST, "nats.example")
        self.elsewhere = self.ours.vouch("elsewhere", "other.example")
        self.expired = self.ours.vouch("expired", HOST, days=-1)
        self.client = self.ours.vouch("client")
        self.client_expired = self.ours.vouch("client-expired", days=-1)
        self.client_of_theirs = self.theirs.vouch("client-of-theirs")
        user = f'{{ user: w1, password: "{SECRET}" }}'
        secured = f"authorization {{ users: [{user}, {{ nkey: {self.nkey.public} }}] }}\n"
        self.servers = {
            "users": secured,
            "token": f'authorization {{ token: "{SECRET}" }}',
            "operator": self.operator.config,
            "plain": "",
            "tls": secured + self.tls(self.good),
            "either": secured + self.tls(self.good) + "allow_non_tls: true",
            "elsewhere": self.tls(self.elsewhere),
            "expired": self.tls(self.expired),
            "mutual": secured + self.tls(self.good, verify=self.ours),
        }
        self.urls: dict[str, str] = {}

    def tls(self, shown: tuple[Path, Path], verify: Authority | None = None) -> str:
        """Return the configuration of a server that shows this certificate, and may want to see one."""
        wants = "" if verify is None else f', ca_file: "{verify.path}", verify: true'
        return f'tls {{ cert_file: "{shown[0]}", key_file: "{shown[1]}"{wants} }}\n'

    def file(self, name: str, text: str) -> Path:
        """Write a secret to a file."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """All servers, one for each way."""
    made = Place(tmp_path_factory.mktemp("place"))
    servers = {
        name: NatsServer(made.folder / f"nats-{name}", jetstream=False, config=config)
        for name, config in made.servers.items()
    }

    async def start() -> None:
        await asyncio.gather(*(server.start() for server in servers.values()))

    async def stop() -> None:
        await asyncio.gather(*(server.stop() for server in servers.values()))

    asyncio.run(start())
    made.urls = {name: server.url for name, server in servers.items()}
    yield made
    asyncio.run(stop())


@contextlib.asynccontextmanager
async def connected(url: str, access: Access) -> AsyncIterator[Bus]:
    """Connect as a service does."""
    bus = Bus(url, access=access)
    try:
        async with asyncio.timeout(SOON):
            await bus.connect()
        yield bus
    finally:
        await bus.close()


def password(place: Place, **more: Any) -> Access:
    """Return the usual login, and more."""
    return Access(user="w1", password_file=place.file("password", SECRET + "\n"), **more)


async def let_in(url: str, access: Access, *, over_tls: bool = False) -> None:
    """Check that it is."""
    async with connected(url, access) as bus:
        assert bus._link is not None
        assert bus._link.transport is not None
        assert (bus._link.transport.get_extra_info("ssl_object") is not None) == over_tls


async def test_by_user_and_password(place: Place) -> None:
    """Given as it is, in a file, or in the URL."""
    await let_in(place.urls["users"], Access(user="w1", password=SECRET))
    await let_in(place.urls["users"], password(place))
    await let_in(place.urls["users"].replace("nats://", f"nats://w1:{SECRET}@"), Access())


async def test_by_token(place: Place) -> None:
    """Given as it is, or in a file."""
    await let_in(place.urls["token"], Access(token=SECRET))
    await let_in(place.urls["token"], Access(token_file=place.file("token", SECRET)))


async def test_by_nkey(place: Place) -> None:
    """The file holds the seed, and the server knows the public key."""
    access = Access(nkey_file=place.file("nkey", place.nkey.seed.decode() + "\n"))
    await let_in(place.urls["users"], access)


async def test_by_credentials(place: Place) -> None:
    """And what a signing key's template gives by the name in the JWT, one with dots too: that alone."""
    everything = Access(credentials_file=place.operator.credentials(place.folder / "all.creds", "all", scoped=False))
    name = "build-7.eu.example"
    own = Access(credentials_file=place.operator.credentials(place.folder / "own.creds", name))
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    forger = Client()
    await forger.connect(place.urls["operator"], error_cb=note, **own.options())
    for subject in ("heartbeat.w1", "goodbye.build-7.eu", "heartbeat.build-7.eu.example.x"):
        await forger.publish(f"liveness.{subject}")
    await forger.subscribe("_INBOX.build-7.>")
    await forger.flush()
    await forger.flush()
    await forger.close()
    assert len(refused) == 4

    async with connected(place.urls["operator"], everything) as bus:
        heard = asyncio.Queue[str]()
        assert bus._link is not None
        bus._link.listen("liveness.>", lambda subject, *_: heard.put_nowait(subject.decode()))
        await bus._link.answer(SOON)
        async with Heartbeater(place.urls["operator"], worker=name, ttl=600, access=own) as worker:
            assert worker.last_problem is None
        subjects = [await asyncio.wait_for(heard.get(), SOON) for _ in range(3)]
    assert subjects == [f"liveness.{verb}.{name}" for verb in ("hello", "heartbeat", "goodbye")]


async def test_credentials_are_said_to_a_server_that_lets_others_in_without(place: Place) -> None:
    """Else one would be what those are, and without a word of it."""
    said = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"fake","version":"2.12.0","max_payload":1024,"nonce":"once"}\r\n')
        said.set_result(await reader.readline())
        writer.close()

    fake = await asyncio.start_server(greet, HOST, 0)
    access = Access(credentials_file=place.operator.credentials(place.folder / "said.creds", "w1"))
    link = Link(lambda _: None)
    with contextlib.suppress(OSError):
        await link.open([f"nats://{HOST}:{fake.sockets[0].getsockname()[1]}"], "w1", "_INBOX", access)
    connect = json.loads((await said).removeprefix(b"CONNECT "))
    assert connect["sig"]
    assert connect["jwt"] in place.folder.joinpath("said.creds").read_text()
    await link.drop()
    fake.close()
    await fake.wait_closed()


async def test_over_tls(place: Place) -> None:
    """By the authority that is named, for the URL's host or the name that is given; where there is a choice, too."""
    ours = place.ours.path
    await let_in(place.urls["tls"], password(place, ca_file=ours), over_tls=True)
    await let_in(place.urls["tls"], password(place, ca_file=ours, server_name="nats.example"), over_tls=True)
    await let_in(place.urls["either"], password(place, ca_file=ours), over_tls=True)
    await let_in(place.urls["either"], password(place))


async def test_over_mutual_tls(place: Place) -> None:
    """With a certificate of ours."""
    certificate, key = place.client
    access = password(place, ca_file=place.ours.path, certificate_file=certificate, key_file=key)
    await let_in(place.urls["mutual"], access, over_tls=True)


async def test_what_is_wrong_is_said_in_one_line(place: Place) -> None:
    """Which setting to look after, and no secret: neither to the service's operator nor to the worker's."""
    ours = {"ca_file": place.ours.path}
    shows, shows_expired, shows_theirs = (
        {"certificate_file": certificate, "key_file": key}
        for certificate, key in (place.client, place.client_expired, place.client_of_theirs)
    )
    stranger = place.file("stranger", Key(nkeys.PREFIX_BYTE_USER).seed.decode())
    outsider = Operator(ROLE).credentials(place.folder / "outsider.creds", "w1")
    wrong = SECRET[::-1]
    violation = "refuses us: 'Authorization Violation': check"
    untrusted = "shows a certificate that is not trusted here (unable to get local issuer certificate):"
    another, advice = "shows a certificate for another name", "check nats_url, or give the name that stands in it"
    by_address = f"{another} (IP address mismatch, certificate is not valid for '{HOST}'): {advice} as nats_server_name"
    by_name = (
        f"{another} (Hostname mismatch, certificate is not valid for 'third.example'): {advice} as nats_server_name"
    )
    over = "shows a certificate that has expired: renew it, or set this host's clock right"
    mutual = "wants to see a certificate of ours (mutual TLS): give nats_certificate_file and nats_key_file"
    plain = "offers no TLS, and nats_ca_file demands it: give the server a certificate (`tls`), or leave that out"
    theirs = place.theirs.path
    cases: list[tuple[str, Access, str]] = [
        ("users", Access(user="w1", password=wrong), f"{violation} nats_user"),
        ("users", Access(), f"{violation} nats_url"),
        ("token", Access(token=wrong), f"{violation} nats_token"),
        ("token", Access(token_file=place.file("wrong", wrong)), f"{violation} nats_token_file"),
        ("users", Access(nkey_file=stranger), f"{violation} nats_nkey_file"),
        ("operator", Access(credentials_file=outsider), f"{violation} nats_credentials_file"),
        ("tls", password(place), f"{untrusted} give its authority as nats_ca_file"),
        ("tls", password(place, ca_file=theirs), f"{untrusted} check nats_ca_file ({str(theirs)!r})"),
        ("elsewhere", password(place, **ours), by_address),
        ("tls", password(place, **ours, server_name="third.example"), by_name),
        ("expired", password(place, **ours), over),
        ("mutual", password(place, **ours), mutual),
        ("mutual", password(place, **ours, **shows_expired), "CERTIFICATE client-expired.pem"),
        ("mutual", password(place, **ours, **shows_theirs), "CERTIFICATE client-of-theirs.pem"),
        ("users", password(place, **ours, **shows), plain),
    ]
    for name, access, line in cases:
        url = place.urls[name]
        with pytest.raises(CannotStartError) as caught:
            async with connected(url, access):
                pass
        where = f"NATS at {HOST}:{url.rpartition(':')[2]} "
        for said in (str(caught.value), await told_to_a_worker(url, access)):
            assert re.fullmatch(rf"(w1: )?{re.escape(where)}{expected(place, line)}", said), said
            assert SECRET not in said
            assert wrong not in said


def expected(place: Place, line: str) -> str:
    """Return the pattern of what is to be said."""
    if not line.startswith("CERTIFICATE "):
        return re.escape(line)
    # With TLS 1.3 the server's word of it may be lost with the connection.
    file = place.folder / line.removeprefix("CERTIFICATE ")
    return "(does not accept our certificate|ended the connection when it saw our certificate).*" + re.escape(
        f": check nats_certificate_file ({str(file)!r})"
    )


async def told_to_a_worker(url: str, access: Access) -> str:
    """Return the first thing that the log is told of a worker's connection."""
    told = asyncio.Queue[str]()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.put_nowait(record.getMessage())

    listener = Listener()
    log.addHandler(listener)
    connection = Connection(url, "w1", patience=1, problems=Problems("w1"), access=access)
    opening = asyncio.create_task(connection.open())
    try:
        return await asyncio.wait_for(told.get(), SOON)
    finally:
        log.removeHandler(listener)
        opening.cancel()
        await asyncio.wait({opening})
        await connection.close()


async def test_tls_in_the_url_is_demanded(place: Place) -> None:
    """Somebody in between could make a password be said in plain."""
    url = place.urls["users"].replace("nats://", "tls://")
    with pytest.raises(CannotStartError, match="offers no TLS, and nats_url demands it"):
        async with connected(url, password(place)):
            pass


async def test_a_certificate_is_renewed_beside_a_bus_that_runs(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connected anew with what has expired by then it is refused, says so, and goes on with what is there later."""
    monkeypatch.setattr(bus_module, "REFUSED_SECONDS", 0.05)
    told = asyncio.Queue[str]()
    monkeypatch.setattr(
        bus_module.log, "warning", lambda event, **about: told.put_nowait(f"{event} {about.get('cause')}")
    )
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"

    def renew(to: tuple[Path, Path]) -> None:
        for new, old in zip(to, (certificate, key), strict=True):
            old.write_bytes(new.read_bytes())
            old.chmod(0o600)

    renew(place.client)
    server = NatsServer(tmp_path / "nats", jetstream=False, config=place.servers["mutual"])
    await server.start()
    access = password(place, ca_file=place.ours.path, certificate_file=certificate, key_file=key)
    async with connected(server.url, access) as bus:
        keeping = asyncio.create_task(bus.keep())
        up = asyncio.Event()
        bus.on_up = up.set
        renew(place.client_expired)
        await server.stop()
        await server.start()
        async with asyncio.timeout(SOON):
            assert (await told.get()).startswith("nats_lost")
            assert "our certificate" in await told.get()
        assert not bus.connected
        renew(place.client)
        async with asyncio.timeout(SOON):
            await up.wait()
        keeping.cancel()
    await server.stop()


async def test_a_file_that_is_gone_is_waited_for_by_who_runs(place: Place, tmp_path: Path) -> None:
    """At the start it is an error, later it may be put there again."""
    access = Access(user="w1", password_file=tmp_path / "password")
    with pytest.raises(AccessError, match=r"nats_password_file = '.*password' cannot be read: No such file"):
        Bus(place.urls["users"], access=access)
    (tmp_path / "password").write_text(SECRET)
    bus, causes = Bus(place.urls["users"], access=access), asyncio.Queue[str]()
    (tmp_path / "password").unlink()
    connecting = asyncio.create_task(bus.connect(causes.put_nowait))
    async with asyncio.timeout(SOON):
        assert "cannot be read" in await causes.get()
        (tmp_path / "password").write_text(SECRET)
        await connecting
    await bus.close()


async def test_a_bus_knows_whether_anybody_is_let_in(place: Place) -> None:
    """So that the service can say that names are on trust."""
    async with connected(place.urls["plain"], Access()) as bus:
        assert bus.lets_anybody_in
    async with connected(place.urls["users"], password(place)) as bus:
        assert not bus.lets_anybody_in


async def welcome(message: Msg) -> None:
    """Answer a hello."""
    await message.respond(b'{"worker":"x","incarnation":null,"epoch":7}')


async def test_answers_find_whoever_has_more_bytes_than_characters(place: Place) -> None:
    """A worker is answered behind its own name."""
    async with spying(place.urls["plain"]) as spy:
        await spy.client.subscribe("liveness.hello.>", cb=welcome)
        await spy.client.flush()
        await spy.client.flush()
        async with Heartbeater(place.urls["plain"], worker="größe", ttl=600) as worker:
            assert await worker.welcome(SOON)
            assert worker.epoch == 7
