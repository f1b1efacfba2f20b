"""The book against a naive model, by a machine that tries sequences of everything that can happen.

Times are whole numbers: with floats, two different moments may add up to the same. The loop's clock shows LOOP more
than hearing time.
"""

from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from liveness.beginnings import AGREED_WITHIN, APART
from liveness.lease import Proof
from liveness.leases import Heard, LeaseTable
from liveness.lines import MOST_TTLS
from liveness.messages import Heartbeat
from tests.unit.makers import ending_of, lease_of, names

NAMES = st.sampled_from(["a", "b", "c", "d"])
TTLS = st.none() | st.sampled_from([2, 3, 5, 8])
INCARNATIONS = st.sampled_from(["x", "y", "z"])
UPTIMES = st.none() | st.integers(0, 8)
DEFAULT = 4
LOOP = 1_000
NEVER = -1_000


class Model:
    """One worker, the naive way: everything is remembered, and recomputed."""

    def __init__(self, now: int, ttl: int) -> None:
        self.stated = self.promise = ttl
        self.since = now
        self.last_beat: int | None = None
        self.epoch: int | None = None
        self.lapsed = self.proven = self.reborn = False
        # When each incarnation was heard, and how old it said it was.
        self.heard: dict[str, list[tuple[int, int | None]]] = {}
        # Those that a newer one has replaced for certain, and those that some proof has ended.
        self.replaced: set[str] = set()
        self.over: set[str] = set()
        # Who bears the name, and how old it was, at most, when it said hello since.
        self.bears: str | None = None
        self.hello: int | None = None
        # When the name was heard last before somebody adopted it.
        self.before = NEVER

    @property
    def ends(self) -> bool:
        """Whether it waits for a verdict."""
        return self.lapsed or self.proven

    def go_on(self, now: int) -> None:
        """Live, with a full promise from now on."""
        self.since, self.promise = now, self.stated
        self.lapsed = self.proven = self.reborn = False

    def end(self, incarnation: str | None) -> None:
        """End on proof, if it does not already."""
        if incarnation is not None:
            self.over.add(incarnation)
        if not self.proven:
            self.proven, self.lapsed, self.reborn = True, False, False

    def began(self, incarnation: str) -> list[tuple[int, int]]:
        """Return the beginnings that beats of this incarnation showed, and how old it was."""
        return [(at + LOOP - age, age) for at, age in self.heard[incarnation] if age is not None]

    def agreed(self, incarnation: str) -> bool:
        """Say whether any two beats of it agree."""
        return any(
            abs(one - other) <= AGREED_WITHIN and abs(age - older) > APART
            for (one, age), (other, older) in combinations(self.began(incarnation), 2)
        )

    def both_heard(self, former: str, new: str, now: int) -> bool:
        """Say whether the former was heard within its promise, and since the new one is heard without a pause."""
        times = [at for at, _ in self.heard[new]]
        first = times[-1]
        for at in reversed(times):
            if first - at >= self.promise:
                break
            first = at
        return any(first < at and now - at < self.promise for at, _ in self.heard.get(former, []))


