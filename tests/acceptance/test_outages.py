"""Outages, short: no living work is taken, no dead work is left. The full form is `python -m tests.outages`."""

import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.outages.outages import OUTAGES, SLOW_CONSUMER, Outage, leader_killed, pgbouncer_killed, suffer
from tests.outages.stage import Stage
from tests.pgbouncer import find_pgbouncer

# The stage is started once for all of them.
pytestmark = pytest.mark.asyncio(loop_scope="module")

# Longer than the ttl of 2 s.
SECONDS = 2.4


async def tell(stage: Stage) -> None:
    """Show what the replicas said; pytest prints it when the test has failed."""
    for replica in stage.replicas:
        sys.stdout.write("\n".join([f"--- {replica.name}", *replica.process.lines()[-60:], ""]))


async def endure(stage: Stage, outage: Outage) -> None:
    """Suffer an outage and find nothing wrong."""
    outcome = await suffer(stage, outage, SECONDS)
    await tell(stage)
    assert not outcome.violations, "\n".join(map(str, outcome.violations))
    # The checker's rule once more, in plain words.
    assert outcome.during_back <= stage.ttl + 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Servers, one service and eight workers."""
    made = Stage(tmp_path_factory.mktemp("stage"), nats_config=SLOW_CONSUMER)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pooled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Servers, two replicas behind pgbouncer in transaction mode and eight workers."""
    if find_pgbouncer() is None:
        pytest.skip("there is no pgbouncer: apt-get install pgbouncer")
    made = Stage(tmp_path_factory.mktemp("pooled"), pooled=True)
    try:
        await made.start(replicas=2)
        yield made
    finally:
        await made.stop()


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=list(OUTAGES))
async def test_outage(stage: Stage, outage: Outage) -> None:
    """Through the outage no living work is taken, and that of who died before or during it is back in time."""
    await endure(stage, outage)


@pytest.mark.parametrize("outage", [pgbouncer_killed, leader_killed], ids=["pgbouncer_killed", "leader_killed"])
async def test_behind_pgbouncer(pooled: Stage, outage: Outage) -> None:
    """Behind a pooler in transaction mode the same holds, when the pooler is killed and when the leader is."""
    await endure(pooled, outage)
