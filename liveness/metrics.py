"""The metrics, read off the parts when somebody asks: nothing is counted twice, and a heartbeat costs nothing more.

What `/metrics` says is collected on the service's own loop, which hears nothing meanwhile. So nothing here goes through
the leases: their number by state follows from those of the few that are not simply alive. Only suspects, and what waits
for a verdict, are counted one by one: nearly always there are next to none, and in a storm of all of them the loop has
its turn behind each thousand.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import liveness
from liveness.assembly import Assembly
from liveness.measures import BOUNDS, COMPLAINTS, FAULTS, FINDS, MEASURES, PROCESSES, REASONS, STATES, VERDICTS, WELCOME
from liveness.settings import Settings
from liveness.snapshot import unmarked
from liveness.turns import in_turns

# A metric, the values of its labels in their order, and its value.
Sample = tuple[str, tuple[str, ...], float]

Labels = TypeVar("Labels", bound=tuple[str, ...])

# Of each kind its own `add_metric`.
_FAMILIES: Final[Mapping[str, Callable[..., Any]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
# What the intake counts under a metric of its own.
_COUNTED = {
    "heartbeats": "heartbeats",
    "hellos": "hellos",
    "goodbyes": "goodbyes",
    "probe_answers": "probe_answers",
    "restarts": "restarts",
    "conflicts": "conflicts",
    "work_leaked": "leaks",
}


class Metrics(Collector):
    """Tells what the service has done and sees. `parts()` are its parts, once it has any; `troubles()` as `/readyz`."""

    def __init__(
        self, settings: Settings, parts: Callable[[], Assembly | None], troubles: Callable[[], Sequence[str]]
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._troubles = troubles
        # Of the leases that wait for a verdict, those with proof; and the suspects that have not lapsed yet.
        self._proven = self._suspect = 0
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the form that suits the header `accept`, and which form that is."""
        if (parts := self._parts()) is not None:
            await self._count(parts)
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    async def _count(self, parts: Assembly) -> None:
        book, endings, proven, suspect = parts.book, parts.book.endings, 0, 0
        async for lease in in_turns(list(endings.values())):
            proven += lease.ending is not None and lease.ending.proof
        # Who is suspected and lapses stays among the suspects until they are looked at again.
        async for worker in in_turns(list(parts.suspects.suspected)):
            doubted = book.get(worker)
            suspect += doubted is not None and not book.lines.is_past(doubted, parts.hearing.now)
        self._proven, self._suspect = proven, suspect

    def collect(self) -> Iterator[Metric]:
        """Return all of them, those without a sample too."""
        parts = self._parts()
        families = {one.name: _FAMILIES[one.kind](one.name, one.says, labels=one.labels) for one in MEASURES}
        for name, labels, value in self._of_the_service(parts):
            families[f"liveness_{name}"].add_metric(labels, value)
        if parts is not None:
            tallies = parts.store.reclaims.tallies
            for name, durations in (("reclaim", tallies.reclaim), ("reclaim_lateness", tallies.lateness)):
                families[f"liveness_{name}_seconds"].add_metric((), durations.buckets(), durations.sum)
        yield from families.values()

    def _of_the_service(self, parts: Assembly | None) -> Iterator[Sample]:
        troubles = self._troubles()
        settings = self._settings
        yield "build_info", (liveness.__version__, settings.mode, settings.shard), 1
        yield "ready", (), not troubles
        if parts is None:
            yield "leading", (), 0
            yield "nats_connected", (), 0
            yield "deaf", (), 1
            yield "database_away", (), any(trouble.startswith("Postgres") for trouble in troubles)
            return
        for samples in (_replica, _heard, _hearing, self._leases, _given_back, _found, _told, _database):
            yield from samples(parts)

    def _leases(self, parts: Assembly) -> Iterator[Sample]:
        book, ending = parts.book, len(parts.book.endings)
        overdue = min(unmarked(parts), len(book) - ending)
        alive = len(book) - ending - overdue
        # What was counted one by one may be some milliseconds older than the others.
        suspect, proven = min(self._suspect, alive), min(self._proven, ending)
        wedged = min(parts.doubting.wedged_lately, alive - suspect)
        states = (alive - suspect - wedged, suspect, wedged, ending - proven + overdue, proven)
        for state, leases in zip(STATES, states, strict=True):
            yield "leases", (state,), leases
        yield "leases_wanting", (), len(book.wanting)
        for kind in ("suspected", "wedged"):
            yield "doubts", (kind,), parts.doubting.told[kind]
        yield "storms_held", (), len(parts.storms.held(parts.hearing.now))
        yield "storms", (), parts.storms.begun


