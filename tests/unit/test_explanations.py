"""The words that `why` has for what it knows: one sentence each, and the steps."""

from typing import Any

import pytest

from liveness.explanations import piece_sentence, piece_steps, told, worker_sentence
from liveness.facts import TOLD_MOST, Leaked, LeftOut, Piece, Standing, WhyAnswer
from liveness.figures import counted, ordinal, past
from tests.unit.known import (
    EVIDENCE,
    NEXT_EPOCH,
    WORK_ID,
    ago,
    bytes_of,
    end,
    held,
    life,
    move,
    owner,
    piece,
    row,
    standing,
    unheard,
    waiting,
    worker_told,
)

STORM = "storm: 18 of 20 workers by NATS fell silent at once; lapses are held since 12 s"
WENT_BACK = "went back to the queue at 2025-11-27T03:12:04Z (3 min ago)"


def now(told_of: Piece) -> str:
    """Return what is said of how a piece of work stands that was never moved."""
    begin = f"workflow {WORK_ID} was never moved: RUNNING, "
    sentence = piece_sentence(told_of)
    assert sentence.startswith(begin), sentence
    assert "\n" not in sentence
    return sentence.removeprefix(begin)


def test_a_living_owner() -> None:
    """What the issue asks for: it did not move, and who has it lives."""
    assert now(held(standing())) == (
        f"owner w9 is alive, last beat 0.4 s ago, its lease has 59.6 s left, epoch {NEXT_EPOCH}."
    )


@pytest.mark.parametrize(
    ("reason", "fields", "because"),
    [
        ("lapsed", {}, "w7 was not heard for 61.2 s (ttl 60 s)"),
        ("lapsed", {"evidence": {"silent_for": None, "listened_for": 62.0}}, "in 62.0 s of listening (ttl 60 s)"),
        ("lapsed", {"evidence": {"silent_for": "long"}}, "w7 was not heard (ttl 60 s)"),
        ("released", {}, "w7 said goodbye"),
        ("died", {"evidence": {"details": {"exit_code": 137, "signal": None}}}, "was seen to end (exit code 137)"),
        ("died", {"evidence": {"details": {"exit_code": None, "signal": 9}}}, "was seen to end (signal 9)"),
        ("died", {"evidence": {"details": "nonsense"}}, "the process of w7 was seen to end"),
        ("restarted", {}, "w7 was started again, and its former process is over"),
        ("stale", {}, "w7 was up in the registry, but nobody recorded a heartbeat of it, and none was heard"),
        ("orphaned", {}, "its owner w7 was neither up nor heard, and nobody touched it"),
        ("operator", {}, "an operator ended the life of w7"),
        ("of a later version", {}, "the life of w7 ended (of a later version)"),
    ],
)
def test_every_reason_to_move(reason: str, fields: dict[str, object], because: str) -> None:
    """Each has words of its own, and one that is not known its name."""
    moved = piece(row=waiting(), owner=None, moves=[move(end(reason=reason, **fields))])
    sentence = piece_sentence(moved)
    assert sentence.startswith(f"workflow {WORK_ID} {WENT_BACK} because ")
    assert sentence.endswith(f"{because}; now PENDING, nobody holds it.")


LEAK = {
    "why": "RUNNING in the name of a worker that lives and left it out for 61.000 s of hearing, in each of 6 beats",
    "left_out_for": 61.0,
    "reports": 6,
    "leak_grace": 60.0,
    "hearing": {"now": 86411.07, "not_counted": 0.412, "gaps": 3},
}


def test_a_leak_is_not_what_ended_the_life_later() -> None:
    """Nor does that death count against what its worker had lost before, whatever it was put down to."""
    leaked = Leaked(incarnation="f3a1", decided_by="sidecar-0:71", transaction_id=81234, evidence=LEAK)
    ended = end(expired=ago(10.0), crash=True, killers={"workflow": "another"})
    moved = piece(row=waiting(), owner=None, moves=[move(ended, leaked=leaked)])

    assert piece_sentence(moved) == (
        f"workflow {WORK_ID} {WENT_BACK} because w7, which lived, left it out of what it says it runs for 61.0 s "
        "(leaked); now PENDING, nobody holds it."
    )
    said = {step.what: step.says for step in piece_steps(moved)}
    assert said["leaked"] == (
        f"{LEAK['why']}; the hearing clock stood at 86411.1 s, with 0.4 s not counted in 3 gaps since the service's "
        "start; decided by sidecar-0:71 in transaction 81234"
    )
    assert said["reclaimed"] == "back in the queue for the 1st time"
    bare = Leaked(incarnation=None, decided_by="x:1", transaction_id=1, evidence={})
    assert "says it runs (leaked)" in piece_sentence(piece(row=None, moves=[move(ended, leaked=bare)]))


