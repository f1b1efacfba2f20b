"""Which process speaks under a name: beginnings that beats claim, and former incarnations. Pure.

A new incarnation of a name is proof that the former process is over, and it takes work: so what is believed here is
believed slowly.

1. When a process began, `beginnings` reckons from its beats; a beginning counts once two of them agree on it.
2. As long as the former incarnation is heard, too (since the new one began, by what it says), there are two processes
   of one name, and nobody can say whose a row is: a conflict, in which nothing is taken. It is over when one of them
   has been silent for a ttl. A beat that names no incarnation is such a rival, too, whenever since then it came; and
   until the verdict, either disputes what was believed before. So is one that was restored, until we have listened for
   a ttl, to whoever began before that.
3. Where beats state no uptime, nothing can be taken, and the one heard last bears the name.
4. An incarnation that a newer one has replaced is a former one, and its beats are stale. That holds as long as the name
   is in the book; a name that comes back later comes back as whoever it is, but for who was said to have died. One that
   is former by its own goodbye alone begins again by a hello which it said later.
"""

import enum
import math

from liveness.beginnings import AGREED_WITHIN, Arrival, Claim, thirds_most
from liveness.formers import Formers
from liveness.lease import Arrived, Ending, Lease, Proof
from liveness.messages import Heartbeat


class Whose(enum.Enum):
    """Whose a beat is, and what follows from it."""

    # The lease's own, or one of which nothing follows yet.
    OWN = "own"
    # A former incarnation's.
    STALE = "stale"
    # One of two that beat; told when that begins.
    CONFLICT = "conflict"
    # The first that names an incarnation.
    UNNAMED = "unnamed"
    # Of the life that follows one which has ended on proof.
    NEXT = "next"
    # A new one's, which states no uptime.
    ADOPTED = "adopted"
    # A new one's, whose beginning holds: the former one is over.
    NEW = "new"
    # The lease's own, whose beginning holds: whatever lived under the name before is over.
    ARRIVED = "arrived"


