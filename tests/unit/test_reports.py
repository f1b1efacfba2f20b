"""What workers say of their work, and what may be believed of it, rule by rule."""

import random
from typing import Any

import pytest

from liveness.beginnings import Claim
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.reports import LIST_MOST, Leak, Reports, Unreported, folded_id
from tests.unit.makers import lease_of, live

GRACE, WEDGE = 60.0, 30.0
ROW = ("workflow", "r1")


class Host:
    """A book, its reports, and a database in which `w` runs rows. Hearing time is the loop's, unless a test says so."""

    def __init__(self) -> None:
        self.book = LeaseTable(1_000.0)
        self.reports = Reports(leak_grace=GRACE, wedge_after=WEDGE)
        self.rows: dict[tuple[str, str], str] = {ROW: "mark"}
        live(self.book, incarnation="a")

    def beat(
        self,
        at: float,
        running: list[str] | None = None,
        progress: int | None = None,
        *,
        accepted: float | None = None,
        incarnation: str = "a",
    ) -> None:
        """Let `w` beat: heard at `at`, not accepted by NATS before `accepted`."""
        self.book.beat("w", at, Heartbeat(incarnation=incarnation), at)
        lease = lease_of(self.book)
        if lease.incarnation == incarnation:
            accepted = at if accepted is None else accepted
            self.reports.hear(lease, running, progress, at, accepted, accepted)

    def look(self, at: float, answered: float | None = None) -> list[Leak]:
        """Ask the database, which answers at `answered`; return what has leaked."""
        asked = dict(self.reports.listing(self.book, list(self.reports.of)))
        missing = [
            Unreported("w", *row, mark)
            for row, mark in self.rows.items()
            if "w" in asked and folded_id(row[1]) not in {folded_id(one) for one in asked["w"]}
        ]
        return self.reports.looked(self.book, asked, missing, at if answered is None else answered)

    def leaks(self, *times: float) -> bool:
        """Beat with an empty list at these times, and look behind each; say whether any look found the leak."""
        found: list[Leak] = []
        for at in times:
            self.beat(at, [])
            found += self.look(at + 0.5)
        return bool(found)


@pytest.fixture
def host() -> Host:
    """`w` lives as incarnation "a" under epoch 1, and the database says that it runs one row."""
    return Host()


def test_a_row_that_is_left_out_for_longer_than_the_grace_has_leaked(host: Host) -> None:
    """From the first report that was sent behind the look which found it, to the last one."""
    assert not host.leaks(0.0, 1.0, 31.0, 61.0)
    host.beat(61.5, [])

    assert host.look(62.0) == [Leak("w", 1, "a", *ROW, "mark", 60.5, 4)]


def test_it_is_told_once_until_it_leaks_anew(host: Host) -> None:
    """It begins anew, as if it had just been found."""
    assert host.leaks(0.0, 1.0, 62.0)
    assert not host.leaks(63.0, 100.0, 123.0)
    assert host.leaks(125.0)


def test_a_row_that_was_claimed_after_the_beat_was_sent_is_no_leak(host: Host) -> None:
    """The report of before the claim counts for nothing, however long it lies back."""
    host.rows.clear()
    assert not host.leaks(0.0, 1.0, 30.0)
    host.rows[ROW] = "mark"
    assert host.look(100.0) == []
    host.beat(101.0, [])
    assert host.look(102.0) == []


def test_a_beat_that_comes_late_does_not_testify_about_a_later_claim(host: Host) -> None:
    """It was accepted before Postgres had answered, or may have been: it is not the first report that counts."""
    host.leaks(0.0)
    host.beat(1.0, [], accepted=0.4)
    host.beat(2.0, [])
    host.look(30.0)

    host.beat(61.5, [])
    assert host.look(61.75) == []
    host.beat(62.5, [])
    assert len(host.look(63.0)) == 1


def test_beats_that_waited_and_come_all_at_once_are_no_grace_apart(host: Host) -> None:
    """Whatever they say: the first that was sent behind the claim names the row."""
    host.leaks(0.0)
    for _ in range(100):
        host.beat(90.0, [])
    assert host.look(90.5) == []
    host.beat(95.0, ["r1"])
    assert host.look(151.0) == []


def test_a_list_that_comes_late_is_no_further_from_the_first_than_it_was_accepted(host: Host) -> None:
    """The way may have kept the last one, and not the first: what that adds is not left out."""
    assert not host.leaks(0.0, 1.0)
    host.beat(66.0, [], accepted=61.0)
    assert host.look(66.5) == []
    host.beat(67.0, [], accepted=61.25)

    assert host.look(67.5) == [Leak("w", 1, "a", *ROW, "mark", 60.25, 2)]


