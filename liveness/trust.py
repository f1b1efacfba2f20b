"""What is on trust: whether anybody on NATS can speak for any worker, and anybody on the network ask us. Pure words.

What can be known for sure is whether the server asks who somebody is. Where it does, only its permissions keep one
worker from speaking for another, and those are for `deploy/nats` to give.
"""

from typing import Final

from liveness.findings import Finding, Weight
from liveness.http_settings import is_of_this_machine
from liveness.postgres_settings import verifies

ON_TRUST: Final = (
    "NATS asks nobody who it is, so any client can beat for any worker, release it, or say that a new one has begun"
)
ADVICE: Final = "give each worker a login of its own, with the permissions in deploy/nats (docs/nats.md)"

HTTP_OPEN: Final = "whoever reaches http_listen can read which workers there are and what became of their work"
HTTP_ADVICE: Final = "give http_token_file, or listen on 127.0.0.1 (docs/http.md)"


def http_on_trust(listen: str, *, is_open: bool) -> list[Finding]:
    """Return a finding where others than this machine reach our HTTP, and have to show nothing."""
    if not is_open:
        return []
    return [
        Finding(
            check="http",
            weight=Weight.BETTER,
            about="http_listen",
            says=f"{listen} is open to the network, and nobody has to show anything",
            why=HTTP_OPEN,
            fix=HTTP_ADVICE,
        )
    ]


def postgres_on_trust(dsn: str, client: str | None, *, encrypted: bool) -> list[Finding]:
    """Return a finding where somebody on the way to Postgres could listen, or stand in for it.

    `client`: our address there, None for a socket.
    """
    if client is None or is_of_this_machine(client):
        return []
    if not encrypted:
        says = "is talked to in plain"
    elif not verifies(dsn):
        says = "is talked to over TLS, and nobody looks whose certificate it shows"
    else:
        return []
    return [
        Finding(
            check="way",
            weight=Weight.BETTER,
            about="Postgres",
            says=says,
            why="whoever is on the way there can read what goes to and fro, or do what the service can",
            fix="sslmode=verify-full and sslrootcert in postgres_dsn (docs/postgres.md)",
        )
    ]


def names_on_trust(*, lets_anybody_in: bool) -> list[Finding]:
    """Return a finding where names are on trust: where the server asks nobody who it is."""
    if not lets_anybody_in:
        return []
    return [
        Finding(
            check="trust",
            weight=Weight.BETTER,
            about="NATS",
            says=ON_TRUST,
            why="work can be taken from a living worker, or kept by a dead one, by whoever reaches NATS",
            fix=ADVICE,
        )
    ]
