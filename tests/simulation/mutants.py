"""How it is known that the simulation finds anything: deliberately wrong versions of the real code, each by name.

Each replaces one method, constant or function, and comes with the rule of the checker that it breaks and the first seed
that shows it. When the schedules have changed, `python -m tests.simulation --mutants` looks for those seeds anew.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar
from unittest import mock

import msgspec

from liveness import expiry, incarnations, leadership, lines, relay, storms
from liveness.cases import case_of
from liveness.errors import DatabaseAwayError
from liveness.expiry import Expiry
from liveness.finish import Finish, Finished
from liveness.follow import Follow, Learned
from liveness.greetings import Greetings
from liveness.hearing import Echo, Hearing
from liveness.incarnations import Claim, Incarnations
from liveness.lease import Arrived, Ending, Heard, Lease
from liveness.leases import LeaseTable
from liveness.lines import Lines
from liveness.messages import Heartbeat
from liveness.relay import Relay, Relayed
from liveness.store import Pending
from liveness.storms import Storms
from liveness.sweep import Sweep
from liveness.verdicts import Case, Outcome, Verdict
from tests.simulation.postgres import Postgres

Wrong = TypeVar("Wrong", bound=Callable[..., object])


class Mutant(NamedTuple):
    """A wrong version of one thing: `attribute` of `owner` is `wrong`, and the schedule of `seed` breaks `rule`."""

    name: str
    rule: str
    seed: int
    owner: object
    attribute: str
    wrong: object

    def applied(self) -> AbstractContextManager[object]:
        """Let the code be wrong for a while."""
        return mock.patch.object(self.owner, self.attribute, self.wrong)


MUTANTS: dict[str, Mutant] = {}


def _wrong(rule: str, seed: int, owner: object, attribute: str) -> Callable[[Wrong], Wrong]:
    def note(wrong: Wrong) -> Wrong:
        _constant(wrong.__name__, rule, seed, owner, attribute, wrong)
        return wrong

    return note


def _constant(name: str, rule: str, seed: int, owner: object, attribute: str, wrong: object) -> None:
    MUTANTS[name] = Mutant(name, rule, seed, owner, attribute, wrong)


# Hearing time.


@_wrong("promise", 6, Hearing, "heard")
def hearing_counts_through_gaps(self: Hearing, token: bytes, loop_time: float) -> Echo:
    """max_gap is ignored."""
    with mock.patch.object(self, "_max_gap", math.inf):
        return HEARD(self, token, loop_time)


@_wrong("promise", 0, Hearing, "heard")
def hearing_moves_to_when_the_echo_was_heard(self: Hearing, token: bytes, loop_time: float) -> Echo:
    """What was accepted while the echo was under way may be on its way still."""
    echo = HEARD(self, token, loop_time)
    if echo is Echo.COUNTED:
        self.now += loop_time - self._proven_to
        self._proven_to = loop_time
    return echo


@_wrong("promise", 0, Hearing, "heard")
def hearing_goes_on_with_any_echo(self: Hearing, token: bytes, loop_time: float) -> Echo:
    """An echo that took too long ends the gap, and the time in it counts."""
    sent = self._sent.get(token, loop_time)
    echo = HEARD(self, token, loop_time)
    if echo is Echo.GAP:
        self.now += max(loop_time - sent, 0.0)
    return echo


@_wrong("promise", 4, Hearing, "stamp")
def stamp_is_what_is_proven(self: Hearing, _loop_time: float) -> float:
    """A beat counts from the echo before it."""
    return self.now


@_wrong("living", 39, Hearing, "start")
def a_new_connection_is_no_gap(self: Hearing, loop_time: float) -> None:
    """What passed without a connection counts."""
    self.now += max(loop_time - self._proven_to, 0.0)
    START(self, loop_time)


@_wrong("dead work", 125, Hearing, "deaf")
def hearing_is_never_deaf(_self: Hearing, _loop_time: float) -> bool:
    """What was listened for before counts while nothing can be heard."""
    return False


# Deadlines.


@_wrong("living", 0, Lines, "extend")
def extend_does_nothing(_self: Lines, _now: float) -> None:
    """Where beats may have been lost, nobody is owed a ttl."""


@_wrong("living", 0, Lines, "grace")
def grace_does_nothing(_self: Lines, _until: float) -> None:
    """Where beats may be late, nobody is owed anything."""


@_wrong("promise", 4, Lines, "deadline")
def a_ttl_is_eighty_percent(self: Lines, lease: Lease) -> float:
    """A promise is kept for four fifths."""
    return DEADLINE(self, lease) - 0.2 * lease.line.ttl


_constant("no_limit_of_three_ttls", "dead work", 33, lines, "MOST_TTLS", math.inf)
_constant("limit_of_one_ttl", "living", 0, lines, "MOST_TTLS", 1)


# The book.


@_wrong("promise", 2, LeaseTable, "_revive")
def a_beat_does_not_revive(_self: LeaseTable, _lease: Lease, _now: float) -> None:
    """Who has lapsed stays lapsed, whatever is heard before the verdict."""


@_wrong("promise", 0, LeaseTable, "_go_on")
def who_goes_on_does_so_from_what_is_proven(self: LeaseTable, lease: Lease, now: float) -> None:
    """The next life counts from hearing time, though its beat was heard later."""
    lease.ending = None
    self.endings.pop(lease.worker, None)
    self.lines.append(lease, now)


@_wrong("dead work", 2, LeaseTable, "_mark")
def proof_is_undone_by_a_beat(
    self: LeaseTable, lease: Lease, reason: str, now: float, deadline: float, *, proof: bool, details: Any = None
) -> None:
    """A goodbye, or a restart, is taken for a lapse."""
    del proof
    MARK(self, lease, reason, now, deadline, proof=False, details=details)


@_wrong("promise", 16, LeaseTable, "ended")
def ended_forgets_who_was_reborn(self: LeaseTable, worker: str, epoch: int, now: float) -> Lease | None:
    """Whoever beat while the verdict was under way is out of the book."""
    lease = self.get(worker)
    if lease is not None and lease.ending is not None:
        lease.ending.reborn_at = None
    return ENDED(self, worker, epoch, now)


@_wrong("goodbye", 0, LeaseTable, "release")
def a_goodbye_ends_any_incarnation(
    self: LeaseTable, worker: str, _incarnation: str | None, now: float, reason: str = "released", details: Any = None
) -> bool:
    """Of whomever it speaks."""
    return self.end(worker, now, reason, details)


@_wrong("new life", 0, LeaseTable, "_prove")
def a_life_ends_with_what_came_after_it(
    self: LeaseTable, lease: Lease, now: float, reason: str, details: Any = None
) -> bool:
    """A lapse that proof overtakes forgets since when its successor is there."""
    proven = PROVE(self, lease, now, reason, details)
    if lease.ending is not None:
        lease.ending.reborn_at = None
    return proven


@_wrong("hello", 20, LeaseTable, "hello")
def a_hello_is_a_beat(self: LeaseTable, worker: str, now: float, beat: Heartbeat, arrival: float) -> Heard:
    """It says nothing of a former life."""
    return self.beat(worker, now, beat, arrival)


@_wrong("dead work", 0, LeaseTable, "learn")
def nothing_is_learnt(*_: object) -> None:
    """A replica knows of the epochs that it has granted itself, and of no others."""


@_wrong("living", 28, LeaseTable, "restore")
def restored_leases_have_a_tenth_of_their_ttl(
    self: LeaseTable, worker: str, now: float, ttl: float, epoch: int | None = None, incarnation: str | None = None
) -> None:
    """Whom a start restores is owed hardly anything."""
    RESTORE(self, worker, now, ttl / 10, epoch, incarnation)


@_wrong("dead work", 30, LeaseTable, "restore")
def restore_does_nothing(*_: object) -> None:
    """A service that starts knows of nobody."""


# Incarnations.


@_wrong("new life", 115, Claim, "holds")
def a_beginning_is_believed_at_the_first_beat(self: Claim, now: float, ttl: float) -> bool:
    """However late it was delivered."""
    return self.begun < math.inf and (self.rival_at is None or now - self.rival_at >= ttl)


@_wrong("conflict", 40, Claim, "holds")
def rivals_are_ignored(self: Claim, _now: float, _ttl: float) -> bool:
    """A new incarnation ends the former one that still beats."""
    return self.agreed


@_wrong("new life", 0, Claim, "heard")
def a_beginning_is_reckoned_from_the_arrival(self: Claim, now: float, when: Arrived, uptime: float | None) -> None:
    """And not from the echo before it."""
    CLAIM_HEARD(self, now, when._replace(not_before=when.arrival), uptime)


@_wrong("dead work", 0, Incarnations, "is_former")
def former_incarnations_renew(_self: Incarnations, _worker: str, _incarnation: str | None) -> bool:
    """Nobody is ever stale."""
    return False


_constant("two_beats_at_once_agree", "new life", 0, incarnations, "APART", 0.0)
_constant("any_two_beats_agree", "new life", 115, incarnations, "AGREED_WITHIN", 100.0)


@_wrong("dead work", 11, Incarnations, "claim")
def no_beginning_is_claimed(
    _self: Incarnations, _lease: Lease, beat: Heartbeat, now: float, when: Arrived
) -> tuple[Claim, bool]:
    """A restart without a hello goes unnoticed."""
    return Claim(beat.incarnation or "", when.not_before, now), False


# Greetings and grants.


@_wrong("hello", 5, Greetings, "run_once")
async def a_hello_is_answered_while_work_is_owed(self: Greetings) -> int:
    """Before what a former life left is back."""
    await self._look_back()
    for worker, waiting in list(self._waiting.items()):
        lease = self._book.get(worker)
        if lease is not None and lease.epoch is not None and lease.incarnation == waiting.incarnation:
            del self._waiting[worker]
            self._answer(waiting.reply, b'{"epoch": %d}' % lease.epoch)
    return 0


@_wrong("dead work", 16, Greetings, "_look_back")
async def nobody_looks_for_a_former_life(self: Greetings) -> None:
    """Of a name that the book does not know, nothing is asked."""
    for worker, arrival in list(self._book.arrivals.items()):
        self._book.arrived(worker, arrival.incarnation)


# The way out.


@_wrong("dead work", 0, Expiry, "_offer")
async def a_lapse_is_forgotten_when_postgres_is_away(self: Expiry, workers: Sequence[str], done: Any) -> None:
    """A verdict that was not given is taken for one."""
    try:
        await OFFER(self, workers, done)
    except DatabaseAwayError:
        for worker in workers:
            self._book.forget(worker)
        raise


@_wrong("in step", 0, Expiry, "_clear_doubts")
async def doubts_are_never_cleared(self: Expiry) -> None:
    """An answer that was lost is never asked for again."""
    self._doubts.clear()


@_wrong("dead work", 0, Expiry, "_take")
def what_is_over_stays_in_the_book(self: Expiry, verdict: Verdict, done: Any) -> None:
    """Only an epoch that ended by our own hand is over."""
    if verdict.outcome is not Outcome.OVER:
        TAKE(self, verdict, done)


@_wrong("new life", 19, expiry, "case_of")
def a_restart_takes_whatever_there_is(lease: Lease, ending: Ending, hearing: Hearing, loop_time: float) -> Case:
    """What the next life has touched, too."""
    return msgspec.structs.replace(case_of(lease, ending, hearing, loop_time), untouched_for=None)


@_wrong("new life", 0, expiry, "case_of")
def a_slow_transaction_reaches_into_the_next_life(
    lease: Lease, ending: Ending, hearing: Hearing, loop_time: float
) -> Case:
    """What passes until it begins is not reckoned with."""
    return msgspec.structs.replace(case_of(lease, ending, hearing, loop_time), measured_at=None)


@_wrong("dead work", 1, Finish, "run_once")
async def nothing_is_finished(_self: Finish) -> Finished:
    """What one transaction left is left."""
    return Finished()


# Storms.

_constant("storms_never_hold", "storm", 2, storms, "LEAST", 10**6)
_constant("only_who_has_lapsed_is_quiet", "storm", 2, storms, "QUIET_SHARE_OF_TTL", 0.0)


@_wrong("dead work", 35, Storms, "_pass")
def storms_hold_for_ever(self: Storms, *arguments: Any) -> list[Lease]:
    """max_hold is ignored."""
    with mock.patch.object(self, "_max_hold", math.inf):
        return PASS(self, *arguments)


@_wrong("living", 0, Storms, "restored")
def nobody_doubts_a_start(_self: Storms, _leases: int) -> None:
    """That nobody at all was heard since then says nothing."""


# The sweep.


@_wrong("dead work", 24, Sweep, "__init__")
def the_sweep_has_no_book(self: Sweep, **parts: Any) -> None:
    """It takes names that are heard."""
    SWEEP(self, **parts | {"book": LeaseTable(10.0)})


@_wrong("living", 0, Sweep, "_listened_for")
def the_sweep_does_not_listen(_self: Sweep) -> float:
    """It takes at once, and while deaf."""
    return math.inf


# The news.


@_wrong("commit without event", 46, Relay, "run_once")
async def the_relay_clears_what_was_not_acknowledged(self: Relay) -> Relayed:
    """What is said is said."""
    while pending := await self._store.outbox.pending(0, relay.BATCH):
        await self._store.outbox.clear([event.seq for event in pending])
        await self._publish([self._event(event) for event in pending])
    return Relayed()


@_wrong("event order", 41, relay, "in_commit_order")
def the_latest_news_first(events: Sequence[Pending]) -> list[list[Pending]]:
    """In the order of a stack."""
    return [list(reversed(events))]


@_wrong("event order", 0, relay, "in_commit_order")
def all_news_at_once(events: Sequence[Pending]) -> list[list[Pending]]:
    """Nobody waits for the acknowledgement of what was earlier."""
    return [list(events)]


# Replicas.


@_wrong("dead work", 0, Follow, "catch_up")
async def catching_up_does_nothing(_self: Follow) -> Learned:
    """A new leader knows what it has heard, and no more."""
    return Learned()


@_wrong("living", 0, Follow, "run_once")
async def followers_do_not_follow(_self: Follow) -> Learned:
    """The dead stay in their books."""
    return Learned()


@_wrong("term", 45, Postgres, "_check")
def a_term_is_never_over(_self: Postgres, _leader: object) -> bool:
    """Whoever led once acts for ever."""
    return True


_constant("a_deaf_leader_keeps_the_lead", "dead work", 125, leadership, "DEAF_LOOKS", 10**9)

HEARD, START, DEADLINE, CLAIM_HEARD = Hearing.heard, Hearing.start, Lines.deadline, Claim.heard
MARK, ENDED, PROVE, RESTORE = LeaseTable._mark, LeaseTable.ended, LeaseTable._prove, LeaseTable.restore
OFFER, TAKE, PASS, SWEEP = Expiry._offer, Expiry._take, Storms._pass, Sweep.__init__
