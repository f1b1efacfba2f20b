"""The workers that are heard by one NATS server, and the storm that they may be in. Pure; the rules are in `storms`."""

import math
from typing import Any, NamedTuple

import msgspec

# Of earlier storms. Who was silent through an older one was so through the oldest of these, too, and waits for that.
PROMISES_REMEMBERED = 8


class Promise(NamedTuple):
    """What the sign that came at `sign_at` promised to whoever was silent then: a full ttl from `owed_from` on.

    Another storm came at `until`, and is what those wait for that lapse behind that.
    """

    sign_at: float
    owed_from: float
    until: float

    def is_kept(self, lease: Any, now: float) -> bool:
        """Say whether `lease`, which has lapsed, was silent since the sign, and for all the time that was promised."""
        return (
            _silent_since(lease, self.sign_at)
            and lease.ending.deadline <= self.until
            and now >= self.owed_from + float(lease.ttl)
        )


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
    # Of the storms that it follows: nobody waits twice.
    promises: list[Promise] = []
    # It was told that the hold has ended.
    ending: bool = False
    next_pass: float = -math.inf

    def lost(self, now: float) -> None:
        """Count what was promised from now on."""
        if self.sign_at is not None:
            self.owed_from = max(self.owed_from, now)
        self.promises = [promise._replace(owed_from=max(promise.owed_from, now)) for promise in self.promises]

    def passed_on(self, now: float) -> list[Promise]:
        """Return what a storm that follows this one at `now` has to keep."""
        promises = self.promises
        if self.sign_at is not None:
            promises = [*promises, Promise(self.sign_at, self.owed_from, now)]
        return promises[-PROMISES_REMEMBERED:]


class Group(msgspec.Struct, eq=False):
    """The leases that are heard by one NATS server; `via` is its id, "" where beats state none.

    `stating` of the `members` state the interval of their beats.
    """

    via: str
    members: int = 0
    stating: int = 0
    storm: Storm | None = None

    def add(self, lease: Any) -> None:
        """Let `lease` be one of these."""
        lease.group = self
        self.members += 1
        self.stating += lease.line.pace > 0

    def remove(self, lease: Any) -> None:
        """Let `lease` be none of these."""
        self.members -= 1
        self.stating -= lease.line.pace > 0

    @property
    def is_held(self) -> bool:
        """Whether a storm holds its lapses that has had no sign yet."""
        return self.storm is not None and self.storm.sign_at is None

    def was_silent(self, lease: Any) -> bool:
        """Say whether `lease` was not heard since the sign that ended the hold of a storm; who gave it was."""
        sign_at = None if self.storm is None else self.storm.sign_at
        return sign_at is not None and _silent_since(lease, sign_at)


def _silent_since(lease: Any, sign_at: float) -> bool:
    return bool(lease.last_beat is None or lease.last_beat < sign_at)