def _replica(parts: Assembly) -> Iterator[Sample]:
    yield "paused_seconds", (), parts.pausing.seconds()
    yield "leading", (), parts.leadership.leading
    if parts.leadership.leading and (term := parts.store.leader.term) is not None:
        yield "leader_term", (), term


def _heard(parts: Assembly) -> Iterator[Sample]:
    counts = parts.intake.counts
    for name, key in _COUNTED.items():
        yield name, (), counts[key]
    for kind in COMPLAINTS:
        yield "complaints", (kind,), counts[kind]
    for bound in BOUNDS:
        yield "bounds_hit", (bound,), parts.bounds.count(bound)
    yield "names_invited", (), len(parts.admission.invited)
    yield "conflicts_open", (), len(parts.book.incarnations.conflicts)


def _hearing(parts: Assembly) -> Iterator[Sample]:
    hearing, now = parts.hearing, parts.clock()
    yield "nats_connected", (), parts.bus.connected
    for kind in FAULTS:
        yield "bus_faults", (kind,), parts.bus.faults[kind]
    yield "deaf", (), hearing.deaf(now)
    yield "hearing_lag_seconds", (), hearing.real_ago(hearing.now, now)
    yield "hearing_gaps", (), hearing.gaps
    yield "hearing_lost_seconds", (), hearing.lost


def _given_back(parts: Assembly) -> Iterator[Sample]:
    tallies, mode = parts.store.reclaims.tallies, parts.settings.mode
    works = [work.work for work in parts.settings.tables.works]
    for verdict in VERDICTS:
        yield "lapses", (verdict,), tallies.verdicts["lapsed", verdict]
    yield "lapses", ("revived",), parts.intake.counts["revived"]
    # Those that are 0 as well: only what is there from the start can be seen to grow.
    yield from _counts("lives_ended", tallies.ended, ((reason, mode) for reason in REASONS))
    yield from _counts("work_reclaimed", tallies.items, ((work, reason, mode) for work in works for reason in REASONS))
    for work in works:
        yield "work_reclaimed", (work, "leaked", mode), parts.store.leaks.items[work]
        yield "work_crashing", (work,), tallies.crashing[work]
        yield "work_quarantined", (work,), tallies.quarantined[work]
        yield "work_refused", (work,), tallies.refused[work]
    yield from _counts(
        "recovered",
        parts.grants.recovered,
        ((reason, process, mode) for reason in REASONS if reason not in WELCOME for process in PROCESSES),
    )


def _found(parts: Assembly) -> Iterator[Sample]:
    yield "sweeps", (), parts.sweep.done
    last = parts.sweep.last
    if parts.leadership.leading and last is not None:
        found = {find: len(getattr(last, find)) for find in FINDS} | {"ownerless": sum(last.ownerless.values())}
        for find, names in found.items():
            yield "sweep_found", (find,), names


def _told(parts: Assembly) -> Iterator[Sample]:
    yield "events_published", (), parts.relay.published
    if parts.leadership.leading:
        yield "outbox_events", (), parts.backlog.events
        yield "outbox_oldest_seconds", (), parts.backlog.oldest


def _database(parts: Assembly) -> Iterator[Sample]:
    yield "database_away", (), parts.away.goes_on
    yield "database_away_seconds", (), parts.away.seconds(parts.clock())
    for duty in parts.rounds:
        yield "database_retries", (duty.name,), duty.retries


def _counts(name: str, counts: Mapping[Labels, int], expected: Iterable[Labels]) -> Iterator[Sample]:
    for labels, count in (dict.fromkeys(expected, 0) | dict(counts)).items():
        yield name, labels, count
