"""The metrics that the service exposes: names, labels and what they say. Pure; `metrics` reads them off the parts.

No label ever holds a name, an id or a text that came from outside: how many series there are is bounded by the code and
by the settings.
"""

from typing import Final, NamedTuple


class Measure(NamedTuple):
    """One metric. A counter's samples end in `_total`; a histogram's in `_bucket`, `_sum` and `_count`."""

    name: str
    kind: str
    says: str
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The name as queries have it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counter(name: str, says: str, *labels: str) -> Measure:
    return Measure(f"liveness_{name}", "counter", says, labels)


def _gauge(name: str, says: str, *labels: str) -> Measure:
    return Measure(f"liveness_{name}", "gauge", says, labels)


def _histogram(name: str, says: str) -> Measure:
    return Measure(f"liveness_{name}", "histogram", says)


# What the intake complains of, and counts at each time.
COMPLAINTS: Final = (
    "malformed", "stale", "stray", "unusable_name", "not_ours", "incarnation_without_uptime", "hello_refused",
    "goodbye_malformed", "goodbye_stale",
)  # fmt: skip
# What strangers, and workers' messages, are held to (docs/limits.md); the intake counts them as `beyond_` these.
BOUNDS: Final = ("workers", "grants", "payload", "running", "ttl", "hellos_waiting")
# How a connection to NATS is lost, and what goes wrong on one that stands (`bus`).
FAULTS: Final = (
    "lost", "half_open", "refused", "malformed", "deaf", "sink_raised", "callback_raised", "forbidden", "dropped",
)  # fmt: skip
REASONS: Final = ("lapsed", "released", "died", "restarted", "stale", "orphaned", "operator")
VERDICTS: Final = ("ended", "spared", "held", "over")
STATES: Final = ("live", "suspect", "wedged", "lapsed", "ending")
# Ends of which it was said that the process is over: whoever is heard again has not recovered from anything.
WELCOME: Final = frozenset({"released", "restarted"})
# Whose process a name is that was heard again: the one whose life had ended, or another.
PROCESSES: Final = ("same", "another", "unknown")
FINDS: Final = ("stale", "orphaned", "too_early", "ambiguous", "refused", "ownerless")

MEASURES: Final = (
    _gauge("build_info", "Always 1: which version this is, and how it was set.", "version", "mode", "shard"),
    _gauge("ready", "Whether /readyz says ready."),
    _gauge("leading", "Whether this replica acts."),
    _gauge("paused_seconds", "For how long an operator has paused, so that nothing is taken; 0: nobody has."),
    _gauge("leader_term", "The term under which it acts; only where it does."),
    # Hearing.
    _counter("heartbeats", "Heartbeats heard, those of which something was to be complained included."),
    _counter("hellos", "Hellos heard."),
    _counter("goodbyes", "Goodbyes heard."),
    _counter("probe_answers", "Answers to probes heard."),
    _counter("restarts", "Lives that ended because another process of the name was heard."),
    _counter(
        "complaints",
        "Messages of which something was to be complained: malformed (what it says does not decode; it beats all the "
        "same), stale (of a former incarnation), stray (by a server that divides the workers otherwise), ...",
        "kind",
    ),
    _counter(
        "bounds_hit",
        "Times that something was beyond a bound: workers and grants (a beat or hello of a name that Postgres does not "
        "know was turned away), payload, running, ttl, hellos_waiting (see docs/limits.md).",
        "bound",
    ),
    _gauge("names_invited", "Names that Postgres knows and that come in however many strangers there are."),
    _counter("conflicts", "Times that two incarnations were found beating under one name."),
    _gauge("conflicts_open", "Names under which two incarnations beat now."),
    _gauge("nats_connected", "Whether the connection to NATS stands."),
    _counter("bus_faults", "Connections to NATS that were lost, by how, and faults on one that stood.", "kind"),
    _gauge("deaf", "Whether nothing can be heard now."),
    _gauge("hearing_lag_seconds", "How far hearing time is behind: usually twice the echo interval at most."),
    _counter("hearing_gaps", "Times that hearing was interrupted; the first is the start."),
    _counter("hearing_lost_seconds", "Time in which nothing could be heard; it counts against nobody."),
    # The book.
    _gauge(
        "leases",
        "Leases by state: live, suspect (it may be dead), wedged (it beats and gets nothing done; found by the replica "
        "that acts), lapsed (silent too long, waits for the verdict), ending (proof was given).",
        "state",
    ),
    _gauge("leases_wanting", "Leases, of any state, that wait for an epoch."),
    _counter("doubts", "Times that a worker was told to be suspected, or wedged.", "kind"),
    _gauge("storms_held", "Storms that hold lapses now."),
    _counter("storms", "Storms that began."),
    # What is given back.
    _counter(
        "lapses",
        "Leases that lapsed, by what came of it: ended, spared (somebody else recorded a beat), over (it was already), "
        "held (somebody had the epoch locked; counted at each try), revived (a beat came before any verdict).",
        "verdict",
    ),
    _counter("lives_ended", "Lives that ended, by reason, and the mode in which they did.", "reason", "mode"),
    _counter(
        "work_reclaimed",
        "Pieces of work that went back, by kind, reason (`leaked`: its worker lives and left it out), and mode; of "
        "observe, nothing was touched.",
        "work", "reason", "mode",
    ),
    _histogram("reclaim_seconds", "From the offer to the commit of each transaction that ended lives."),
    _histogram("reclaim_lateness_seconds", "From the end of the promise to the commit, of lapses that ended lives."),
    _counter(
        "recovered",
        "Names heard again after their work was given back, by the reason for that, and by whose process it is: same "
        "(it lived), another, unknown (it beats without an incarnation).",
        "reason", "process", "mode",
    ),
    _counter("work_crashing", "Times that a piece of work had crashed too many workers, set aside or not.", "work"),
    _counter("work_quarantined", "Pieces of work that were set aside for that.", "work"),
    _counter("work_leaked", "Rows that a living worker left out of what it runs and that were told of."),
    _counter("work_refused", "Rows that their table refused to put back, at their first try.", "work"),
    # The sweep.
    _counter("sweeps", "Sweeps that this replica made."),
    _gauge(
        "sweep_found",
        "Names (ownerless: rows) that the last sweep found, or would have taken while somebody has paused, by find; "
        "only where this replica acts.",
        "find",
    ),
    # The news.
    _counter("events_published", "Events that JetStream has acknowledged."),
    _gauge("outbox_events", "Events that wait to be published; only where this replica acts."),
    _gauge("outbox_oldest_seconds", "How long the oldest of them has waited; only where this replica acts."),
    # Postgres.
    _gauge("database_away", "Whether Postgres fails any duty now."),
    _counter("database_away_seconds", "Time in which it did."),
    _counter("database_retries", "Times that a duty had to be tried again for it.", "duty"),
)  # fmt: skip


def table() -> str:
    """Return the rows of the table in docs/metrics.md."""
    return "".join(
        f"| `{one.shown}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.says} |\n"
        for one in MEASURES
    )


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201 - what it is for
