"""Whether spans are collected: what users of OpenTelemetry expect, with the variables that they know."""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping

import structlog

from liveness import spans

log = structlog.get_logger("liveness.tracing")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_MISSING = "the extra otel is not installed ({}): pip install 'liveness[server,otel]', or unset {}"


def asked_by(environ: Mapping[str, str]) -> str | None:
    """Return the variable that asks for spans to be collected, or None. Pure."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if exporters := environ.get("OTEL_TRACES_EXPORTER", "").strip().lower():
        return None if exporters == "none" else "OTEL_TRACES_EXPORTER"
    return next((name for name in ENDPOINTS if environ.get(name)), None)


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[None]:
    """Collect the spans of the block if the environment asks for it.

    Whatever stands against it is logged, and no reason to do without the block.
    """
    asked = asked_by(os.environ)
    if asked is None:
        yield
        return
    try:
        from liveness import otel  # noqa: PLC0415 - an extra, and not cheap

        started = otel.Collecting(os.environ)
    except ImportError as error:
        log.warning("tracing_off", cause=_MISSING.format(error, asked))
        yield
        return
    except Exception as error:  # noqa: BLE001 - the SDK's own words on a variable that cannot be used
        log.warning("tracing_off", cause=f"{type(error).__name__}: {error}")
        yield
        return
    spans.collect(started.tracer)
    log.info("tracing_on", asked_by=asked)
    try:
        yield
    finally:
        spans.collect(spans.Tracer())
        await started.stop()