def test_a_move_of_a_life_that_goes_on() -> None:
    """No end is made up."""
    moved = piece(row=waiting(), owner=None, moves=[move(life=life())])
    assert "because w7 had it, and no end of that life is written down" in piece_sentence(moved)
    moved = piece(row=waiting(), owner=None, moves=[move(life=None)])
    assert "because w7 had it, and no end of that life is written down" in piece_sentence(moved)


def test_a_move_and_its_owner_since() -> None:
    """How often it moved, the last time with its reason, and who has it now."""
    moved = piece(moves=[move(), move(reclaim_count=2)], owner=owner(stands=standing()))
    assert f"{WENT_BACK}, for the 2nd time, because w7" in piece_sentence(moved)
    assert "; now RUNNING, owner w9 is alive, " in piece_sentence(moved)


def test_what_would_have_moved() -> None:
    """Mode observe moved nothing."""
    observed = piece(moves=[move(end(observed=True), observed=True)], owner=owner("w7", unheard(mode="observe")))
    assert (
        "would have gone back at 2025-11-27T03:12:04Z (3 min ago), but mode was observe, because w7 was not heard"
    ) in piece_sentence(observed)
    assert [step.what for step in piece_steps(observed)] == [
        "granted",
        "last beat",
        "lapsed",
        "ended",
        "observed",
        "granted",
        "changed",
    ]


def test_what_is_fixed_to_go_back_is_not_the_next_life_s() -> None:
    """That its name lives again, and is well, keeps nobody from it."""
    sentence = now(held(standing(), row(fixed=True)))
    assert sentence.startswith("the life of w9 that held it is over, and the row is fixed to go back")
    assert "alive" not in sentence
    unseen = now(piece(row=row(fixed=True), owner=owner(unanswered="nobody answers")))
    assert unseen.endswith("; nobody could say whether a service sees to it (nobody answers).")


def test_a_leak_that_was_told_of_is_told() -> None:
    """The row is RUNNING, and its worker is well: that is not all that there is to say."""
    leaked = Leaked(incarnation="f3a1", decided_by="sidecar-0:71", transaction_id=81234, evidence=LEAK)
    told_of = held(standing(), row(left_out=LeftOut(found=ago(90.0), epoch=NEXT_EPOCH, leaked=leaked)))

    assert now(told_of).endswith(
        f", epoch {NEXT_EPOCH}; at 2025-11-27T03:13:34Z (90.0 s ago) it had left it out of what it says it runs for "
        "61.0 s (leaked), which was told of, and nothing was taken."
    )
    steps = piece_steps(told_of)
    assert [step.what for step in steps] == ["granted", "changed", "leaked"]
    assert (steps[2].worker, steps[2].epoch) == ("w9", NEXT_EPOCH)
    assert steps[2].says.startswith(str(LEAK["why"]))


def test_a_sentence_ends_once() -> None:
    """Whatever the host's trigger has said at its end."""
    refused = piece_sentence(held(standing(), row(refused="RaiseError: not on a Sunday.")))
    assert refused.endswith(" again every few minutes: RaiseError: not on a Sunday.")
    assert now(held(unheard(refused="no.."))).endswith("at every sweep: no.")


def test_attempts_that_are_used_up_set_nothing_aside() -> None:
    """To be set aside is what the operator chose for another case."""
    spent = piece(row=row(status="FAILED", running=False), owner=None, moves=[move(outcome="exhausted", crash=True)])
    says = {step.what: step.says for step in piece_steps(spent)}
    assert says["exhausted"] == "taken back for the 1st time, and not put back: its attempts were used up"


def test_one_gap_is_no_gaps() -> None:
    """As people count."""
    evidence = EVIDENCE | {"hearing": {"now": 60.0, "not_counted": 1.0, "gaps": 1}}
    says = [step.says for step in piece_steps(piece(moves=[move(end(evidence=evidence))])) if step.what == "ended"]
    assert "with 1.0 s not counted in 1 gap since the service's start" in says[0]


