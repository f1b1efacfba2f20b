"""Which names come into the book, so that invented ones neither fill it nor push anybody out. Pure.

Whoever may publish heartbeats can invent names, and each would cost a lease here, a row in Postgres, and an end with an
event. The rules that this file keeps:

1. Who is in the book stays: what is heard of a name that has a lease is never turned away.
2. Who is known to Postgres comes in, however full it is: a name that is up in the registry or owns RUNNING work is
   *invited* (`invite`), and what a start or a takeover learns from Postgres is not asked about here. So the bounds
   below are for strangers alone, and Postgres' own tables are the bound for the others.
3. A stranger comes in if the book holds fewer than `max_workers` names, and for a token: `max_grants` of them come in a
   second, and at most `SAVED_SECONDS` worth of them at once. Every one that is in gets an epoch as ever, so that this
   bounds the rows in Postgres as well.
4. Who is turned away was heard all the same, and has stated for how long its beat is good. Nobody keeps the names, of
   which there is no end; so the promise counts for every name that is not in the book. The sweep takes nothing of a
   name before it could have been heard for a whole ttl, from when it was invited, or when nobody was turned away any
   more, and all that was promised by then has run out (`could_be_heard`). So what strangers state can delay what the
   sweep finds, by `max_ttl` at most, and never make it take work of somebody who beats.
5. When strangers come in crowds, they count in no storm (`storms`) until Postgres knows them: thousands of names that
   beat once fall silent all at once, and would hold the lapses of those that matter. A stranger that owns no work has
   nothing to lose by it; as soon as it does, Postgres knows it. Its beats are signs that the way is open, like all.
"""

import math
from collections.abc import Iterable
from itertools import islice
from typing import Final

# Bytes of a payload, as many as NATS carries unless it is told otherwise. Ten thousand ids of work take 400 kB. A
# longer heartbeat counts as one that says nothing; a longer hello or goodbye is refused.
PAYLOAD_MOST: Final = 1 << 20
# Seconds' worth of tokens that are saved up: a deployment of a thousand names that no registry knows starts at once.
SAVED_SECONDS: Final = 10.0
# For so long after somebody was turned away, whoever Postgres knows is invited (seconds): three beats at the default.
INVITED_SECONDS: Final = 60.0
# So many strangers within `CROWD_SECONDS`, at least, and half as many as are known, are a crowd; so are as many as half
# of all saved tokens.
CROWD_LEAST: Final = 50
CROWD_SECONDS: Final = 60.0


class Admission:
    """Who is let in. `max_workers`: names in the book; `max_grants`: strangers a second; infinite: no bound.

    `now` is hearing time, `arrival` the loop's, in seconds.
    """

    def __init__(self, *, max_workers: float = math.inf, max_grants: float = math.inf) -> None:
        # Names that are let in whatever the bounds say; from when on they were, and what was promised by then.
        self.invited: dict[str, tuple[float, float]] = {}
        # Who came in with a crowd and is not known to Postgres, those that it was asked about last behind the others.
        self.strangers: dict[str, None] = {}
        self._max_workers = max_workers
        self._per_second = max_grants
        self._most = self._tokens = max_grants * SAVED_SECONDS
        self._refilled_at = -math.inf
        # How many strangers came in since that (loop time), and how many in half of `CROWD_SECONDS` before.
        self._counted_since = -math.inf
        self._came = self._came_before = 0
        # Hearing time: when somebody was turned away last, and until when the beats of all of those were good.
        self._turned_away_at = self._promised_until = -math.inf

    def bound_for(self, worker: str, leases: int, arrival: float) -> str | None:
        """Return by which bound `worker`, who has none of the `leases`, is turned away; None: it comes in."""
        if worker in self.invited:
            return None
        if leases >= self._max_workers:
            return "workers"
        if self._per_second == math.inf:
            return None
        self._refill(arrival)
        if self._tokens < 1.0:
            return "grants"
        self._tokens -= 1.0
        crowd = self._is_crowd(leases, arrival)
        self._came += 1
        if crowd:
            self.strangers[worker] = None
        return None

    def turned_away(self, now: float, ttl: float) -> None:
        """Note that a beat was not taken in that is good for `ttl` seconds."""
        self._turned_away_at = now
        self._promised_until = max(self._promised_until, now + ttl)

    def could_be_heard(self, worker: str, now: float, ttl: float) -> bool:
        """Say whether `worker`, who is not in the book, would be there if it had beaten within `ttl` seconds."""
        return self.unheard_for(worker, now, ttl) <= 0

    def unheard_for(self, worker: str, now: float, ttl: float) -> float:
        """Return for how many seconds more that cannot be said of `worker`; not above 0 if it can."""
        since, promised_until = self.invited.get(worker, (self._turned_away_at, self._promised_until))
        return max(since + ttl, promised_until) - now

    def is_inviting(self, now: float) -> bool:
        """Say whether somebody was turned away lately, so that those whom Postgres knows have to be invited."""
        return now < self._turned_away_at + INVITED_SECONDS

    def invite(self, names: Iterable[str], now: float) -> None:
        """Let `names` in from `now` on, and nobody else any more whom we had invited."""
        news = (now, self._promised_until)
        self.invited = {name: self.invited.get(name, news) for name in names}

    def to_ask(self, most: int, arrival: float, leases: int) -> list[str]:
        """Return strangers about whom Postgres is to be asked; when there is no crowd any more, nobody is one."""
        if not self._is_crowd(leases, arrival):
            self.strangers.clear()
        names = list(islice(self.strangers, most))
        for name in names:
            del self.strangers[name]
            self.strangers[name] = None
        return names

    def acquainted(self, names: Iterable[str]) -> None:
        """Note that Postgres knows `names`, or that they left the book."""
        for name in names:
            self.strangers.pop(name, None)

    def _refill(self, arrival: float) -> None:
        # The first time there is nothing to add: all of them are saved.
        since, self._refilled_at = self._refilled_at, max(arrival, self._refilled_at)
        if since > -math.inf:
            self._tokens = min(self._tokens + (self._refilled_at - since) * self._per_second, self._most)

    def _is_crowd(self, leases: int, arrival: float) -> bool:
        passed = arrival - self._counted_since
        if passed >= CROWD_SECONDS / 2:
            self._came_before = self._came if passed < CROWD_SECONDS else 0
            self._came, self._counted_since = 0, arrival
        came = self._came + self._came_before
        return came >= min(max(CROWD_LEAST, (leases - came) / 2), self._most / 2)
