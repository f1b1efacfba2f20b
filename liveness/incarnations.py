"""Which process speaks under a name: beginnings that beats claim, and former incarnations. Pure.

A new incarnation of a name is proof that the former process is over, and it takes work: so what is believed here is
believed slowly.

1. When a process began is the least (arrival - uptime) of its beats: durations, never the worker's own clock. A beat
   that was delivered late makes that look later than it was, and then rows which the new process has claimed already
   would look older than it; so a beginning counts only once two beats agree on it to a second (`AGREED_WITHIN`). They
   must lie further apart than that (`APART`): of two that waited in one socket and came at once, the beginnings differ
   by as much as the beats do.
2. As long as the former incarnation is heard, too, there are two processes of one name, and nobody can say whose a row
   is: a conflict, in which nothing is taken. It is over when one of them has been silent for a ttl.
3. An incarnation that a newer one has replaced is a former one, and its beats are stale. That holds as long as the name
   is in the book; a name that comes back later comes back as whoever it is.
"""

from collections.abc import Iterable

import msgspec

# Two beats of one process differ by what the network does to them, not by more. The contract's number.
AGREED_WITHIN = 1.0
APART = 2 * AGREED_WITHIN
# Former incarnations of one name that are remembered. One that restarts more often while its former processes still
# beat is beyond help.
FORMERS_REMEMBERED = 8


class Arrival(msgspec.Struct, frozen=True):
    """An incarnation that began at `begun` (loop time), of a name whose former life is not known here."""

    incarnation: str
    begun: float


class Claim(msgspec.Struct):
    """A beginning that beats claim, and that was not acted upon yet."""

    incarnation: str
    # Loop time: the least that any beat has shown, and the uptime that this beat stated.
    begun: float
    uptime: float
    # Hearing time of its last beat.
    heard_at: float
    beats: int = 1
    agreed: bool = False
    # Hearing time of the last beat of the incarnation that the lease bears, since this one is heard.
    rival_at: float | None = None


class Incarnations:
    """The claims and the former incarnations of all names. `conflicts` holds the names with two that beat."""

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}
        self.conflicts: set[str] = set()
        # By name: incarnation to the epoch it lived under, None while that is not known.
        self._formers: dict[str, dict[str, int | None]] = {}

    def is_former(self, worker: str, incarnation: str | None) -> bool:
        """Say whether a newer incarnation of `worker` is known than this one."""
        return incarnation is not None and incarnation in self._formers.get(worker, ())

    def epoch_of(self, worker: str, incarnation: str) -> int | None:
        """Return the epoch under which a former incarnation lived, if that is known."""
        return self._formers.get(worker, {}).get(incarnation)

    def replaced(self, worker: str, incarnation: str | None, epoch: int | None) -> None:
        """Note that `incarnation`, which lived under `epoch`, is a former one from now on."""
        if incarnation is None:
            return
        formers = self._formers.setdefault(worker, {})
        formers.pop(incarnation, None)
        formers[incarnation] = epoch
        if len(formers) > FORMERS_REMEMBERED:
            del formers[next(iter(formers))]

    def claim(self, worker: str, incarnation: str, arrival: float, uptime: float, now: float) -> Claim:
        """Note a beat of `incarnation`, `uptime` seconds after its beginning, and return what is claimed.

        `arrival` in loop time, `now` in hearing time.
        """
        begun = arrival - uptime
        claim = self.claims.get(worker)
        if claim is None or claim.incarnation != incarnation:
            # Of a third incarnation only the newest to be heard is followed.
            claim = self.claims[worker] = Claim(incarnation, begun, uptime, now)
            return claim
        claim.beats += 1
        claim.heard_at = now
        if abs(begun - claim.begun) <= AGREED_WITHIN and abs(uptime - claim.uptime) > APART:
            claim.agreed = True
        if begun < claim.begun:
            claim.begun, claim.uptime = begun, uptime
        return claim

    def rival(self, worker: str, now: float, ttl: float) -> bool:
        """Note a beat of the incarnation that the lease bears; say whether a conflict begins with it.

        `now` in hearing time, `ttl` in seconds.
        """
        claim = self.claims[worker]
        if now - claim.heard_at >= ttl:
            # The other one is over.
            self.settled(worker)
            return False
        claim.rival_at = now
        began = worker not in self.conflicts
        self.conflicts.add(worker)
        return began

    def holds(self, worker: str, now: float, ttl: float) -> bool:
        """Say whether the claim on `worker` may be acted upon: two beats agree, and its rival is silent for a ttl."""
        claim = self.claims[worker]
        return claim.agreed and (claim.rival_at is None or now - claim.rival_at >= ttl)

    def settled(self, worker: str) -> None:
        """Forget the claim on `worker`: it was acted upon, or there is nothing to act upon."""
        self.claims.pop(worker, None)
        self.conflicts.discard(worker)

    def forget(self, worker: str) -> None:
        """Forget all about a name that left the book."""
        self.settled(worker)
        self._formers.pop(worker, None)

    def restore(self, formers: Iterable[tuple[str, str, int]]) -> None:
        """Remember former incarnations that the database knows: worker, incarnation, epoch, the oldest first."""
        for worker, incarnation, epoch in formers:
            self.replaced(worker, incarnation, epoch)
