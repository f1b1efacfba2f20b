"""Spans that tests look at."""

import contextlib
from collections.abc import Iterator

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from liveness import spans
from liveness.otel import OtelTracer


class Collected:
    """The spans that ended, as an exporter gets them."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self, name: str) -> list[ReadableSpan]:
        """Return all spans of that name, in the order in which they ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of that name."""
        (found,) = self.all(name)
        return found


@contextlib.contextmanager
def collected() -> Iterator[Collected]:
    """Collect the spans of this block, and of the tasks begun in it."""
    found = Collected()
    spans.collect(OtelTracer(found.provider))
    try:
        yield found
    finally:
        spans.collect(spans.Tracer())


def traceparent_of(span: ReadableSpan) -> str:
    """Return the trace context of a span, as W3C writes it."""
    context = span.get_span_context()
    assert context is not None
    return _written(context)


def linked(span: ReadableSpan) -> list[str]:
    """Return the trace contexts to which a span is linked."""
    return [_written(link.context) for link in span.links]


def _written(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
