"""The JetStream stream of the events: made where it is missing, and looked at where it is there."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from nats import errors as nats_errors
from nats.js import JetStreamContext
from nats.js import api as js_api
from nats.js import errors as js_errors

from liveness.errors import CannotStartError

# JetStream's own default is 2 minutes; a relay that was away longer may publish again what is in the stream already.
DUPLICATE_WINDOW_SECONDS = 600.0
# JetStream answers nothing for a moment after its server started; this long is not a moment any more.
JETSTREAM_START_SECONDS = 3.0
_SUBJECTS_OVERLAP = 10065
_JETSTREAM_NOT_ENABLED = {10039, 10076}
# Between two tries of a JetStream that does not answer yet.
AGAIN_SECONDS = 0.1


class EventStream:
    """What the stream should be: its name and subjects, how long it keeps an event (seconds), and how many bytes."""

    def __init__(self, name: str, subjects: Sequence[str], max_age: float, max_bytes: int) -> None:
        self._name = name
        self._subjects = subjects
        self._max_age = max_age
        self._max_bytes = max_bytes

    async def ensure(self, jetstream: Callable[[], JetStreamContext | None], servers: str) -> Sequence[str]:
        """Create the stream if it is missing, and check it if it is there; return what is doubtful about it.

        `jetstream()` is that of the connection that stands; None counts as an answer that did not come. Subjects that a
        stream of this name lacks are added to it. Raises CannotStartError, in one line with the way out, for a NATS
        without JetStream and for another stream on the same subjects.
        """
        deadline = asyncio.get_running_loop().time() + JETSTREAM_START_SECONDS
        while True:
            context = jetstream()
            try:
                if context is None:
                    raise nats_errors.ConnectionClosedError
                return await self._ensure(context)
            except js_errors.APIError as error:
                if error.err_code == _SUBJECTS_OVERLAP:
                    other = "(name unknown)" if context is None else await self._holder(context)
                    raise CannotStartError(
                        f"the JetStream stream {other} already takes some of {', '.join(self._subjects)}: set "
                        f"events_stream to {other} if it may hold these events, or set event_prefix"
                    ) from error
                cause: Exception = error
                final = error.err_code in _JETSTREAM_NOT_ENABLED
            except (nats_errors.Error, OSError, TimeoutError) as error:
                cause, final = error, False
            if final or asyncio.get_running_loop().time() > deadline:
                raise CannotStartError(
                    f"NATS at {servers} has no JetStream, which the events need: start nats-server with -js ({cause})"
                ) from cause
            await asyncio.sleep(AGAIN_SECONDS)

    async def _holder(self, context: JetStreamContext) -> str:
        for subject in self._subjects:
            with contextlib.suppress(nats_errors.Error, js_errors.Error, OSError, TimeoutError):
                return str(await context.find_stream_name_by_subject(subject))
        return "(name unknown)"

    async def _ensure(self, context: JetStreamContext) -> Sequence[str]:
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
        doubts = []
        present = list(config.subjects or [])
        missing = [subject for subject in self._subjects if not any(_covers(pattern, subject) for pattern in present)]
        if missing:
            config.subjects = present + missing
            await context.update_stream(config)
            doubts.append(f"the stream {self._name} did not take {', '.join(missing)}: added")
        if config.retention not in {None, js_api.RetentionPolicy.LIMITS}:
            doubts.append(
                f"the stream {self._name} drops events once they are read: subscribers take them from each other"
            )
        if config.no_ack:
            doubts.append(f"the stream {self._name} does not acknowledge: events may be lost")
        if config.max_age and config.max_age < self._max_age:
            doubts.append(
                f"the stream {self._name} keeps events {config.max_age:g} s, events_max_age says {self._max_age:g}"
            )
        return doubts


def _covers(pattern: str, subject: str) -> bool:
    parts, tokens = pattern.split("."), subject.split(".")
    for position, part in enumerate(parts):
        if part == ">":
            return position < len(tokens)
        if position >= len(tokens) or part not in {"*", tokens[position]}:
            return False
    return len(parts) == len(tokens)
