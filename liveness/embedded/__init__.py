"""Real NATS and Postgres servers as child processes, for tests, the demo and development."""

from liveness.embedded.nats import NatsServer
from liveness.embedded.postgres import PostgresServer
from liveness.embedded.servers import Servers

__all__ = ["NatsServer", "PostgresServer", "Servers"]
