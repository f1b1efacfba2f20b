"""The JetStream stream of the events: made where it is missing, and looked at where it is there."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from nats import errors as nats_errors
from nats.js import JetStreamContext
from nats.js import api as js_api
from nats.js import errors as js_errors

from liveness.errors import CannotStartError, StreamAwayError
from liveness.eventdata import EVENT_TYPES, WORK_EVENTS
from liveness.findings import Finding, Weight
from liveness.settings import Settings
from liveness.subjects import event_subject

# JetStream's own default is 2 minutes; a relay that was away longer may publish again what is in the stream already.
DUPLICATE_WINDOW_SECONDS = 600.0
# Of events, most are below a kilobyte; the names and ids in them may be long.
LEAST_MESSAGE_BYTES = 65_536
# JetStream answers nothing for a moment after its server started; this long is not a moment any more.
JETSTREAM_START_SECONDS = 3.0
_SUBJECTS_OVERLAP = 10065
_JETSTREAM_NOT_ENABLED = {10039, 10076}
# Between two tries of a JetStream that does not answer yet.
AGAIN_SECONDS = 0.1


def event_subjects(settings: Settings) -> list[str]:
    """Return where a service with these settings publishes its events."""
    observed = settings.mode == "observe"
    kinds = dict.fromkeys(
        [*EVENT_TYPES, *(f"{work.work}.{told}" for work in settings.tables.works for told in WORK_EVENTS)]
    )
    return [event_subject(kind, settings.event_prefix, observed=observed) for kind in kinds]


class EventStream:
    """What the stream should be: its name and subjects, how long it keeps an event (seconds), and how many bytes."""

    def __init__(self, name: str, subjects: Sequence[str], max_age: float, max_bytes: int) -> None:
        self._name = name
        self._subjects = subjects
        self._max_age = max_age
        self._max_bytes = max_bytes

    async def ensure(
        self, jetstream: Callable[[], JetStreamContext | None], servers: str, *, alone: Callable[[], bool]
    ) -> list[Finding]:
        """Create the stream if it is missing, and check it if it is there; return what is doubtful about it.

        `jetstream()` is that of the connection that stands; None counts as an answer that did not come. `alone()` says
        that the server there has no JetStream, and no cluster in which another might have it. Subjects that a stream of
        this name lacks are added to it. Raises CannotStartError, in one line with the way out, for a NATS without
        JetStream and for another stream on the same subjects; StreamAwayError where only time may tell.
        """
        return await self._insist(jetstream, servers, alone, self._ensure)

    async def look(
        self, jetstream: Callable[[], JetStreamContext | None], servers: str, *, alone: Callable[[], bool]
    ) -> list[Finding]:
        """Check the stream as `ensure` does, and change nothing. One that is missing is made by the service's start."""
        return await self._insist(jetstream, servers, alone, self._look)

    async def _insist(
        self,
        jetstream: Callable[[], JetStreamContext | None],
        servers: str,
        alone: Callable[[], bool],
        ask: Callable[[JetStreamContext], Awaitable[list[Finding]]],
    ) -> list[Finding]:
        deadline = asyncio.get_running_loop().time() + JETSTREAM_START_SECONDS
        while True:
            context = jetstream()
            try:
                if context is None:
                    raise nats_errors.ConnectionClosedError
                return await ask(context)
            except js_errors.APIError as error:
                if error.err_code == _SUBJECTS_OVERLAP:
                    other = None if context is None else await self._holder(context)
                    raise self._overlaps(other or "(name unknown)") from error
                cause: Exception = error
                final = error.err_code in _JETSTREAM_NOT_ENABLED
                # Nobody listens where JetStream is asked, not even one that says that it is not ready.
                nobody = isinstance(error, js_errors.ServiceUnavailableError) and error.err_code is None
            except (nats_errors.Error, OSError, TimeoutError) as error:
                cause, final, nobody = error, False, False
            over = asyncio.get_running_loop().time() > deadline
            if final or (over and nobody and alone()):
                raise CannotStartError(
                    f"NATS at {servers} has no JetStream, which the events need ({cause}): start nats-server with -js"
                ) from cause
            if over:
                raise StreamAwayError(
                    f"JetStream at {servers} does not serve the stream {self._name} ({cause})"
                ) from cause
            await asyncio.sleep(AGAIN_SECONDS)

    def _overlaps(self, other: str) -> CannotStartError:
        return CannotStartError(
            f"the JetStream stream {other} already takes some of {', '.join(self._subjects)}: set "
            f"events_stream to {other} if it may hold these events, or set event_prefix"
        )

    async def _holder(self, context: JetStreamContext) -> str | None:
        for subject in self._subjects:
            try:
                return str(await context.find_stream_name_by_subject(subject))
            except js_errors.NotFoundError:
                continue
            except (nats_errors.Error, js_errors.Error, OSError, TimeoutError):
                # Perhaps we may not ask, and each question would wait as long.
                return None
        return None

    async def _look(self, context: JetStreamContext) -> list[Finding]:
        try:
            config = (await context.stream_info(self._name)).config
        except js_errors.NotFoundError:
            other = await self._holder(context)
            if other is not None:
                raise self._overlaps(other) from None
            return []
        return self._doubts(config)

    async def _ensure(self, context: JetStreamContext) -> list[Finding]:
        try:
            config = (await context.stream_info(self._name)).config
        except js_errors.NotFoundError:
            await context.add_stream(
                js_api.StreamConfig(
                    name=self._name,
                    subjects=list(self._subjects),
                    max_age=self._max_age,
                    max_bytes=self._max_bytes,
                    duplicate_window=min(DUPLICATE_WINDOW_SECONDS, self._max_age),
                )
            )
            return []
        doubts = self._doubts(config)
        if missing := self._missing(config):
            config.subjects = [*(config.subjects or []), *missing]
            await context.update_stream(config)
        return doubts

    def _missing(self, config: js_api.StreamConfig) -> list[str]:
        present = list(config.subjects or [])
        return [subject for subject in self._subjects if not any(_covers(pattern, subject) for pattern in present)]

    def _doubts(self, config: js_api.StreamConfig) -> list[Finding]:
        """Return what of the stream does not serve its purpose, the heaviest first."""
        edit = f"nats stream edit {self._name}"
        window = min(DUPLICATE_WINDOW_SECONDS, config.max_age or DUPLICATE_WINDOW_SECONDS)
        missing = ", ".join(self._missing(config))
        doubts = (
            (bool(config.no_ack), Weight.BAD, "does not acknowledge", "events may be lost", f"{edit} --ack"),
            (
                config.retention not in {None, js_api.RetentionPolicy.LIMITS},
                Weight.BAD,
                "drops events once they are read",
                "subscribers take them from each other",
                "delete it, and let the service make it anew: what it is cannot be changed",
            ),
            (
                config.storage == js_api.StorageType.MEMORY,
                Weight.BAD,
                "is kept in memory",
                "events that were told are lost when NATS is started anew",
                "delete it, and let the service make it anew: what it is cannot be changed",
            ),
            (
                config.discard == js_api.DiscardPolicy.NEW and max(config.max_msgs or 0, config.max_bytes or 0) > 0,
                Weight.BAD,
                "refuses events when it is full",
                "they wait in the outbox, and so do all behind them, until somebody makes room",
                f"{edit} --discard=old",
            ),
            (
                0 < (config.max_msg_size or 0) < LEAST_MESSAGE_BYTES,
                Weight.BAD,
                f"takes no event of more than {config.max_msg_size} bytes",
                "one that is longer waits in the outbox, and so do all behind it",
                f"{edit} --max-msg-size=-1",
            ),
            (
                bool(config.max_msgs_per_subject and config.max_msgs_per_subject > 0),
                Weight.BAD,
                f"keeps {config.max_msgs_per_subject} events of each kind",
                "of a mass death, only the last ones are there to be read",
                f"{edit} --max-msgs-per-subject=-1",
            ),
            (
                bool(missing),
                Weight.BETTER,
                f"did not take {missing}",
                "they are added when the service starts",
                "start it",
            ),
            (
                0 < (config.duplicate_window or 0) < window,
                Weight.BETTER,
                f"knows an event again for {config.duplicate_window:g} s (its duplicate window), not for {window:g}",
                "what is published again after an outage is there twice, for subscribers to tell by its id",
                f"{edit} --dupe-window={window:g}s",
            ),
            (
                0 < (config.max_age or 0) < self._max_age,
                Weight.BETTER,
                f"keeps events {config.max_age or 0:g} s, events_max_age says {self._max_age:g}",
                "who is away for longer misses them",
                f"{edit} --max-age={self._max_age:g}s, or set events_max_age",
            ),
        )
        return [
            Finding(check="stream", weight=weight, about=f"stream {self._name}", says=says, why=why, fix=fix)
            for so, weight, says, why, fix in doubts
            if so
        ]


def _covers(pattern: str, subject: str) -> bool:
    parts, tokens = pattern.split("."), subject.split(".")
    for position, part in enumerate(parts):
        if part == ">":
            return position < len(tokens)
        if position >= len(tokens) or part not in {"*", tokens[position]}:
            return False
    return len(parts) == len(tokens)
