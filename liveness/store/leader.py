"""The leader: of all replicas, the one that acts. It is the holder of the one row of `liveness.leader`.

A lease in the database would be worth nothing by itself: whoever holds it may stand still for an hour between looking
and acting. So no transaction of ours acts on a belief: each first locks the row of its own term (FOR KEY SHARE), and
the next term cannot begin (an update of the key) before it has ended. A leader that stood still finds its term gone. It
is all row locks and no session state, so a pooler in transaction mode changes nothing.

Where the workers are divided into shares, each has its leader, and its row in `liveness.share_leader`. Leaders of one
division lead beside each other. Those of another, and who owns everybody, wait until all of them have gone, and what
they had under way: Postgres sees to it (`schemas/postgres/liveness/0005_shares.sql`), and ends their terms as a
takeover does.
"""

import contextlib
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import msgspec
import structlog

from liveness.errors import DatabaseAwayError, DatabaseRefusedError, NotLeaderError
from liveness.share import Share
from liveness.store.began import ASKED_MOST, Began
from liveness.store.database import IDLE_SECONDS, Connection, Database
from liveness.store.statements import leader_parts, leader_statement, statement_text

log = structlog.get_logger("liveness.leader")

# So many tries in a row that found a row held are said aloud. For the leader's own, each takes a lock_timeout, and
# whoever stands still is ended within two; a patient statement of a leader that was killed may take many more. For one
# of those who divide the workers otherwise, each takes no longer than a look; but what still goes on there has done so
# for long, since they were not seen for 10 s, or left and finished first what they could.
TRIES_UNSAID = 5
# In what Postgres says of a lock: the statement of a trigger that wanted it.
_WANTED = re.compile(r"liveness\.(?:share_)?leader\b")


class Seen(msgspec.Struct, frozen=True):
    """Who leads. `age`: seconds since that was last renewed; infinite if nobody leads, negative by a wrong clock."""

    term: int
    holder: str | None
    age: float


