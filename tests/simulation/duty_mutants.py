"""Wrong versions of the duties: what is asked of Postgres and NATS, and what is made of the answers."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from liveness import expiry, leadership, relay
from liveness.cases import case_of
from liveness.errors import DatabaseAwayError
from liveness.expiry import Expiry
from liveness.finish import Finish, Finished
from liveness.follow import Follow, Learned
from liveness.grants import Granted, Grants
from liveness.greetings import Greetings
from liveness.lease import Ending, Lease
from liveness.leases import LeaseTable
from liveness.publishing import Event
from liveness.relay import Relay, Relayed
from liveness.store import Found, Life, Pending
from liveness.storms import Storms
from liveness.sweep import Sweep
from liveness.verdicts import Case
from tests.simulation.mutant import Family
from tests.simulation.postgres import Epoch, Expiration, Postgres, Row

MUTANTS = Family()

# Greetings and grants.


@MUTANTS.wrong("hello", 28, Greetings, "run_once")
async def a_hello_is_answered_while_work_is_owed(self: Greetings) -> int:
    """Before what a former life left is back."""
    await self._look_back()
    for worker, waiting in list(self._waiting.items()):
        lease = self._book.get(worker)
        if lease is not None and lease.epoch is not None and lease.incarnation == waiting.incarnation:
            del self._waiting[worker]
            self._answer(waiting.reply, b'{"epoch": %d}' % lease.epoch)
    return 0


@MUTANTS.wrong("dead work", 3, Greetings, "_look_back")
async def nobody_looks_for_a_former_life(self: Greetings) -> None:
    """Of a name that the book does not know, nothing is asked."""
    for worker, arrival in list(self._book.arrivals.items()):
        self._book.arrived(worker, arrival.incarnation)


@MUTANTS.wrong("dead work", 0, Grants, "run_once")
async def nothing_is_granted(_self: Grants) -> Granted:
    """No life has an epoch."""
    return Granted()


@MUTANTS.wrong("dead work", 3, Grants, "_life")
def an_arrival_is_named_at_once(_self: Grants, lease: Lease) -> Life:
    """Who comes after us does not look for a former life any more."""
    incarnation = lease.incarnation if lease.ending is None else lease.ending.incarnation
    return Life(lease.worker, lease.epoch, incarnation, lease.stated)


# The way out.


@MUTANTS.wrong("prompt", 176, Expiry, "_offer")
async def a_lapse_is_forgotten_when_postgres_is_away(self: Expiry, workers: Sequence[str], done: Any) -> None:
    """A verdict that was not given is taken for one."""
    try:
        await OFFER(self, workers, done)
    except DatabaseAwayError:
        for worker in workers:
            self._book.forget(worker)
        raise


@MUTANTS.wrong("new life", 99, expiry, "case_of")
def a_slow_transaction_reaches_into_the_next_life(*life: Any) -> Case:
    """What passes until it begins is not reckoned with."""
    return msgspec.structs.replace(case_of(*life), measured_at=None)


@MUTANTS.wrong("living", 826453, Expiry, "_is_owed")
def what_has_lapsed_is_taken_by_the_deaf(_self: Expiry, _lease: Lease, _ending: Ending, _clock: float) -> bool:
    """Its verdict had to wait, and nothing of what it has said since can be heard."""
    return False


@MUTANTS.wrong("memory", 4, expiry, "case_of")
def a_lapse_spares_what_was_touched_lately(lease: Lease, ending: Ending, *more: Any) -> Case:
    """As if it could be somebody else's: it is left to the sweep."""
    case = case_of(lease, ending, *more)
    return case if ending.proof else msgspec.structs.replace(case, untouched_for=2 * ending.ttl)


@MUTANTS.wrong("in step", 293, Expiry, "_clear_doubts")
async def doubts_are_never_cleared(self: Expiry) -> None:
    """An answer that was lost is never asked for again."""
    self._doubts.clear()


@MUTANTS.wrong("new life", 3, expiry, "case_of")
def a_restart_takes_whatever_there_is(*life: Any) -> Case:
    """What the next life has touched, too."""
    return msgspec.structs.replace(case_of(*life), untouched_for=None)


@MUTANTS.wrong("offer", 220, expiry, "case_of")
def an_end_takes_whatever_there_is(lease: Lease, ending: Ending, *more: Any) -> Case:
    """Also what was claimed while its transaction waited."""
    case = case_of(lease, ending, *more)
    return case if ending.reborn_at is not None else msgspec.structs.replace(case, untouched_for=None)


