"""The peers that are measured beside us."""

from typing import Final

from tests.benchmarks.peer import Expiring
from tests.benchmarks.peers_etcd import Etcd
from tests.benchmarks.peers_nats_kv import NatsKv
from tests.benchmarks.peers_redis import Redis
from tests.benchmarks.peers_update import Update

UPDATE: Final = Update()
# Those that tell when somebody was silent for too long.
EXPIRING: Final[tuple[Expiring, ...]] = (Redis(), Etcd(), NatsKv())
