"""The book against a naive model, by a machine that tries sequences of everything that can happen.

Times are whole numbers: with floats, two different moments may add up to the same.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from liveness.leases import LeaseTable

NAMES = st.sampled_from(["a", "b", "c", "d"])
TTLS = st.none() | st.sampled_from([2, 3, 5, 8])
DEFAULT = 4


class Model:
    """One worker, the naive way: a deadline that is recomputed with max."""

    def __init__(self, now: int, ttl: int) -> None:
        self.stated = ttl
        self.deadline = now + ttl
        self.promise = ttl
        self.since = now
        self.epoch: int | None = None
        self.lapsed = False
        self.proven = False
        self.reborn = False


class Book(RuleBasedStateMachine):
    """Beats, goodbyes, lapses, verdicts, grants and extensions in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.book = LeaseTable(DEFAULT)
        self.model: dict[str, Model] = {}
        self.now = 0
        self.extended = -1_000
        self.epochs = 0

    def deadline(self, one: Model) -> int:
        """The model's deadline, with what extensions owe."""
        return max(one.since, self.extended) + one.promise

    @rule(seconds=st.integers(0, 6))
    def time_passes(self, seconds: int) -> None:
        """Let hearing time go on."""
        self.now += seconds

    @rule(name=NAMES, ttl=TTLS)
    def beat(self, name: str, ttl: int | None) -> None:
        """A heartbeat comes."""
        self.book.beat(name, self.now, ttl=ttl)
        one = self.model.get(name)
        if one is None:
            one = self.model[name] = Model(self.now, ttl or DEFAULT)
            return
        one.stated = ttl or one.stated
        if one.proven:
            one.reborn = True
        elif one.lapsed or self.now + one.stated >= self.deadline(one) or one.stated == one.promise:
            one.lapsed = False
            one.since, one.promise = self.now, one.stated

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

    @rule(name=NAMES)
    def goodbye(self, name: str) -> None:
        """A goodbye comes."""
        one = self.model.get(name)
        expected = one is not None and not one.proven
        assert self.book.release(name, None, self.now) == expected
        if one is not None and expected:
            one.proven, one.lapsed, one.reborn = True, False, False

    @rule()
    def lapse(self) -> None:
        """The book is asked what has lapsed."""
        due = [
            (self.deadline(one), name)
            for name, one in self.model.items()
            if not one.lapsed and not one.proven and self.deadline(one) <= self.now
        ]
        lapsed = [lease.worker for lease in self.book.lapse(self.now)]
        assert sorted(lapsed) == sorted(name for _, name in due)
        deadlines = {name: at for at, name in due}
        assert [deadlines[name] for name in lapsed] == sorted(deadlines.values())
        for name in lapsed:
            self.model[name].lapsed = True

    @precondition(lambda self: any(one.epoch is not None for one in self.model.values()))
    @rule(data=st.data())
    def verdict(self, data: st.DataObject) -> None:
        """Postgres says of some epoch that it is over, perhaps of one that lives here."""
        name = data.draw(st.sampled_from(sorted(n for n, one in self.model.items() if one.epoch is not None)))
        one = self.model[name]
        assert one.epoch is not None
        lives_on = self.book.ended(name, one.epoch, self.now)
        if (one.lapsed or one.proven) and not one.reborn:
            assert lives_on is None
            del self.model[name]
            return
        assert lives_on is not None
        if one.proven:
            one.since, one.promise = self.now, one.stated
        one.epoch, one.proven, one.lapsed, one.reborn = None, False, False, False

    @precondition(lambda self: any(one.lapsed and one.epoch for one in self.model.values()))
    @rule(data=st.data(), ago=st.integers(0, 6))
    def spared(self, data: st.DataObject, ago: int) -> None:
        """Postgres says that somebody else recorded a beat of a lapsed name."""
        name = data.draw(st.sampled_from(sorted(n for n, one in self.model.items() if one.lapsed and one.epoch)))
        one = self.model[name]
        assert one.epoch is not None
        self.book.spared(name, one.epoch, self.now - ago)
        one.lapsed = False
        one.since, one.promise = self.now - ago, one.stated

    @rule()
    def extend(self) -> None:
        """Beats may have been lost."""
        self.book.extend(self.now)
        self.extended = self.now

    @invariant()
    def agrees(self) -> None:
        """Who is in the book, who lives, and until when."""
        assert {lease.worker for lease in self.book} == set(self.model)
        for name, one in self.model.items():
            lease = self.book.get(name)
            assert lease is not None
            assert (lease.ending is not None) == (one.lapsed or one.proven)
            assert lease.epoch == one.epoch
            if lease.ending is None:
                assert self.book.deadline(lease) == self.deadline(one)
        live = [self.deadline(one) for one in self.model.values() if not one.lapsed and not one.proven]
        assert self.book.next_deadline() == min(live, default=float("inf"))

    @invariant()
    def the_lines_are_whole(self) -> None:
        """Every live lease stands in exactly one line, in the order of its time."""
        seen = []
        for line in self.book._lines.values():
            lease = line.end.next
            while lease is not line.end:
                assert lease.line is line
                assert lease.next.previous is lease
                assert lease.next is line.end or lease.next.since >= lease.since
                seen.append(lease.worker)
                lease = lease.next
        assert sorted(seen) == sorted(lease.worker for lease in self.book if lease.ending is None)


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
