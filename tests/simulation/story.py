"""What one seed did, for somebody to read: the cast, what happened when and to whom, and the verdict."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from tests.simulation.replica import Replica
from tests.simulation.schedule import Result, Schedule
from tests.simulation.workers import Worker


class Quiet:
    """Takes what the parts log, and keeps nothing: the cheapest logger there is."""

    def nothing(self, *_said: object, **_more: object) -> None:
        """Keep nothing."""

    debug = info = warning = error = exception = log = nothing


class Told(Quiet):
    """Puts what the parts log into the story of the world in which they run."""

    def _tell(self, event: str, **said: object) -> None:
        speaker = _speaker()
        if speaker is not None:
            words = "  ".join(f"{key}={_short(value)}" for key, value in said.items())
            speaker.world.tell(f"    {speaker.name}  {event}  {words}".rstrip())

    def _log(self, _level: int, event: str, **said: object) -> None:
        self._tell(event, **said)

    debug = info = warning = error = exception = _tell  # type: ignore[assignment]
    log = _log  # type: ignore[assignment]


@contextlib.contextmanager
def logging_to(log: Quiet) -> Iterator[None]:
    """Let every part of the service log there.

    The modules' own loggers are replaced: structlog, configured to do nothing, still costs half as much as a schedule.
    """
    modules = [
        module for name, module in sys.modules.items() if name.startswith("liveness.") and hasattr(module, "log")
    ]
    former: list[tuple[Any, Any]] = [(module, module.log) for module in modules]
    for module in modules:
        module.log = log  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, own in former:
            module.log = own


def replay(seed: int, *, plain: bool = False) -> tuple[Result, list[str]]:
    """Run one seed, perhaps without habits, and return what became of it, and its story."""
    with logging_to(Told()):
        schedule = Schedule(seed, story=True, plain=plain)
        result = schedule.run()
    return result, [*_cast(schedule, result), "", *(result.story or ()), "", *_verdict(result)]


def _cast(schedule: Schedule, result: Result) -> Iterator[str]:
    faults = ", ".join(f"{kind} x{times}" if times > 1 else kind for kind, times in sorted(result.faults.items()))
    yield f"seed {result.seed}: {result.workers} workers, {result.replicas} replicas, {result.seconds:.0f} s"
    yield f"faults: {faults or 'none'}"
    yield ""
    for processes in schedule.checker.processes.values():
        for process in processes:
            yield _described(process)


def _described(process: Worker) -> str:
    if process.died_at is None:
        end = "lives"
    else:
        end = f"{'says goodbye' if process.said_goodbye else 'dies'} at {process.died_at:.2f}"
    late = f", {process.mouth.latency:.2f} s from NATS" if process.mouth.latency else ""
    lost = f", lost {process.lost_work}" if process.lost_work else ""
    return (
        f"  {process.incarnation:<12} {process.style:<7} begins at {process.born_at:7.2f}, "
        f"beats each {process.interval:.1f} s{late}, {end}{lost}"
    )


def _verdict(result: Result) -> Iterator[str]:
    yield f"{result.taken} pieces of work were taken, and {len(result.violations)} rules broken"
    yield from (f"  {violation}" for violation in result.violations)


def _speaker() -> Replica | None:
    # Whoever logs was called by its replica, however far up: parts do not know whose they are.
    frame = sys._getframe(1)
    while frame is not None:
        who = frame.f_locals.get("self")
        if isinstance(who, Replica):
            return who
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _short(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