class Incarnations(Formers):
    """The claims and the former incarnations of all names. `conflicts` holds the names with two that beat."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: dict[str, Claim] = {}
        self.conflicts: set[str] = set()
        # Hearing time: when the name of one that names its incarnation was last beaten for without any.
        self.nameless_at: dict[str, float] = {}
        # Names of which a verdict has spared something for another process's sake.
        self._spared: set[str] = set()

    def greeted(self, lease: Lease, incarnation: str, begun: float) -> bool:
        """Note that `incarnation`, begun at `begun` (loop time), said hello: others that were heard are over, too.

        But not who began surely later: that one it knows nothing of. Return whether it was heard before, beside the one
        that the lease bears.
        """
        claim = self.claims.get(lease.worker)
        heard = () if claim is None else (claim, *claim.thirds.values())
        for other in heard:
            if other.incarnation != incarnation and not other.is_younger_than(begun, lease.ttl):
                self.replaced(lease.worker, other.incarnation, lease.epoch)
        return any(other.incarnation == incarnation for other in heard)

    def introduced_late(self, lease: Lease, incarnation: str, begun: float) -> float:
        """Note that `incarnation`, whose name `lease` bears, has beaten before it said hello; return when it began.

        By its hello it began at `begun` (loop time).
        """
        claim = self.claims.get(lease.worker)
        if claim is None:
            return begun
        self.greeted(lease, incarnation, begun)
        others = [one for one in (*claim.thirds.values(), claim) if one.incarnation != incarnation]
        younger = [one for one in others if one.is_younger_than(begun, lease.ttl)]
        self.settled(lease.worker)
        if younger:
            # It is beside those still.
            self.claims[lease.worker] = beside = younger.pop()
            beside.thirds = {one.incarnation: one for one in younger}
        # By its own claim, or that of the one whose name it bears since then.
        return min(begun, claim.latest if claim.incarnation == incarnation else claim.since)

    def judge(self, lease: Lease, beat: Heartbeat, *, successor: bool | None, now: float, when: Arrived) -> Whose:
        """Say whose a beat is that is not plainly that of the incarnation which `lease` bears.

        `successor`: None unless its life has ended on proof; then whether that incarnation is the next one already.
        `now` in hearing time.
        """
        incarnation, own = beat.incarnation, lease.incarnation
        if incarnation is None and own is not None:
            self.nameless_at[lease.worker] = now
        if incarnation is None or incarnation == own:
            return self._judge_own(lease, beat, successor=successor, now=now, when=when)
        if self.is_former(lease.worker, incarnation):
            return Whose.STALE
        if own is None:
            self.claim(lease, beat, now, when)
            return Whose.UNNAMED
        if successor is False:
            self.settled(lease.worker)
            if beat.uptime is not None:
                # What the former one left is taken by the verdict, but for what looks too young.
                self.claim(lease, beat, now, when)
            return Whose.NEXT
        if beat.uptime is None:
            return self._adopt(lease, own, beat, now, when)
        return self._judge_claim(lease, beat, now, when, Whose.NEW if successor is None else Whose.OWN)

    def _judge_own(self, lease: Lease, beat: Heartbeat, *, successor: bool | None, now: float, when: Arrived) -> Whose:
        incarnation, claim = beat.incarnation, self.claims.get(lease.worker)
        if claim is None:
            return Whose.OWN
        if incarnation is not None and claim.incarnation == incarnation:
            return self._judge_claim(lease, beat, now, when, Whose.ARRIVED if successor is None else Whose.OWN)
        # One that says nothing of itself may be a process of its own.
        conflict = self._own(lease, claim, now, when)
        if (
            incarnation is not None
            and lease.worker not in self.claims
            and self._is_to_be_looked_for(lease, incarnation)
        ):
            # The rival's claim stood in the place of its own, which nobody has acted upon yet.
            self.claim(lease, beat, now, when)
        return Whose.CONFLICT if conflict else Whose.OWN

    def claim(self, lease: Lease, beat: Heartbeat, now: float, when: Arrived) -> tuple[Claim, bool]:
        """Note a beat whose incarnation is not settled; return what is claimed, and whether a conflict begins."""
        worker, incarnation, own = lease.worker, beat.incarnation or "", lease.incarnation
        claim = self.claims.get(worker)
        # Of three that beat, the first is followed.
        if claim is not None and claim.incarnation != own and claim.is_beside(incarnation, when.proven, lease.ttl):
            return claim, self._third(worker, claim, beat, now, when)
        if claim is None or claim.incarnation != incarnation:
            former, known = claim, None if claim is None else claim.thirds.get(incarnation)
            claim = self.claims[worker] = known or Claim(incarnation, when.not_before, now)
            # A beat that comes late says less of its age than those before it.
            age = max(beat.uptime or 0.0, when.arrival - claim.begun) - AGREED_WITHIN
            claim.own_at = lease.last_beat
            if former is not None:
                claim.own_at = former.heard_at if former.incarnation == own else former.own_at
                claim.thirds = {name: third for name, third in former.thirds.items() if name != incarnation}
            others = [] if former is None else [former, *claim.thirds.values()]
            # Of one that was restored nobody can say whether it was heard until then.
            own_at = lease.since if lease.last_beat is None else claim.own_at
            heard = [moment for moment in (own_at, *(one.heard_at for one in others)) if moment is not None]
            if own not in {None, incarnation} and heard and now - max(heard) < age:
                # Another one was heard since this one began: so it was not over then, and may not be over now.
                claim.rival_at = max(heard)
            nameless_at = self.nameless_at.get(worker, -math.inf)
            if now - nameless_at < age:
                claim.rival_at = max(claim.rival_at or nameless_at, nameless_at)
        else:
            claim.beats += 1
        claim.heard(now, when, beat.uptime)
        return claim, False

    def _judge_claim(self, lease: Lease, beat: Heartbeat, now: float, when: Arrived, if_it_holds: Whose) -> Whose:
        claim, conflict = self.claim(lease, beat, now, when)
        if conflict:
            return Whose.CONFLICT
        its_own = claim.incarnation == beat.incarnation
        return if_it_holds if its_own and claim.holds(when.proven, lease.ttl) else Whose.OWN

    def _adopt(self, lease: Lease, own: str, beat: Heartbeat, now: float, when: Arrived) -> Whose:
        # A new one without an uptime bears the name, unless the two of them take turns, or the other one is known to
        # have come later than this: then that has to be silent for a ttl first.
        worker = lease.worker
        claim = self.claims.get(worker)
        if claim is not None and claim.is_beside(own, when.proven, lease.ttl) and claim.incarnation != beat.incarnation:
            # A third one.
            return Whose.CONFLICT if self._third(worker, claim, beat, now, when) else Whose.OWN
        if lease.introduced == own and (claim is None or claim.incarnation != beat.incarnation):
            self.claims[worker] = Claim(beat.incarnation or "", when.not_before, now, rival_at=now)
            return Whose.OWN
        if claim is None or claim.rival_at is None or when.proven - claim.rival_at >= lease.ttl:
            # The former one may or may not be over: beside the new one it is the one that has to show itself.
            heard_at = lease.since if lease.last_beat is None else lease.last_beat
            self.claims[worker] = Claim(own, when.not_before, heard_at, beats=0, rival_at=now)
            return Whose.ADOPTED
        claim, conflict = self.claim(lease, beat, now, when)
        if claim.incarnation == beat.incarnation and lease.introduced != own:
            conflict = worker not in self.conflicts
            self.conflicts.add(worker)
        return Whose.CONFLICT if conflict else Whose.OWN

    def _own(self, lease: Lease, claim: Claim, now: float, when: Arrived) -> bool:
        if when.proven - claim.heard_at >= lease.ttl:
            # The other one is over.
            beside = self._followed(lease, claim, when.proven)
            if beside is None:
                self.settled(lease.worker)
                return False
            claim = beside
        if lease.incarnation is not None:
            claim.own_at = now
        if not claim.beats:
            claim.rival_at = now
            return False
        return self._rival(lease.worker, claim, now)

    def _followed(self, lease: Lease, over: Claim, now: float) -> Claim | None:
        # Whoever was heard last beside one that is over is followed next.
        beside = _beside(lease, over, now)
        if not beside:
            return None
        claim = self.claims[lease.worker] = beside.pop()
        claim.thirds = {one.incarnation: one for one in beside}
        claim.own_at = over.heard_at if over.incarnation == lease.incarnation else over.own_at
        claim.rival_at = lease.last_beat
        return claim

    def _third(self, worker: str, claim: Claim, beat: Heartbeat, now: float, when: Arrived) -> bool:
        name = beat.incarnation or ""
        third = claim.thirds.pop(name, None) or Claim(name, when.not_before, now)
        third.heard(now, when, beat.uptime)
        claim.thirds[name] = third
        if len(claim.thirds) > thirds_most(len(self.claims)):
            del claim.thirds[next(iter(claim.thirds))]
        return self._rival(worker, claim, now)

    def _rival(self, worker: str, claim: Claim, now: float) -> bool:
        claim.rival_at = now
        began = worker not in self.conflicts
        self.conflicts.add(worker)
        return began

    def dispute(self, lease: Lease, newer: str, former: str | None, begun: float, now: float) -> bool:
        """Note that another process is heard after it was thought that `newer`, begun at `begun`, is there alone.

        `former` is its incarnation if it was thought over. Return whether a conflict begins.
        """
        worker = lease.worker
        if former is not None:
            self.lives_on(worker, former)
        if lease.introduced == newer:
            # What former processes held is to be looked for when it is alone again.
            lease.introduced = None
        if former is None and worker in self.claims:
            # The other one's: the claim of `newer` begins anew when that is settled.
            return False
        heard_at = now if lease.last_beat is None else lease.last_beat
        # A verdict goes by what is surely over, which is behind the beat that disputes it.
        met_at = max(now, heard_at)
        self.claims[worker] = Claim(
            newer, begun, heard_at, surely=begun, roughly=begun, agreed=True, rival_at=met_at, own_at=met_at
        )
        self.conflicts.add(worker)
        return True

    def settled(self, worker: str) -> None:
        """Forget the claim on `worker`: it was acted upon, or there is nothing to act upon."""
        self.claims.pop(worker, None)
        self.conflicts.discard(worker)

    def is_open(self, worker: str) -> bool:
        """Say whether an incarnation claims to have begun that is not settled yet."""
        claim = self.claims.get(worker)
        return claim is not None and claim.begun < math.inf

    def successor(self, lease: Lease, now: float) -> tuple[str, float] | None:
        """Return who is heard beside the incarnation that `lease` bears, and since when at the latest (loop time).

        Of one that does not say when it began, since it was heard: what was touched before may be anybody's.
        """
        claim = self.claims.get(lease.worker)
        if claim is None:
            return None
        heard = _beside(lease, claim, now)
        if claim.incarnation != lease.incarnation and claim.beats:
            # Its own would be over with it.
            heard.append(claim)
        # What any of them may have touched is kept.
        return (heard[-1].incarnation, min(min(one.begun, one.since) for one in heard)) if heard else None

    def other_over(self, lease: Lease, incarnation: str | None, now: float, proof: Proof) -> None:
        """Note that `incarnation` is over by `proof`; whether the one that `lease` bears lives, its ttl tells."""
        if proof.reason == "died":
            self.died(lease.worker, incarnation)
        claim = self.claims.get(lease.worker)
        if claim is not None and claim.incarnation == incarnation:
            # It was not believed yet to have replaced the other one.
            self._rival_over(lease, now)
            self.replaced(lease.worker, incarnation, None, proof.uptime)
        if (claim := self.claims.get(lease.worker)) is not None:
            # Or it was heard beside the two.
            claim.thirds.pop(incarnation or "", None)

    def given_back(self, lease: Lease, now: float) -> bool:
        """Note that who adopted the name of `lease` is over; say whether that goes back to the one that had it before.

        It does while that one was heard within a ttl: it may live, and nobody can say whose a row is.
        """
        claim = self.claims.get(lease.worker)
        if claim is None or claim.beats or claim.incarnation == lease.incarnation or lease.ending is not None:
            return False
        if now - claim.heard_at >= lease.ttl:
            return False
        self.settled(lease.worker)
        self.replaced(lease.worker, lease.incarnation, None)
        lease.bear(claim.incarnation)
        self._claim_its_own(lease, now)
        return True

    def _rival_over(self, lease: Lease, now: float) -> None:
        claim = self.claims.get(lease.worker)
        if claim is not None and self._followed(lease, claim, now) is not None:
            return
        self.settled(lease.worker)
        self._claim_its_own(lease, now)

    def _claim_its_own(self, lease: Lease, now: float) -> None:
        if lease.incarnation is not None and self._is_to_be_looked_for(lease, lease.incarnation):
            # The other one's stood in the place of its own claim, which nobody has acted upon yet.
            self.claims[lease.worker] = Claim(lease.incarnation, math.inf, now)

    def former_heard_at(self, lease: Lease, new: Arrival) -> float | None:
        """Return when (hearing time) the process before `new` was heard last."""
        claim, told = self.claims.get(lease.worker), new.incarnation != lease.incarnation
        if claim is not None and claim.incarnation == new.incarnation and (told or claim.own_at is not None):
            # The lease was heard last when the new one was.
            return claim.own_at
        return lease.last_beat

    def acted_upon(self, lease: Lease, claim: Claim) -> None:
        """Note that what was before `claim` is, or will be, looked for.

        Where its beginning is known only roughly, what a former process touched last is spared: it is looked for again.
        """
        self.settled(lease.worker)
        if claim.surely < math.inf:
            self.introduce(lease, claim.incarnation)
        else:
            lease.introduced = None
            claim.acted_by, claim.rival_at, claim.own_at = claim.begun, None, None
            self.claims[lease.worker] = claim

    def believed(self, lease: Lease, new: Arrival) -> None:
        """Note that `new` is there alone, and that what former processes held is, or will be, looked for."""
        claim = self.claims.get(lease.worker)
        if claim is None or claim.incarnation != new.incarnation or claim.acted_by is None or new.greeted:
            self.settled(lease.worker)
            self.introduce(lease, new.incarnation)
        else:
            # Its beginning is known roughly: what is spared is looked for again.
            self.acted_upon(lease, claim)

    def left_alone(self, worker: str, incarnation: str) -> None:
        """Note that the others of `worker` are over: `incarnation`, which is claimed, is the one that lives on.

        What they left that the verdict spared, as its beginning was known roughly, is looked for when it is known.
        """
        self.conflicts.discard(worker)
        claim = self.claims[worker]
        thirds = {third.incarnation: third for third in claim.thirds.values() if third.incarnation != incarnation}
        self.claims[worker] = claim = claim if claim.incarnation == incarnation else claim.thirds[incarnation]
        # Those that were heard beside both may live, too, and one without incarnation.
        claim.thirds, claim.own_at = thirds, None
        others = (*(third.heard_at for third in thirds.values()), self.nameless_at.get(worker))
        claim.rival_at = max((moment for moment in others if moment is not None), default=None)
        if claim.begun == math.inf:
            self.settled(worker)

    def introduce(self, lease: Lease, incarnation: str) -> None:
        """Note that what former processes of its name held is, or will be, looked for: `incarnation` began since."""
        lease.introduced = incarnation
        self._spared.discard(lease.worker)
        # Whatever was thought of it when another one was heard beside it.
        self.lives_on(lease.worker, incarnation)

    def look_again(self, worker: str) -> None:
        """Note that the verdict spares for another's sake: what it leaves is looked for when `worker` is one again."""
        self._spared.add(worker)

    def _is_to_be_looked_for(self, lease: Lease, incarnation: str) -> bool:
        return lease.worker in self._spared or lease.introduced != incarnation

    def forget(self, worker: str, ending: Ending | None) -> None:
        """Forget all about a name that left the book, but for who has died if that was the `ending`."""
        if ending is not None and ending.reason == "died":
            self.died(worker, ending.incarnation)
        self.settled(worker)
        self.forget_formers(worker)
        self.nameless_at.pop(worker, None)
        self._spared.discard(worker)


def _beside(lease: Lease, claim: Claim, now: float) -> list[Claim]:
    """Return who is heard beside what the lease bears and what is claimed, the one heard last behind the others."""
    own = lease.incarnation
    return [one for one in claim.thirds.values() if one.incarnation != own and now - one.heard_at < lease.ttl]