class Leader:
    """This process's part in it. `holder` names the process (host:pid).

    One that only observes (`acts` is False) gives way to one that acts. `share` is that which is led, None
    for everybody. `term` is the one under which this process may act, as far as it knows; None when it does not lead.
    """

    def __init__(self, database: Database, holder: str, *, acts: bool = True, share: Share | None = None) -> None:
        self._database = database
        self._acts = acts
        self._share = share
        self._clock: Callable[[], float] = time.monotonic
        self.holder = holder if acts else f"observing {holder}"
        self.term: int | None = None
        # How many tries to take the lead, one after the other, found a row held; and of which table the last one did.
        self._kept_out = 0
        self._held = ""
        # Who led when we last tried to, where the workers are divided otherwise; and whether anybody did since our
        # last term.
        self._others: str | None = None
        self._others_led = False
        # Whether the term that was taken last came after theirs.
        self.after_others = False
        # Called with what Postgres' clock says (seconds), whenever it is seen.
        self.on_seen: Callable[[float], None] = lambda _: None

    @property
    def trouble(self) -> str | None:
        """Why nobody leads, when it is for a cause that may last; else None."""
        if self._others is not None:
            return f"leadership: {self._others} leads, for whom the workers are divided otherwise: stop it"
        if self._kept_out < TRIES_UNSAID:
            return None
        return f"leadership: nobody leads, and another session holds a row of {self._held} (pg_locks shows which)"

    async def take(self, timeout: float) -> bool:  # noqa: ASYNC109 - an age by the database's clock, not a wait
        """Begin the next term if the current one was not renewed for `timeout` seconds; return whether it is ours.

        Waits, at most lock_timeout and IDLE_SECONDS, for what is under way in the current term, and not at all for what
        is where the workers are divided otherwise: it is not ours then. Raises DatabaseAwayError: try again (a term
        that began without our learning of it is nobody's, and runs out).
        """
        try:
            async with self._database.transaction(reserved=True) as connection:
                took = await connection.fetchrow(self._text("leader_take"), self.holder, timeout, self._acts)
                if took is not None and not took["there"] and self._share is not None:
                    # A share's row is made by whoever tries to lead it first.
                    await connection.execute(statement_text("leader_make"), str(self._share), self._share.count)
                    took = await connection.fetchrow(self._text("leader_take"), self.holder, timeout, self._acts)
        except DatabaseAwayError as error:
            if isinstance(error.__cause__, asyncpg.LockNotAvailableError):
                # Somebody acts all the time, or another one is taking over; or who acts stands still in a statement.
                await self._end_sessions()
                await self.look()
                self._note_held(error.__cause__)
                return False
            raise
        self._kept_out = 0
        if took is not None:
            self.on_seen(took["now"])
        if took is None or took["term"] is None:
            self._note(None if took is None else took["others"])
            return False
        self.after_others, self._others_led, self._others = self._others_led, False, None
        self.term = took["term"]
        return True

    def _note(self, others: str | None) -> None:
        if others is not None and others != self._others:
            log.warning("others_lead", holder=others, advice="stop all who divide the workers otherwise")
        self._others = others
        self._others_led = self._others_led or others is not None

    def _note_held(self, error: asyncpg.LockNotAvailableError) -> None:
        wanted = _WANTED.search(error.context or "")
        self._held = wanted[0] if wanted else leader_parts(self._share)["leader"]
        self._kept_out += 1
        if self._kept_out == TRIES_UNSAID:
            log.warning("lead_kept_out", advice=f"pg_locks shows who holds {self._held}: end what is not at work")

    def _text(self, name: str) -> str:
        return leader_statement(name, self._share)

    async def _end_sessions(self) -> None:
        try:
            async with self._database.transaction(reserved=True) as connection:
                ended = await connection.fetchval(self._text("leader_end_sessions"), IDLE_SECONDS, self._acts)
        except DatabaseRefusedError as error:
            # A database whose owner keeps that to himself: the lead has to wait, and nothing else.
            log.warning("sessions_not_ended", cause=str(error), advice="grant EXECUTE on pg_terminate_backend")
            return
        if ended:
            log.warning("sessions_ended", sessions=ended, cause="they acted under the former term and stood still")

    async def renew(self) -> bool:
        """Say that this process leads on; return False when another term has begun, or none of ours had.

        Raises DatabaseAwayError: whether we still lead is not known then, and acting will tell.
        """
        term = self.term
        if term is None:
            return False
        async with self._database.transaction(reserved=True) as connection:
            seen_at: float | None = await connection.fetchval(self._text("leader_renew"), term, self.holder)
        if seen_at is None:
            self._lost(term)
            return False
        self.on_seen(seen_at)
        return True

    async def look(self) -> None:
        """See Postgres' clock now, whoever leads. Raises DatabaseAwayError."""
        async with self._database.transaction(reserved=True) as connection:
            self.on_seen(await connection.fetchval(statement_text("server_time")))

    async def release(self) -> None:
        """Stop leading, so that the next one need not wait. What is under way is not broken off.

        Raises DatabaseAwayError: we lead no more, but the next one has to wait for the timeout.
        """
        term, self.term = self.term, None
        if term is not None:
            async with self._database.transaction(reserved=True) as connection:
                await connection.execute(self._text("leader_release"), term, self.holder)

    async def seen(self) -> Seen:
        """Return who leads, as Postgres has it."""
        async with self._database.transaction(reserved=True) as connection:
            row = await connection.fetchrow(self._text("leader_seen"))
        if row is None and self._share is not None:
            return Seen(0, None, math.inf)
        if row is None:
            raise DatabaseAwayError("liveness.leader has no row: restore it, or drop the schema and migrate again")
        return Seen(row["term"], row["holder"], math.inf if row["age"] is None else row["age"])

    @contextlib.asynccontextmanager
    async def transaction(self, *, patient: bool = False) -> AsyncIterator[Connection]:
        """A transaction that may act, and during which no other term begins; otherwise as that of the database.

        Raises NotLeaderError (nothing was done), DatabaseAwayError, DatabaseRefusedError.
        """
        async with self._acting(patient=patient) as (connection, _):
            yield connection

    @contextlib.asynccontextmanager
    async def dated_transaction(self, *, patient: bool = False) -> AsyncIterator[tuple[Connection, Began]]:
        """As `transaction`, with when it began, which is what Postgres reckons every age in it back from.

        What was measured before that may have waited long for a connection, and for whoever had our row. So Postgres is
        asked how long ago it was, behind all waiting.
        """
        async with self._acting(patient=patient) as (connection, began):
            for _ in range(ASKED_MOST - 1):
                if began.is_exact:
                    break
                asked = self._clock()
                seconds: float = await connection.fetchval(statement_text("since_begin"))
                began.learn(seconds, asked=asked, answered=self._clock())
            yield connection, began

    @contextlib.asynccontextmanager
    async def _acting(self, *, patient: bool) -> AsyncIterator[tuple[Connection, Began]]:
        self._leading()
        began = Began(self._clock())
        async with self._database.transaction(patient=patient) as connection:
            # Asked again: it may have changed while this waited for a connection.
            term = self._leading()
            asked = self._clock()
            seconds: float | None = await connection.fetchval(self._text("leader_check"), term, self.holder)
            if seconds is None:
                self._lost(term)
                raise NotLeaderError(f"another replica acts: term {term} is over")
            began.learn(seconds, asked=asked, answered=self._clock())
            yield connection, began

    async def fetch(self, statement: str, *parameters: Any) -> list[asyncpg.Record]:
        """Run one statement in a transaction that may act, and return its rows. Raises as `transaction` does."""
        async with self.transaction() as connection:
            return await connection.fetch(statement, *parameters)

    def _leading(self) -> int:
        if self.term is None:
            raise NotLeaderError("this replica does not act")
        return self.term

    def _lost(self, term: int) -> None:
        # Unless we have begun another one meanwhile.
        if self.term == term:
            self.term = None
