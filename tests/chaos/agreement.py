"""Whether metrics, page, `status --json`, events and Postgres say the same when all is quiet, and counted right before.

While the faults go on, `/metrics` of each replica is read all the time: no counter of a process may fall. In the end
each replica is asked for its metrics and its page, the acting one for its status, and Postgres for what was committed.
"""

import asyncio
import contextlib
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from liveness.measures import WELCOME
from tests.outages.bounds import excused
from tests.outages.history import History, clock
from tests.outages.stage import Replica, Stage

READ_SECONDS: Final = 1.0
# A command's answer, the start of its process included.
ANSWER_SECONDS: Final = 20.0
# Reasons by which nobody has said or shown that the process is over.
BY_SILENCE: Final = frozenset({"lapsed", "stale", "orphaned"})

Sample = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True)
class Account:
    """What one replica says of itself: its metrics, and epoch by worker of the page's rows with the head line."""

    name: str
    metrics: Sample
    page: Mapping[str, str]
    marks: str

    def total(self, metric: str, **labels: str) -> float:
        """The sum of a metric over all labels but those given."""
        wanted = set(labels.items())
        return sum(value for (name, has), value in self.metrics.items() if name == metric and wanted <= has)


@dataclass(frozen=True)
class Facts:
    """What Postgres says: epochs that are open by worker, who leads under which term, and what waits to be told."""

    open_epochs: Mapping[str, int]
    term: int
    outbox: int


@dataclass(frozen=True)
class Counts:
    """Ends of lives, work that went back, and names that were heard again since, each by the reason of the end."""

    ended: Counter[str] = field(default_factory=Counter)
    reclaimed: Counter[str] = field(default_factory=Counter)
    recovered: Counter[str] = field(default_factory=Counter)

    def since(self, before: "Counts") -> "Counts":
        """What has come since."""
        return Counts(
            *(
                Counter({reason: count - then[reason] for reason, count in now.items() if count != then[reason]})
                for now, then in (
                    (self.ended, before.ended),
                    (self.reclaimed, before.reclaimed),
                    (self.recovered, before.recovered),
                )
            )
        )


class Readings:
    """Reads the metrics of every replica all the time; `falls` are the counters that fell, a sentence each."""

    def __init__(self, stage: Stage) -> None:
        self._stage: Final = stage
        self._last: Final[dict[int, Sample]] = {}
        self.taken = 0
        self.falls: Final[list[str]] = []

    async def go_on(self) -> None:
        """Read until cancelled. Who is killed, stopped or starting gives no answer."""
        while True:
            # Prometheus would do so every few seconds.
            await asyncio.sleep(READ_SECONDS)
            for replica in self._stage.replicas:
                pid = replica.process.pid
                with contextlib.suppress(OSError):
                    self.note(replica.name, pid, sample(await replica.fetch("/metrics")))

    def note(self, name: str, pid: int, metrics: Sample) -> None:
        """Hold one process's reading against its last."""
        self.taken += 1
        for key, before in self._last.get(pid, {}).items():
            if key[0].endswith(("_total", "_count", "_bucket")) and metrics.get(key, 0.0) < before:
                self.falls.append(f"{key[0]} of {name} (pid {pid}) fell from {before:g} to {metrics.get(key, 0.0):g}")
        self._last[pid] = metrics


def sample(text: str) -> Sample:
    """Return what an answer of `/metrics` says."""
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def counted(accounts: list[Account]) -> Counts:
    """Return what the metrics of all replicas together count."""
    counts = Counts()
    metrics = {
        "liveness_lives_ended_total": counts.ended,
        "liveness_work_reclaimed_total": counts.reclaimed,
        "liveness_recovered_total": counts.recovered,
    }
    for account in accounts:
        for (name, labels), value in account.metrics.items():
            if name in metrics and value:
                metrics[name][dict(labels)["reason"]] += int(value)
    return counts


