"""What a JetStream that does not serve the events' stream means for a start: none at all, or only that news wait."""

from typing import Any

import pytest
from nats import errors as nats_errors
from nats.js import api
from nats.js import errors as js_errors
from structlog.testing import capture_logs

from liveness import eventstream
from liveness.errors import CannotStartError, StreamAwayError
from liveness.eventstream import EventStream
from liveness.service import look_after_stream

STARTING = js_errors.ServiceUnavailableError(
    code=503, err_code=10008, description="JetStream system temporarily unavailable"
)
NOBODY = js_errors.ServiceUnavailableError()
DISABLED = js_errors.ServiceUnavailableError(code=503, err_code=10039, description="JetStream not enabled for account")


class Context:
    """A JetStream that has so many errors to answer with, and then the stream."""

    def __init__(self, *answers: Exception, for_ever: Exception | None = None) -> None:
        self.answers = list(answers)
        self.for_ever = for_ever

    async def stream_info(self, name: str) -> Any:
        """Answer as it stands."""
        error = self.answers.pop(0) if self.answers else self.for_ever
        if error is not None:
            raise error
        return api.StreamInfo(
            config=api.StreamConfig(name=name, subjects=["workflow.>"]), state=api.StreamState(0, 0, 0, 0, 0)
        )


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a server to start."""
    monkeypatch.setattr(eventstream, "JETSTREAM_START_SECONDS", 0.02)
    monkeypatch.setattr(eventstream, "AGAIN_SECONDS", 0.01)


def stream() -> EventStream:
    """Return one that takes a single kind of event."""
    return EventStream("LIVENESS_EVENTS", ["workflow.reclaimed"], 600.0, 1 << 24)


@pytest.mark.parametrize("error", [STARTING, nats_errors.TimeoutError(), NOBODY], ids=["starting", "silent", "nobody"])
async def test_a_jetstream_that_is_only_slow_ends_no_start(error: Exception) -> None:
    """One that recovers its streams, has no leader yet, or is elsewhere in the cluster: only the news wait."""
    context: Any = Context(for_ever=error)

    with pytest.raises(StreamAwayError, match=r"JetStream at here does not serve the stream LIVENESS_EVENTS \(.+\)$"):
        await stream().ensure(lambda: context, "here", alone=lambda: False)


@pytest.mark.parametrize(("error", "alone"), [(DISABLED, False), (NOBODY, True)], ids=["account", "server"])
async def test_a_nats_that_has_none_is_no_place_to_start(error: Exception, *, alone: bool) -> None:
    """Time does not mend that, and the line says what does."""
    context: Any = Context(for_ever=error)

    with pytest.raises(CannotStartError, match=r"has no JetStream.*: start nats-server with -js$"):
        await stream().ensure(lambda: context, "here", alone=lambda: alone)


async def test_one_that_has_just_started_is_waited_for() -> None:
    """Also where for a moment nobody is there."""
    context: Any = Context(NOBODY)

    assert await stream().ensure(lambda: context, "here", alone=lambda: True) == []


class Parts:
    """Of a service, those that look after the stream."""

    async def ensure_stream(self) -> None:
        """Find that nobody answers."""
        raise StreamAwayError("JetStream at here does not serve the stream LIVENESS_EVENTS (nats: timeout)")


async def test_a_service_starts_without_a_jetstream_that_answers() -> None:
    """It says so, once: to put work back needs none."""
    parts: Any = Parts()

    with capture_logs() as lines:
        await look_after_stream(parts)

    assert [(line["event"], line["log_level"]) for line in lines] == [("stream_doubtful", "warning")]
    assert "does not serve the stream" in lines[0]["doubt"]