class Book(RuleBasedStateMachine):
    """Beats, hellos, goodbyes, lapses, verdicts, grants, gaps and what other replicas did, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.book = LeaseTable(DEFAULT)
        self.model: dict[str, Model] = {}
        self.now = 0
        self.extended = self.floor = NEVER
        self.epochs = 0

    def deadline(self, one: Model) -> int:
        """The model's deadline, with what gaps owe, and the limit to that."""
        owed = max(max(one.since, self.extended) + one.promise, self.floor)
        return min(owed, one.since + MOST_TTLS * one.promise)

    def some(self, data: st.DataObject, *chosen: str) -> tuple[str, Model]:
        """Draw one of these names."""
        name = data.draw(st.sampled_from(sorted(chosen)))
        return name, self.model[name]

    def having(self, *, epoch: bool = False, lapsed: bool = False, reborn: bool = False) -> list[str]:
        """Return whose model is so."""
        return [
            name
            for name, one in self.model.items()
            if (one.epoch is not None or not epoch) and (one.lapsed or not lapsed) and (one.reborn or not reborn)
        ]

    @rule(seconds=st.integers(0, 6))
    def time_passes(self, seconds: int) -> None:
        """Let hearing time go on."""
        self.now += seconds

    @rule(name=NAMES, ttl=TTLS)
    def beat(self, name: str, ttl: int | None) -> None:
        """A heartbeat comes that names no incarnation."""
        self.take(name, Heartbeat(ttl=ttl), self.book.beat(name, self.now, Heartbeat(ttl=ttl), self.now + LOOP), None)

    @rule(name=NAMES, incarnation=INCARNATIONS, ttl=TTLS, uptime=UPTIMES, late=st.integers(0, 2))
    def beat_of(self, name: str, incarnation: str, ttl: int | None, uptime: int | None, late: int) -> None:
        """A heartbeat of an incarnation comes; each of them began at a time of its own, or says something else."""
        began = {"x": -1, "y": -10, "z": 0}[incarnation]
        age = None if uptime is None else max(self.now - began - late, 0) if uptime > 2 else uptime
        beat = Heartbeat(incarnation=incarnation, ttl=ttl, uptime=age)
        lease = self.book.get(name)
        former = None if lease is None else lease.incarnation
        heard = self.book.beat(name, self.now, beat, self.now + LOOP)
        one = self.model.get(name)
        if one is not None:
            assert heard is Heard.STALE or incarnation not in one.replaced
            assert heard is not Heard.STALE or incarnation in one.over
            one.heard.setdefault(incarnation, []).append((self.now, age))
            if heard is Heard.ADOPTED:
                one.before = one.since if one.last_beat is None else one.last_beat
            if heard is Heard.RESTARTED:
                assert one.agreed(incarnation)
                assert former is not None
                assert not one.both_heard(former, incarnation, self.now)
        self.take(name, beat, heard, former)

    @rule(name=NAMES, incarnation=INCARNATIONS, ttl=TTLS, uptime=UPTIMES)
    def hello(self, name: str, incarnation: str, ttl: int | None, uptime: int | None) -> None:
        """A hello comes."""
        beat = Heartbeat(incarnation=incarnation, ttl=ttl, uptime=uptime)
        lease = self.book.get(name)
        former = None if lease is None else lease.incarnation
        rivals = self.rivals_of(name, incarnation)
        older = former != incarnation and lease is not None and lease.is_younger_than(self.now + LOOP - (uptime or 0))
        heard = self.book.hello(name, self.now, beat, self.now + LOOP)
        one = self.model.get(name)
        if one is None:
            assert self.book.arrivals[name].incarnation == incarnation
            assert self.book.arrivals[name].greeted
        else:
            assert heard is Heard.STALE or (incarnation not in one.replaced and not older)
            assert heard is not Heard.STALE or incarnation in one.over or older
            assert heard in {Heard.STALE, Heard.RESTARTED} or former == incarnation
            if heard is not Heard.STALE:
                one.over |= rivals
        self.take(name, beat, heard, former)
        if heard is not Heard.STALE:
            assert lease_of(self.book, name).incarnation == incarnation
            one = self.model[name]
            if one.bears != incarnation:
                one.bears, one.hello = incarnation, None
            one.hello = max((said for said in (one.hello, uptime) if said is not None), default=None)

    def rivals_of(self, name: str, incarnation: str) -> set[str]:
        """Return who is over, too, when this one says hello for the first time."""
        known = self.book.incarnations
        claim = known.claims.get(name)
        again = (lease := self.book.get(name)) is not None and lease.introduced == incarnation
        return set() if claim is None or again else {claim.incarnation, *claim.thirds} - {incarnation}

    def take(self, name: str, beat: Heartbeat, heard: Heard, former: str | None) -> None:
        """Let the model hear what the book has heard."""
        one = self.model.get(name)
        assert (heard is Heard.STARTED) == (one is None)
        if one is None:
            one = self.model[name] = Model(self.now, int(beat.ttl or DEFAULT))
            one.last_beat = self.now
            if beat.incarnation is not None:
                one.heard[beat.incarnation] = [(self.now, None if beat.uptime is None else int(beat.uptime))]
            return
        if heard is Heard.STALE:
            return
        if heard is Heard.RESTARTED:
            one.end(former)
            if former is not None and former != beat.incarnation:
                one.replaced.add(former)
        one.stated = int(beat.ttl or one.stated)
        one.last_beat = self.now
        if one.proven:
            one.reborn = True
        elif (
            one.lapsed
            or one.stated == one.promise
            or self.now + one.stated >= self.deadline(one)
            or self.now + 2 * one.stated >= one.since + MOST_TTLS * one.promise
        ):
            one.go_on(self.now)

    @rule(name=NAMES, ttl=st.sampled_from([2, 5]))
    def restore(self, name: str, ttl: int) -> None:
        """A lease is restored; without effect if there is one."""
        self.book.restore(name, self.now, ttl)
        self.model.setdefault(name, Model(self.now, ttl))

    @rule()
    def grant(self) -> None:
        """Postgres issues epochs for all that want one."""
        wanting = list(self.book.wanting)
        assert sorted(wanting) == sorted(name for name, one in self.model.items() if one.epoch is None)
        for name in wanting:
            self.epochs += 1
            self.book.granted(name, self.epochs)
            self.model[name].epoch = self.epochs

    @rule(name=NAMES, incarnation=st.none() | INCARNATIONS, uptime=UPTIMES)
    def goodbye(self, name: str, incarnation: str | None, uptime: int | None) -> None:
        """A goodbye comes: it ends that incarnation's life, and no other; nor one that has begun since."""
        one = self.model.get(name)
        lease = self.book.get(name)
        expected = one is not None and not one.proven and lease is not None and lease.incarnation == incarnation
        claim = self.book.incarnations.claims.get(name)
        beside = lease is not None and claim is not None and claim.incarnation == incarnation != lease.incarnation
        if one is not None and uptime is not None and one.hello is not None and uptime < one.hello:
            expected = False
        # Nobody was heard since but who has adopted the name, and the one before may live.
        adopted = claim is not None and not claim.beats and claim.incarnation != incarnation
        back = expected and one is not None and adopted and not one.ends and self.now - one.before < one.promise
        expected = expected and not back
        assert self.book.release(name, incarnation, self.now, Proof("released", uptime=uptime)) == expected
        if one is not None and beside and incarnation is not None:
            # It is over before it was believed, and what it says from now on is stale.
            one.over.add(incarnation)
        if one is not None and back and incarnation is not None:
            one.over.add(incarnation)
            assert lease_of(self.book, name).incarnation != incarnation
        if one is not None and expected:
            one.end(incarnation)
            # A successor that was heard already lives on.
            one.reborn = ending_of(self.book, name).reborn_at is not None
            if one.reborn:
                assert incarnation is not None
                assert lease_of(self.book, name).incarnation != incarnation

    @precondition(lambda self: any(one.hello is not None for one in self.model.values()))
    @rule(data=st.data(), older=st.integers(-2, 1))
    def goodbye_of_who_said_hello(self, data: st.DataObject, older: int) -> None:
        """A goodbye comes of whoever bears the name, from about when it said hello."""
        name, one = self.some(data, *(name for name, one in self.model.items() if one.hello is not None))
        assert one.hello is not None
        self.goodbye(name, one.bears, max(one.hello + older, 0))

    @precondition(lambda self: self.book.arrivals)
    @rule(data=st.data(), holding=st.booleans())
    def look_back(self, data: st.DataObject, *, holding: bool) -> None:
        """The database says whether there is work of a life before an arrival."""
        name, one = self.some(data, *self.book.arrivals)
        arrival = self.book.arrivals[name]
        if one.ends or lease_of(self.book, name).incarnation != arrival.incarnation:
            return
        if holding:
            assert self.book.restart(name, self.now, arrival, former=None)
            one.end(None)
            one.reborn = True
            assert ending_of(self.book, name).reborn_at == arrival.begun
        else:
            self.book.arrived(name, arrival.incarnation)
        assert name not in self.book.arrivals

    @rule()
    def lapse(self) -> None:
        """The book is asked what has lapsed."""
        due = {
            name: self.deadline(one)
            for name, one in self.model.items()
            if not one.ends and self.deadline(one) <= self.now
        }
        lapsed = names(self.book.lapse(self.now))
        assert sorted(lapsed) == sorted(due)
        assert [due[name] for name in lapsed] == sorted(due.values())
        for name in lapsed:
            self.model[name].lapsed = True

    @precondition(lambda self: self.having(epoch=True))
    @rule(data=st.data())
    def verdict(self, data: st.DataObject) -> None:
        """Postgres says of some epoch that it is over, perhaps of one that lives here."""
        name, one = self.some(data, *self.having(epoch=True))
        assert one.epoch is not None
        lives_on = self.book.ended(name, one.epoch, self.now)
        assert (lives_on is not None) == self.is_over(name, one)

    def is_over(self, name: str, one: Model) -> bool:
        """Let the model's epoch be over; say whether the name lives on."""
        if one.ends and not one.reborn:
            del self.model[name]
            return False
        if one.proven:
            one.go_on(self.now)
        one.epoch = None
        return True

    @rule(name=NAMES, ttl=st.sampled_from([2, 5]), incarnation=st.none() | INCARNATIONS, uptime=UPTIMES)
    def learn(self, name: str, ttl: int, incarnation: str | None, uptime: int | None) -> None:
        """Another replica has granted an epoch, and heard a hello of whom it names."""
        uptime = None if incarnation is None else uptime
        self.epochs += 1
        one = self.model.get(name)
        if one is not None and one.epoch is not None and not self.is_over(name, one):
            one = None
        ending = self.book.endings.get(name)
        ended = None if ending is None or ending.ending is None else ending.ending.incarnation
        said = None if ending is None or ending.ending is None else ending.ending.uptime
        # The goodbye of a life before the one that is learned.
        before = uptime is not None and said is not None and said < uptime
        self.book.learn(name, self.now, ttl, self.epochs, incarnation, uptime)
        if one is None:
            one = self.model[name] = Model(self.now, ttl)
        elif one.ends and incarnation is not None and (incarnation != ended or before):
            one.go_on(self.now)
        one.epoch = self.epochs
        lease = lease_of(self.book, name)
        if lease.ending is None and incarnation is not None:
            # Whom Postgres knows to live is no former one, whatever was heard here.
            assert lease.incarnation == incarnation
            one.replaced.discard(incarnation)
        if lease.incarnation == incarnation:
            if one.bears != incarnation:
                one.bears, one.hello = incarnation, None
            one.hello = max((said for said in (one.hello, uptime) if said is not None), default=None)

    @precondition(lambda self: self.having(reborn=True))
    @rule(data=st.data())
    def reborn(self, data: st.DataObject) -> None:
        """Others have ended the former life before it had an epoch here."""
        name, one = self.some(data, *self.having(reborn=True))
        if one.epoch is None:
            self.book.reborn(name, self.now)
            one.go_on(self.now)

    @precondition(lambda self: self.having(epoch=True, lapsed=True))
    @rule(data=st.data(), ago=st.integers(0, 6))
    def spared(self, data: st.DataObject, ago: int) -> None:
        """Postgres says that somebody else recorded a beat of a lapsed name."""
        name, one = self.some(data, *self.having(epoch=True, lapsed=True))
        assert one.epoch is not None
        # Only one that is younger than what we heard ourselves spares.
        at = self.now - ago if one.last_beat is None else max(self.now - ago, one.last_beat)
        self.book.spared(name, one.epoch, at)
        one.go_on(at)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """A name leaves the book."""
        name, _ = self.some(data, *self.model)
        self.book.forget(name)
        del self.model[name]

    @rule()
    def extend(self) -> None:
        """Beats may have been lost."""
        self.book.lines.extend(self.now)
        self.extended = self.now

    @rule(seconds=st.integers(0, 9))
    def grace(self, seconds: int) -> None:
        """Beats may still be on their way."""
        self.book.lines.grace(self.now + seconds)
        self.floor = max(self.floor, self.now + seconds)

    @invariant()
    def agrees(self) -> None:
        """Who is in the book, who lives, and until when."""
        assert {lease.worker for lease in self.book} == set(self.model)
        for name, one in self.model.items():
            lease = lease_of(self.book, name)
            assert (lease.ending is not None) == one.ends == (name in self.book.endings)
            assert (lease.epoch, lease.last_beat, lease.stated) == (one.epoch, one.last_beat, one.stated)
            if one.bears != lease.incarnation:
                one.bears, one.hello = lease.incarnation, None
            assert lease.hello_uptime == one.hello
            if lease.ending is None:
                assert self.book.lines.deadline(lease) == self.deadline(one)
            else:
                assert lease.ending.proof == one.proven
                assert (lease.ending.reborn_at is not None) == one.reborn
        live = [self.deadline(one) for one in self.model.values() if not one.ends]
        assert self.book.lines.next_deadline() == min(live, default=float("inf"))

    @invariant()
    def finds_what_is_due(self) -> None:
        """Who is due within a second."""
        live = {name: one for name, one in self.model.items() if not one.ends}
        due = names(list(self.book.lines.due_within(self.now, lambda _: 1.0)))
        assert sorted(due) == sorted(name for name, one in live.items() if self.deadline(one) <= self.now + 1)

    @invariant()
    def marks_only_what_is_there(self) -> None:
        """Nothing is kept of a name that left."""
        assert set(self.book.arrivals) | self.book.unproven <= set(self.model)
        assert set(self.book.incarnations.claims) | self.book.incarnations.conflicts <= set(self.model)
        assert not any(one.last_beat is not None for name, one in self.model.items() if name in self.book.unproven)

    @invariant()
    def the_lines_are_whole(self) -> None:
        """Every live lease stands in exactly one line, in the order of its time."""
        seen = []
        for line in self.book.lines._lines.values():
            lease = line.end.next
            while lease is not line.end:
                assert lease.line is line
                assert lease.next.previous is lease
                assert lease.next is line.end or lease.next.since >= lease.since
                seen.append(lease.worker)
                lease = lease.next
        assert sorted(seen) == sorted(lease.worker for lease in self.book if lease.ending is None)


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=150, stateful_step_count=40)