@pytest.mark.parametrize(
    ("stands", "words"),
    [
        (standing(conflict=True), "; another process beats under its name: nothing is taken from either."),
        (standing(epoch=None), "59.6 s left, its epoch is being issued."),
        (
            standing(suspected="silent"),
            "owner w9 may be dead (silent for two of its intervals), last beat 0.4 s ago, its",
        ),
        (standing(suspected="probe"), "owner w9 may be dead (it was asked, and nobody answered), last beat"),
        (standing(suspected="disconnected"), "owner w9 may be dead (NATS has lost its connection), last beat"),
        (standing(suspected="of a later version"), "owner w9 may be dead (of a later version), last beat"),
        (
            standing(wedged=True),
            "; it says that it runs something, and gets nothing done (wedged): nothing is taken for that.",
        ),
        (
            standing(silent_for=None, remaining=48.0),
            "owner w9 was not heard since the service has been listening, and has 48.0 s left to be heard, epoch",
        ),
        (
            standing(hearing=False, silent_for=70.0, troubles=["NATS: not connected, so nothing can be heard"]),
            (
                "owner w9 holds a lease, silent for 70.0 s of hearing; the service is deaf just now, so silence counts "
                "against nobody (NATS: not connected, so nothing can"
            ),
        ),
    ],
)
def test_owners_that_hold_a_lease(stands: Standing, words: str) -> None:
    """Whatever is out of the ordinary with one that lives."""
    assert words in now(held(stands))


LAPSED = {"state": "lapsed", "reason": "lapsed", "silent_for": 72.0, "remaining": 0.0, "overdue": 12.0}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Postgres is asked for its verdict, and the work goes back with that."),
        ({"mode": "observe"}, "goes back with that, but mode is observe, so nothing of the host's is touched."),
        (
            {"storm": STORM, "storm_left": 588.0},
            f"held by a {STORM}, for 10 min more at most, then 15 % of them a second.",
        ),
        ({"storm": STORM}, f"held by a {STORM}, until a beat shows that the way is open."),
        ({"refused": "CheckViolationError: no"}, "refuses to end it, and is asked again every few seconds: CheckViol"),
        (
            {"hearing": False},
            "the service is deaf just now, so silence counts against nobody (NATS: nothing is heard).",
        ),
        ({"contested": True}, "somebody has its epoch locked in Postgres, which is asked until it is free."),
        (
            {"troubles": ["NATS: x", "expiry: Postgres does not answer"]},
            "its work goes back as soon as Postgres answers (expiry: Postgres does not answer).",
        ),
        (
            {"troubles": ["expiry: Postgres refuses: no such table"]},
            "its work goes back as soon as Postgres takes it (expiry: Postgres refuses: no such table).",
        ),
        ({"epoch": None}, "Postgres has yet to issue the epoch that it ends."),
    ],
)
def test_why_a_lapse_is_not_acted_upon_yet(fields: dict[str, object], words: str) -> None:
    """Every reason that keeps the service from it is told."""
    sentence = now(held(standing(**(LAPSED | fields))))
    assert sentence.startswith("owner w9 lapsed 12.0 s ago (last beat 72.0 s ago, ttl 60 s); ")
    assert words in sentence


def test_a_proof_is_not_kept_by_deafness() -> None:
    """Who is known to be over is over, whether we hear or not."""
    sentence = now(held(standing(state="ending", reason="died", overdue=2.0, hearing=False)))
    assert sentence.startswith("owner w9 ended 2.0 s ago (died); Postgres is asked")


