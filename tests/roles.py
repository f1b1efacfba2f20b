"""The roles of deploy/postgres/role.sql, set up as an operator does."""

import subprocess
from pathlib import Path
from typing import Final

import asyncpg

from liveness.embedded.postgres_programs import find_postgres
from liveness.store import Database, migrate

ROLE_SQL: Final = Path(__file__).parents[1] / "deploy" / "postgres" / "role.sql"


class Roles:
    """The script's two roles, under names that no other test has, in a database with a workflow server's tables."""

    def __init__(self, dsn: str, same: "Roles | None" = None) -> None:
        """`dsn` is that of who may do everything there. The roles are those of `same`, in a copy of its database."""
        self.admin = dsn
        self.database = dsn.rpartition("/")[2]
        of = self.database if same is None else same.database
        self.owner, self.service = f"owner_of_{of}", f"service_of_{of}"

    def dsn(self, role: str) -> str:
        """Return the database's address for a role."""
        return self.admin.replace("//postgres@", f"//{role}@")

    def run_script(self) -> None:
        """Run the script as an operator does."""
        names = ["-v", f"owner={self.owner}", "-v", f"service={self.service}"]
        subprocess.run(
            [find_postgres() / "psql", "-X", "-q", "-d", self.admin, *names, "-f", ROLE_SQL], check=True, timeout=20
        )

    async def drop(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Take the roles away again, which other databases of the server would have, too."""
        for role in (self.service, self.owner):
            await connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")

    async def migrate(self) -> None:
        """Make or upgrade the schema as the role that owns it."""
        database = Database(self.dsn(self.owner))
        try:
            await database.connect()
            await migrate(database, "public")
        finally:
            await database.close()
