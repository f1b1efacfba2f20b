"""Wrong versions of what decides without asking anybody: hearing time, deadlines, the book, incarnations, storms."""

import math
from collections.abc import Iterable
from typing import Any
from unittest import mock

import msgspec

from liveness import beginnings, lines, storms
from liveness.beginnings import Claim
from liveness.formers import Formers
from liveness.group import Storm
from liveness.hearing import Echo, Hearing
from liveness.incarnations import Incarnations, Whose
from liveness.lease import RELEASED, Arrived, Ending, Heard, Lease, Proof
from liveness.leases import LeaseTable
from liveness.lines import Lines
from liveness.messages import Heartbeat
from liveness.storms import Storms
from tests.simulation.mutant import Family

MUTANTS = Family()

# Hearing time.


@MUTANTS.wrong("promise", 133, Hearing, "heard")
def hearing_counts_through_gaps(self: Hearing, token: bytes, loop_time: float) -> Echo:
    """max_gap is ignored."""
    with mock.patch.object(self, "_max_gap", math.inf):
        return HEARD(self, token, loop_time)


@MUTANTS.wrong("promise", 14, Hearing, "heard")
def hearing_moves_to_when_the_echo_was_heard(self: Hearing, token: bytes, loop_time: float) -> Echo:
    """What was accepted while the echo was under way may be on its way still."""
    echo = HEARD(self, token, loop_time)
    if echo is Echo.COUNTED:
        self.now += loop_time - self._proven_to
        self._proven_to = loop_time
    return echo


@MUTANTS.wrong("promise", 0, Hearing, "stamp")
def stamp_is_what_is_proven(self: Hearing, _loop_time: float) -> float:
    """A beat counts from the echo before it."""
    return self.now


@MUTANTS.wrong("living", 23, Hearing, "start")
def a_new_connection_is_no_gap(self: Hearing, loop_time: float) -> None:
    """What passed without a connection counts."""
    self.now += max(loop_time - self._proven_to, 0.0)
    START(self, loop_time)


@MUTANTS.wrong("dead work", 28, Hearing, "deaf")
def hearing_is_never_deaf(_self: Hearing, _loop_time: float) -> bool:
    """What was listened for before counts while nothing can be heard."""
    return False


@MUTANTS.wrong("living", 808, Hearing, "heard")
def hearing_goes_on_with_any_echo(self: Hearing, token: bytes, loop_time: float) -> Echo:
    """One that was sent before the gap was noticed proves the gap, too."""
    sent = self._sent.get(token, loop_time)
    echo = HEARD(self, token, loop_time)
    if echo is Echo.GAP:
        self.now += max(loop_time - sent, 0.0)
    return echo


@MUTANTS.wrong("prompt", 134, Hearing, "stamp")
def a_stamp_has_no_limit(self: Hearing, loop_time: float) -> float:
    """What did not count is given to whoever is heard at its end."""
    self._last_stamp = max(self._last_stamp, self.now + loop_time - self._proven_to)
    return self._last_stamp


# Deadlines.


@MUTANTS.wrong("living", 11, Lines, "extend")
def extend_does_nothing(_self: Lines, _now: float) -> None:
    """Where beats may have been lost, nobody is owed a ttl."""


@MUTANTS.wrong("living", 246, Lines, "grace")
def grace_does_nothing(_self: Lines, _until: float) -> None:
    """Where beats may be late, nobody is owed anything."""


@MUTANTS.wrong("promise", 0, Lines, "deadline")
def a_ttl_is_eighty_percent(self: Lines, lease: Lease) -> float:
    """A promise is kept for four fifths."""
    return DEADLINE(self, lease) - 0.2 * lease.line.ttl


MUTANTS.constant("no_limit_of_three_ttls", "dead work", 82, lines, "MOST_TTLS", math.inf)
MUTANTS.constant("limit_of_one_ttl", "living", 11, lines, "MOST_TTLS", 1)


# The book.


@MUTANTS.wrong("promise", 1, LeaseTable, "_revive")
def a_beat_does_not_revive(_self: LeaseTable, _lease: Lease, _now: float) -> None:
    """Who has lapsed stays lapsed, whatever is heard before the verdict."""


@MUTANTS.wrong("promise", 44, LeaseTable, "_go_on")
def who_goes_on_does_so_from_what_is_proven(self: LeaseTable, lease: Lease, now: float) -> None:
    """The next life counts from hearing time, though its beat was heard later."""
    lease.ending = None
    self.endings.pop(lease.worker, None)
    self.lines.append(lease, now)


@MUTANTS.wrong("dead work", 0, LeaseTable, "_mark")
def proof_is_undone_by_a_beat(self: LeaseTable, lease: Lease, now: float, deadline: float, proof: Proof | None) -> None:
    """A goodbye, or a restart, is taken for a lapse."""
    MARK(self, lease, now, deadline, proof)
    if lease.ending is not None:
        lease.ending.proof = False


