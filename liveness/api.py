"""What the service does when a command asks it: `status`, `sweep`, `reclaim`, `why`, over NATS request and reply."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from liveness.answers import (
    ReclaimAnswer,
    ReclaimRequest,
    Refusal,
    StatusAnswer,
    StatusRequest,
    SweepRequest,
)
from liveness.assembly import Assembly
from liveness.errors import LivenessError
from liveness.facts import WhyAnswer, WhyRequest
from liveness.reclaim import reclaim, refuse_while_paused
from liveness.snapshot import Snapshots
from liveness.why import why

log = structlog.get_logger("liveness.api")


# Requests that may wait for their turn; those beyond get no answer, as from a service that is not there.
WAITING_MOST = 100
# How long whoever asks how it is waits for Postgres (seconds), and is told that it does not answer: a command gives up
# after 5.
PATIENCE = 3.0


class DividedError(LivenessError):
    """Each shard answers for itself."""


class Api:
    """Answers commands. `troubles()` says what does not work, a line each."""

    def __init__(self, parts: Assembly, troubles: Callable[[], Sequence[str]]) -> None:
        self._parts = parts
        self._troubles = troubles
        self._snapshots = Snapshots(parts, PATIENCE)
        self._answering: set[asyncio.Task[None]] = set()
        # Commands share Postgres with the duties; a crowd of them must not keep a reclaim waiting.
        self._one_at_a_time = asyncio.Lock()
        # Whoever asks why, or how it is, reads a few rows, and must not wait for a sweep, nor for each other.
        self._own_turns: Mapping[type[Any], asyncio.Lock] = {
            request: asyncio.Lock() for request in (WhyRequest, StatusRequest)
        }
        verbs: Mapping[str, tuple[type[Any], Callable[[Any], Awaitable[object]]]] = {
            "status": (StatusRequest, self._status),
            "sweep": (SweepRequest, self._sweep),
            "reclaim": (ReclaimRequest, self._reclaim),
            "why": (WhyRequest, self._why),
        }
        subjects = parts.subjects
        for verb, (request, act) in verbs.items():
            parts.bus.subscribe(subjects.api(verb), self._sink(verb, request, act))
            if subjects.api(verb) != subjects.api_of_all(verb):
                parts.bus.subscribe(subjects.api_of_all(verb), self._sink(verb, request, self._divided))

    def _sink(
        self, verb: str, request: type[Any], act: Callable[[Any], Awaitable[object]]
    ) -> Callable[[str, bytes, str], None]:
        def take(_subject: str, payload: bytes, reply: str) -> None:
            # The acting replica answers; the others hear it, too.
            if not self._parts.leadership.leading or len(self._answering) >= WAITING_MOST:
                return
            if reply:
                task = asyncio.create_task(self._answer(verb, request, act, payload, reply))
                # The loop itself keeps only a weak reference.
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

        return take

    async def _answer(
        self,
        verb: str,
        request: type[Any],
        act: Callable[[Any], Awaitable[object]],
        payload: bytes,
        reply: str,
    ) -> None:
        answer: object
        try:
            asked = msgspec.json.decode(payload or b"{}", type=request)
            if (about := _about(asked)) is not None and not self._parts.subjects.owns(about):
                # Whose share it is hears it, too.
                return
            async with self._own_turns.get(type(asked), self._one_at_a_time):
                answer = await act(asked)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            answer = Refusal(error=f"the request {verb} does not decode: {error}")
        except LivenessError as error:
            answer = Refusal(error=str(error))
        except Exception as error:
            log.exception("request_failed", verb=verb)
            answer = Refusal(error=f"the request {verb} failed: {type(error).__name__}; see the service's log")
        # Whoever asks chooses where: `answer` speaks to inboxes only, not to subjects that mean something.
        encoded = msgspec.json.encode(answer)
        if not self._parts.bus.answer(reply, encoded):
            too_long = f"the answer to {verb} has {len(encoded)} bytes; if NATS carries less, raise its max_payload"
            self._parts.bus.answer(reply, msgspec.json.encode(Refusal(error=too_long)))

    async def _status(self, request: StatusRequest) -> StatusAnswer:
        return await self._snapshots.take(request, self._troubles())

    async def _sweep(self, request: SweepRequest) -> object:
        log.info("sweep_asked", dry_run=request.dry_run)
        if not request.dry_run:
            await refuse_while_paused(self._parts)
        return await self._parts.sweep.run_once(dry_run=request.dry_run)

    async def _divided(self, _request: object) -> object:
        share = self._parts.subjects.share
        raise DividedError(f"the workers are divided into shards: name one, as in --shard {share}")

    async def _reclaim(self, request: ReclaimRequest) -> ReclaimAnswer:
        log.warning("reclaim_asked", worker=request.worker, dry_run=request.dry_run, force=request.force)
        return await reclaim(self._parts, request)

    async def _why(self, request: WhyRequest) -> WhyAnswer:
        return await why(self._parts, self._troubles(), request)


def _about(asked: object) -> str | None:
    """Return by which name it is decided whose request this is; None where it was sent to one shard alone."""
    if isinstance(asked, ReclaimRequest):
        return asked.worker
    # An id is no name; but it is of one share as well as any.
    return asked.about if isinstance(asked, WhyRequest) else None
