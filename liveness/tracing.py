"""Whether spans are collected: what users of OpenTelemetry expect, with the variables that they know."""

import contextlib
import functools
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final
from urllib.parse import unquote

import structlog

from liveness import spans

log = structlog.get_logger("liveness.tracing")

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
LEAST_SECRET: Final = 4
_MISSING: Final = "the extra otel is not installed ({}): pip install 'liveness[server,otel]', or unset {}"


def asked_by(environ: Mapping[str, str]) -> str | None:
    """Return the variable that asks for spans to be collected, or None. Pure."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if exporters := environ.get("OTEL_TRACES_EXPORTER", "").strip().lower():
        return None if exporters == "none" else "OTEL_TRACES_EXPORTER"
    return next((name for name in ENDPOINTS if environ.get(name)), None)


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Return what the environment says of how to log in to a collector: headers, users and passwords of URLs. Pure."""
    found = set()
    for name, value in environ.items():
        if name.startswith("OTEL_") and name.endswith("_HEADERS"):
            for header in value.split(","):
                found |= {header.strip(), header.partition("=")[2].strip()}
        elif name.startswith("OTEL_") and name.endswith("_ENDPOINT"):
            found.add(value.rpartition("@")[0].rpartition("//")[2])
    found |= {unquote(secret) for secret in found}
    # A whole one before what is a part of it. Words shorter than that are in every text.
    return sorted((secret for secret in found if len(secret) >= LEAST_SECRET), key=len, reverse=True)


def masked(text: str, secrets: Sequence[str]) -> str:
    """Return `text` without the `secrets` in it. Pure."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[None]:
    """Collect the spans of the block if the environment asks for it.

    Whatever stands against it is logged, and no reason to do without the block.
    """
    asked, secrets = asked_by(os.environ), secrets_of(os.environ)
    if asked is None:
        yield
        return
    try:
        from liveness import otel  # noqa: PLC0415 - an extra, and not cheap

        started = otel.Collecting(os.environ, functools.partial(masked, secrets=secrets))
    except ImportError as error:
        log.warning("tracing_off", cause=_MISSING.format(error, asked))
        yield
        return
    except Exception as error:  # noqa: BLE001 - the SDK's own words on a variable that cannot be used
        log.warning("tracing_off", cause=masked(f"{type(error).__name__}: {error}", secrets))
        yield
        return
    spans.collect(started.tracer)
    log.info("tracing_on", asked_by=asked)
    try:
        yield
    finally:
        spans.collect(spans.Tracer())
        await started.stop()