@MUTANTS.wrong("promise", 41, LeaseTable, "ended")
def ended_forgets_who_was_reborn(
    self: LeaseTable, worker: str, epoch: int, now: float, *, elsewhere: bool = False
) -> Lease | None:
    """Whoever beat while the verdict was under way is out of the book."""
    lease = self.get(worker)
    if lease is not None and lease.ending is not None:
        lease.ending.reborn_at = None
    return ENDED(self, worker, epoch, now, elsewhere=elsewhere)


@MUTANTS.wrong("goodbye", 32, LeaseTable, "release")
def a_goodbye_ends_any_incarnation(
    self: LeaseTable, worker: str, _incarnation: str | None, now: float, proof: Proof = RELEASED
) -> bool:
    """Of whomever it speaks."""
    return self.end(worker, now, proof)


@MUTANTS.wrong("goodbye", 41, Lease, "has_begun_since")
def a_late_goodbye_counts(_self: Lease, _uptime: float | None) -> bool:
    """Of its own incarnation, whatever that has begun since."""
    return False


@MUTANTS.wrong("goodbye", 57, Lease, "note_hello")
def the_first_hello_is_remembered(self: Lease, uptime: float | None, sent: float) -> bool:
    """And not the newest."""
    self.note_begun(uptime, sent)
    if self.hello_uptime is None:
        self.hello_uptime = uptime
    return False


@MUTANTS.wrong("goodbye", 1083734, Ending, "is_before")
def a_goodbye_ends_whatever_is_learnt(_self: Ending, _incarnation: str | None, _hello_uptime: float | None) -> bool:
    """Who takes over ends the life behind the one whose end it has heard, if Postgres knows that one."""
    return False


@MUTANTS.wrong("goodbye", 132598, Claim, "is_younger_than")
def a_hello_ends_whoever_is_heard_beside_it(_self: Claim, _begun: float, _ttl: float) -> bool:
    """Also who began long after it. Of one that bears the name, that is too rare here: `tests/unit/test_hello.py`."""
    return False


@MUTANTS.wrong("goodbye", 196138, Lease, "bear")
def who_is_reinstated_has_said_no_hello(self: Lease, incarnation: str | None, _ended: Ending | None = None) -> None:
    """What was known of it was forgotten when it was thought over."""
    if incarnation != self.incarnation:
        self.incarnation, self.hello_uptime, self.begun = incarnation, None, None


@MUTANTS.wrong("goodbye", 1054, LeaseTable, "_prove")
def a_life_ends_with_what_came_after_it(self: LeaseTable, lease: Lease, now: float, proof: Proof) -> bool:
    """A lapse that proof overtakes forgets since when its successor is there."""
    proven = PROVE(self, lease, now, proof)
    if lease.ending is not None:
        lease.ending.reborn_at = None
    return proven


@MUTANTS.wrong("hello", 146, LeaseTable, "hello")
def a_hello_is_a_beat(
    self: LeaseTable, worker: str, now: float, beat: Heartbeat, arrival: float, _waited: float = 0.0
) -> Heard:
    """It says nothing of a former life."""
    return self.beat(worker, now, beat, arrival)


@MUTANTS.wrong("in step", 25, LeaseTable, "learn")
def nothing_is_learnt(*_: object) -> None:
    """A replica knows of the epochs that it has granted itself, and of no others."""


@MUTANTS.wrong("living", 97, LeaseTable, "restore")
def restored_leases_have_a_tenth_of_their_ttl(
    self: LeaseTable, worker: str, now: float, ttl: float, epoch: int | None = None, incarnation: str | None = None
) -> Lease:
    """Whom a start restores is owed hardly anything."""
    return RESTORE(self, worker, now, ttl / 10, epoch, incarnation)


@MUTANTS.wrong("dead work", 115, LeaseTable, "restore")
def restore_does_nothing(
    self: LeaseTable, worker: str, now: float, ttl: float, epoch: int | None = None, incarnation: str | None = None
) -> Lease:
    """A service that starts knows of nobody."""
    known = self.get(worker)
    lease = RESTORE(self, worker, now, ttl, epoch, incarnation)
    if known is None:
        self.forget(worker)
    return lease


# Incarnations.


@MUTANTS.wrong("promise", 325468, Formers, "died")
def the_dead_are_forgotten_with_their_name(_self: Formers, _worker: str, _incarnation: str | None) -> None:
    """A hello that comes late begins the life of a dead process again, and ends that of who has the name since."""


@MUTANTS.wrong("promise", 822777, Formers, "is_over")
def who_has_left_does_not_begin_again(self: Formers, worker: str, incarnation: str, _uptime: float | None) -> bool:
    """Where its goodbye was heard before it was believed to be there."""
    return self.is_former(worker, incarnation)


@MUTANTS.wrong("goodbye", 165619, Incarnations, "given_back")
def who_adopted_a_name_takes_it_along(_self: Incarnations, _lease: Lease, _now: float) -> bool:
    """Its goodbye ends what the former one holds, too, which may live."""
    return False


