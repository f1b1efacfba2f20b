"""How the service logs: structlog, one event name for one thing, on standard error; JSON where nobody reads along."""

import io
import logging
import sys
from typing import Final, Literal, TextIO

import structlog

from liveness.shown import printable, printable_lines
from liveness.spans import carried

# They are rows of the host's, and the DSN with its password.
_SHOW_LOCALS = False
# Fields that people read as several lines.
_OF_LINES: Final = frozenset({"exception", "stack"})


def _add_trace(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Name the span that the line was logged in, by the names that collectors look for."""
    if (traceparent := carried.get()) is not None:
        _, event["trace_id"], event["span_id"], _ = traceparent.split("-")
    return event


def _make_printable(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Leave nothing that a terminal would obey, nor another line: workers choose names, and errors show them."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = printable_lines(value) if name in _OF_LINES else printable(value)
    return event


def _traceback(file: TextIO, caught: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, caught)
    file.write(printable_lines(text.getvalue()))


def configure(log_format: Literal["auto", "console", "json"], level: str) -> None:
    """Set the logging of this process up, that of nats-py, asyncpg and uvicorn (standard `logging`) included."""
    json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    numeric = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        _add_trace,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[structlog.typing.Processor] = (
        [
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=_SHOW_LOCALS)
            ),
            structlog.processors.JSONRenderer(),
        ]
        if json
        else [
            _make_printable,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=numeric, force=True)
    # They report through errors that we handle; their own lines would say everything twice.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
    # Its warnings are of what was asked: whoever reaches the port could fill the log with them.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        cache_logger_on_first_use=True,
    )
