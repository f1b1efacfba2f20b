"""Facts as `why` knows them, for the tests of their words; what a test does not care about is filled in."""

from typing import Any

import msgspec

from liveness.facts import End, Instant, Life, Move, Owner, Piece, Row, Standing, WorkerTold

WORK_ID = "0f3c8a1e-5d3b-4a6e-9f0a-6f1d2c3b4a59"
# 03:15:04.5 UTC on a day in November: when everything here was asked.
ASKED_AT = 3 * 3600 + 15 * 60 + 4.5
EPOCH, NEXT_EPOCH = 1764212400123, 1764212999456
EVIDENCE = {
    "why": "no heartbeat for 61.204 s of hearing; ttl 60 s",
    "ttl": 60.0,
    "silent_for": 61.204,
    "listened_for": 61.204,
    "overdue": 1.204,
    "hearing": {"now": 86411.07, "not_counted": 0.412, "gaps": 3},
    "via": "NDJ2K",
    "storm": None,
    "details": {"probe": "no answer"},
}


def ago(seconds: float) -> Instant:
    """Return an instant so many seconds before everything was asked; not before that day began."""
    at = ASKED_AT - seconds
    minutes, second = divmod(at, 60)
    return Instant(f"2025-11-27T{minutes // 60:02.0f}:{minutes % 60:02.0f}:{second:09.6f}Z", seconds)


def end(**fields: Any) -> End:
    """Return the end of a life that lapsed three minutes ago."""
    filled: dict[str, Any] = {
        "reason": "lapsed",
        "incarnation": "f3a1",
        "ttl": 60.0,
        "last_heartbeat": ago(241.5),
        "lapsed": ago(181.5),
        "expired": ago(180.25),
        "untouched_for": None,
        "observed": False,
        "decided_by": "sidecar-0:71",
        "transaction_id": 81234,
        "evidence": EVIDENCE,
        "finished": ago(180.25),
        "recovered": None,
    }
    return End(**(filled | fields))


def life(worker: str = "w7", epoch: int = EPOCH, ended: End | None = None, **fields: Any) -> Life:
    """Return a life that began two hours ago."""
    filled: dict[str, Any] = {"incarnation": "f3a1", "ttl": 60.0, "granted": ago(7200.0)}
    return Life(worker=worker, epoch=epoch, end=ended, **(filled | fields))


def move(ended: End | None = None, **fields: Any) -> Move:
    """Return the move that came with the end of w7's life."""
    filled: dict[str, Any] = {
        "worker": "w7",
        "epoch": EPOCH,
        "reclaim_count": 1,
        "observed": False,
        "reclaimed": ago(180.25),
        "life": life(ended=ended or end()),
    }
    return Move(**(filled | fields))


def standing(**fields: Any) -> Standing:
    """Return how a worker stands that beat a moment ago."""
    filled: dict[str, Any] = {
        "state": "live",
        "incarnation": "09bc",
        "epoch": NEXT_EPOCH,
        "ttl": 60.0,
        "silent_for": 0.4,
        "remaining": 59.6,
        "mode": "act",
        "hearing": True,
        "troubles": [],
        "storms": [],
        "listened_for": 86400.0,
        "heartbeat_timeout": 60.0,
        "workflow_stuck_timeout": 120.0,
        "stale_worker_check_interval": 30.0,
    }
    return Standing(**(filled | fields))


def unheard(**fields: Any) -> Standing:
    """Return how a worker stands that has no lease."""
    nothing = {"incarnation": None, "epoch": None, "ttl": None, "silent_for": None, "remaining": 0.0}
    return standing(**({"state": "none"} | nothing | fields))


def owner(worker: str = "w9", stands: Standing | None = None, **fields: Any) -> Owner:
    """Return a worker that is up."""
    filled: dict[str, Any] = {
        "fault": None,
        "differs_in_case_from": None,
        "registered": 1,
        "up": True,
        "registry_heartbeat": ago(12.0),
        "life": life(worker, NEXT_EPOCH, granted=ago(170.0), incarnation="09bc"),
    }
    return Owner(worker=worker, standing=stands, **(filled | fields))


def row(**fields: Any) -> Row:
    """Return a RUNNING row of w9."""
    filled: dict[str, Any] = {
        "status": "RUNNING",
        "running": True,
        "waiting": False,
        "owner": "w9",
        "touched": ago(150.0),
        "kind": "invoice",
        "queue": "billing",
        "fixed": False,
    }
    return Row(**(filled | fields))


def waiting() -> Row:
    """Return a PENDING row, as a reclaim leaves it."""
    return row(status="PENDING", running=False, waiting=True, owner=None, touched=ago(180.25))


def piece(**fields: Any) -> Piece:
    """Return a workflow that was never moved, held by w9, of which nobody says how it stands."""
    filled: dict[str, Any] = {
        "work": "workflow",
        "id": WORK_ID,
        "table": "public.workflow_execution",
        "row": row(),
        "moves": [],
        "more": False,
        "owner": owner(),
    }
    return Piece(**(filled | fields))


def held(stands: Standing, of: Row | None = None, **fields: Any) -> Piece:
    """Return a workflow whose owner stands like that."""
    return piece(row=of or row(), owner=owner(stands=stands, **fields))


def worker_told(stands: Standing | None, *lives: Life, **fields: Any) -> WorkerTold:
    """Return what is told of w9."""
    filled: dict[str, Any] = {"more": False, "holds": {"workflow": 2}}
    return WorkerTold(owner=owner(stands=stands), lives=list(lives), **(filled | fields))


def bytes_of(answer: object) -> int:
    """Return how long an answer is on the wire."""
    return len(msgspec.json.encode(answer))
