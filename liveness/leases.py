"""The book: who lives, until when, by our belief. Pure: no clock, no I/O.

`now` is hearing time, `arrival` and `begun` are the loop's, all in seconds. The rules that this file keeps:

1. A lease is a promise. It lapses when its ttl has run out since the last beat, and never before; a later beat
   that states a shorter ttl does not shorten what an earlier one promised.
2. A lapsed lease is not forgotten. It stays in the book, marked with its `ending`, until `ended` or `spared`
   tells Postgres' verdict. Until then a beat revives it.
3. Proof is not undone by a beat. After a goodbye the epoch is over whatever comes; a beat that follows begins the
   next life, which starts as soon as the verdict on the former one is in.
4. A beat that arrives while the verdict is under way keeps the name alive but not the epoch: the verdict ends the
   epoch, and the lease goes on as a new life that wants an epoch of its own.
5. An epoch joins a lease later than its first beat, when Postgres has issued it. Until then the lease is wanting.
6. A new incarnation is proof that the former one is over: at once by `hello`, by heartbeats as `incarnations` says.
   What was touched before it began is the former life's; without an uptime nothing is taken. Passed by are beats of a
   former incarnation, hellos of one that began long before, and goodbyes from before the newest hello of their own.
7. What is owed to everybody after a gap (`extend`, `grace`), and the limit to that, are kept by `lines`.
"""

from collections.abc import Iterator

from liveness.beginnings import Arrival
from liveness.incarnations import Incarnations, Whose
from liveness.lease import RELEASED, Arrived, Heard, Lease, Proof, ending_of, note_other, note_reborn, rounded_ttl
from liveness.lines import Lines
from liveness.messages import Heartbeat

__all__ = ["Arrived", "Heard", "LeaseTable"]


