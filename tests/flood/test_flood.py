"""A small flood, with all that has to go well in a large one."""

from liveness.embedded import NatsServer
from tests.conftest import SOON
from tests.flood.run import Size, flood

SIZE = Size(names=5_000, rate=3_500, known=50, ttl=1.0, max_workers=1_000, max_grants=1_000.0)


async def test_a_flood_of_invented_names_pushes_nobody_out(nats: NatsServer, dsn: str) -> None:
    """None of the known lapses, who dies is found, and nothing is taken from a newcomer whose beats are turned away."""
    report = await flood(SIZE, nats.url, dsn)

    assert report.known_ended == 2
    assert report.newcomer_ended == 0
    assert 0 < report.turned_away["workers"] < SIZE.names
    assert SIZE.known < report.leases_most <= SIZE.max_workers + 1
    assert report.storms == 0
    assert report.late_meanwhile < SOON
