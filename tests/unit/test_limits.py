"""What of Postgres, of NATS and of the settings does not go together."""

from typing import Any

import msgspec
import pytest

from liveness.findings import Weight
from liveness.limits import NatsLimits, PostgresLimits, of_clocks, of_nats, of_postgres, of_settings
from liveness.settings import load

SETTINGS = load({})[0]


def postgres(**limits: Any) -> list[tuple[Weight, str]]:
    """Return what is said of such a server, and how much it matters."""
    stated: dict[str, Any] = {"version": 18, "role": "us"} | limits
    found = of_postgres(SETTINGS, PostgresLimits(**stated), patient=30.0, looks=5.0, pool=11)
    assert all(finding.why and finding.fix for finding in found)
    return [(finding.weight, finding.says) for finding in found]


@pytest.mark.parametrize(
    ("limits", "weight"),
    [
        ({}, None),
        ({"version": 15}, None),
        ({"version": 14}, Weight.BAD),
        ({"version": 12}, Weight.BROKEN),
        ({"unwritable": "it is a standby"}, Weight.BROKEN),
        ({"transaction_timeout": 30.0}, None),
        ({"transaction_timeout": 29.0}, Weight.BAD),
        ({"statement_timeout": 0.25}, None),
        ({"statement_timeout": 0.2}, Weight.BAD),
        ({"idle_session_timeout": 6.0}, None),
        ({"idle_session_timeout": 5.0}, Weight.BETTER),
        ({"deadlock_timeout": 1.0}, None),
        ({"deadlock_timeout": 0.9}, Weight.BAD),
        ({"connections": 22}, None),
        ({"connections": 21}, Weight.BAD),
        ({"round_trip": 0.1}, None),
        ({"round_trip": 0.11}, Weight.BAD),
    ],
)
def test_what_of_postgres_is_too_old_too_slow_or_too_short(limits: dict[str, Any], weight: Weight | None) -> None:
    """At its limit a figure is as yet good."""
    assert [weight for weight, _ in postgres(**limits)] == ([] if weight is None else [weight])


def test_a_lock_is_waited_for_no_longer_than_until_deadlocks_are_looked_for() -> None:
    """By triggers of the host's for 0.2 s, whatever `lock_timeout` is."""
    quick = load({}, lock_timeout=0.1)[0]

    def fix(deadlock_timeout: float) -> list[str]:
        limits = PostgresLimits(version=18, role="us", deadlock_timeout=deadlock_timeout)
        return [finding.fix for finding in of_postgres(quick, limits, patient=30.0, looks=5.0, pool=11)]

    assert fix(0.2) == []
    assert fix(0.15) == ["raise deadlock_timeout to its default, 1 s"]


def test_a_role_is_quoted() -> None:
    """Whatever it is called, what is proposed concerns it alone."""
    limits = PostgresLimits(version=18, role='of "us"', transaction_timeout=1.0)

    (finding,) = of_postgres(SETTINGS, limits, patient=30.0, looks=5.0, pool=11)

    assert finding.statements == ('ALTER ROLE "of ""us""" SET transaction_timeout = 0;',)


@pytest.mark.parametrize(
    ("limits", "weight"),
    [
        ({}, None),
        ({"round_trip": 0.25}, None),
        ({"round_trip": 0.26}, Weight.BAD),
        ({"max_payload": 65_536}, None),
        ({"max_payload": 65_535}, Weight.BAD),
        ({"version": (2, 11)}, Weight.BETTER),
    ],
)
def test_what_of_nats_is_too_old_too_slow_or_too_small(limits: dict[str, Any], weight: Weight | None) -> None:
    """Likewise."""
    good = NatsLimits(version=(2, 12), max_payload=1 << 20, round_trip=0.001)
    found = of_nats(SETTINGS, msgspec.structs.replace(good, **limits), "nats:4222")

    assert [finding.weight for finding in found] == ([] if weight is None else [weight])
    assert all(finding.about == "NATS at nats:4222" and finding.why and finding.fix for finding in found)


@pytest.mark.parametrize(("skew", "error", "told"), [(0.9, 0.0, False), (-1.1, 0.0, True), (1.4, 0.5, False)])
def test_clocks_that_are_surely_apart(skew: float, error: float, told: bool) -> None:  # noqa: FBT001 - parametrized
    """What a slow answer may account for is none of it."""
    assert bool(of_clocks(PostgresLimits(version=18, role="us", skew=skew, skew_error=error))) is told


def test_settings_that_contradict_each_other() -> None:
    """What a start warns of is a finding, too: with what is wrong and what it does."""
    settings = load({}, storm_max_hold=30, crash_window=100, workflow_stuck_timeout=10)[0]

    found = of_settings(settings)

    assert [finding.says for finding in found] == [
        "workflow_stuck_timeout (10) is below heartbeat_timeout (60)",
        "storm_max_hold (30) is below heartbeat_timeout (60)",
        "crash_window (100) is below crash_budget times heartbeat_timeout (3 x 60)",
    ]
    assert all(finding.why and finding.fix for finding in found)
    assert of_settings(SETTINGS) == []