def disagreements(accounts: list[Account], status: Mapping[str, Any], facts: Facts) -> list[str]:
    """Return a sentence for whatever is told in two ways. Of a fleet in which nobody comes or goes."""
    said: list[str] = []

    def same(what: str, **values: object) -> None:
        if len({repr(value) for value in values.values()}) > 1:
            said.append(f"{what}: " + ", ".join(f"{who} says {value}" for who, value in values.items()))

    leading = [account for account in accounts if account.total("liveness_leading")]
    same("replicas that lead", metrics=len(leading), postgres=1)
    for account in accounts:
        who = account.name.replace("-", "_")
        leases = int(account.total("liveness_leases"))
        same("leases", **{who: leases, "its_page": len(account.page), "status": status["leases"]})
        same("epochs", **{f"page_of_{who}": dict(account.page), "postgres": _texts(facts.open_epochs)})
        same("deaf", **{who: bool(account.total("liveness_deaf")), "status": not status["hearing"]})
        same("ready", **{who: bool(account.total("liveness_ready")), "status": not status["troubles"]})
        same("storms", **{who: int(account.total("liveness_storms_held")), "status": len(status["storms"])})
    for account in leading:
        term = int(account.total("liveness_leader_term"))
        outbox = int(account.total("liveness_outbox_events"))
        same("term", metrics=term, status=status["term"], postgres=facts.term)
        same("term on the page", page=f"leads in term {term}" in account.marks, metrics=True)
        same("outbox", metrics=outbox, status=status["outbox"], postgres=facts.outbox)
        same("outbox on the page", page=f"{outbox} event" in account.marks, metrics=True)
    same(
        "epochs",
        status=_texts({one["worker"]: one["epoch"] for one in status["workers"]}),
        postgres=_texts(facts.open_epochs),
    )
    return said


def _texts(epochs: Mapping[str, int | None]) -> dict[str, str]:
    return {worker: str(epoch) for worker, epoch in sorted(epochs.items())}


def not_silenced(history: History) -> list[tuple[float, str]]:
    """Return those that were heard again after a lapse and had not been silent beyond their ttl: when, and a sentence.

    `worker.recovered` is written in the transaction that the metric counts.
    """
    found = []
    for event in history.events:
        data = event["data"]
        if event["type"] != "worker.recovered" or data["former_reason"] not in BY_SILENCE:
            continue
        life, ended = history.lives.get(data["former_incarnation"] or ""), _moment(history, data)
        if life is not None and data["incarnation"] == data["former_incarnation"] and not excused(history, life, ended):
            said = (
                f"{life.incarnation} recovers at {clock(event['at'])} from an end at {clock(ended)}, and was not silent"
            )
            found.append((event["at"], said))
    return found


def _moment(history: History, data: Mapping[str, Any]) -> float:
    key = data["worker"], data["former_epoch"]
    return float(next(row["expired_at"] for row in history.expirations if (row["worker"], row["epoch"]) == key))


_ROW: Final = re.compile(r'<tr role="row" class="\w+" data-key="([^"]+)">.*?data-label="epoch">(\d+|-)<', re.DOTALL)


async def account_of(replica: Replica) -> Account:
    """Ask a replica for its metrics and its page. Raises OSError where it does not answer."""
    metrics, page = sample(await replica.fetch("/metrics")), await replica.fetch("/")
    marks = " ".join(re.findall(r"<dt>\w+</dt><dd>([^<]*)", page))
    return Account(replica.name, metrics, dict(sorted(_ROW.findall(page))), marks)


async def status_of(stage: Stage) -> dict[str, Any]:
    """Return what `liveness status --json` prints."""
    command = ["-m", "liveness", "status", "--json", "--nats-url", stage.nats.url]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, complaint = await asyncio.wait_for(process.communicate(), ANSWER_SECONDS)
    assert process.returncode == 0, complaint.decode()
    answer: dict[str, Any] = json.loads(printed)
    return answer


async def facts_of(stage: Stage) -> Facts:
    """Ask Postgres."""
    rows = await stage.rows("SELECT worker, epoch FROM liveness.epoch WHERE ended_at IS NULL")
    return Facts(
        open_epochs={row["worker"]: row["epoch"] for row in rows},
        term=await stage.value("SELECT term FROM liveness.leader"),
        outbox=await stage.value("SELECT coalesce(sum(events), 0)::bigint FROM liveness.outbox"),
    )


async def committed(stage: Stage) -> Counts:
    """Return what Postgres counts. Names that were heard again after a goodbye have recovered from nothing."""
    ended = await stage.rows("SELECT reason, count(*) AS n FROM liveness.expiration GROUP BY 1")
    reclaimed = await stage.rows(
        "SELECT reason, count(*) AS n FROM liveness.reclaim JOIN liveness.expiration USING (worker, epoch) GROUP BY 1"
    )
    recovered = await stage.rows(
        "SELECT reason, count(*) AS n FROM liveness.expiration WHERE recovered_at IS NOT NULL AND reason <> ALL($1)"
        " GROUP BY 1",
        list(WELCOME),
    )
    return Counts(*(Counter({row["reason"]: row["n"] for row in rows}) for rows in (ended, reclaimed, recovered)))