def test_a_beat_between_that_lists_the_row_begins_anew(host: Host) -> None:
    """However it spells it, and even where only the last one is still known."""
    assert not host.leaks(0.0, 1.0, 40.0)
    host.beat(50.0, ["R-1"])
    host.beat(50.5, [])
    assert not host.leaks(62.0, 63.0, 122.0)
    assert host.leaks(123.5)


def test_only_the_latest_list_counts(host: Host) -> None:
    """Who lists it now holds it, whatever was said before."""
    assert not host.leaks(0.0, 1.0, 40.0)
    host.beat(62.0, ["r1"])
    assert host.look(63.0) == []


def test_who_does_not_list_anything_says_nothing(host: Host) -> None:
    """No list is not an empty one, and neither undoes nor confirms what a list has said."""
    host.beat(0.0, None, 1)
    assert host.look(0.5) == []
    assert dict(host.reports.listing(host.book, [b"w"])) == {}
    host.leaks(1.0, 2.0)
    host.beat(70.0, None)
    assert host.look(70.5) == []
    host.beat(71.0, [])
    assert len(host.look(71.5)) == 1


def test_a_row_that_was_touched_between_begins_anew(host: Host) -> None:
    """Whoever touched it, and be it with nothing."""
    assert not host.leaks(0.0, 1.0, 40.0)
    host.rows[ROW] = "other mark"
    assert not host.leaks(62.0, 63.0, 122.0)
    assert host.leaks(124.0)


def test_a_row_that_was_finished_and_claimed_again_begins_anew(host: Host) -> None:
    """It has another mark; and if it was not seen at one look, the look before counts for nothing."""
    assert not host.leaks(0.0, 1.0)
    mark = host.rows.pop(ROW)
    assert not host.leaks(40.0)
    host.rows[ROW] = mark
    assert not host.leaks(62.0, 63.0, 122.0)
    assert host.leaks(124.0)


def test_two_incarnations_are_two_witnesses(host: Host) -> None:
    """What the former process left out says nothing of what the next one holds."""
    assert not host.leaks(0.0, 1.0, 40.0)
    lease = lease_of(host.book)
    lease.incarnation = "b"
    host.beat(62.0, [], incarnation="b")
    assert host.look(62.5) == []
    host.beat(100.0, [], incarnation="b")
    assert host.look(100.5) == []
    host.beat(160.5, [], incarnation="b")
    assert [leak.incarnation for leak in host.look(161.0)] == ["b"]


def test_another_epoch_is_another_life(host: Host) -> None:
    """Of the same incarnation, as after a lapse: what it held was put back, and what it holds it has claimed since."""
    assert not host.leaks(0.0, 1.0, 40.0)
    lease_of(host.book).epoch = 2
    assert not host.leaks(62.0, 63.0, 122.0)
    assert host.leaks(124.0)


@pytest.mark.parametrize(
    "befall",
    [
        lambda book: setattr(lease_of(book), "epoch", None),
        lambda book: book.release("w", "a", 62.0),
        lambda book: book.lapse(1e9),
        lambda book: book.incarnations.conflicts.add("w"),
        lambda book: book.incarnations.claims.update(w=Claim("b", 0.0, 0.0)),
        lambda book: book.hello("w", 62.0, Heartbeat(incarnation="a"), 62.0),
    ],
)
def test_while_it_is_not_plain_whose_rows_these_are_nothing_leaks(host: Host, befall: Any) -> None:
    """No epoch, an end, two that beat, one whose former life is still looked for: other rules decide."""
    assert not host.leaks(0.0, 1.0)
    lease_of(host.book).introduced = None
    befall(host.book)
    host.reports.hear(lease_of(host.book), [], None, 62.0, 62.0, 62.0)

    assert host.look(62.5) == []


def test_beside_a_beat_that_names_no_incarnation_nobody_s_list_counts(host: Host) -> None:
    """What that one runs, who bears the name cannot list: not within a ttl of it, whenever it came."""
    host.book.incarnations.settled("w")
    for at in range(0, 200, 9):
        host.book.beat("w", float(at), Heartbeat(), float(at))
        assert not host.leaks(at + 1.0)
    assert not host.leaks(207.0, 208.0)
    assert host.leaks(209.0, 270.0)


def nameless(*, leak_grace: float) -> Host:
    """Return a host whose worker names no incarnation; a ttl is 10 s."""
    host = Host()
    host.book.forget("w")
    host.reports = Reports(leak_grace=leak_grace, wedge_after=WEDGE)
    live(host.book)
    return host


@pytest.mark.parametrize(("named", "leaks"), [(False, False), (True, True)])
def test_a_beat_without_a_list_and_a_name_may_be_of_another_process(*, named: bool, leaks: bool) -> None:
    """Which lists nothing, and works on what the one that lists leaves out; of one incarnation that cannot be."""
    host = nameless(leak_grace=GRACE)
    lease = lease_of(host.book)
    lease.incarnation = "a" if named else None
    lease.introduced = lease.incarnation
    found: list[Leak] = []
    for at in range(0, 200, 4):
        host.reports.hear(lease, [], None, at, at, at)
        found += host.look(at + 0.5)
        if at % 8 == 0:
            host.reports.heard_unlisted(lease)

    assert bool(found) is leaks


