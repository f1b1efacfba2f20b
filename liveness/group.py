"""The workers that are heard by one NATS server, and the storm that they may be in. Pure; the rules are in `storms`."""

import math

import msgspec


class Storm(msgspec.Struct):
    """One storm of a group: since when, of how many members, how many of them quiet when it began."""

    since: float
    members: int
    quiet: int
    # When a sign came that the way is open.
    sign_at: float | None = None
    # It was told that the hold has ended.
    ending: bool = False
    next_pass: float = -math.inf


class Group(msgspec.Struct, eq=False):
    """The leases that are heard by one NATS server; `via` is its id, "" where beats state none."""

    via: str
    members: int = 0
    storm: Storm | None = None
