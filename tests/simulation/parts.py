"""What every part of the store on the model of Postgres has."""

from collections.abc import Awaitable
from typing import Any

from tests.simulation.leader import Leader
from tests.simulation.postgres import Postgres, Process


class Parts:
    """Three things that each needs, and its two kinds of transaction."""

    def __init__(self, postgres: Postgres, process: Process, leader: Leader) -> None:
        self.postgres = postgres
        self.process = process
        self.leader = leader

    def act(self, body: Any) -> Awaitable[Any]:
        """Return a transaction that acts."""
        return self.postgres.transact(self.process, self.leader, body, acts=True)

    def read(self, body: Any) -> Awaitable[Any]:
        """Return a transaction that reads."""
        return self.postgres.transact(self.process, self.leader, body, acts=False)