def test_of_who_has_no_name_a_row_is_missing_for_a_ttl_before_it_leaks() -> None:
    """However short the grace is: another one without a name beats within that, and lists it or lists nothing."""
    host = nameless(leak_grace=2.0)
    lease = lease_of(host.book)
    found = {}
    for at in (0.0, 4.0, 8.0, 12.0, 14.0, 16.0):
        host.reports.hear(lease, [], None, at, at, at)
        found[at] = len(host.look(at + 0.5))

    assert found == {0.0: 0, 4.0: 0, 8.0: 0, 12.0: 0, 14.0: 0, 16.0: 1}


def test_what_became_of_it_while_postgres_was_asked_counts(host: Host) -> None:
    """The answer comes when it has ended already."""
    assert not host.leaks(0.0, 1.0)
    host.beat(62.0, [])
    asked = dict(host.reports.listing(host.book, [b"w"]))
    host.book.release("w", "a", 62.1)
    assert host.reports.looked(host.book, asked, [Unreported("w", *ROW, "mark")], 62.5) == []


def test_a_list_that_comes_while_postgres_is_asked_counts(host: Host) -> None:
    """The statement was about an older one."""
    assert not host.leaks(0.0, 1.0)
    host.beat(62.0, [])
    asked = dict(host.reports.listing(host.book, [b"w"]))
    host.beat(62.1, ["r1"])
    assert host.reports.looked(host.book, asked, [Unreported("w", *ROW, "mark")], 62.5) == []


def test_beats_that_may_be_lost_between_begin_anew(host: Host) -> None:
    """One of them may have listed the row."""
    assert not host.leaks(0.0, 1.0)
    host.reports.lost()
    assert not host.leaks(62.0, 63.0, 122.0)
    assert host.leaks(124.0)


def test_nobody_who_left_is_remembered(host: Host) -> None:
    """Nothing is kept of a name that is out of the book."""
    host.beat(0.0, ["x"], 1)
    host.beat(100.0, ["x"], 1)
    host.book.forget("w")
    host.reports.tidy(host.book, [b"w"])

    assert (host.reports.of, host.reports.standing, host.reports._size) == ({}, {}, 0)


def test_a_list_that_is_too_long_counts_as_none(host: Host) -> None:
    """It is counted, costs no memory, and takes back nothing that follows."""
    assert not host.leaks(0.0, 1.0)
    host.beat(62.0, ["x" * LIST_MOST])

    assert host.look(62.5) == []
    assert (host.reports.refused, host.reports._size) == (1, 0)
    assert not host.leaks(63.0)