@MUTANTS.wrong("dead work", 1, Finish, "run_once")
async def nothing_is_finished(_self: Finish) -> Finished:
    """What one transaction left is left."""
    return Finished()


# The sweep.


@MUTANTS.wrong("sweep", 315, Sweep, "listened_for")
def the_sweep_does_not_listen(_self: Sweep) -> float:
    """It takes at once, and while deaf."""
    return math.inf


@MUTANTS.wrong("sweep", 315, Sweep, "listened_for")
def the_sweep_listened_before_its_connection(self: Sweep) -> float:
    """What was heard by a former connection counts."""
    return 0.0 if self._hearing.deaf(self._clock()) else self._hearing.now


@MUTANTS.wrong("dead work", 1046, Sweep, "__init__")
def the_sweep_has_no_book(self: Sweep, **parts: Any) -> None:
    """It takes names that are heard."""
    SWEEP(self, **parts | {"book": LeaseTable(10.0)})


@MUTANTS.wrong("sweep", 124, Sweep, "__init__")
def the_sweep_goes_on_in_a_storm(self: Sweep, **parts: Any) -> None:
    """It does not know of any."""
    SWEEP(self, **parts | {"storms": Storms(max_hold=60.0, shuffle=lambda _: None)})


@MUTANTS.wrong("fence", 430612, Sweep, "_stale_case")
def the_sweep_takes_what_it_has_yet_to_hear_of(self: Sweep, found: Found, _looked_at: float, *, crash: bool) -> Case:
    """Of a process that began a moment ago, too."""
    return STALE_CASE(self, found, self._clock(), crash=crash)


# The news.


@MUTANTS.wrong("commit without event", 3, Relay, "run_once")
async def the_relay_clears_what_was_not_acknowledged(self: Relay) -> Relayed:
    """What is said is said."""
    while pending := await self._store.outbox.pending(0, relay.BATCH):
        await self._store.outbox.clear([event.seq for event in pending])
        await self._publish([self._event(event) for event in pending])
    return Relayed()


@MUTANTS.wrong("event without commit", 0, Relay, "_event")
def the_relay_makes_up_an_id(self: Relay, pending: Pending) -> Event:
    """An event that no transaction wrote."""
    return EVENT(self, msgspec.structs.replace(pending, id=f"9{pending.id}"))


@MUTANTS.wrong("event order", 22, relay, "in_commit_order")
def the_latest_news_first(events: Sequence[Pending]) -> list[list[Pending]]:
    """In the order of a stack."""
    return [list(reversed(events))]


@MUTANTS.wrong("event order", 40, relay, "in_commit_order")
def all_news_at_once(events: Sequence[Pending]) -> list[list[Pending]]:
    """Nobody waits for the acknowledgement of what was earlier."""
    return [list(events)]


# Replicas.


@MUTANTS.wrong("in step", 13, Follow, "run_once")
async def followers_do_not_follow(_self: Follow) -> Learned:
    """The dead stay in their books."""
    return Learned()


@MUTANTS.wrong("in step", 10, Follow, "_turn")
def followers_ask_of_the_ill_only(_self: Follow) -> list[str]:
    """Who was ended and granted anew between two looks stays under the former epoch."""
    return []


@MUTANTS.wrong("in step", 30, Follow, "catch_up")
async def catching_up_does_nothing(_self: Follow) -> Learned:
    """A new leader knows what it has heard, and no more."""
    return Learned()


@MUTANTS.wrong("epoch", 0, Postgres, "end")
def an_epoch_stays_open(self: Postgres, epoch: Epoch, *arguments: Any) -> Expiration:
    """The statement does not ask whether it is over already."""
    expiration = END(self, epoch, *arguments)
    self.open[epoch.worker] = epoch
    return expiration


@MUTANTS.wrong("finisher", 0, Postgres, "put_back")
def a_row_that_is_taken_is_not_changed(self: Postgres, row: Row, *arguments: Any) -> None:
    """It can be taken again, and be finished by whom it was taken from."""
    claim, owner = row.claim, row.owner
    PUT_BACK(self, row, *arguments)
    row.status, row.owner, row.claim = "RUNNING", owner, claim


@MUTANTS.wrong("term", 4, Postgres, "holds")
def a_term_is_never_over(_self: Postgres, _leader: object) -> bool:
    """Whoever led once acts for ever."""
    return True


MUTANTS.constant("a_deaf_leader_keeps_the_lead", "dead work", 28, leadership, "DEAF_LOOKS", 10**9)

OFFER, SWEEP, STALE_CASE, EVENT = Expiry._offer, Sweep.__init__, Sweep._stale_case, Relay._event
END, PUT_BACK = Postgres.end, Postgres.put_back
