"""What `/metrics` says, of parts that nobody moves."""

import asyncio
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from liveness import measures
from liveness.answers import Pause, Swept
from liveness.assembly import Assembly
from liveness.bus import Bus
from liveness.lease import Proof
from liveness.measures import COMPLAINTS, FAULTS, MEASURES
from liveness.metrics import Metrics
from liveness.settings import Settings
from liveness.store import Store
from liveness.suspects import Suspect
from liveness.tallies import Tallies
from tests.unit.makers import live

ROOT = Path(__file__).parents[2]
# A name that would be no good label: it must not come out anywhere.
HOSTILE = 'w"1\n{}'


class Scene:
    """The parts of a service without servers, and what it would answer to a scrape."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.store = SimpleNamespace(
            leader=SimpleNamespace(term=7, trouble=None),
            reclaims=SimpleNamespace(tallies=Tallies()),
            leaks=SimpleNamespace(items=Counter()),
            host=SimpleNamespace(running=None),
        )
        self.parts: Assembly | None = Assembly(self.settings, cast("Store", self.store), Bus("nats://127.0.0.1:4222"))
        self.troubles: list[str] = []
        self.metrics = Metrics(self.settings, lambda: self.parts, lambda: self.troubles)

    async def scrape(self) -> dict[str, float]:
        """Return every sample as Prometheus would show it, by name and labels."""
        text, content_type = await self.metrics.text("text/plain")
        assert content_type.startswith("text/plain")
        return {
            sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }


@pytest.fixture
async def scene() -> Scene:
    """A service that leads and that nobody has spoken to yet."""
    made = Scene()
    assert made.parts is not None
    made.parts.leadership.leading = True
    return made


def states(samples: dict[str, float]) -> dict[str, float]:
    """Return the number of leases by state."""
    prefix = "liveness_leases,state="
    return {name.removeprefix(prefix): value for name, value in samples.items() if name.startswith(prefix)}


async def test_a_service_that_has_not_begun_says_so() -> None:
    """It waits for a server, and leads nobody."""
    scene = Scene(mode="observe", shard="1/4")
    scene.parts, scene.troubles = None, ["Postgres: no answer in time"]

    samples = await scene.scrape()

    assert samples["liveness_ready"] == samples["liveness_leading"] == 0
    assert samples["liveness_database_away"] == samples["liveness_deaf"] == 1
    assert [name for name in samples if "build_info" in name and "mode=observe" in name and "shard=1/4" in name]
    assert "liveness_heartbeats_total" not in samples


async def test_the_states_of_leases_add_up_to_all(scene: Scene) -> None:
    """Each lease is in one of them; who waits for an epoch is counted besides."""
    assert scene.parts is not None
    book, suspected = scene.parts.book, scene.parts.suspects.suspected
    for name in ("a", "b", "c", "d", "e", "f"):
        live(book, name, ttl=1000.0)
    live(book, "short", ttl=1.0)
    scene.parts.intake.heartbeat("liveness.heartbeat.new", b"")
    book.end("a", 0.0, Proof("released"))
    for name in ("b", "short"):
        suspected[name] = Suspect("silent", 0.0, 0.0)
    scene.parts.doubting.wedged_lately = 2
    book.lapse(2.0)

    samples = await scene.scrape()

    assert states(samples) == {"live": 3, "suspect": 1, "wedged": 2, "lapsed": 1, "ending": 1}
    assert sum(states(samples).values()) == len(book) == 8
    assert samples["liveness_leases_wanting"] == 1


async def test_who_follows_tells_the_dead_from_the_living(scene: Scene) -> None:
    """It marks nobody, for another one acts; and one that acts may have to wait for Postgres before it marks them."""
    assert scene.parts is not None
    parts = scene.parts
    for name, ttl in (("lives", 10.0), ("suspect", 10.0), ("dead", 1.0), ("suspected dead", 1.0), ("said so", 10.0)):
        live(parts.book, name, ttl=ttl)
    parts.book.end("said so", 0.0, Proof("released"))
    for name in ("suspect", "suspected dead"):
        parts.suspects.suspected[name] = Suspect("silent", 0.0, 0.0)
    parts.leadership.leading = False
    parts.hearing.now = 2.0
    parts._look(2.0)

    assert states(await scene.scrape()) == {"live": 1, "suspect": 1, "wedged": 0, "lapsed": 2, "ending": 1}
    parts.leadership.leading, parts.storms.overdue = True, 0
    assert states(await scene.scrape())["lapsed"] == 2


async def test_the_loop_has_its_turn_while_very_many_are_counted(scene: Scene) -> None:
    """A storm of all of 10,000 keeps it no longer than a thousand of them do; and what leaves meanwhile is no fault."""
    assert scene.parts is not None
    book, turns = scene.parts.book, 0
    for number in range(10_000):
        live(book, f"w{number}", ttl=1.0)
    book.lapse(2.0)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            book.forget(f"w{turns}")
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    samples = await scene.scrape()
    other.cancel()

    assert turns >= 10
    assert states(samples)["lapsed"] == len(book) == 10_000 - turns


async def test_everything_that_is_told_is_listed_and_no_name_comes_out(scene: Scene) -> None:
    """The list of the metrics is the one that the documentation shows, with the labels that they have."""
    assert scene.parts is not None
    tallies = scene.store.reclaims.tallies
    scene.parts.intake.heartbeat(f"liveness.heartbeat.{HOSTILE}", b"{")
    tallies.ended["lapsed", "act"] += 1
    scene.parts.grants.recovered["stale", "same", "act"] += 1

    families = {family.name: family for family in scene.metrics.registry.collect()}
    text, _ = await scene.metrics.text("")

    assert [name for name in families if not name.startswith("process_")] == [one.name for one in MEASURES]
    for one in MEASURES:
        assert families[one.name].type == one.kind
        for sample in families[one.name].samples:
            assert set(sample.labels) - {"le"} == set(one.labels)
    assert b"w" + b'"1' not in text
    assert b"w1" not in text
    assert len(text.splitlines()) < 400


async def test_counts_come_out_as_they_were_counted(scene: Scene) -> None:
    """Nothing is counted again for whoever asks twice."""
    assert scene.parts is not None
    parts, tallies = scene.parts, scene.store.reclaims.tallies
    for payload in (b"", b"{", b""):
        parts.intake.heartbeat("liveness.heartbeat.w", payload)
    tallies.verdicts["lapsed", "ended"] = 3
    parts.intake.counts["revived"] = 2
    tallies.items["workflow", "died", "act"] = 40
    tallies.lateness.note(0.02)
    parts.grants.recovered["lapsed", "same", "act"] = 5
    parts.intake.counts["beyond_grants"] = 10
    parts.reports.refused = 11
    parts.admission.invite(["u", "v"], 0.0)
    parts.bus.faults["half_open"] = 6
    parts.rounds[0].retries = 7
    parts.storms.begun = 8
    scene.store.leaks.items["task"] = 9

    await scene.scrape()
    samples = await scene.scrape()

    assert samples["liveness_heartbeats_total"] == 3
    assert samples["liveness_complaints_total,kind=malformed"] == 1
    assert samples["liveness_complaints_total,kind=stale"] == 0
    assert samples["liveness_lapses_total,verdict=ended"] == 3
    assert samples["liveness_lapses_total,verdict=revived"] == 2
    assert samples["liveness_work_reclaimed_total,mode=act,reason=died,work=workflow"] == 40
    assert samples["liveness_work_reclaimed_total,mode=act,reason=leaked,work=task"] == 9
    assert samples["liveness_reclaim_lateness_seconds_bucket,le=0.01"] == 0
    assert samples["liveness_reclaim_lateness_seconds_bucket,le=0.025"] == 1
    assert samples["liveness_reclaim_lateness_seconds_count"] == 1
    assert samples["liveness_recovered_total,mode=act,process=same,reason=lapsed"] == 5
    assert samples["liveness_bounds_hit_total,bound=grants"] == 10
    assert samples["liveness_bounds_hit_total,bound=running"] == 11
    assert samples["liveness_names_invited"] == 2
    assert samples["liveness_bus_faults_total,kind=half_open"] == 6
    assert samples["liveness_database_retries_total,duty=leadership"] == 7
    assert samples["liveness_storms_total"] == 8
    assert samples["liveness_leader_term"] == 7


async def test_the_outbox_is_known_only_to_who_acts(scene: Scene) -> None:
    """Another replica would say that it is empty."""
    assert scene.parts is not None
    assert (await scene.scrape())["liveness_outbox_events"] == 0
    scene.parts.leadership.leading = False

    samples = await scene.scrape()

    assert "liveness_outbox_events" not in samples
    assert "liveness_leader_term" not in samples


async def test_what_a_sweep_found_is_told_by_who_leads(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody has paused, what it would take; nothing that was found when it led before."""
    parts = scene.parts
    assert parts is not None

    async def run_once(*, dry_run: bool) -> Swept:
        return Swept(dry_run=True, stale=["a", "b"]) if dry_run else Swept(stale=["a"], ownerless={"task": 3})

    monkeypatch.setattr(parts.sweep, "run_once", run_once)
    parts.pausing.pause = Pause(by="ops", since="2026-11-27T03:12:04Z", held_for=0.0)
    await parts._sweep()
    assert (await scene.scrape())["liveness_sweep_found,find=stale"] == 2
    parts.pausing.pause = None
    await parts._sweep()
    samples = await scene.scrape()
    assert (samples["liveness_sweep_found,find=stale"], samples["liveness_sweep_found,find=ownerless"]) == (1, 3)
    parts.leadership.leading = False
    assert "liveness_sweep_found,find=stale" not in await scene.scrape()
    scene.store.leader.after_others = False
    parts._take_over()
    parts.leadership.leading = True
    assert "liveness_sweep_found,find=stale" not in await scene.scrape()


def test_all_complaints_and_faults_are_known() -> None:
    """One that is counted under a word of its own would be told of nowhere."""
    intake = (ROOT / "liveness" / "intake.py").read_text(encoding="utf-8")
    bus = (ROOT / "liveness" / "bus.py").read_text(encoding="utf-8")
    link = (ROOT / "liveness" / "link.py").read_text(encoding="utf-8")
    said = set(re.findall(r'_complain\(\s*"(\w+)"', intake)) | {"stray"}
    # Of each link that was lost, one of them; and what `bus` complains of.
    faults = set(re.findall(r"`(\w+)` \(", bus)) | set(re.findall(r'_complain\("(\w+)"', bus))
    faults |= set(re.findall(r'ending = "(\w+)"', link))

    assert said == set(COMPLAINTS)
    assert faults | {"dropped", "sink_raised", "callback_raised"} == set(FAULTS)


def test_the_page_has_all_metrics() -> None:
    """As `python -m liveness.measures` prints them."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")

    assert measures.table() in page
