"""The way out, with a store that notes what it is asked and loses an answer where the test says so."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from liveness.errors import DatabaseAwayError, DatabaseRefusedError
from liveness.expiry import BATCH, BATCH_FIRST, Expired, Expiry, next_batch
from liveness.leases import Heard, LeaseTable
from liveness.messages import Heartbeat
from liveness.probes import Probes
from liveness.store import Life, Store
from liveness.storms import News, Storms
from liveness.verdicts import Case, Outcome, Verdict
from liveness.wakes import Wakes
from tests.unit.makers import Ears, lease_of, live


class Postgres:
    """Ends what it is offered. `fails` holds the errors of the next calls: by name, raised when all is done.

    Those of `refuse` are raised by `settle` before anything is done.
    """

    def __init__(self) -> None:
        self.open: dict[str, int] = {}
        self.offered: list[list[tuple[str, int | None]]] = []
        self.asked: list[list[str]] = []
        self.told: list[Mapping[str, Any]] = []
        self.fails: dict[str, list[Exception]] = {}

    async def settle(self, cases: Sequence[Case]) -> list[Verdict]:
        """End epochs that are open."""
        self.offered.append([(case.worker, case.epoch) for case in cases])
        self._answer("refuse")
        verdicts = []
        for case in cases:
            ended = self.open.get(case.worker) == case.epoch and self.open.pop(case.worker, None) is not None
            outcome = Outcome.ENDED if ended else Outcome.OVER
            verdicts.append(Verdict(worker=case.worker, epoch=case.epoch, outcome=outcome))
        self._answer("settle")
        return verdicts

    async def open_lives(self, names: Sequence[str]) -> list[Life]:
        """Return which of these live."""
        self.asked.append(sorted(names))
        self._answer("open_lives")
        return [Life(name, epoch, None, 10.0) for name, epoch in self.open.items() if name in names]

    async def ambiguous(self, _: Sequence[str]) -> Mapping[str, str]:
        """No name is."""
        return {}

    async def add(self, _kind: str, _subject: str, data: Mapping[str, Any]) -> None:
        """Take what is told of a storm."""
        self._answer("add")
        self.told.append(data)

    def _answer(self, call: str) -> None:
        if self.fails.get(call):
            raise self.fails[call].pop(0)


class Court:
    """An expiry, a book whose leases Postgres knows, and ears that the test lets hear."""

    def __init__(self) -> None:
        self.book = LeaseTable(60.0)
        self.ears = Ears()
        self.storms = Storms(max_hold=600.0, shuffle=list.reverse)
        self.wakes = Wakes()
        self.postgres = Postgres()
        self.expiry = Expiry(
            chunk=2_000,
            book=self.book,
            hearing=self.ears.hearing,
            storms=self.storms,
            probes=Probes(book=self.book, ask=lambda *_: False, on_answer=lambda *_: None),
            store=cast(
                "Store",
                SimpleNamespace(reclaims=self.postgres, epochs=self.postgres, host=self.postgres, outbox=self.postgres),
            ),
            clock=lambda: self.ears.time,
            wakes=self.wakes,
        )

    def live(self, worker: str, epoch: int) -> None:
        """Let a worker live under an epoch, with a ttl of 10 s."""
        live(self.book, worker, self.ears.now, epoch=epoch, incarnation="a")
        self.postgres.open[worker] = epoch

    def beat(self, worker: str) -> Heard:
        """Let a worker beat."""
        return self.book.beat(worker, self.ears.stamp(), Heartbeat(incarnation="a"), self.ears.time)

    def connect(self) -> None:
        """Have a new connection: beats may have been lost before."""
        self.ears.hearing.stop()
        self.ears.hearing.start(self.ears.time)
        self.book.lines.extend(self.ears.stamp())
        self.storms.lost(self.ears.now)

    async def lose(self) -> None:
        """Let what is due be settled, and the answer be lost."""
        self.postgres.fails["settle"] = [DatabaseAwayError("the answer was lost")]
        with pytest.raises(DatabaseAwayError):
            await self.expiry.run_once()


@pytest.fixture
def court() -> Court:
    """`w` lives under epoch 1, and has just been silent for its ttl of 10 s."""
    court = Court()
    court.live("w", 1)
    court.ears.listen(10.0)
    return court


async def test_what_lapses_is_settled_and_leaves_the_book(court: Court) -> None:
    """And nothing is asked of lives about which there is no doubt."""
    assert await court.expiry.run_once() == Expired(ended=1)

    assert court.postgres.offered == [[("w", 1)]]
    assert court.book.get("w") is None
    assert court.wakes.rest.is_set()


async def test_no_verdict_is_asked_for_while_a_beat_may_lie_unread(court: Court) -> None:
    """Postgres was away when it lapsed, then we stood still: what came meanwhile is heard before we ask again."""
    court.postgres.fails["refuse"] = [DatabaseAwayError("away")]
    with pytest.raises(DatabaseAwayError):
        await court.expiry.run_once()
    court.postgres.offered.clear()
    court.ears.wait(60.0)

    assert await court.expiry.run_once() == Expired()
    assert court.beat("w") is Heard.REVIVED
    court.ears.hear(court.ears.send())
    assert await court.expiry.run_once() == Expired()
    assert court.postgres.offered == []


async def test_what_lapsed_before_a_gap_is_settled_when_we_hear_again(court: Court) -> None:
    """It owes nothing more: the silence of a ttl was proven before."""
    court.ears.wait(60.0)
    assert await court.expiry.run_once() == Expired()
    court.ears.hear(court.ears.send())

    assert await court.expiry.run_once() == Expired(ended=1)


async def test_a_lapse_that_had_to_wait_is_not_offered_while_nothing_can_be_heard(court: Court) -> None:
    """Nor until it was listened to for a ttl again: the beat that would revive it may have been lost meanwhile."""
    await court.lose()
    court.postgres.open["w"] = 1
    court.ears.hearing.stop()
    court.ears.wait(60.0)
    assert await court.expiry.run_once() == Expired()
    court.ears.hearing.start(court.ears.time)
    court.book.lines.extend(court.ears.stamp())
    # By the stamp, which may be later than what is proven by two gaps.
    court.ears.listen(9.75)
    assert await court.expiry.run_once() == Expired()

    court.ears.listen(1.5)
    assert await court.expiry.run_once() == Expired(ended=1)


async def test_a_lapse_that_had_to_wait_is_not_owed_for_ever(court: Court) -> None:
    """It was listened to for three ttls in all, in which beats may have been lost again and again."""
    await court.lose()
    court.postgres.open["w"] = 1
    court.ears.hearing.stop()
    assert await court.expiry.run_once() == Expired()
    court.connect()
    court.ears.listen(9.0)
    assert await court.expiry.run_once() == Expired()
    court.ears.listen(11.0)
    court.connect()

    assert await court.expiry.run_once() == Expired(ended=1)


def barred(court: Court, how: str) -> None:
    """Let an operator have paused, or Postgres be away, or neither."""
    court.expiry.paused = lambda: how == "paused"
    court.postgres.fails["refuse"] = [DatabaseAwayError("away")] if how == "away" else []


async def look_in_vain(court: Court, how: str) -> None:
    """Look while nothing can be taken."""
    barred(court, how)
    fails: AbstractContextManager[object] = pytest.raises(DatabaseAwayError) if how == "away" else nullcontext()
    with fails:
        assert (await court.expiry.run_once()).ended == 0


@pytest.mark.parametrize("how", ["paused", "away"])
async def test_what_the_last_loss_owes_is_owed_to_whoever_could_not_be_taken_for_long(court: Court, how: str) -> None:
    """NATS was started anew before somebody resumed, or just behind that: who beats has not been able to, yet."""
    await look_in_vain(court, how)
    court.ears.listen(50.0)
    court.connect()
    court.ears.listen(0.5)
    court.ears.hearing.stop()
    barred(court, "")
    assert await court.expiry.run_once() == Expired()
    court.connect()
    court.ears.listen(9.0)
    assert await court.expiry.run_once() == Expired()

    # And no loss after that.
    court.connect()
    court.ears.listen(1.5)
    assert await court.expiry.run_once() == Expired(ended=1)


@pytest.mark.parametrize("how", ["paused", "away"])
async def test_where_nothing_was_lost_who_could_not_be_taken_goes_at_once(court: Court, how: str) -> None:
    """It was listened to all the time."""
    await look_in_vain(court, how)
    court.ears.listen(0.25)
    barred(court, "")

    assert await court.expiry.run_once() == Expired(ended=1)


async def test_who_has_not_acted_owes_what_was_lost_while_it_was_paused(court: Court) -> None:
    """It takes over when somebody has resumed."""
    barred(court, "paused")
    court.ears.listen(50.0)
    court.connect()
    court.expiry.look()
    barred(court, "")

    assert await court.expiry.run_once() == Expired()


async def storm_that_is_over(how: str) -> Court:
    """Twenty have fallen silent, and the storm has held them for 600 s; then nothing could be taken for 12 s more."""
    court = Court()
    for number in range(20):
        court.live(f"w{number}", number + 1)
        court.storms.heard(lease_of(court.book, f"w{number}"), "n1", court.ears.now)
    court.ears.listen(11.0)
    assert await court.expiry.run_once() == Expired(held=20)
    court.ears.listen(600.0)
    for _ in range(12):
        await look_in_vain(court, how)
        court.ears.listen(1.0)
    barred(court, "")
    return court


@pytest.mark.parametrize("how", ["paused", "away"])
async def test_a_storm_lets_nobody_go_while_nothing_can_be_taken(how: str) -> None:
    """When somebody resumes, or Postgres is back, its passes begin: 15 % a second, and not all at once."""
    court = await storm_that_is_over(how)
    ended = []
    for _ in range(7):
        assert court.storms.holding
        ended.append((await court.expiry.run_once()).ended)
        assert (await court.expiry.run_once()).ended == 0
        court.ears.listen(1.0)

    assert ended == [3, 3, 3, 3, 3, 3, 2]
    await court.expiry.run_once()
    assert not court.storms.holding
    assert all(news["state"] != "over" for news in court.postgres.told[:-1])


@pytest.mark.parametrize("how", ["paused", "away"])
async def test_a_storm_that_is_over_waits_for_what_the_last_loss_owes(how: str) -> None:
    """NATS was started anew, which may have mended it; and somebody resumes before anybody can have beaten."""
    court = await storm_that_is_over(how)
    court.connect()
    court.ears.listen(9.0)
    assert (await court.expiry.run_once()).ended == 0

    court.ears.listen(1.5)
    assert (await court.expiry.run_once()).ended == 3


async def test_who_has_no_epoch_or_was_refused_keeps_no_storm_going() -> None:
    """They wait for something else."""
    court = await storm_that_is_over("paused")
    lease_of(court.book, "w19").epoch = None
    court.postgres.fails["refuse"] = [DatabaseRefusedError("no") for _ in range(5)]
    for _ in range(7):
        await court.expiry.run_once()
        court.ears.listen(1.0)
    await court.expiry.run_once()

    assert not court.storms.holding
    assert "w19" in court.book.endings


async def test_a_gap_that_begins_while_we_ask_holds_what_is_not_asked_yet(court: Court) -> None:
    """More lives than one transaction ends lapse at once, and we stand still during the first."""
    for number in range(BATCH_FIRST):
        court.live(f"w{number}", 2 + number)
    court.ears.listen(10.0)
    settle = court.postgres.settle

    async def slow(cases: Sequence[Case]) -> list[Verdict]:
        court.ears.wait(60.0)
        return await settle(cases)

    court.postgres.settle = slow  # type: ignore[method-assign]
    assert (await court.expiry.run_once()).ended == BATCH_FIRST
    assert len(court.postgres.offered) == 1


async def test_a_restart_that_beats_told_of_waits_while_a_beat_may_lie_unread(court: Court) -> None:
    """The process that is thought over may dispute it."""
    for uptime in (1.0, 4.0):
        court.ears.listen(3.0)
        court.book.beat("w", court.ears.stamp(), Heartbeat(incarnation="b", uptime=uptime), court.ears.time)
    lease = lease_of(court.book)
    assert lease.ending is not None
    assert lease.ending.by_beats
    court.ears.wait(60.0)

    assert await court.expiry.run_once() == Expired()
    court.ears.hear(court.ears.send())
    assert (await court.expiry.run_once()).ended == 1


async def test_a_proof_does_not_wait_for_us_to_hear_again(court: Court) -> None:
    """No beat could undo it."""
    court.book.release("w", "a", court.ears.now)
    court.ears.wait(60.0)

    assert await court.expiry.run_once() == Expired(ended=1)
    await court.expiry.run_once()
    assert court.postgres.asked == []


async def test_a_beat_after_a_verdict_whose_answer_was_lost_begins_a_new_life(court: Court) -> None:
    """The epoch that the beat revives is over in Postgres: nobody would ever look for the work under it again."""
    await court.lose()
    assert court.beat("w") is Heard.REVIVED
    await court.expiry.run_once()

    assert court.postgres.asked == [["w"]]
    lease = lease_of(court.book)
    assert (lease.epoch, lease.ending, list(court.book.wanting)) == (None, None, ["w"])
    assert court.wakes.lives.is_set()
    # Of the doubt nothing is left.
    await court.expiry.run_once()
    assert (len(court.postgres.asked), len(court.postgres.offered)) == (1, 1)


async def test_a_verdict_that_was_not_given_is_asked_for_again(court: Court) -> None:
    """Postgres was away before it had done anything."""
    court.live("other", 2)
    await court.lose()
    court.postgres.open["w"] = 1
    assert await court.expiry.run_once() == Expired(ended=1)

    assert court.postgres.offered == [[("w", 1)], [("w", 1)]]
    assert court.postgres.asked == [["w"]]
    assert [lease.worker for lease in court.book] == ["other"]


async def test_a_life_that_was_not_ended_goes_on_under_its_epoch(court: Court) -> None:
    """It was revived, and its epoch is open still."""
    await court.lose()
    court.postgres.open["w"] = 1
    court.beat("w")
    await court.expiry.run_once()

    assert lease_of(court.book).epoch == 1
    assert not court.book.wanting


async def test_a_life_that_was_ended_leaves_the_book_when_that_is_known(court: Court) -> None:
    """It is not offered a second time."""
    await court.lose()
    await court.expiry.run_once()

    assert court.book.get("w") is None
    assert len(court.postgres.offered) == 1


async def test_a_doubt_is_kept_until_it_is_answered(court: Court) -> None:
    """However often Postgres is away; nothing is decided meanwhile."""
    await court.lose()
    court.beat("w")
    court.postgres.fails["open_lives"] = [DatabaseAwayError("away"), DatabaseAwayError("away")]
    for _ in range(2):
        with pytest.raises(DatabaseAwayError):
            await court.expiry.run_once()
        assert lease_of(court.book).epoch == 1
    await court.expiry.run_once()

    assert (len(court.postgres.asked), lease_of(court.book).epoch) == (3, None)


async def test_a_life_that_another_replica_has_granted_since_is_another_life(court: Court) -> None:
    """Open under a higher number, and not under ours."""
    await court.lose()
    court.beat("w")
    court.postgres.open["w"] = 5
    await court.expiry.run_once()

    assert (lease_of(court.book).epoch, list(court.book.wanting)) == (None, ["w"])


async def test_what_was_refused_is_in_no_doubt(court: Court) -> None:
    """Nothing of a refused transaction was committed; the others of its batch have their verdicts."""
    court.live("v", 2)
    court.ears.listen(10.0)
    court.postgres.fails["refuse"] = [DatabaseRefusedError("a check"), DatabaseRefusedError("a check")]
    with capture_logs() as logs:
        done = await court.expiry.run_once()

    assert done == Expired(ended=1, refused=1)
    assert [line["worker"] for line in logs if line["event"] == "reclaim_refused"] == ["w"]
    assert court.postgres.open == {"w": 1}
    assert court.expiry.due
    await court.expiry.run_once()
    assert court.postgres.asked == []
    # It waits, and nobody for it.
    assert (list(court.book.endings), court.expiry.due) == (["w"], False)


def storm(via: str) -> News:
    """What is told of a storm."""
    return News(via=via, state="over", members=3, silent=0, held_for=1.0)


async def test_news_of_a_storm_that_postgres_refuses_is_dropped(court: Court) -> None:
    """It stops neither the way out nor what is told of others; the log has it."""
    court.storms.news += [storm("bad"), storm("n2")]
    court.postgres.fails["add"] = [DatabaseRefusedError("not a text")]
    with capture_logs() as logs:
        done = await court.expiry.run_once()

    assert done.ended == 1
    assert [told["via"] for told in court.postgres.told] == ["n2"]
    assert court.storms.news == []
    assert [line["event"] for line in logs if line["event"].startswith("storm")] == [
        "storm_news_refused",
        "storm",
        "storm",
    ]


async def test_news_of_a_storm_waits_while_postgres_is_away(court: Court) -> None:
    """It is told once, and after the verdicts."""
    court.storms.news.append(storm("n1"))
    court.postgres.fails["add"] = [DatabaseAwayError("away")]
    with pytest.raises(DatabaseAwayError):
        await court.expiry.run_once()
    assert court.book.get("w") is None
    await court.expiry.run_once()
    await court.expiry.run_once()

    assert [told["via"] for told in court.postgres.told] == ["n1"]


async def test_a_batch_that_is_too_much_for_postgres_is_halved_until_it_is_not(court: Court) -> None:
    """What is too slow would be so at every try; when it works, the batches grow again."""
    for number in range(7):
        court.live(f"w{number}", 10 + number)
    court.ears.listen(10.0)
    court.postgres.fails["refuse"] = [DatabaseAwayError("no answer in time")] * BATCH_FIRST.bit_length()
    for _ in range(BATCH_FIRST.bit_length()):
        with pytest.raises(DatabaseAwayError):
            await court.expiry.run_once()

    assert [len(offered) for offered in court.postgres.offered] == [8, 8, 5, 2, 1]
    court.postgres.offered.clear()
    assert await court.expiry.run_once() == Expired(ended=8)
    assert [len(offered) for offered in court.postgres.offered] == [1, 2, 4, 1]


async def test_a_name_that_was_never_heard_waits_behind_those_that_were(court: Court) -> None:
    """To ask for it costs more, and it has waited longest."""
    court.book.forget("w")
    court.book.restore("old", 0.0, 5.0)
    court.book.granted("old", 3)
    court.postgres.open["old"] = 3
    court.live("w", 4)
    court.ears.listen(10.0)
    await court.expiry.run_once()

    assert court.postgres.offered == [[("w", 4), ("old", 3)]]


async def test_a_lapse_that_is_settled_after_a_restart_was_heard_leaves_a_look_back(court: Court) -> None:
    """It may have spared what the restart would have taken, and the answer is not to what would be asked now."""
    settle = court.postgres.settle

    async def restarts_meanwhile(cases: Sequence[Case]) -> list[Verdict]:
        court.book.hello("w", court.ears.stamp(), Heartbeat(incarnation="b", uptime=0.0), court.ears.time)
        return await settle(cases)

    court.postgres.settle = restarts_meanwhile  # type: ignore[method-assign]
    await court.expiry.run_once()

    assert lease_of(court.book).epoch is None
    assert court.book.arrivals["w"].incarnation == "b"
    assert court.wakes.arrivals.is_set()


async def test_news_of_a_storm_that_are_forgotten_while_they_are_told_harm_nobody(court: Court) -> None:
    """The lead was lost meanwhile."""
    court.storms.news.append(News(via="n1", state="held", members=3, silent=3, held_for=0.0))
    add = court.postgres.add

    async def lost(*told: Any) -> None:
        await add(*told)
        court.storms.watch(court.book, 0.0)

    court.postgres.add = lost  # type: ignore[method-assign, assignment]
    assert await court.expiry.run_once() == Expired(ended=1)
    assert not court.storms.news


async def test_it_is_known_whether_lives_wait_behind_those_that_postgres_is_asked_about(court: Court) -> None:
    """Not during the last transaction, so that its commit lets the news go out; nor after an error."""
    for number in range(BATCH_FIRST):
        court.live(f"w{number}", 2 + number)
    court.ears.listen(10.0)
    settle, seen = court.postgres.settle, list[bool]()

    async def look(cases: Sequence[Case]) -> list[Verdict]:
        seen.append(court.expiry.more)
        return await settle(cases)

    court.postgres.settle = look  # type: ignore[method-assign]
    court.postgres.fails["refuse"] = [DatabaseAwayError("away")]
    with pytest.raises(DatabaseAwayError):
        await court.expiry.run_once()
    assert (seen, court.expiry.more) == ([True], False)

    await court.expiry.run_once()
    assert seen == [True, True, False]
    assert not court.expiry.more


@pytest.mark.parametrize(
    ("batch", "lives", "rows", "following"),
    [
        # Nothing is known of those that held nothing: more, but not at once.
        (20, 20, 0, 40),
        (20, 20, 1, 40),
        # So many that a chunk of 2,000 is nearly full.
        (40, 40, 100, 20),
        (15, 15, 100, 19),
        (19, 19, 100, 19),
        # One that alone is more than a chunk.
        (1, 1, 2_000, 1),
        (BATCH, BATCH, 1, BATCH),
        # Nobody ended: nothing was learned.
        (20, 0, 0, 40),
    ],
)
def test_the_next_batch_is_what_fills_a_chunk(batch: int, lives: int, rows: int, following: int) -> None:
    """Reckoned from what those of the last one held."""
    held = min(lives * rows, 2_000)
    verdicts = [
        Verdict(worker=f"w{number}", epoch=number, outcome=Outcome.ENDED, items={"workflow": held // lives, "task": 1})
        for number in range(lives)
    ]

    assert next_batch(batch, verdicts, 2_000) == following
