"""The workers that are heard by one NATS server, and the storm that they may be in. Pure; the rules are in `storms`."""

import math
from typing import Any

import msgspec


class Storm(msgspec.Struct):
    """One storm of a group: since when, of how many members, how many of them quiet when it began."""

    since: float
    members: int
    quiet: int
    # Seconds: of those that were quiet when it began.
    longest_ttl: float
    # When a sign came that the way is open, and from when what it promised counts: beats may have been lost since.
    sign_at: float | None = None
    owed_from: float = math.inf
    # It was told that the hold has ended.
    ending: bool = False
    next_pass: float = -math.inf


class Group(msgspec.Struct, eq=False):
    """The leases that are heard by one NATS server; `via` is its id, "" where beats state none."""

    via: str
    members: int = 0
    storm: Storm | None = None

    @property
    def is_held(self) -> bool:
        """Whether a storm holds its lapses that has had no sign yet."""
        return self.storm is not None and self.storm.sign_at is None

    def was_silent(self, lease: Any) -> bool:
        """Say whether `lease` was not heard since the sign that ended the hold of a storm; who gave it was."""
        sign_at = None if self.storm is None else self.storm.sign_at
        return sign_at is not None and (lease.last_beat is None or lease.last_beat < sign_at)
