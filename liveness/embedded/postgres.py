"""A real Postgres server in a folder."""

import asyncio
import os
import pwd
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import asyncpg

from liveness.embedded.claim import FolderClaim
from liveness.embedded.postgres_programs import PostgresPrograms
from liveness.embedded.process import Account, ServerProcess
from liveness.embedded.server import HOST, START_SECONDS, EmbeddedServer
from liveness.errors import EmbeddedError

USER: Final = "postgres"
# On Linux this leads to the working folder without asking for a right on any folder above it. So a server that
# dropped to `nobody` runs in a folder below one that only root may enter, and no permission has to be changed.
WORKING_FOLDER: Final = Path("/proc/self/cwd")
# The number of `nobody` nearly everywhere, for a system without a list of users.
NOBODY: Final = Account(65534, 65534)
# A server that says it is ready answers at once; a longer try is given up and made again.
CONNECT_SECONDS: Final = 1.0
# Postgres's own provider of locales came with this version, and sorts the same on every machine.
BUILTIN_LOCALES_MAJOR: Final = 17
# What a crash of the machine may lose is of no interest in a test, which then runs many times faster.
VOLATILE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def _account(data: Path) -> Account | None:
    """Return the account to drop to when root, since Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        # What another user made stays usable to that user.
        return Account(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY
    return Account(nobody.pw_uid, nobody.pw_gid)


class PostgresServer(EmbeddedServer):
    """A Postgres server in `folder`, reachable from this machine only, by any user of it without a password.

    Without `port` it takes a free one at the first start and keeps it over restarts. `durable=False` gives up
    safety against a crash of the machine for speed; a crash of Postgres alone loses nothing committed before
    the last fraction of a second. `options` are server settings by name. Root runs it as `nobody`.
    """

    name = "postgres"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        durable: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, port)
        self._settings: Final = ({} if durable else VOLATILE) | dict(options or {})
        self._data: Final = self.folder / "data"
        self._account: Account | None = None
        self._programs: PostgresPrograms | None = None
        self._version = ""

    @property
    def dsn(self) -> str:
        """The address for clients; raises EmbeddedError before the first start when no port was given."""
        return f"postgresql://{USER}@{HOST}:{self.port}/postgres"

    @property
    def version(self) -> str:
        """The server's version, such as "18.6"; raises EmbeddedError before the first start."""
        if not self._version:
            raise EmbeddedError("postgres has no version yet: call start() first")
        return self._version

    async def stop(self) -> None:
        """Stop the server, breaking off its connections, and wait until none of its processes is left.

        Does nothing when it is not running. Raises EmbeddedError when one of its processes does not end within
        ten seconds after SIGKILL.
        """
        await super().stop()
        await self._release_programs()

    async def _settle(self) -> None:
        await super()._settle()
        await self._release_programs()

    async def _release_programs(self) -> None:
        programs, self._programs = self._programs, None
        if programs is not None:
            await programs.release()

    async def _prepare(self, claim: FolderClaim) -> None:
        self._account = _account(self._data)
        self._programs = await PostgresPrograms.reachable_by(self._account)
        self._version = self._programs.version
        if not self._data.exists():
            await self._create_data(claim, self._programs)

    async def _create_data(self, claim: FolderClaim, programs: PostgresPrograms) -> None:
        # It gets its name when it is complete, so that breaking off leaves nothing that looks like data.
        unfinished = self.folder / "data.new"
        if unfinished.exists():
            await asyncio.to_thread(shutil.rmtree, unfinished)
        unfinished.mkdir(mode=0o700)
        if self._account is not None:
            os.chown(unfinished, self._account.user, self._account.group)
        locale = ["--locale=C"]
        if programs.major >= BUILTIN_LOCALES_MAJOR:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command: list[str | Path] = [programs.folder / "initdb", "-D", self._seen_by_server(unfinished), "-U", USER]
        command += ["-A", "trust", "-E", "UTF8", *locale, "--no-sync", "--no-instructions"]
        initdb = self._spawn(command, unfinished, claim)
        try:
            code = await initdb.wait(START_SECONDS)
        finally:
            await initdb.break_off()
        if code != 0:
            raise EmbeddedError(f"initdb ended with exit code {initdb.exit_code}, its log says: {initdb.last_lines()}")
        unfinished.rename(self._data)

    def _seen_by_server(self, data: Path) -> Path:
        return data if self._account is None or sys.platform != "linux" else WORKING_FOLDER

    def _spawn(self, command: list[str | Path], data: Path, claim: FolderClaim) -> ServerProcess:
        return ServerProcess(
            command,
            log=self.folder / "postgres.log",
            claim=claim,
            stop_signal=signal.SIGINT,
            # An immediate shutdown: it alone ends within a known time, whatever the connections do.
            death_signal=signal.SIGQUIT,
            account=self._account,
            folder=data,
        )

    def _launch(self, claim: FolderClaim, port: int) -> ServerProcess:
        if self._programs is None:
            raise EmbeddedError("postgres has no programs yet: call start() first")
        command: list[str | Path] = [self._programs.folder / "postgres", "-D", self._seen_by_server(self._data)]
        # No Unix socket: the path to one may be too long, and another user's server may hold the usual place.
        fixed = {"listen_addresses": HOST, "port": str(port), "unix_socket_directories": ""}
        # In its folder, which is removed: one that is killed would leave some in the machine's shared memory.
        fixed["dynamic_shared_memory_type"] = "mmap"
        for name, value in (self._settings | fixed).items():
            command += ["-c", f"{name}={value}"]
        return self._spawn(command, self._data, claim)

    async def _answers(self, process: ServerProcess, port: int) -> int | None:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        # The first line is the server's number, which may be a crashed one's; the eighth its state. An answer
        # from another server on that port does not count.
        if lines[:1] != [str(process.pid)] or [line.strip() for line in lines[7:8]] != ["ready"]:
            return None
        try:
            connection = await asyncpg.connect(
                host=HOST, port=port, user=USER, database="postgres", ssl=False, timeout=CONNECT_SECONDS
            )
            await connection.close(timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return None
        return port
