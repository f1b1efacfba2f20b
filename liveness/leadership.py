"""Which replica acts: the one that holds the leader's row in Postgres. The others hear everything and wait.

The row's term is what makes it safe: every transaction that acts checks it, so a leader that stood still instead of
dying finds that its term is over, and has done nothing. What is here only makes it quick.
"""

from collections.abc import Awaitable, Callable

import structlog

from liveness.errors import NotLeaderError
from liveness.store import Leader

log = structlog.get_logger("liveness.leadership")

# The leader renews, and the others look, so often in a leader_timeout: three looks may fail before one is succeeded.
LOOKS_IN_A_TIMEOUT = 4
# And at least every so many seconds. To those who divide the workers otherwise, and do not know the timeout, a leader
# that was not seen for 10 s is gone (`liveness.others_lead`): here, too, three looks may fail, and take a while.
INTERVAL_MOST = 2.0
# A leader that hears nothing leaves the lead to others after so many looks, 3 s at the default timeout: a new
# connection to NATS takes less, and is no reason to.
DEAF_LOOKS = 12


class Leadership:
    """Takes the lead when nobody has it, and keeps it. `timeout` in seconds.

    `catch_up` learns from Postgres what the former leader did. Who does not hear (`hears()`) is no use as a leader
    while another one may hear: it does not take the lead, and soon does not renew it. What it has begun it goes on
    with until another one takes over.
    """

    def __init__(
        self,
        *,
        leader: Leader,
        timeout: float,
        catch_up: Callable[[], Awaitable[object]],
        hears: Callable[[], bool] = lambda: True,
        on_take: Callable[[], None] = lambda: None,
        on_lead: Callable[[], None] = lambda: None,
    ) -> None:
        self.leading = False
        # Whether the book knows all that Postgres knows since the term began.
        self.caught_up = False
        self.interval = min(timeout / LOOKS_IN_A_TIMEOUT, INTERVAL_MOST)
        self._leader = leader
        self._timeout = timeout
        self._catch_up = catch_up
        self._hears = hears
        self._deaf_looks = 0
        self._on_take = on_take
        self._on_lead = on_lead

    async def run_once(self) -> bool:
        """Renew the lead, or take it if nobody has it; return whether this replica leads.

        One that has taken it leads when it has caught up (`learn`). Raises DatabaseAwayError: nobody can tell, and a
        leader goes on, for its transactions will.
        """
        self._deaf_looks = 0 if self._hears() else self._deaf_looks + 1
        if self._leader.term is not None and not await self._keep():
            self._follow()
        elif self._leader.term is None and self.leading:
            # A transaction found that its term is over.
            self._follow()
        if self._leader.term is None:
            # Whatever was known by a former term, others may have acted since.
            self.caught_up = False
            if self._deaf_looks:
                # Else nothing would tell whether Postgres is there.
                await self._leader.look()
                return False
            if not await self._leader.take(self._timeout):
                return False
        if not self.leading:
            self._on_take()
        return self.leading

    async def learn(self) -> bool:
        """Learn what the former leader did, and lead; return whether this replica leads.

        Apart from `run_once`, which renews the lead meanwhile: it may take longer than a lead lasts. Raises
        DatabaseAwayError.
        """
        term = self._leader.term
        if term is None or self.leading:
            return self.leading
        if not self.caught_up:
            await self._catch_up()
        if self._leader.term != term:
            return False
        self.leading = self.caught_up = True
        log.info("leading", term=term)
        self._on_lead()
        return True

    async def take(self) -> bool:
        """Take the lead, if nobody has it, before the book is filled: it needs no catching up then."""
        self.caught_up = await self._leader.take(self._timeout)
        return self.caught_up

    async def step_down(self) -> None:
        """Let another replica take over at once. Without effect on one that does not lead."""
        self.leading = self.caught_up = False
        await self._leader.release()

    async def _keep(self) -> bool:
        if self._deaf_looks < DEAF_LOOKS:
            return await self._leader.renew()
        try:
            async with self._leader.transaction():
                pass
        except NotLeaderError:
            return False
        await self._leader.look()
        return True

    def _follow(self) -> None:
        if self.leading:
            log.warning("lead_lost")
        self.leading = self.caught_up = False
