"""Spans: nothing where nobody collects, and what OpenTelemetry is told where somebody does."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from structlog.testing import capture_logs

from liveness import otel, spans
from liveness.cli.serve import serve
from liveness.errors import DatabaseAwayError, NotLeaderError, SettingsError
from liveness.otel import exporters_of
from liveness.settings import Settings
from liveness.tracing import asked_by, collecting, masked, secrets_of
from tests.traces import collected, linked, traceparent_of

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", *ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    yield
    spans.collect(spans.Tracer())


def test_a_span_of_nobody_is_nothing() -> None:
    """The same thing each time, which takes whatever it is told, and carries no context."""
    with spans.span("reclaim", {"liveness.lives": 1}, kind="client") as one, spans.span("relay") as other:
        one.note({"a": 1})
        one.tell("life", {"b": "c"})
        one.link(["no traceparent at all"])
        one.fail("it is told to nobody")

        assert one is other is spans.NOTHING
        assert not one.collected
        assert spans.carried.get() is None


async def test_a_span_carries_its_context_to_its_tasks() -> None:
    """And after it, that of the one around it is carried again."""

    async def inside() -> str | None:
        return spans.carried.get()

    with collected() as found:
        with spans.span("sweep"):
            outer = spans.carried.get()
            with spans.span("reclaim", kind="client"):
                inner = await asyncio.create_task(inside())
            after = spans.carried.get()

        assert (traceparent_of(found.one("sweep")), traceparent_of(found.one("reclaim"))) == (outer, inner)
        assert after == outer
        assert spans.carried.get() is None
        assert found.one("reclaim").kind is trace.SpanKind.CLIENT
        assert found.one("reclaim").parent == found.one("sweep").context


def test_a_span_says_what_it_was_told() -> None:
    """Attributes, events, links to what is a trace context, and a failure in so many characters."""
    first = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with collected() as found:
        with spans.span("relay", {"a": 1}) as told:
            told.note({"b": 2})
            told.tell("life", {"c": "d"})
            told.link([first, "00-not-a-context", ""])
            told.fail("x" * 1000)
        span = found.one("relay")

    assert dict(span.attributes or {}) == {"a": 1, "b": 2}
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [("life", {"c": "d"})]
    assert linked(span) == [first]
    assert span.status.status_code is trace.StatusCode.ERROR
    assert len(span.status.description or "") == otel.CAUSE_LENGTH


@pytest.mark.parametrize(
    ("error", "is_fault"),
    [(DatabaseAwayError("no answer"), True), (NotLeaderError("term over"), False), (asyncio.CancelledError(), False)],
)
def test_an_error_that_leaves_a_span_is_told(error: BaseException, *, is_fault: bool) -> None:
    """By its type; that somebody else acts, and a stop, are no faults."""

    def fails() -> None:
        with spans.span("reclaim"):
            raise error

    with collected() as found:
        with pytest.raises(type(error)):
            fails()
        span = found.one("reclaim")

    assert (span.attributes or {}).get("error.type") == type(error).__name__
    assert (span.status.status_code is trace.StatusCode.ERROR) is is_fault
    assert span.status.description == (str(error) if is_fault else None)


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, None),
        (ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER"),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, None),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": ""}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, None),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_SERVICE_NAME": "mine", "OTEL_METRICS_EXPORTER": "otlp"}, None),
    ],
)
def test_what_asks_for_spans(environ: Mapping[str, str], asked: str | None) -> None:
    """What users of OpenTelemetry expect: an endpoint or an exporter, and nothing that says no."""
    assert asked_by(environ) == asked


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        (ENDPOINT, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, Console"}, ["otlp_proto_http", "console"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            ["otlp_proto_http"],
        ),
    ],
)
def test_which_exporters_are_meant(environ: Mapping[str, str], names: list[str]) -> None:
    """By the names under which packages announce them."""
    assert exporters_of(environ) == names


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    """Of a service whose environment does not name a collector."""
    program = (
        "import asyncio, sys\n"
        "import liveness.cli.serve\n"
        "from liveness.tracing import collecting\n"
        "async def main():\n"
        "    async with collecting():\n"
        "        print([name for name in sys.modules if name.startswith('opentelemetry') or name == 'liveness.otel'])\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


async def test_without_the_extra_the_service_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was asked for, and what would bring it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delitem(sys.modules, "liveness.otel")
    monkeypatch.delattr("liveness.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with capture_logs() as logs:
        async with collecting():
            assert spans.span("reclaim") is spans.NOTHING

    (line,) = logs
    assert line["event"] == "tracing_off"
    assert "pip install 'liveness[server,otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT" in line["cause"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_TRACES_EXPORTER", "carrier-pigeon", "no exporter carrier-pigeon is installed"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "no exporter otlp_proto_grpc is installed"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-5", "must be a positive integer"),
    ],
)
async def test_what_cannot_be_used_is_said_and_no_reason_not_to_serve(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    """In one line, in our words or the SDK's."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)

    with capture_logs() as logs:
        async with collecting():
            assert spans.span("reclaim") is spans.NOTHING

    assert [line["event"] for line in logs] == ["tracing_off"]
    assert says in logs[0]["cause"]