class LeaseTable:
    """The leases of all workers, by name.

    `wanting` holds the leases that have no epoch yet, `changed` those of which Postgres has to be told something (ttl,
    incarnation, or that they were heard under this epoch), `endings` those that wait for a verdict; each in order of
    arrival. `unproven` holds the names of which neither a beat nor a life of ours is known; `arrivals` the incarnations
    whose beginning is known and of whose name we know no former life: what that left, only the database can tell.
    """

    def __init__(self, default_ttl: float) -> None:
        self.wanting: dict[str, Lease] = {}
        self.changed: dict[str, Lease] = {}
        self.endings: dict[str, Lease] = {}
        self.unproven: set[str] = set()
        self.arrivals: dict[str, Arrival] = {}
        self.lines = Lines()
        self.incarnations = Incarnations()
        self._default_ttl = rounded_ttl(default_ttl)
        self._leases: dict[bytes, Lease] = {}
        # By the name as it stands on the wire; for every heartbeat.
        self.find = self._leases.get

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def __repr__(self) -> str:
        return f"<LeaseTable {len(self)} leases, {len(self.wanting)} wanting, {len(self.endings)} ending>"

    def get(self, worker: str) -> Lease | None:
        """Return the lease of `worker`, ending or not, or None."""
        return self._leases.get(worker.encode())

    def beat(
        self, worker: str, now: float, beat: Heartbeat, arrival: float = 0.0, when: Arrived | None = None
    ) -> Heard:
        """Note that `worker` was heard. A ttl that the beat states is kept for those that state none.

        `when` says how exactly its arrival is known; without it, exactly.
        """
        when = when or Arrived(arrival, arrival, now)
        lease = self._leases.get(worker.encode())
        if lease is None:
            lease = self._start(worker, now, beat)
            if beat.incarnation is not None:
                lease.note_begun(beat.uptime, when.not_before)
                self.incarnations.claim(lease, beat, now, when)
            return Heard.STARTED
        heard = Heard.RENEWED
        if beat.incarnation != lease.incarnation or worker in self.incarnations.claims:
            heard = self._identify(lease, beat, now, when)
            if heard is Heard.STALE:
                return heard
        if lease.last_beat is None:
            self.unproven.discard(worker)
            self.changed[worker] = lease
        ttl = beat.ttl
        if ttl is not None and ttl != lease.stated and (ttl := rounded_ttl(ttl)) != lease.stated:
            lease.stated = ttl
            self.changed[worker] = lease
        self.lines.pace(lease, beat.interval, now)
        lease.probe, lease.draining, lease.last_beat = beat.probe, beat.draining, now
        ending = lease.ending
        if ending is None:
            self.lines.renew(lease, now)
            return heard
        if ending.proof:
            if note_reborn(ending, beat, when, lease.incarnation):
                self.incarnations.look_again(worker)
            return Heard.AFTER_PROOF if heard is Heard.RENEWED else heard
        self._revive(lease, now)
        return Heard.REVIVED if heard is Heard.RENEWED else heard

    def hello(self, worker: str, now: float, beat: Heartbeat, arrival: float, waited: float = 0.0) -> Heard:
        """Note that a new incarnation of `worker` begins and waits for its former life's work to be back.

        The beat has to name the incarnation. Saying it again is without effect. It may have `waited` so long (seconds).
        """
        lease = self._leases.get(worker.encode())
        incarnation, begun = beat.incarnation or "", arrival - (beat.uptime or 0.0)
        if lease is None:
            lease = self._start(worker, now, beat)
            self._arrive(lease, incarnation, begun, idle=True)
            lease.note_hello(beat.uptime, arrival - waited)
            return Heard.STARTED
        if lease.incarnation != incarnation:
            # The older of two has said hello before the younger one began, and that comes late.
            if self.incarnations.is_over(worker, incarnation, beat.uptime) or lease.is_younger_than(begun):
                return Heard.STALE
            idle = not self.incarnations.greeted(lease, incarnation, begun)
            new = Arrival(incarnation, begun, greeted=True, earliest=begun - waited, idle=idle)
            self.restart(worker, now, new, former=lease.incarnation)
            lease.note_hello(beat.uptime, arrival - waited)
            self.beat(worker, now, beat, arrival)
            return Heard.RESTARTED
        if lease.introduced != incarnation:
            # It beat before it said hello, and nobody has looked for a former life's work yet.
            begun = self.incarnations.introduced_late(lease, incarnation, begun)
            self._arrive(lease, incarnation, begun, idle=False)
        if lease.note_hello(beat.uptime, arrival - waited):
            self.changed[worker] = lease
        return self.beat(worker, now, beat, arrival)

    def restart(self, worker: str, now: float, new: Arrival, *, former: str | None) -> bool:
        """End the life of `worker` because a `new` process is there; say whether a life ended by it.

        `former` is the incarnation that is over, None where it is not known.
        """
        lease = self._leases[worker.encode()]
        heard_at = self.incarnations.former_heard_at(lease, new)
        ended = self._prove(lease, now, Proof("restarted"))
        self.arrivals.pop(worker, None)
        if ended and lease.ending is not None:
            new.ends(lease.ending, former, heard_at)
        elif lease.ending is not None and lease.ending.reborn_at is not None:
            # A third process: what the second one touched is spared by the verdict that is under way.
            self.arrivals[worker] = new
        elif lease.ending is not None:
            lease.ending.reborn_at, lease.ending.reborn_idle = new.begun, new.idle
        self.incarnations.replaced(worker, former, lease.epoch)
        self.incarnations.believed(lease, new)
        lease.bear(new.incarnation, lease.ending)
        return ended

    def reinstate(self, worker: str, now: float) -> None:
        """Undo a restart that heartbeats told of: the process that was thought over was heard before the verdict."""
        ending = (lease := self._leases[worker.encode()]).ending
        if ending is not None and lease.incarnation is not None:
            self.incarnations.dispute(lease, lease.incarnation, ending.incarnation, ending.reborn_at or 0.0, now)
            lease.bear(ending.incarnation or lease.incarnation, ending)
            self._go_on(lease, now)

    def arrived(self, worker: str, incarnation: str) -> None:
        """Note that the name of an arrival held nothing of a former life."""
        if (arrival := self.arrivals.get(worker)) is not None and arrival.incarnation == incarnation:
            del self.arrivals[worker]
            # Its name can be told to Postgres now.
            self.changed[worker] = self._leases[worker.encode()]

    def restore(
        self, worker: str, now: float, ttl: float, epoch: int | None = None, incarnation: str | None = None
    ) -> Lease:
        """Give `worker`, of whom Postgres knows and we have heard nothing yet, a full `ttl` (seconds) from `now`.

        Return its lease. That of a name that is in the book already is left as it is.
        """
        if known := self._leases.get(worker.encode()):
            return known
        lease = self.lines.new(worker, rounded_ttl(ttl), now)
        # By its own name, and no copy of that.
        self._leases[lease.name] = lease
        lease.epoch, lease.incarnation = epoch, incarnation
        if incarnation is not None:
            # It said hello, if it did, to a service that is no more.
            self.incarnations.introduce(lease, incarnation)
        if epoch is None:
            self.wanting[worker] = lease
            self.unproven.add(worker)
        return lease

    def granted(self, worker: str, epoch: int) -> None:
        """Note the epoch that Postgres issued for the life of `worker` that wanted one."""
        lease = self.wanting.pop(worker, None)
        if lease is not None:
            lease.epoch = epoch
            if lease.last_beat is not None:
                self.changed[worker] = lease

    def learn(
        self, worker: str, now: float, ttl: float, epoch: int, incarnation: str | None, hello_uptime: float | None
    ) -> None:
        """Take from Postgres that `epoch` of `worker` is open, and its newest hello: another replica granted it."""
        lease = self._leases.get(worker.encode())
        if lease is not None and lease.epoch is not None and lease.epoch < epoch:
            lease = lease.certified(epoch, incarnation) or self.ended(worker, lease.epoch, now, elsewhere=True)
        if lease is None:
            lease = self.restore(worker, now, ttl, epoch, incarnation)
        elif lease.ending is not None and lease.ending.is_before(incarnation, hello_uptime):
            # A goodbye of its life before, and not of this one, which goes on.
            (self.reborn if lease.incarnation == incarnation else self.reinstate)(worker, now)
        ending, fits = lease.ending, lease.epoch is None or (lease.epoch, lease.incarnation) == (epoch, incarnation)
        if fits and ending is not None and incarnation not in {None, ending.incarnation}:
            # The life that ends here has ended there already, and this is the next one's epoch.
            self.reborn(worker, now)
        if lease.epoch is None:
            if lease.ending is None and incarnation is not None:
                lease.bear(incarnation)
                self.incarnations.introduce(lease, incarnation)
            self.granted(worker, epoch)
        if lease.incarnation == incarnation:
            lease.note_newest(hello_uptime)
        if worker in self.arrivals and self.arrivals[worker].incarnation == incarnation:
            # It was not named there before its former life's work had been looked for.
            del self.arrivals[worker]

    def lapse(self, now: float) -> list[Lease]:
        """Mark every lease whose deadline is not after `now`, and return them in the order of their deadlines."""
        lapsed = self.lines.take_lapsed(now)
        for deadline, lease in lapsed:
            self._mark(lease, now, deadline, None)
        return [lease for _, lease in lapsed]

    def release(self, worker: str, incarnation: str | None, now: float, proof: Proof = RELEASED) -> bool:
        """End the life of `worker` on proof, and say whether there was such a life.

        Only that incarnation's (None: one without any), and none that has begun since that was said.
        """
        lease = self._leases.get(worker.encode())
        if lease is None:
            return False
        if lease.incarnation != incarnation:
            self.incarnations.other_over(lease, incarnation, now, proof)
            return False
        if lease.has_begun_since(proof.uptime):
            return False
        if self.incarnations.given_back(lease, now):
            self.changed[worker] = lease
            return False
        return self._prove(lease, now, proof)

    def end(self, worker: str, now: float, proof: Proof) -> bool:
        """End the life of `worker`, whatever its incarnation, on an operator's word; False if there is none."""
        return (lease := self._leases.get(worker.encode())) is not None and self._prove(lease, now, proof)

    def ended(self, worker: str, epoch: int, now: float, *, elsewhere: bool = False) -> Lease | None:
        """Take the verdict that `epoch` is over; return the lease if the name lives on and wants a new epoch.

        `elsewhere`: it was not asked for here, and may be older than what is known here.
        """
        lease = self._leases.get(worker.encode())
        if lease is None or lease.epoch != epoch:
            return None
        ending = lease.ending
        self.changed.pop(worker, None)
        if ending is not None and ending.reborn_at is None:
            self.forget(worker)
            return None
        if ending is not None:
            if ending.reason == "restarted":
                self.incarnations.replaced(worker, ending.incarnation, epoch)
            if elsewhere:
                self.reborn(worker, now)
            else:
                self._go_on(lease, now)
        lease.epoch, lease.after = None, epoch
        self.wanting[worker] = lease
        return lease

    def reborn(self, worker: str, now: float) -> None:
        """Note that the life which ends here was ended by others: the next one goes on."""
        ending = (lease := self._leases[worker.encode()]).ending
        if ending is not None and ending.disputed:
            self.reinstate(worker, now)
            return
        unseen = worker not in self.arrivals and lease.incarnation not in {None, ending and ending.incarnation}
        alone = worker not in self.incarnations.conflicts
        if ending is not None and ending.reborn_stated and unseen and (ending.greeted or alone):
            # Or it was an earlier life, and only Postgres knows what the one between has left.
            self.arrivals[worker] = Arrival(lease.incarnation or "", ending.reborn_at or 0.0, greeted=ending.greeted)
        self._go_on(lease, now)

    def spared(self, worker: str, epoch: int, since: float) -> None:
        """Take the verdict that `worker` lives: somebody else recorded a beat of it at hearing time `since`."""
        lease = self._leases.get(worker.encode())
        if lease is not None and lease.epoch == epoch and lease.ending is not None and not lease.ending.proof:
            lease.ending = None
            self.endings.pop(worker, None)
            self.lines.place(lease, since)

    def forget(self, worker: str) -> None:
        """Let `worker` be out of the book."""
        lease = self._leases.pop(worker.encode(), None)
        if lease is None:
            return
        self.lines.take_out(lease)
        if lease.group is not None:
            lease.group.remove(lease)
        for names in (self.wanting, self.changed, self.endings, self.arrivals):
            names.pop(worker, None)
        self.unproven.discard(worker)
        self.incarnations.forget(worker, lease.ending)

    def soonest(self) -> Iterator[Lease]:
        """Go through all leases, those that are ending first, then by deadline. The book must not change meanwhile."""
        yield from self.endings.values()
        yield from self.lines.soonest()

    def _arrive(self, lease: Lease, incarnation: str, begun: float, *, idle: bool) -> None:
        self.arrivals[lease.worker] = Arrival(incarnation, begun, greeted=True, idle=idle)
        self.incarnations.introduce(lease, incarnation)

    def _start(self, worker: str, now: float, beat: Heartbeat) -> Lease:
        ttl = self._default_ttl if beat.ttl is None else rounded_ttl(beat.ttl)
        lease = self.lines.new(worker, ttl, now, beat.interval)
        self.wanting[worker] = self._leases[lease.name] = lease
        lease.begin(beat, now)
        return lease

    def _identify(self, lease: Lease, beat: Heartbeat, now: float, when: Arrived) -> Heard:
        """Find out whose beat it is, where that is not plainly the lease's own incarnation's, and act on it."""
        worker, own = lease.worker, lease.incarnation
        ending = lease.ending if lease.ending is not None and lease.ending.proof else None
        successor = None if ending is None else own != ending.incarnation
        whose = self.incarnations.judge(lease, beat, successor=successor, now=now, when=when)
        if ending is not None and beat.incarnation != own:
            note_other(ending, beat, stale=whose is Whose.STALE)
        match whose:
            case Whose.STALE:
                return Heard.STALE
            case Whose.CONFLICT | Whose.OWN:
                conflict = beat.incarnation != own and self._withdraw(lease, now)
                return Heard.CONFLICT if conflict or whose is Whose.CONFLICT else Heard.RENEWED
            case Whose.NEXT:
                self.incarnations.replaced(worker, own, lease.epoch)
                lease.bear_since(beat, when)
            case Whose.UNNAMED | Whose.ADOPTED:
                lease.bear_since(beat, when)
                self.changed[worker] = lease
                return Heard.RENEWED if whose is Whose.UNNAMED else Heard.ADOPTED
            case Whose.NEW:
                claim = self.incarnations.claims[worker]
                self.restart(worker, now, Arrival(claim.incarnation, claim.begun), former=own)
                lease.note_begun(0.0, claim.begun)
                self.incarnations.acted_upon(lease, claim)
                return Heard.RESTARTED
            case Whose.ARRIVED:
                claim = self.incarnations.claims[worker]
                self.incarnations.acted_upon(lease, claim)
                self.arrivals[worker] = Arrival(claim.incarnation, claim.begun)
        return Heard.RENEWED

    def _withdraw(self, lease: Lease, now: float) -> bool:
        """Look for no former life while another process is heard beside the one that heartbeats told of."""
        arrival = self.arrivals.get(lease.worker)
        if arrival is None or arrival.greeted or arrival.incarnation != lease.incarnation:
            return False
        del self.arrivals[lease.worker]
        return self.incarnations.dispute(lease, arrival.incarnation, None, arrival.begun, now)

    def _revive(self, lease: Lease, now: float) -> None:
        # What had changed in it was not worth telling while it was about to end.
        self.changed[lease.worker] = lease
        self._go_on(lease, now)

    def _go_on(self, lease: Lease, now: float) -> None:
        lease.ending = None
        self.endings.pop(lease.worker, None)
        # At the end of its line: it costs the same however many restart. And what is proven lags behind what is heard.
        self.lines.append(lease, now if lease.last_beat is None else max(now, lease.last_beat))

    def _prove(self, lease: Lease, now: float, proof: Proof) -> bool:
        if lease.ending is not None and lease.ending.proof:
            return False
        deadline = self.lines.deadline(lease)
        self.lines.take_out(lease)
        self._mark(lease, now, deadline, proof)
        successor = self.incarnations.successor(lease, now)
        if successor is not None and lease.ending is not None:
            # It is heard already, and what it has touched is not taken.
            self.incarnations.replaced(lease.worker, lease.incarnation, lease.epoch)
            lease.bear(successor[0])
            lease.ending.reborn_at = successor[1]
            self.incarnations.left_alone(lease.worker, successor[0])
        return True

    def _mark(self, lease: Lease, now: float, deadline: float, proof: Proof | None) -> None:
        lease.ending = ending_of(lease, now, deadline, proof)
        self.endings[lease.worker] = lease