@MUTANTS.wrong("new life", 154, Claim, "holds")
def a_beginning_is_believed_at_the_first_beat(self: Claim, now: float, ttl: float) -> bool:
    """However late it was delivered."""
    return self.begun < math.inf and (self.rival_at is None or now - self.rival_at >= ttl)


@MUTANTS.wrong("conflict", 25, Claim, "holds")
def rivals_are_ignored(self: Claim, _now: float, _ttl: float) -> bool:
    """A new incarnation ends the former one that still beats."""
    return self.agreed


MUTANTS.constant("any_two_beats_agree", "new life", 213, beginnings, "AGREED_WITHIN", 100.0)


@MUTANTS.wrong("dead work", 2, Incarnations, "claim")
def no_beginning_is_claimed(
    _self: Incarnations, _lease: Lease, beat: Heartbeat, now: float, when: Arrived
) -> tuple[Claim, bool]:
    """A restart without a hello goes unnoticed."""
    return Claim(beat.incarnation or "", when.not_before, now), False


MUTANTS.constant("two_beats_at_once_agree", "new life", 158, beginnings, "APART", 0.0)


@MUTANTS.wrong("new life", 141, Claim, "heard")
def a_beginning_is_reckoned_from_the_arrival(self: Claim, now: float, when: Arrived, uptime: float | None) -> None:
    """And not from the echo before it."""
    CLAIM_HEARD(self, now, msgspec.structs.replace(when, not_before=when.arrival), uptime)


@MUTANTS.wrong("dead work", 116, Incarnations, "is_former")
def former_incarnations_renew(_self: Incarnations, _worker: str, _incarnation: str | None) -> bool:
    """Nobody is ever stale."""
    return False


@MUTANTS.wrong("no uptime", 31, Incarnations, "judge")
def whoever_is_new_replaces(
    self: Incarnations, lease: Lease, beat: Heartbeat, *, successor: bool | None, now: float, when: Arrived
) -> Whose:
    """One that does not say since when, too."""
    whose = JUDGE(self, lease, beat, successor=successor, now=now, when=when)
    if whose is not Whose.ADOPTED:
        return whose
    self.claims[lease.worker] = Claim(beat.incarnation or "", when.not_before, now, surely=when.arrival, agreed=True)
    return Whose.NEW


@MUTANTS.wrong("dead work", 58, Claim, "holds")
def a_conflict_is_never_over(self: Claim, _proven: float, _ttl: float) -> bool:
    """However long one of the two has been silent."""
    return self.agreed and self.rival_at is None


@MUTANTS.wrong("conflict", 42, LeaseTable, "reinstate")
def a_dispute_is_ignored(self: LeaseTable, worker: str, _now: float) -> None:
    """Who is heard after a restart that beats told of, and before the verdict, is over all the same."""
    lease = self.get(worker)
    if lease is not None and lease.ending is not None:
        lease.ending.disputed = False


@MUTANTS.wrong("goodbye", 1054, Incarnations, "successor")
def nobody_is_heard_beside(_self: Incarnations, _lease: Lease, _now: float) -> None:
    """A goodbye takes what the next process has touched."""


@MUTANTS.wrong("dead work", 126, Incarnations, "restore")
def former_incarnations_are_not_restored(_self: Incarnations, formers: Iterable[object]) -> None:
    """After a start they are as good as any."""
    list(formers)


# Storms.

MUTANTS.constant("storms_never_hold", "storm", 54, storms, "LEAST", 10**6)
MUTANTS.constant("only_who_has_lapsed_is_quiet", "storm", 133, storms, "QUIET_SHARE_OF_TTL", 0.0)


@MUTANTS.wrong("dead work", 7, Storms, "_pass")
def storms_hold_for_ever(self: Storms, *arguments: Any) -> list[Lease]:
    """max_hold is ignored."""
    with mock.patch.object(self, "_max_hold", math.inf):
        return PASS(self, *arguments)


@MUTANTS.wrong("storm", 92, Storms, "restored")
def nobody_doubts_a_start(_self: Storms, _leases: int) -> None:
    """That nobody at all was heard since then says nothing."""


@MUTANTS.wrong("storm", 133, Storms, "_is_ready")
def a_sign_ends_a_storm_at_once(self: Storms, lease: Lease, storm: Storm, now: float) -> bool:
    """Nobody has time to be heard after it."""
    return storm.sign_at is not None or READY(self, lease, storm, now)


@MUTANTS.wrong("prompt", 53, storms, "_sign")
def nothing_is_a_sign(_group: object, _now: float) -> None:
    """Whoever is heard: a hold lasts to its end."""


MUTANTS.constant("a_storm_lets_all_go_at_once", "pass", 7, storms, "PERCENT_OF_A_PASS", 100)

HEARD, START, STAMP, DEADLINE = Hearing.heard, Hearing.start, Hearing.stamp, Lines.deadline
MARK, ENDED, PROVE, RESTORE = LeaseTable._mark, LeaseTable.ended, LeaseTable._prove, LeaseTable.restore
CLAIM_HEARD, JUDGE = Claim.heard, Incarnations.judge
PASS, READY = Storms._pass, Storms._is_ready
