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
from liveness.bus import Event
from liveness.cases import case_of
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
from liveness.verdicts import Case
from tests.simulation.postgres import Epoch, Expiration, Postgres, Row

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


@_wrong("promise", 16, Hearing, "heard")
def hearing_counts_through_gaps(self: Hearing, token: bytes, loop_time: float) -> Echo:
    """max_gap is ignored."""
    with mock.patch.object(self, "_max_gap", math.inf):
        return HEARD(self, token, loop_time)


@_wrong("promise", 5, Hearing, "heard")
def hearing_moves_to_when_the_echo_was_heard(self: Hearing, token: bytes, loop_time: float) -> Echo:
    """What was accepted while the echo was under way may be on its way still."""
    echo = HEARD(self, token, loop_time)
    if echo is Echo.COUNTED:
        self.now += loop_time - self._proven_to
        self._proven_to = loop_time
    return echo


@_wrong("promise", 0, Hearing, "stamp")
def stamp_is_what_is_proven(self: Hearing, _loop_time: float) -> float:
    """A beat counts from the echo before it."""
    return self.now


@_wrong("living", 39, Hearing, "start")
def a_new_connection_is_no_gap(self: Hearing, loop_time: float) -> None:
    """What passed without a connection counts."""
    self.now += max(loop_time - self._proven_to, 0.0)
    START(self, loop_time)


@_wrong("dead work", 33, Hearing, "deaf")
def hearing_is_never_deaf(_self: Hearing, _loop_time: float) -> bool:
    """What was listened for before counts while nothing can be heard."""
    return False


# Deadlines.


@_wrong("promise", 0, Lines, "deadline")
def a_ttl_is_eighty_percent(self: Lines, lease: Lease) -> float:
    """A promise is kept for four fifths."""
    return DEADLINE(self, lease) - 0.2 * lease.line.ttl


_constant("no_limit_of_three_ttls", "dead work", 155, lines, "MOST_TTLS", math.inf)
_constant("limit_of_one_ttl", "living", 15, lines, "MOST_TTLS", 1)


# The book.


@_wrong("promise", 1, LeaseTable, "_revive")
def a_beat_does_not_revive(_self: LeaseTable, _lease: Lease, _now: float) -> None:
    """Who has lapsed stays lapsed, whatever is heard before the verdict."""


@_wrong("promise", 141, LeaseTable, "_go_on")
def who_goes_on_does_so_from_what_is_proven(self: LeaseTable, lease: Lease, now: float) -> None:
    """The next life counts from hearing time, though its beat was heard later."""
    lease.ending = None
    self.endings.pop(lease.worker, None)
    self.lines.append(lease, now)


@_wrong("dead work", 1, LeaseTable, "_mark")
def proof_is_undone_by_a_beat(
    self: LeaseTable, lease: Lease, reason: str, now: float, deadline: float, *, proof: bool, details: Any = None
) -> None:
    """A goodbye, or a restart, is taken for a lapse."""
    del proof
    MARK(self, lease, reason, now, deadline, proof=False, details=details)


@_wrong("promise", 58, LeaseTable, "ended")
def ended_forgets_who_was_reborn(self: LeaseTable, worker: str, epoch: int, now: float) -> Lease | None:
    """Whoever beat while the verdict was under way is out of the book."""
    lease = self.get(worker)
    if lease is not None and lease.ending is not None:
        lease.ending.reborn_at = None
    return ENDED(self, worker, epoch, now)


@_wrong("goodbye", 110, LeaseTable, "release")
def a_goodbye_ends_any_incarnation(
    self: LeaseTable, worker: str, _incarnation: str | None, now: float, reason: str = "released", details: Any = None
) -> bool:
    """Of whomever it speaks."""
    return self.end(worker, now, reason, details)


@_wrong("goodbye", 935, LeaseTable, "_prove")
def a_life_ends_with_what_came_after_it(
    self: LeaseTable, lease: Lease, now: float, reason: str, details: Any = None
) -> bool:
    """A lapse that proof overtakes forgets since when its successor is there."""
    proven = PROVE(self, lease, now, reason, details)
    if lease.ending is not None:
        lease.ending.reborn_at = None
    return proven


@_wrong("hello", 49, LeaseTable, "hello")
def a_hello_is_a_beat(self: LeaseTable, worker: str, now: float, beat: Heartbeat, arrival: float) -> Heard:
    """It says nothing of a former life."""
    return self.beat(worker, now, beat, arrival)


@_wrong("in step", 132, LeaseTable, "learn")
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


@_wrong("new life", 162, Claim, "holds")
def a_beginning_is_believed_at_the_first_beat(self: Claim, now: float, ttl: float) -> bool:
    """However late it was delivered."""
    return self.begun < math.inf and (self.rival_at is None or now - self.rival_at >= ttl)


@_wrong("conflict", 114, Claim, "holds")
def rivals_are_ignored(self: Claim, _now: float, _ttl: float) -> bool:
    """A new incarnation ends the former one that still beats."""
    return self.agreed


_constant("any_two_beats_agree", "new life", 162, incarnations, "AGREED_WITHIN", 100.0)


