"""Rounds that would find nothing, of a replica's duties.

Most are such, and together they cost more than those that find something. They are not begun, but for their wake-up:
exactly such rounds, for without `SKIPS` every seed ends in the same way. (But for what a follower asks after those who
are well: that is an answer more, late or early.)
"""

from typing import Any

from liveness.follow import Follow

# Whether such a round is not begun.
SKIPS = True
# Between two turns of a name in a follower's book: that of one with 30,000 workers.
TURN_SECONDS = 60.0


def nothing_to_take(replica: Any) -> bool:
    """Somebody else renewed the lead a moment ago, and this one follows and hears."""
    leadership, postgres, settings = replica.leadership, replica.postgres, replica.settings
    if replica.store.leader.term is not None or leadership.leading or leadership.caught_up or leadership._deaf_looks:
        return False
    if not postgres.writable or postgres.flaky or postgres.slowness or replica.hearing.deaf(replica.world.now):
        return False
    return SKIPS and bool(replica.world.now - postgres.renewed_at <= settings.leader_timeout)


def nothing_to_learn(replica: Any) -> bool:
    """Nobody in the book of this follower is overdue or waits for anything, or has an epoch that is over."""
    book = replica.book
    if book.endings or book.wanting or book.arrivals or replica.follow._arrivals:
        return False
    if any(replica.postgres.is_over(lease) for lease in book):
        return False
    return SKIPS and bool(book.lines.next_deadline() > replica.hearing.now)


class InStep(Follow):
    """A follower that asks after those who seem well as seldom as one of a large fleet."""

    replica: Any
    asked_at = 0.0

    def _turn(self) -> list[str]:
        now = self.replica.world.now
        if now - self.asked_at < TURN_SECONDS:
            return []
        self.asked_at = now
        return super()._turn()


def nobody_greets(replica: Any) -> bool:
    """Nobody who said hello waits for an answer."""
    return SKIPS and not replica.greetings._waiting


def nothing_is_due(replica: Any) -> bool:
    """Nobody lapses or waits for a verdict. No worker here answers probes, so there is nobody to ask."""
    if replica.book.endings or replica.storms.holding or replica.storms.news or replica.expiry._doubts or not SKIPS:
        return False
    deadline, now = replica.book.lines.next_deadline(), replica.hearing.now
    if deadline > now and replica.may_begin("expiry"):
        replica.look_at = min(deadline, now + replica.settings.echo_interval)
    return bool(deadline > now)
