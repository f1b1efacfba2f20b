"""Where NATS is: the addresses in one text, and how they are shown. Pure."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

# What ends as a host and port do, or has no port at all.
_PLACE: Final = re.compile(r":\d{0,5}/?$|^[^:]*$|\]$")
_SCHEMES: Final = ("nats", "tls", "ws", "wss")


def servers_of(nats_url: str) -> list[str]:
    """Return the servers that `nats_url` names, separated by commas; raises ValueError for what cannot be one."""
    servers = [part.strip() for part in nats_url.split(",") if part.strip()]
    if not servers:
        raise ValueError("nats_url is empty: give it as in nats://127.0.0.1:4222")
    for server in servers:
        try:
            parts = urlsplit(server if "://" in server else f"nats://{server}")
            usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                f"nats_url names {shown([server])!r}, which is no server: give it as in nats://127.0.0.1:4222"
            )
    return servers


def shown(servers: Sequence[str]) -> str:
    """Return `servers` without user and password, or what may be half of one that has a comma in it."""
    places = (server.rpartition("@")[2].rpartition("//")[2] for server in servers)
    return ", ".join(place if _PLACE.search(place) else place.partition(":")[0] for place in places)


def log_in(nats_url: str) -> bool:
    """Say whether `nats_url` says who logs in, for one of its servers at least."""
    return any("@" in server.rpartition("//")[2] for server in nats_url.split(","))


def asks_for_tls(servers: Sequence[str]) -> bool:
    """Say whether one of `servers` is named as one that speaks TLS."""
    return any(server.partition("://")[0] in {"tls", "wss"} for server in servers)