@_wrong("dead work", 2, Incarnations, "claim")
def no_beginning_is_claimed(
    _self: Incarnations, _lease: Lease, beat: Heartbeat, now: float, when: Arrived
) -> tuple[Claim, bool]:
    """A restart without a hello goes unnoticed."""
    return Claim(beat.incarnation or "", when.not_before, now), False


# Greetings and grants.


@_wrong("hello", 2, Greetings, "run_once")
async def a_hello_is_answered_while_work_is_owed(self: Greetings) -> int:
    """Before what a former life left is back."""
    await self._look_back()
    for worker, waiting in list(self._waiting.items()):
        lease = self._book.get(worker)
        if lease is not None and lease.epoch is not None and lease.incarnation == waiting.incarnation:
            del self._waiting[worker]
            self._answer(waiting.reply, b'{"epoch": %d}' % lease.epoch)
    return 0


@_wrong("dead work", 2, Greetings, "_look_back")
async def nobody_looks_for_a_former_life(self: Greetings) -> None:
    """Of a name that the book does not know, nothing is asked."""
    for worker, arrival in list(self._book.arrivals.items()):
        self._book.arrived(worker, arrival.incarnation)


# The way out.


@_wrong("in step", 62, Expiry, "_clear_doubts")
async def doubts_are_never_cleared(self: Expiry) -> None:
    """An answer that was lost is never asked for again."""
    self._doubts.clear()


@_wrong("new life", 2, expiry, "case_of")
def a_restart_takes_whatever_there_is(lease: Lease, ending: Ending, hearing: Hearing, loop_time: float) -> Case:
    """What the next life has touched, too."""
    return msgspec.structs.replace(case_of(lease, ending, hearing, loop_time), untouched_for=None)


@_wrong("dead work", 1, Finish, "run_once")
async def nothing_is_finished(_self: Finish) -> Finished:
    """What one transaction left is left."""
    return Finished()


# Storms.

_constant("storms_never_hold", "storm", 440, storms, "LEAST", 10**6)
_constant("only_who_has_lapsed_is_quiet", "storm", 440, storms, "QUIET_SHARE_OF_TTL", 0.0)


# The sweep.


@_wrong("dead work", 313, Sweep, "__init__")
def the_sweep_has_no_book(self: Sweep, **parts: Any) -> None:
    """It takes names that are heard."""
    SWEEP(self, **parts | {"book": LeaseTable(10.0)})


# The news.


@_wrong("commit without event", 1, Relay, "run_once")
async def the_relay_clears_what_was_not_acknowledged(self: Relay) -> Relayed:
    """What is said is said."""
    while pending := await self._store.outbox.pending(0, relay.BATCH):
        await self._store.outbox.clear([event.seq for event in pending])
        await self._publish([self._event(event) for event in pending])
    return Relayed()


@_wrong("event without commit", 0, Relay, "_event")
def the_relay_makes_up_an_id(self: Relay, pending: Pending) -> Event:
    """An event that no transaction wrote."""
    return EVENT(self, msgspec.structs.replace(pending, id=f"9{pending.id}"))


@_wrong("event order", 12, relay, "in_commit_order")
def the_latest_news_first(events: Sequence[Pending]) -> list[list[Pending]]:
    """In the order of a stack."""
    return [list(reversed(events))]


# Replicas.


@_wrong("in step", 111, Follow, "catch_up")
async def catching_up_does_nothing(_self: Follow) -> Learned:
    """A new leader knows what it has heard, and no more."""
    return Learned()


@_wrong("epoch", 1, Postgres, "end")
def an_epoch_stays_open(self: Postgres, epoch: Epoch, *arguments: Any) -> Expiration:
    """The statement does not ask whether it is over already."""
    expiration = END(self, epoch, *arguments)
    self.open[epoch.worker] = epoch
    return expiration


@_wrong("finisher", 0, Postgres, "put_back")
def a_row_that_is_taken_is_not_changed(self: Postgres, row: Row, *arguments: Any) -> None:
    """It can be taken again, and be finished by whom it was taken from."""
    claim, owner = row.claim, row.owner
    PUT_BACK(self, row, *arguments)
    row.status, row.owner, row.claim = "RUNNING", owner, claim


@_wrong("term", 3, Postgres, "holds")
def a_term_is_never_over(_self: Postgres, _leader: object) -> bool:
    """Whoever led once acts for ever."""
    return True


_constant("a_deaf_leader_keeps_the_lead", "dead work", 33, leadership, "DEAF_LOOKS", 10**9)

HEARD, START, DEADLINE, CLAIM_HEARD = Hearing.heard, Hearing.start, Lines.deadline, Claim.heard
MARK, ENDED, PROVE, RESTORE = LeaseTable._mark, LeaseTable.ended, LeaseTable._prove, LeaseTable.restore
OFFER, TAKE, PASS, SWEEP = Expiry._offer, Expiry._take, Storms._pass, Sweep.__init__
EVENT, END, PUT_BACK = Relay._event, Postgres.end, Postgres.put_back
