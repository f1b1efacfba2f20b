"""The crash budgets as Postgres keeps them, beside a naive book of all deaths."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import HostTables
from tests.integration.test_budgets import claim, die

BUDGET, ITEMS, WORKERS, DEATHS = 2, 6, 3, 24


class Naive:
    """Every death with what ran there, and what it was put down to."""

    def __init__(self) -> None:
        self.deaths: list[tuple[set[str], set[str]]] = []
        self.aside: set[str] = set()

    def crashes(self, item: str) -> int:
        """Return how many deaths count against `item`."""
        return sum(item in ran and not blamed for ran, blamed in self.deaths)

    def die(self, ran: set[str]) -> None:
        """Note that a worker died that ran these."""
        before = {item: self.crashes(item) for item in ran}
        self.deaths.append((ran, set()))
        counts = {item: before[item] + 1 for item in ran}
        most = max(counts.values())
        sole = [item for item in ran if counts[item] == most]
        guilty = {item for item in ran if counts[item] >= 2 * BUDGET}
        if len(sole) == 1 and most >= BUDGET:
            guilty |= set(sole)
        for ran_then, blamed in self.deaths:
            if not blamed:
                blamed.update(ran_then & guilty)
        self.aside |= guilty


@pytest.mark.parametrize("seed", range(4))
async def test_the_database_judges_as_a_naive_book_does(
    host: HostTables, stores: Callable[..., Any], seed: int
) -> None:
    """Whoever claims what at random, and dies of it: after every death the same work is set aside."""
    store = await stores(crash_budget=BUDGET, crash_action="quarantine", quarantine_status="FAILED")
    dice, naive = random.Random(seed), Naive()
    items = await host.workflows("nobody", ITEMS, status="PENDING")
    for _ in range(DEATHS):
        left = [item for item in items if item not in naive.aside]
        if not left:
            break
        worker = f"w{dice.randrange(WORKERS)}"
        ran = set(dice.sample(left, dice.randint(1, len(left))))
        await claim(host, worker, *ran)

        await die(store, worker)
        naive.die(ran)

        failed = await host.connection.fetch("SELECT id::text FROM workflow_execution WHERE status = 'FAILED'")
        assert {row["id"] for row in failed} == naive.aside
        assert await host.count("RUNNING") == 0
    assert naive.aside
