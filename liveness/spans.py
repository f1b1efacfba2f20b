"""Spans: stretches of work that whoever collects traces is told of.

Where nobody collects, which is so unless `tracing` was told to, a span is this module's `NOTHING`: what it is told is
dropped, and nothing of OpenTelemetry is imported.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Final, Literal, Self, TypeAlias

Kind: TypeAlias = Literal["internal", "client", "producer"]
Value: TypeAlias = str | bool | int | float | Sequence[str]


class Span:
    """One that nobody collects. To be entered; what is begun in it, tasks included, is a part of it.

    `collected` says whether anybody is told: what costs something to put together is left out otherwise.
    """

    collected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, _error: BaseException | None, _traceback: object) -> None:
        pass

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Say what is so of the whole span."""

    def tell(self, event: str, attributes: Mapping[str, Value]) -> None:
        """Say what happens in it now."""

    def link(self, traceparents: Iterable[str]) -> None:
        """Name spans that it goes on with, or tells of."""

    def fail(self, cause: str) -> None:
        """Say that it has not done what it was for. An error that leaves the span says so by itself."""


NOTHING = Span()


class Tracer:
    """Who begins spans. This one begins none."""

    def span(self, _name: str, _kind: Kind, _attributes: Mapping[str, Value]) -> Span:
        """Return a span that has not begun."""
        return NOTHING


# The W3C trace context (traceparent) of the span that this is in; None where nobody collects. Who begins spans sets it.
carried: Final[ContextVar[str | None]] = ContextVar("liveness_traceparent", default=None)
# Not one for the process: each service's tasks have theirs from whoever began the service.
_tracer: ContextVar[Tracer] = ContextVar("liveness_tracer", default=Tracer())  # noqa: B039 - it has no state


def collect(tracer: Tracer) -> None:
    """Let `tracer` begin the spans of this task, and of the tasks that it begins from here on."""
    _tracer.set(tracer)


@contextlib.contextmanager
def said_in(traceparent: str | None) -> Iterator[None]:
    """Let what is logged in this block, which awaits nothing, be said in a span that is over."""
    if traceparent is None:
        yield
        return
    token = carried.set(traceparent)
    try:
        yield
    finally:
        carried.reset(token)


def span(name: str, attributes: Mapping[str, Value] | None = None, *, kind: Kind = "internal") -> Span:
    """Return a span, to be entered."""
    return _tracer.get().span(name, kind, attributes or {})
