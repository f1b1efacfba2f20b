"""What is on trust: who speaks for whom, and who may listen."""

import pytest

from liveness.findings import Weight
from liveness.trust import http_on_trust, names_on_trust, postgres_on_trust

VERIFIED = "postgresql://u@db/flow?sslmode=verify-full&sslrootcert=/ca.pem"


@pytest.mark.parametrize(
    ("dsn", "client", "encrypted", "says"),
    [
        ("postgresql://u@db/flow", "10.0.0.7", False, "in plain"),
        (VERIFIED, "10.0.0.7", False, "in plain"),
        ("postgresql://u@db/flow", "10.0.0.7", True, "nobody looks whose certificate"),
        ("postgresql://u@db/flow?sslmode=require", "fd00::7", True, "nobody looks whose certificate"),
        ("postgresql://u@db/flow?sslmode=verify-ca", "10.0.0.7", True, "nobody looks whose certificate"),
        (VERIFIED, "10.0.0.7", True, None),
        ("postgresql://u@db/flow", "127.0.0.1", False, None),
        ("postgresql://u@db/flow", "::1", False, None),
        ("postgresql:///flow", None, False, None),
    ],
)
def test_the_way_to_postgres(dsn: str, client: str | None, encrypted: bool, says: str | None) -> None:  # noqa: FBT001
    """Nothing to say where it does not leave this machine, or where TLS makes sure who is there."""
    found = postgres_on_trust(dsn, client, encrypted=encrypted)

    assert [(one.check, one.weight, says in one.says) for one in found if says] == (
        [] if says is None else [("way", Weight.BETTER, True)]
    )
    assert bool(found) == (says is not None)


def test_what_asks_nobody() -> None:
    """NATS, and our own HTTP."""
    assert names_on_trust(lets_anybody_in=False) == http_on_trust("0.0.0.0:1", is_open=False) == []
    assert [one.check for one in names_on_trust(lets_anybody_in=True)] == ["trust"]
    assert [one.about for one in http_on_trust("0.0.0.0:1", is_open=True)] == ["http_listen"]
