"""TLS to Postgres, on Debian's: the embedded one has none. Who is not whom we asked for gets nothing of us."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from liveness.embedded import PostgresServer
from liveness.embedded.postgres import NOBODY
from liveness.embedded.postgres_programs import DEBIAN_FOLDER, VARIABLE
from liveness.errors import CannotStartError
from liveness.store import Database
from tests.conftest import SOON, look_again
from tests.integration.certificates import Authority

PROGRAMS = sorted(DEBIAN_FOLDER.glob("*/bin/postgres"))


class Tls:
    """A server that shows one of several certificates, and what it is known by."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.ours, self.other = Authority(folder, "ours"), Authority(folder, "other")
        data = server.folder / "data"
        for name, authority, host, days in (
            ("right", self.ours, "localhost", 1.0),
            ("renamed", self.ours, "elsewhere", 1.0),
            ("expired", self.ours, "localhost", -1.0),
        ):
            for path in authority.vouch(name, host, days=days):
                there = shutil.copy(path, data)
                if os.geteuid() == 0:
                    os.chown(there, NOBODY.user, NOBODY.group)

    async def want_certificates(self) -> None:
        """Let in over TLS only who shows a certificate of ours, from the next `show` on."""
        data = self.server.folder / "data"
        shutil.copy(self.ours.path, data / "authority.pem")
        (data / "authority.pem").chmod(0o644)
        rules = data / "pg_hba.conf"
        rules.write_text(f"hostssl all all all trust clientcert=verify-ca\n{rules.read_text()}")
        connection = await asyncpg.connect(self.server.dsn, ssl=False)
        await connection.execute("ALTER SYSTEM SET ssl_ca_file = 'authority.pem'")
        await connection.close()

    async def show(self, name: str) -> None:
        """Show that certificate from now on; none for "off"."""
        connection = await asyncpg.connect(self.server.dsn, ssl=False)
        if name != "off":
            await connection.execute(f"ALTER SYSTEM SET ssl_cert_file = '{name}.pem'")
            await connection.execute(f"ALTER SYSTEM SET ssl_key_file = '{name}.key'")
        await connection.execute(f"ALTER SYSTEM SET ssl = {'off' if name == 'off' else 'on'}")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()
        wanted = "off" if name == "off" else f"{name}.pem"
        async with asyncio.timeout(SOON):
            # The postmaster reads its settings again in its own time; who connects later has what it had then.
            while await self._shown() != wanted:
                await look_again()

    async def _shown(self) -> str:
        connection = await asyncpg.connect(self.server.dsn, ssl=False)
        shown: str = await connection.fetchval(
            "SELECT CASE current_setting('ssl') WHEN 'on' THEN current_setting('ssl_cert_file') ELSE 'off' END"
        )
        await connection.close()
        return shown

    def dsn(self, mode: str = "verify-full", authority: Authority | None = None, **more: str) -> str:
        """Return the address by which it is looked for."""
        known = {"sslmode": mode, "sslrootcert": str((authority or self.ours).path), **more}
        query = "&".join(f"{name}={value}" for name, value in known.items())
        return f"postgresql://postgres@localhost:{self.server.port}/postgres?{query}"

    async def refusal(self, dsn: str) -> str:
        """Return the line in which a connection is refused."""
        database = Database(dsn)
        with pytest.raises(CannotStartError) as refused:
            async with asyncio.timeout(SOON):
                await database.connect()
        await database.close()
        assert "\n" not in str(refused.value)
        return str(refused.value).replace(f"localhost:{self.server.port}", "HERE")


@pytest.fixture(scope="module")
def programs() -> Iterator[None]:
    """Use Debian's programs."""
    if not PROGRAMS:
        pytest.skip("no Postgres with TLS in /usr/lib/postgresql: install Debian's package postgresql-15")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(PROGRAMS[-1].parent))
        yield


@pytest.fixture
async def tls(programs: None, postgres_folder: Path, tmp_path: Path) -> AsyncIterator[Tls]:  # noqa: ARG001 - it comes first
    """A server of Debian's, which shows no certificate yet."""
    with tempfile.TemporaryDirectory(prefix="liveness-tls-", dir=postgres_folder.parent) as folder:
        # The programs of before Postgres 16 leave the folder that they start in, and come back by its whole path.
        os.chmod(folder, 0o711)  # noqa: PTH101, S103 - what is in it stays closed
        server = PostgresServer(Path(folder))
        await server.start()
        yield Tls(server, tmp_path)
        await server.stop()


async def test_who_is_not_whom_we_asked_for_is_refused_in_one_line(tls: Tls) -> None:
    """Each names the guilty side and the fix; whom we asked for is talked to, over TLS."""
    assert await tls.refusal(tls.dsn()) == (
        "Postgres at HERE offers no TLS, and sslmode in postgres_dsn demands it: turn it on there (`ssl = on`), or "
        "leave that out"
    )

    await tls.show("right")
    database = Database(tls.dsn())
    await database.connect()
    (row,) = await database.fetch("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert row["ssl"]
    await database.close()
    # The authority is right, the name is looked at in verify-full alone.
    assert await tls.refusal(tls.dsn(authority=tls.other)) == (
        "Postgres at HERE shows a certificate that is not trusted here (unable to get local issuer certificate): check"
        f" sslrootcert in postgres_dsn ({str(tls.other.path)!r})"
    )

    await tls.show("renamed")
    assert await tls.refusal(tls.dsn()) == (
        "Postgres at HERE shows a certificate for another name (Hostname mismatch, certificate is not valid for"
        " 'localhost'): check the host in postgres_dsn, or have the certificate name it"
    )
    by_authority = Database(tls.dsn("verify-ca"))
    await by_authority.connect()
    await by_authority.close()

    await tls.show("expired")
    assert await tls.refusal(tls.dsn()) == (
        "Postgres at HERE shows a certificate that has expired: renew it, or set this host's clock right"
    )


async def test_mutual_tls(tls: Tls) -> None:
    """Who shows no certificate, or one of another authority, is told so in one line."""
    await tls.want_certificates()
    await tls.show("right")

    assert await tls.refusal(tls.dsn()) == (
        "Postgres refuses the connection: connection requires a valid client certificate"
    )
    strange, key = (str(path) for path in tls.other.vouch("stranger"))
    said = await tls.refusal(tls.dsn(sslcert=strange, sslkey=key))
    assert said.startswith("Postgres at HERE and we do not come to terms over TLS (")
    assert said.endswith("): check sslcert and sslkey in postgres_dsn")

    ours, key = (str(path) for path in tls.ours.vouch("service"))
    database = Database(tls.dsn(sslcert=ours, sslkey=key))
    await database.connect()
    await database.close()


async def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """Nobody has to be reached for that."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nothing", encoding="utf-8")
    for query, said in (
        ("sslrootcert=/nowhere/ca.pem", "sslrootcert in postgres_dsn ('/nowhere/ca.pem') cannot be read: No such file"),
        (f"sslrootcert={nonsense}", f"sslrootcert in postgres_dsn ('{nonsense}') is not in PEM"),
    ):
        database = Database(f"postgresql://postgres@localhost:1/postgres?sslmode=verify-full&{query}")
        with pytest.raises(CannotStartError) as refused:
            await database.connect()
        assert str(refused.value).startswith(said)
        await database.close()
