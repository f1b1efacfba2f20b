"""OpenTelemetry: the only part that imports it, and imported only where spans are collected (extra `otel`).

Spans are exported by a thread of their own, from a queue that drops what it has no room for: a collector that is slow,
or away, costs the service nothing but them.
"""

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Token
from importlib.metadata import entry_points
from typing import Any, Final, Self

import structlog
from opentelemetry import context, trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import liveness
from liveness.errors import NotLeaderError, SettingsError
from liveness.eventdata import sound_traceparent
from liveness.spans import Kind, Span, Tracer, Value, carried

log = structlog.get_logger("liveness.otel")

# How long a stop waits for the spans that were not exported yet.
FLUSH_SECONDS: Final = 1.0
# Characters of an error's text.
CAUSE_LENGTH: Final = 300
_KINDS: Final[Mapping[Kind, trace.SpanKind]] = {
    "internal": trace.SpanKind.INTERNAL,
    "client": trace.SpanKind.CLIENT,
    "producer": trace.SpanKind.PRODUCER,
}
# Whoever acts instead does what this was for; and a stop is no fault.
_NO_FAULT: Final = (NotLeaderError, asyncio.CancelledError)


class OtelTracer(Tracer):
    """Begins the spans of `provider`."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("liveness", liveness.__version__)

    def span(self, name: str, kind: Kind, attributes: Mapping[str, Value]) -> Span:
        """Return a span that has not begun."""
        return _OtelSpan(self._tracer, name, kind, attributes)


class _OtelSpan(Span):
    def __init__(self, tracer: trace.Tracer, name: str, kind: Kind, attributes: Mapping[str, Value]) -> None:
        self._tracer, self._name, self._kind, self._attributes = tracer, name, kind, attributes
        self._span: trace.Span = trace.INVALID_SPAN
        self._tokens: tuple[Token[context.Context], Token[str | None]] | None = None

    def __enter__(self) -> Self:
        self._span = self._tracer.start_span(self._name, kind=_KINDS[self._kind], attributes=self._attributes)
        self.collected = self._span.is_recording()
        about = self._span.get_span_context()
        # One that is not collected, but whose trace may be elsewhere, is carried all the same: its flags say so.
        told = f"00-{about.trace_id:032x}-{about.span_id:016x}-{about.trace_flags:02x}" if about.is_valid else None
        self._tokens = context.attach(trace.set_span_in_context(self._span)), carried.set(told)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            if not isinstance(error, _NO_FAULT):
                self.fail(str(error))
        if self._tokens is not None:
            context.detach(self._tokens[0])
            carried.reset(self._tokens[1])
        self._span.end()

    def note(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes(attributes)

    def tell(self, event: str, attributes: Mapping[str, Value]) -> None:
        self._span.add_event(event, attributes)

    def link(self, traceparents: Iterable[str]) -> None:
        for traceparent in filter(None, map(sound_traceparent, traceparents)):
            _, trace_id, span_id, flags = traceparent.split("-")
            self._span.add_link(
                trace.SpanContext(
                    int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16))
                )
            )

    def fail(self, cause: str) -> None:
        self._span.set_status(trace.StatusCode.ERROR, cause[:CAUSE_LENGTH])


class Collecting:
    """The collection that the environment asks for (`OTEL_*`), from its making to `stop`."""

    def __init__(self, environ: Mapping[str, str], masked: Callable[[str], str]) -> None:
        """`masked` takes secrets out of a text that is logged.

        Raises SettingsError for an exporter that is not there, and whatever the SDK says of other variables.
        """
        self._said = Said(masked)
        self._made: TracerProvider | None = None
        present = trace.get_tracer_provider()
        if not isinstance(present, trace.ProxyTracerProvider):
            # Whoever started us has made one (opentelemetry-instrument), and ends it.
            self.tracer = OtelTracer(present)
            return
        self._said.begin()
        try:
            exporters = [_exporter(name) for name in exporters_of(environ)]
            self._made = TracerProvider(resource=_resource(), shutdown_on_exit=False)
            for exporter in exporters:
                self._made.add_span_processor(BatchSpanProcessor(Telling(exporter, self._said)))
        except BaseException:
            self._said.end()
            raise
        if (doubt := self._said.first()) is not None:
            log.warning("tracing_doubtful", doubt=doubt)
        self.tracer = OtelTracer(self._made)

    async def stop(self) -> None:
        """Export what is left, for FLUSH_SECONDS at most."""
        if self._made is not None:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()

            def shut_down(provider: TracerProvider = self._made) -> None:
                provider.shutdown()
                # It may have taken longer than the loop lives.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(ended.set)

            # Not of the loop's executor: the process would wait for its end.
            threading.Thread(target=shut_down, name="liveness-otel-stop", daemon=True).start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await ended.wait()
                    # Else it goes on in its thread, and says so.
                    self._said.end()


class Said(logging.Handler):
    """What the SDK logs. It says the same again and again while a collector is away, and shows headers; we do not.

    Of what it says about one thing, the first is what has happened, and the others what it does about that.
    """

    def __init__(self, masked: Callable[[str], str]) -> None:
        super().__init__(logging.WARNING)
        self._masked = masked
        self._first: str | None = None
        self._logger = logging.getLogger("opentelemetry")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what a record says."""
        self.say(record.getMessage())

    def say(self, text: str) -> None:
        """Keep a text, if it is the first since that was asked for."""
        if self._first is None:
            self._first = self._masked(" ".join(text.split()))[:CAUSE_LENGTH]

    def first(self) -> str | None:
        """Return what was said first since this was asked last."""
        said, self._first = self._first, None
        return said

    def begin(self) -> None:
        """Take what the SDK logs, in place of all others."""
        self._logger.addHandler(self)
        self._logger.propagate = False

    def end(self) -> None:
        """Leave it to the others again."""
        self._logger.removeHandler(self)
        self._logger.propagate = True


class Telling(SpanExporter):
    """Exports by `exporter`, and logs when that begins to fail, and when it works again."""

    def __init__(self, exporter: SpanExporter, said: Said) -> None:
        self._exporter = exporter
        self._said = said
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export `spans`; whatever that raises is a failure."""
        self._said.first()
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - an exporter of anybody's
            self._said.say(f"{type(error).__name__}: {error}")
            result = SpanExportResult.FAILURE
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            cause = self._said.first() or "the exporter does not say why"
            log.warning("traces_not_exported", cause=cause, advice="spans are lost until the collector answers")
        elif self._failing and not failing:
            log.info("traces_exported_again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        """Break off what is under way."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what the exporter itself has kept."""
        return self._exporter.force_flush(timeout_millis)


def exporters_of(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the exporters that the environment asks for, as packages announce them. Pure."""
    found = []
    for word in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        name = word.strip().lower()
        if name == "otlp":
            protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
        if name not in {"", "none"}:
            found.append(name)
    return found


def _exporter(name: str) -> SpanExporter:
    for announced in entry_points(group="opentelemetry_traces_exporter", name=name):
        exporter: Any = announced.load()
        made: SpanExporter = exporter()
        return made
    raise SettingsError(
        f"no exporter {name} is installed: the extra otel brings otlp (OTEL_EXPORTER_OTLP_PROTOCOL http/protobuf) and "
        "console"
    )


def _resource() -> Resource:
    ours = {
        "service.name": "liveness",
        "service.version": liveness.__version__,
        # As `decided_by` of what it has ended.
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before ours.
    return Resource.create(ours).merge(OTELResourceDetector().detect())
