"""A real pgbouncer in transaction mode, between the tests and their Postgres."""

import os
import shutil
import signal
from pathlib import Path
from typing import Final

import asyncpg

from liveness.embedded.claim import FolderClaim
from liveness.embedded.postgres import NOBODY, USER
from liveness.embedded.process import ServerProcess
from liveness.embedded.server import HOST, EmbeddedServer

# Far fewer connections to Postgres than the tests have to pgbouncer, so that they do take turns on them.
SERVER_CONNECTIONS: Final = 4
CONFIGURATION: Final = """
[databases]
* = host={host} port={postgres_port} user={user}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = users.txt
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 300
# Its default is 15 s: for so long after an outage of Postgres it would not even try.
server_login_retry = 0.2
"""


def find_pgbouncer() -> Path | None:
    """Return the program, if there is one; Debian's lies where an ordinary user's PATH does not lead."""
    found = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    return Path(found) if found else None


class PgBouncer(EmbeddedServer):
    """pgbouncer in `folder`, for all databases of the Postgres on `postgres_port`. Root runs it as `nobody`."""

    name = "pgbouncer"

    def __init__(self, folder: Path, program: Path, postgres_port: int) -> None:
        super().__init__(folder, None)
        self._program: Final = program
        self._postgres_port: Final = postgres_port

    def dsn(self, database: str) -> str:
        """Return the address of a database by way of this pgbouncer."""
        return f"postgresql://{USER}@{HOST}:{self.port}/{database}"

    async def _prepare(self, claim: FolderClaim) -> None:  # noqa: ARG002 - it needs no other process first
        (self.folder / "users.txt").write_text(f'"{USER}" ""\n')

    def _launch(self, claim: FolderClaim, port: int) -> ServerProcess:
        (self.folder / "pgbouncer.ini").write_text(
            CONFIGURATION.format(
                host=HOST, port=port, postgres_port=self._postgres_port, user=USER, connections=SERVER_CONNECTIONS
            )
        )
        root = os.geteuid() == 0
        if root:
            # It reads its files from the folder that it starts in, which it may enter, whatever lies above.
            os.chown(self.folder, NOBODY.user, NOBODY.group)
        return ServerProcess(
            [self._program, "pgbouncer.ini"],
            log=self.folder / "pgbouncer.log",
            claim=claim,
            # Ends it at once, in every version, and also where whoever started the tests ignores the others, as a
            # shell does for what it runs in the background. It keeps nothing.
            stop_signal=signal.SIGKILL,
            death_signal=signal.SIGKILL,
            account=NOBODY if root else None,
            folder=self.folder,
        )

    async def _answers(self, process: ServerProcess, port: int) -> int | None:
        try:
            connection = await asyncpg.connect(
                host=HOST, port=port, user=USER, database="postgres", ssl=False, timeout=1.0, statement_cache_size=0
            )
            await connection.close(timeout=1.0)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return None
        # Another program that took the port would have ended ours.
        return port if process.exit_code is None else None
