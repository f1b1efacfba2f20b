"""An operator gives the work of one worker back, whatever the book thinks of it."""

from liveness.answers import ReclaimAnswer, ReclaimRequest
from liveness.assembly import Assembly
from liveness.errors import LivenessError, PausedError
from liveness.lease import Lease, Proof
from liveness.verdicts import Case, Outcome


class StillAliveError(LivenessError):
    """The worker holds a lease, and nobody said that its work should be taken all the same."""


class NotOursError(LivenessError):
    """The worker is of another share."""


class NoVerdictError(LivenessError):
    """Postgres could not end the life just now."""


async def reclaim(parts: Assembly, request: ReclaimRequest) -> ReclaimAnswer:
    """End the life of a worker on an operator's word and put its work back.

    Raises NotOursError; PausedError, forced or not; StillAliveError, unless forced, for a worker whose lease has not
    lapsed, or whose beats may have been turned away; NoVerdictError for one whose rows somebody holds, or the host
    refuses; DatabaseAwayError, DatabaseRefusedError.
    """
    worker = request.worker
    if not parts.subjects.owns(worker):
        raise NotOursError(f"{worker} is of the shard {parts.subjects.owner_of(worker)}: use --shard")
    if not request.dry_run:
        await refuse_while_paused(parts)
    held = (await parts.store.host.running([worker])).get(worker, 0)
    lease = parts.book.get(worker)
    if lease is not None and lease.epoch is None and not request.dry_run:
        # Ending it needs an epoch to end.
        await parts.grants.grant([lease])
    # From here on to what is done, nothing is awaited: what was looked at is what is ended.
    lease = parts.book.get(worker)
    heard = _heard(parts, worker, lease)
    if request.dry_run:
        return ReclaimAnswer(worker=worker, heard=heard, dry_run=True, held=held, reclaimed=0, epoch=None)
    if not request.force and (_may_beat(parts, worker) if lease is None else _holds(parts, lease)):
        raise StillAliveError(f"{worker}: {heard}. Stop it first, or use --force to take its work all the same")
    if lease is None:
        case = Case(
            worker=worker,
            epoch=None,
            incarnation=None,
            reason="operator",
            ttl=parts.settings.heartbeat_timeout,
            evidence={"why": "an operator ended it", "heard": heard},
        )
        verdict = (await parts.store.reclaims.settle([case]))[0]
        if verdict.outcome is Outcome.HELD:
            raise NoVerdictError(f"{worker}: somebody has its epoch locked just now; nothing was touched, ask again")
        epoch = verdict.epoch if verdict.outcome is Outcome.ENDED else None
    else:
        epoch = lease.epoch
        parts.book.end(worker, parts.hearing.now, Proof("operator", {"heard": heard}))
        try:
            await parts.expiry.settle([worker])
        except PausedError as error:
            raise PausedError(
                f"{error}, since this was asked for: {worker} is over, and its work goes back at `liveness resume`"
            ) from error
        lease = parts.book.get(worker)
        if lease is not None and lease.ending is not None and lease.epoch == epoch:
            raise NoVerdictError(
                f"{worker}: it is over, but Postgres has not taken it yet: somebody holds its rows, or the host "
                "refuses them (see the service's log); it is tried again"
            )
    await parts.finish.run_once()
    reclaimed = await parts.store.reclaims.count(worker, epoch) if epoch is not None else 0
    return ReclaimAnswer(worker=worker, heard=heard, dry_run=False, held=held, reclaimed=reclaimed, epoch=epoch)


async def refuse_while_paused(parts: Assembly) -> None:
    """Raise PausedError if an operator has paused: who wants anything to be taken has to end that first."""
    await parts.pausing.look()
    if parts.pausing.pause is not None:
        raise PausedError(f"{parts.pausing.pause}: nothing was touched; `--dry-run` says what would be taken")


def _holds(parts: Assembly, lease: Lease) -> bool:
    return lease.ending is None and parts.book.lines.deadline(lease) > parts.hearing.now


def _may_beat(parts: Assembly, worker: str) -> bool:
    return not parts.admission.could_be_heard(worker, parts.hearing.now, parts.settings.heartbeat_timeout)


def _heard(parts: Assembly, worker: str, lease: Lease | None) -> str:
    now = parts.hearing.now
    if lease is None and _may_beat(parts, worker):
        return "no lease, and its beats may have been turned away: more strangers came than are let in (see `status`)"
    if lease is None:
        return "no lease: nothing was heard of it"
    if lease.last_beat is None:
        last = "no heartbeat yet"
    else:
        last = f"last heartbeat {max(now - lease.last_beat, 0.0):.1f} s ago"
    if lease.ending is not None:
        return f"{last}, its life ends ({lease.ending.reason})"
    return f"{last}, its lease runs {max(parts.book.lines.deadline(lease) - now, 0.0):.1f} s more"