@pytest.mark.parametrize(
    ("told_of", "words"),
    [
        (
            held(unheard(), row(touched=ago(80.0)), up=False, life=None),
            "not up in the registry and was never heard; the sweep takes it when it has been untouched for 120 s, in",
        ),
        (held(unheard(), up=False, life=None), "; the sweep takes it with the next sweep (sweeps come every 30 s)."),
        (
            held(unheard(), row(touched=None), up=False),
            "the sweep takes it never: nobody can say when it was touched last.",
        ),
        (
            held(unheard(orphaned_after=220.0, postgres_back=10.0), row(touched=ago(180.0)), up=False, life=None),
            "has been untouched for 120 s (not counting 100.0 s in which Postgres was not seen), in 40.0 s (",
        ),
        (
            held(unheard(orphaned_after=220.0, postgres_back=50.0), row(touched=ago(40.0)), up=False, life=None),
            "when it has been untouched for 120 s, in 80.0 s (",
        ),
        (
            held(unheard(stale_after=160.0, postgres_back=50.0), registry_heartbeat=ago(40.0)),
            "when nobody has recorded a heartbeat for 60 s, in 20.0 s (",
        ),
        (
            held(unheard(stale_after=160.0, postgres_back=10.0), registry_heartbeat=ago(130.0)),
            "a heartbeat for 60 s (not counting 100.0 s in which Postgres was not seen), in 30.0 s (",
        ),
        (
            held(unheard(), registry_heartbeat=ago(20.0)),
            "; the sweep takes it when nobody has recorded a heartbeat for 60 s, in 40.0 s (sweeps come every 30 s).",
        ),
        (held(unheard(), registry_heartbeat=None), "the sweep takes it with the next sweep"),
        (held(unheard(listened_for=10.0)), "when the service has listened for 60 s without a loss, in 50.0 s ("),
        (
            held(unheard(listened_for=100.0), life=life(ttl=600.0)),
            "when the service has listened for 600 s without a loss, in 8 min (",
        ),
        (held(unheard(storms=[STORM])), f"the sweep takes it when no storm holds any lapse ({STORM})."),
        (held(unheard(hearing=False)), "the sweep takes it when it can hear again: the service is deaf just now"),
        (
            held(unheard(), life=life(ended=end())),
            "heard since its life ended (lapsed) at 2025-11-27T03:12:04Z (3 min ago); ",
        ),
        (held(unheard(refused="no")), "Postgres refuses to end it, and is asked again at every sweep: no."),
        (
            held(unheard(mode="observe"), up=False),
            "; mode is observe, else the sweep would take it with the next sweep",
        ),
        (
            held(unheard(mode="observe"), row(touched=ago(999.0)), life=life(ended=end(observed=True))),
            "; mode is observe: it is recorded that it would go back, and it is left.",
        ),
        (held(unheard(), differs_in_case_from="W9"), "; it differs only in case from W9, so it is left alone."),
        (
            held(unheard(), row(fixed=True)),
            (
                "the life of w9 that held it is over, and the row is fixed to go back: the host has it locked, or it "
                "waits for its turn; the next pass comes within seconds."
            ),
        ),
        (piece(owner=None), "without an owner: nobody can say whose it is, so it is left alone."),
        (
            held(unheard(), fault="contains white space or a control character"),
            "held by w9, which no worker can be called (it contains white space or a control character), so it is left",
        ),
    ],
)
def test_work_of_owners_that_hold_no_lease(told_of: Piece, words: str) -> None:
    """When the sweep takes it, and why it never does."""
    assert words in now(told_of)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {},
            f"its epoch {NEXT_EPOCH} is open since 2025-11-27T03:12:14Z (3 min ago), and the registry has it up, ",
        ),
        ({"life": None, "registered": 0}, "it never had an epoch, and the registry does not know it."),
        ({"life": life(ended=end())}, "ended at 2025-11-27T03:12:04Z (3 min ago), and the registry has it up, with"),
        ({"up": False, "registry_heartbeat": None}, "has it not up, with no heartbeat recorded."),
    ],
)
def test_nobody_could_say(fields: dict[str, Any], words: str) -> None:
    """What Postgres knows instead is told, and no more."""
    sentence = now(piece(owner=owner(unanswered="no liveness service answers", **fields)))
    assert sentence.startswith("owner w9: nobody could say whether it lives (no liveness service answers); ")
    assert words in sentence


def test_work_that_nobody_runs() -> None:
    """There is nothing to take back; and of what is gone, the history is told."""
    done = piece(row=row(status="COMPLETED", running=False), owner=owner())
    assert piece_sentence(done).endswith("was never moved: COMPLETED, so there is nothing to take back.")
    gone = piece(row=None, owner=None, moves=[move()])
    assert f"{WORK_ID} is not in public.workflow_execution any more; it {WENT_BACK}" in piece_sentence(gone)
    other = piece_sentence(piece(row=None, owner=None, moves=[move()], elsewhere=True))
    assert "is in public.workflow_execution and is no workflow now, by the condition that the settings have" in other
    unknown = piece(row=None, owner=None, moves=[move()], table="")
    assert "is of a kind whose table is not known here; it went back" in piece_sentence(unknown)


