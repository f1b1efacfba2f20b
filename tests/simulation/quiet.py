"""What is left when all is quiet, as the rules `dead work` and `in step` of `checker` judge it."""

from typing import TYPE_CHECKING, Any

from liveness.beginnings import AGREED_WITHIN
from tests.simulation.postgres import Postgres
from tests.simulation.replica import SETTINGS, TTL
from tests.simulation.workers import Worker

if TYPE_CHECKING:
    from tests.simulation.checker import Checker

# Seconds after a process began in which a replica that dies takes with it what it had not looked for yet.
FORGET = 2 * TTL
# And in which what stands still makes its beginning look earlier than it was: it is believed by then.
DOUBTED = 3 * TTL


def waiting(checker: "Checker") -> list[str]:
    """Return what is left to come back, a line each."""
    left = []
    for row in checker.postgres.rows.values():
        if row.status != "RUNNING" or row.claim is None or row.claim.process.alive:
            continue
        former: Worker = row.claim.process
        same_name = checker.processes[row.owner or ""]
        living = [one for one in same_name if one.alive and not one.superseded]
        newest = (living or same_name)[-1]
        # A beginning is known to an echo at best, and errs on the side of the living.
        tellable = newest.style in {"uptime", "hello"} and row.touched < newest.born_at - _doubtful(checker, newest)
        forgotten = any(newest.born_at < moment < newest.born_at + FORGET for moment in checker.replica_deaths)
        # A conflict that lasts: nothing is taken from anybody.
        if len(living) > 1 or (living and (not tellable or former.beside or forgotten)):
            continue
        left.append(f"{row.id} of {former.incarnation}, dead since {former.died_at:.2f}")
    return left


def _doubtful(checker: "Checker", newest: Worker) -> float:
    born_at, (stutters_at, well_at, gaps) = newest.born_at, checker.stutters
    still = sum(checker.stood_still(born_at, born_at + DOUBTED))
    heard_at = max((newest.first_heard.get(id(ear), born_at) for ear in checker.nats.ears), default=born_at)
    # What was not believed by then is never known to a second: a beat is no older than the gap before the last.
    lasts = stutters_at < max(well_at, heard_at) + DOUBTED
    return SETTINGS.echo_interval + max(still, gaps + AGREED_WITHIN if lasts else 0.0)


def out_of_step(postgres: Postgres, replicas: list[Any]) -> list[str]:
    """Return where a book has an epoch that is not open. A follower's may be over, but none that has another one."""
    return [
        f"{replica.name} has {lease.worker} under epoch {lease.epoch}, which is over"
        for replica in replicas
        if not replica.paused
        for lease in replica.book
        if (_leads(postgres, replica) or lease.ending is not None or lease.worker in postgres.open)
        and postgres.is_over(lease)
    ]


def _leads(postgres: Postgres, replica: Any) -> bool:
    return bool(replica.leadership.leading and replica.store.leader.term == postgres.term)