async def test_who_started_us_with_a_tracer_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As opentelemetry-instrument does: its exporters get our spans, and it ends them."""
    with collected() as found:
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: found.provider)
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        with capture_logs() as logs:
            async with collecting():
                with spans.span("sweep"):
                    pass
        with found.provider.get_tracer("theirs").start_as_current_span("theirs"):
            pass

        assert len(found.all("sweep")) == 1
        assert len(found.all("theirs")) == 1
        assert logs == [{"event": "tracing_on", "log_level": "info", "asked_by": "OTEL_TRACES_EXPORTER"}]


async def test_liveness_serve_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the service does, in all of its tasks, and not a moment longer."""

    class Serving:
        def __init__(self, _settings: Settings) -> None:
            pass

        async def run(self, _stop: asyncio.Event) -> None:
            async def duty() -> None:
                with spans.span("sweep"):
                    pass

            await asyncio.create_task(duty())

    monkeypatch.setattr("liveness.cli.serve.Service", Serving)
    with collected() as found:
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: found.provider)
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        spans.collect(spans.Tracer())
        await serve(Settings())

        assert len(found.all("sweep")) == 1
        assert spans.span("sweep") is spans.NOTHING


def test_what_is_said_of_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service of our name and version, unless the environment says otherwise."""
    ours = dict(otel._resource().attributes)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=overridden")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    theirs = dict(otel._resource().attributes)

    assert (ours["service.name"], theirs["service.name"]) == ("liveness", "mine")
    assert theirs["deployment.environment.name"] == "test"
    assert ours["service.version"] == theirs["service.version"] != ""


class Moody(SpanExporter):
    """An exporter that does as it is told."""

    def __init__(self) -> None:
        self.answer: SpanExportResult | Exception = SpanExportResult.SUCCESS

    def export(self, _spans: object) -> SpanExportResult:
        """Export nothing."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_secrets_of_the_environment_are_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK shows headers that it cannot read, and a URL that it cannot use."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cr%65t,t0ken-without-a-name")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")

    with capture_logs() as logs:
        async with collecting():
            pass

    assert [line["event"] for line in logs] == ["tracing_doubtful", "tracing_on"]
    assert logs[0]["doubt"].startswith("Header format invalid!")
    secrets = secrets_of({name: os.environ[name] for name in os.environ if name.startswith("OTEL_")})
    said = masked("http://user:hunter2@127.0.0.1:1 api-key=s3cr%65t s3cret t0ken-without-a-name", secrets)
    for text in (str(logs), said):
        assert not any(secret in text for secret in ("hunter2", "s3cr", "t0ken"))
    assert said == "http://***@127.0.0.1:1 *** *** ***"


def test_of_what_the_sdk_says_the_first_is_the_cause() -> None:
    """What it does about it follows, again and again."""
    said = otel.Said(str)
    said.begin()
    logger = logging.getLogger("opentelemetry.exporter")
    logger.warning("connection refused,\n retrying")
    logger.error("failed to export")
    logger.info("nothing to say")
    said.end()
    logger.info("not ours any more")

    assert said.first() == "connection refused, retrying"
    assert said.first() is None


def test_an_exporter_that_fails_is_told_of_once() -> None:
    """And once more when it works again; what it raises is a failure like any."""
    moody = Moody()
    telling = otel.Telling(moody, otel.Said(lambda text: text.replace("zero", "***")))

    with capture_logs() as logs:
        for moody.answer in (
            SpanExportResult.SUCCESS,
            SpanExportResult.FAILURE,
            ZeroDivisionError("by zero"),
            SpanExportResult.FAILURE,
            SpanExportResult.SUCCESS,
            SpanExportResult.SUCCESS,
            ZeroDivisionError("by zero"),
        ):
            telling.export([])

    assert [line["event"] for line in logs] == ["traces_not_exported", "traces_exported_again", "traces_not_exported"]
    assert [line.get("cause") for line in logs] == [
        "the exporter does not say why",
        None,
        "ZeroDivisionError: by ***",
    ]


def test_an_exporter_that_nobody_announces_is_a_setting_that_is_wrong() -> None:
    """With what is there instead."""
    with pytest.raises(SettingsError, match="brings otlp"):
        otel.Collecting({"OTEL_TRACES_EXPORTER": "zipkin"}, str)


def test_spans_that_are_not_sampled_are_carried() -> None:
    """Their flags say so, and nothing is put together for them."""
    provider = TracerProvider(sampler=ALWAYS_OFF)
    spans.collect(otel.OtelTracer(provider))

    with spans.span("reclaim") as told:
        assert not told.collected
        context = spans.carried.get()

    # The last bit of the flags.
    assert context is not None
    assert int(context[-2:], 16) & 1 == 0