def test_the_steps_are_in_the_order_of_time() -> None:
    """From the epoch of who had it to the epoch of who has it; each life is told once."""
    moved = piece(moves=[move(), move(reclaim_count=2, reclaimed=ago(175.0))], owner=owner(stands=standing()))
    steps = piece_steps(moved)
    assert [(step.what, step.worker) for step in steps] == [
        ("granted", "w7"),
        ("last beat", "w7"),
        ("lapsed", "w7"),
        ("ended", "w7"),
        ("reclaimed", "w7"),
        ("reclaimed", "w7"),
        ("granted", "w9"),
        ("changed", "w9"),
    ]
    assert [step.when.ago for step in steps] == sorted((step.when.ago for step in steps), reverse=True)
    assert steps[3].says == (
        "lapsed: no heartbeat for 61.204 s of hearing; ttl 60 s; probed: no answer; no storm; heard by the NATS server:"
        " NDJ2K; the hearing clock stood at 86411.1 s, with 0.4 s not counted in 3 gaps since the service's start;"
        " decided by sidecar-0:71 in transaction 81234"
    )


def test_evidence_that_nobody_expected() -> None:
    """Whatever is written there, words come of it."""
    for evidence in (
        {},
        {"why": 7, "hearing": [], "details": [1], "storm": {}, "via": None},
        {"hearing": {"now": True}},
    ):
        moved = piece(row=waiting(), owner=None, moves=[move(end(evidence=evidence, finished=None))])
        assert piece_steps(moved)[-2].says == (
            "lapsed: ended (lapsed); no storm; decided by sidecar-0:71 in transaction 81234; not all of its work is "
            "back yet"
        )
    let_go = end(evidence=EVIDENCE | {"storm": "held, then let go"}, untouched_for=12.0, observed=True)
    says = piece_steps(piece(row=waiting(), owner=None, moves=[move(let_go)]))[-2].says
    assert "; storm: held, then let go; " in says
    assert "; only rows untouched for 12.0 s were its; mode observe: nothing of the host's was touched; " in says


def test_a_worker() -> None:
    """How it stands, what it holds, and how its last life ended."""
    before = life("w9", ended=end(recovered=ago(170.0)), gave_back={"workflow": 3, "task": 1})
    alive = worker_told(standing(), before, life("w9", NEXT_EPOCH, granted=ago(170.0)))
    assert worker_sentence(alive) == (
        f"w9 is alive, last beat 0.4 s ago, its lease has 59.6 s left, epoch {NEXT_EPOCH}; it holds 2 x workflow; its "
        "last life to end did so at 2025-11-27T03:12:04Z (3 min ago) because w9 was not heard for 61.2 s (ttl 60 s)."
    )


def test_what_nobody_knows() -> None:
    """It is said where was looked; a worker of which memory alone knows is known."""
    looked_in = ["public.workflow_execution", "public.task_execution"]
    nothing = told(WhyAnswer(known=False, looked_in=looked_in))
    assert nothing.sentence == (
        "nothing is known of that id: looked in public.workflow_execution, public.task_execution and in the history of "
        "all that ever moved."
    )
    nobody = WhyAnswer(known=False, looked_in=looked_in, worker=worker_told(unheard(), holds={}))
    assert told(nobody).sentence.startswith("nothing is known of a worker w9: looked in the registry, the epochs, the ")
    heard = WhyAnswer(known=False, looked_in=looked_in, worker=worker_told(standing(), holds={}))
    assert told(heard).known


def test_the_longest_answer_fits_into_a_nats_message() -> None:
    """With the longest names and as many moves as may be asked for, a third of the default of 1 MB is not passed."""
    name, incarnation = '"\\' * 127 + "x", '"' * 64
    ended = end(incarnation=incarnation, decided_by="h" * 64, evidence=EVIDENCE | {"via": "N" * 64})
    lost = [
        move(worker=name, epoch=number, life=life(name, number, ended, incarnation=incarnation))
        for number in range(TOLD_MOST)
    ]
    answer = told(WhyAnswer(known=True, looked_in=[], pieces=[piece(moves=lost, id="i" * 1024)]))
    assert len(answer.pieces[0].steps) == 5 * TOLD_MOST + 2
    assert bytes_of(answer) < 333_000


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s ago"), (119.9, "119.9 s ago"), (121, "2 min ago"), (7300, "2 h ago"), (300_000, "3 days ago")],
)
def test_spans(seconds: float, words: str) -> None:
    """As exact as a person needs it."""
    assert past(seconds) == words
    assert past(-seconds) == f"in {words.removesuffix(' ago')}"


def test_counts() -> None:
    """One of them is one."""
    assert [counted(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [counted(number, "life", "lives") for number in (1, 2)] == ["1 life", "2 lives"]


def test_ordinals() -> None:
    """As people write them."""
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]
    )
