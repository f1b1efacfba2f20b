"""What Postgres is offered about a life that ends, and the evidence that is kept of it. Pure."""

from collections.abc import Mapping
from typing import Final

from liveness.hearing import Hearing
from liveness.lease import Ending, Lease
from liveness.verdicts import Case

# A beat in the registry counts as somebody else's only if it is this much younger (seconds) than the last one that we
# heard: our own checkpoint is written with the age of the beat, a statement's latency too late.
CHECKPOINT_SLACK = 1.0

# In the evidence: another process of the name was there before the verdict, and did not wait for it (`part_ended.sql`).
FOLLOWED: Final = "followed"

# Ends that may be the work's doing. Not `released` and `operator`: somebody wanted them. Of what a sweep finds, it says
# so itself.
_CRASHES: Final = frozenset({"lapsed", "died", "restarted"})
# SIGHUP, SIGINT and SIGTERM are what people and supervisors end a process with. SIGKILL is, too, but first of all it is
# what the kernel ends one with that eats up the memory.
_ASKED_TO_GO: Final = frozenset({1, 2, 15})
_NOTHING: Final[Mapping[str, object]] = {}
# What a shell adds to the number of the signal that ended its command.
_SHELL_SIGNAL: Final = 128


def case_of(
    lease: Lease, ending: Ending, hearing: Hearing, loop_time: float, held_for: Mapping[str, object] = _NOTHING
) -> Case:
    """Return what Postgres is offered about a life that ends, measured at `loop_time`.

    `held_for`: why it was offered no sooner, besides a storm; kept with the evidence.
    """
    now = hearing.now
    silent_for = None if ending.last_beat is None else max(now - ending.last_beat, 0.0)
    # Since when we have listened in vain; for a lease that was restored, since then.
    since = lease.since if ending.last_beat is None else ending.last_beat
    listened = max(now - since, 0.0)
    real = hearing.real_ago(since, loop_time)
    return Case(
        worker=lease.worker,
        epoch=lease.epoch,
        incarnation=ending.incarnation,
        reason=ending.reason,
        ttl=ending.ttl,
        silent_for=None if ending.last_beat is None else hearing.real_ago(ending.last_beat, loop_time),
        overdue=None if ending.proof else hearing.real_ago(ending.deadline, loop_time),
        spare_within=None if ending.proof else min(ending.ttl, max(real - CHECKPOINT_SLACK, 0.0)),
        untouched_for=_untouched_for(ending, hearing, loop_time),
        told=ending.reborn_idle if ending.reborn_at is not None else ending.told_at is not None,
        measured_at=loop_time,
        crash=is_crash(ending),
        evidence={
            "why": _sentence(ending, silent_for, listened),
            "ttl": ending.ttl,
            "silent_for": silent_for,
            "listened_for": listened,
            "overdue": None if ending.proof else now - ending.deadline,
            "hearing": {"now": now, "not_counted": hearing.lost, "gaps": hearing.gaps},
            "via": lease.group.via if lease.group is not None else None,
            "storm": "held, then let go" if ending.let_go else None,
            **held_for,
            **({"details": ending.details} if ending.details else {}),
            # It may have claimed already, and of rows that bear no date nobody can tell which.
            **({FOLLOWED: True} if ending.reborn_at is not None and not ending.reborn_idle else {}),
        },
    )


def is_crash(ending: Ending) -> bool:
    """Return whether the life may have ended by what it was working on.

    Not where a storm has let go of it: what takes many at once is no single piece of work.
    """
    if ending.reason not in _CRASHES or ending.let_go:
        return False
    details = ending.details or {}
    signal = details.get("signal") or (details.get("exit_code") or 0) - _SHELL_SIGNAL
    return ending.reason != "died" or signal not in _ASKED_TO_GO


def _untouched_for(ending: Ending, hearing: Hearing, loop_time: float) -> float | None:
    if ending.reborn_at is not None:
        # What was touched since the next life is there is the next life's.
        return max(loop_time - ending.reborn_at, 0.0)
    if ending.told_at is not None:
        # Who has ended touches nothing any more; but another process may begin and claim before we hear of it.
        return max(loop_time - ending.told_at, 0.0)
    if not ending.proof and (ending.unknown or hearing.missed_since(ending.deadline, loop_time)):
        # There may be more lives of this name than we know, by Postgres or because they were not heard while the
        # verdict had to wait: what was touched after this one lapsed is not taken for its.
        return hearing.real_ago(ending.deadline, loop_time)
    # Who is given up may live, and touch its work up to the last moment: what it loses, it loses whole.
    return None


def _sentence(ending: Ending, silent_for: float | None, listened: float) -> str:
    match ending.reason:
        case "released":
            return "the worker said goodbye"
        case "died":
            return "whoever saw the process end said so"
        case "restarted":
            return "a new incarnation of the name is there"
        case "operator":
            return "an operator ended it"
        case _ if silent_for is None:
            return f"nothing was heard of it in {listened:.3f} s of listening; ttl {ending.ttl:g} s"
        case _:
            return f"no heartbeat for {silent_for:.3f} s of hearing; ttl {ending.ttl:g} s"
