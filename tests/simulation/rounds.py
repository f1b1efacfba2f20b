"""What a replica's rounds may meet, and which of them follow each other, as in the assembly."""

from typing import Any

from liveness.errors import DatabaseAwayError, DatabaseRefusedError, NotLeaderError

# What a duty may meet: the next time it tries again.
EXPECTED = (DatabaseAwayError, DatabaseRefusedError, NotLeaderError)
# What one duty makes to do for another.
FOLLOWED_BY = {"grants": "expiry", "expiry": "grants", "finish": "greetings", "takeover": "grants"}


def did_something(value: Any) -> bool:
    """Say whether a duty did anything that may be work for another."""
    if value is None or isinstance(value, bool):
        return value is True
    return any(getattr(value, what, 0) for what in ("granted", "ended", "over", "items"))