def test_lists_that_are_always_other_ones_are_not_kept(host: Host) -> None:
    """Whoever lists others with every beat has what was found about it forgotten."""
    assert not host.leaks(0.0, 1.0)
    for number in range(4):
        host.beat(2.0 + number, [f"{number}" * (LIST_MOST // 3)])
    report = host.reports.of[b"w"]

    assert (report.listed or set(), report.missing) == (set(), {})


# 5. Standing still.


def test_a_worker_that_runs_something_and_does_not_move_is_wedged(host: Host) -> None:
    """By two beats that lie so far apart; and not any more when it moves."""
    host.beat(0.0, ["r1"], 7)
    host.beat(29.0, ["r1"], 7)
    assert not host.reports.is_wedged(host.book, b"w")
    host.beat(30.0, ["r1"], 7)
    assert host.reports.is_wedged(host.book, b"w")
    host.beat(31.0, ["r1"], 8)
    assert not host.reports.is_wedged(host.book, b"w")


def test_a_beat_that_comes_late_is_no_further_from_the_first_than_it_was_accepted(host: Host) -> None:
    """A slow way makes nobody stand still."""
    host.beat(0.0, ["r1"], 7)
    host.beat(34.0, ["r1"], 7, accepted=29.0)
    assert not host.reports.is_wedged(host.book, b"w")
    host.beat(35.0, ["r1"], 7, accepted=30.0)
    assert host.reports.is_wedged(host.book, b"w")


def test_silence_is_no_standstill(host: Host) -> None:
    """What is not heard is not said to stand still; and what time does not count is not in hearing time."""
    host.beat(0.0, ["r1"], 7)

    assert not host.reports.is_wedged(host.book, b"w")
    assert host.reports.standing == {}


def test_an_idle_worker_does_not_stand_still(host: Host) -> None:
    """It has nothing to get done, and what it claims has all the time from then on."""
    host.beat(0.0, [], 7)
    host.beat(40.0, [], 7)
    host.beat(41.0, ["r1"], 7)
    host.beat(69.0, ["r1"], 7)
    assert not host.reports.is_wedged(host.book, b"w")
    host.beat(71.0, ["r1"], 7)
    assert host.reports.is_wedged(host.book, b"w")


def test_who_lists_nothing_is_asked_for_in_postgres(host: Host) -> None:
    """It stands still as long as it is seen to run something, from the first time on."""
    host.beat(0.0, None, 7)
    host.beat(15.0, None, 7)
    assert host.reports.unlisted() == ["w"]
    host.reports.busy(["w"], {"w": 1}, 15.0)
    host.beat(44.0, None, 7)
    host.reports.busy(["w"], {"w": 2}, 44.0)
    assert not host.reports.is_wedged(host.book, b"w")
    host.beat(45.0, None, 7)
    assert host.reports.is_wedged(host.book, b"w")


def test_who_was_not_asked_for_yet_is_asked_for_first(host: Host) -> None:
    """Those that stand still for ever do not keep Postgres from being asked about others."""
    live(host.book, "x", epoch=2)
    for at in (0.0, 15.0):
        for name in ("w", "x"):
            host.reports.hear(lease_of(host.book, name), None, 7, at, at, at)
    host.reports.busy(["w"], {"w": 1}, 15.0)

    assert host.reports.unlisted() == ["x", "w"]


def test_who_lists_nothing_and_runs_nothing_is_idle(host: Host) -> None:
    """And what it claims has all the time from then on."""
    host.beat(0.0, None, 7)
    host.beat(60.0, None, 7)
    host.reports.busy(["w"], {}, 60.0)
    host.beat(61.0, None, 7)
    assert host.reports.unlisted() == []
    host.beat(76.0, None, 7)
    host.reports.busy(["w"], {"w": 1}, 76.0)
    assert not host.reports.is_wedged(host.book, b"w")


def test_who_states_no_progress_or_where_it_is_turned_off_nobody_stands_still(host: Host) -> None:
    """Nobody guesses."""
    host.beat(0.0, ["r1"])
    host.beat(100.0, ["r1"])
    assert host.reports.standing == {}
    off = Reports(leak_grace=GRACE, wedge_after=0.0)
    off.hear(lease_of(host.book), ["r1"], 7, 0.0, 0.0, 0.0)
    off.hear(lease_of(host.book), ["r1"], 7, 1e6, 1e6, 1e6)
    assert off.standing == {}


def test_another_process_starts_over(host: Host) -> None:
    """Its progress is its own, be it the same number."""
    host.beat(0.0, ["r1"], 7)
    host.beat(40.0, ["r1"], 7)
    lease_of(host.book).incarnation = "b"
    host.beat(41.0, ["r1"], 7, incarnation="b")

    assert not host.reports.is_wedged(host.book, b"w")


@pytest.mark.parametrize("seed", range(20))
def test_against_a_naive_model(seed: int) -> None:
    """Whatever is beaten, touched and looked at: a leak is what a reader of the whole history would call one."""
    chance, host = random.Random(seed), Host()
    host.rows.clear()
    rows = [("workflow", f"r{number}") for number in range(3)]
    history: list[tuple[str, float, Any]] = []
    found = 0
    now = 0.0
    for _ in range(400):
        now += chance.choice([1.0, 3.0, 11.0])
        match chance.choice(["beat", "beat", "beat", "look", "look", "touch"]):
            case "beat":
                running = None if chance.random() < 0.1 else [row[1] for row in rows if chance.random() < 0.03]
                history.append(("beat", now, running))
                host.beat(now, running)
            case "touch" if chance.random() < 0.2:
                row = chance.choice(rows)
                if chance.random() < 0.3:
                    host.rows.pop(row, None)
                else:
                    host.rows[row] = f"{now}"
                history.append(("touch", now, row))
            case "look":
                history.append(("look", now, dict(host.rows)))
                for leak in host.look(now):
                    found += 1
                    assert _leaked(history, (leak.work, leak.id), leak.mark)
            case _:
                pass
    assert found


def _leaked(history: list[tuple[str, float, Any]], row: tuple[str, str], mark: str) -> bool:
    """Say whether the row was RUNNING with that mark at a look, and left out of all lists for the grace behind it."""
    for start, (what, _, rows) in enumerate(history):
        if what != "look" or rows.get(row) != mark:
            continue
        since = history[start + 1 :]
        lists = [(at, running) for what, at, running in since if what == "beat" and running is not None]
        untouched = all(touched != row for what, _, touched in since if what == "touch")
        if (
            untouched
            and len(lists) > 1
            and lists[-1][0] - lists[0][0] > GRACE
            and all(row[1] not in running for _, running in lists)
        ):
            return True
    return False
