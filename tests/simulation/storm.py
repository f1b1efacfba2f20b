"""Whom a storm has to keep, and until when: the rule `storm` of `checker`."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from liveness.storms import LEAST
from tests.simulation.nats import Nats, Server
from tests.simulation.replica import TTL, Replica
from tests.simulation.rivals import is_replaced
from tests.simulation.workers import NEVER, Worker

# Seconds in which every worker has said by which server it comes, but for the rarest; then the route breaks.
SAID_SECONDS = 6.0


def expect(living: Sequence[Worker], now: float, seconds: float) -> bool:
    """Expect the work of these to be kept for so long, and say so, if they are enough."""
    # Two processes of a name are one member.
    if len({worker.name for worker in living}) < LEAST:
        return False
    for worker in living:
        worker.storm_from, worker.storm_until, worker.storm_known = now, now + seconds, None
    return True


def expect_what_is_owed(living: Sequence[Worker], now: float, far: Server, replicas: Sequence[Replica]) -> None:
    """Expect what is held when the route heals to wait until it can have been heard again."""
    names = {worker.name for worker in living if worker.excused_until <= worker.storm_from}
    known = {id(one.ear) for one in replicas if _had_to_see(one, names, far.name)}
    for worker in living:
        if known and abs(worker.storm_until - now) < 0.01:
            worker.storm_known, worker.storm_until = known, now + worker.interval + worker.mouth.latency


def _had_to_see(replica: Replica, names: set[str], via: str) -> bool:
    # It holds already, or one of them had lapsed there; one that leads looks at that when it has the time.
    group, book = replica.storms.groups.get(via), replica.book
    for lease in book if group is not None else ():
        lapsed = lease.ending is not None and not lease.ending.proof
        lapsed |= not replica.leadership.leading and book.lines.deadline(lease) <= replica.hearing.now
        if lapsed and lease.worker in names and lease.group is group:
            return True
    return group is not None and group.storm is not None


def has_to_keep(
    process: Worker, processes: Collection[Sequence[Worker]], nats: Nats, replica: Any, began: float
) -> bool:
    """Say whether a storm forbids `replica` to take from `process` by silence, by what it knew when it `began`."""
    since, known = process.storm_from, process.storm_known
    if not since < began < process.storm_until or max(server.broken_at for server in nats.servers) >= since:
        return False
    # Behind the end of it only who saw the storm owes anything.
    if known is not None and began > nats.route_broken_at and id(replica.ear) not in known:
        return False
    # Who has heard some of them since they are all behind that server does not know that they are.
    everybody = [one for same_name in processes for one in same_name]
    heard = any(id(replica.ear) in one.first_heard for one in everybody)
    if heard and max(replica.link_up_at, replica.ear.free_at) >= since:
        return False
    # Beats that wait while the replica stands still are dated later than those before, and break the silence in two.
    if replica.paused_at < since + SAID_SECONDS and replica.went_on_at > since:
        return False
    # One of them who dies meanwhile, or just before, is not behind a route; one who connects again may be a sign.
    if any((one.died_at or 0.0) > since - TTL or (one.alive and one.moved_at > since) for one in everybody):
        return False
    # Who says goodbye to begin again has ended by its own word, which comes by another way.
    if any(one.again is not None and one.again.began_at > since - TTL for one in everybody):
        return False
    # Nor is one that is silent by itself; it lapses for itself, and the others are a storm if they are enough.
    members = {
        one.name
        for same_name in processes
        for one in same_name
        if one.alive and one.excused_until <= since and _is_member(one, same_name, replica, since, began)
    }
    return process.name in members and len(members) >= LEAST


def _is_member(process: Worker, same_name: Sequence[Worker], replica: Any, since: float, began: float) -> bool:
    # One whose name has gone over to another renews nothing; one that was never heard may be anywhere, where the one
    # before it was; and one that was sent there has to be heard from there.
    before, heard, _ = process.heard_by.get(id(replica.ear), NEVER)
    heard = before if heard > began else heard
    former = any(id(replica.ear) in one.first_heard for one in same_name if one is not process)
    if (former and heard < process.born_at) or is_replaced(process, same_name, replica.ear):
        return False
    return process.moved_at < since or heard > since


def is_signed(process: Worker, everybody: Iterable[Sequence[Worker]]) -> bool:
    """Say whether somebody has lived by the server of one that died ever since, and both say so."""
    died_at = process.died_at or 0.0
    if process.style == "mute" or process.moved_at >= died_at - TTL:
        return False
    return any(
        one.alive
        and one.style != "mute"
        and one.mouth.server is process.last_server
        and max(one.moved_at, one.excused_until, one.beating_since) < died_at
        for some in everybody
        for one in some
    )
