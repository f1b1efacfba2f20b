"""What others have chosen stays what it is wherever commands and HTTP show it: text, in its own line."""

import json
from collections.abc import Sequence

import pytest

from liveness.answers import Pause, ReclaimAnswer, StatusAnswer, Swept, WorkerStatus
from liveness.cli import check, reclaim, status, sweep
from liveness.cli.options import print_json
from liveness.cli.terminal import console_for, literal
from liveness.cli.why import show
from liveness.explanations import told
from liveness.facts import Instant, Piece, Step, WhyAnswer
from liveness.findings import Finding, Weight
from liveness.http import _probed
from liveness.settings import Settings
from tests.unit.hostile import HOSTILE


def as_text(said: str) -> bool:
    """Say whether it is nothing but text."""
    return all(line.isprintable() for line in said.split("\n"))


@pytest.fixture(params=HOSTILE, ids=range(len(HOSTILE)))
def text(request: pytest.FixtureRequest) -> str:
    """Something hostile."""
    hostile: str = request.param
    return hostile


@pytest.fixture
def worker(text: str) -> WorkerStatus:
    """A worker that is called so."""
    return WorkerStatus(
        worker=text, state="live", incarnation=text, epoch=1, ttl=1.0, remaining=1.0, silent_for=None, running=0
    )


@pytest.fixture
def answer(text: str, worker: WorkerStatus) -> StatusAnswer:
    """A status with it wherever it can be."""
    return StatusAnswer(
        version="1", mode="act", troubles=[text], term=1, hearing=True, gaps=1, not_heard=0.0, storms=[text],
        conflicts=[text], uptime=1.0, leases=1, wanting=0, ending=0, outbox=0, outbox_oldest=None, counts={},
        workers=[worker], suspects=[text], wedged=[text], paused=Pause(text, "2025", 1.0, text),
    )  # fmt: skip


def short(text: str) -> str:
    """Return what a person still sees of it."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)[:8]


def run(answers: object, command: object, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command that is answered so, whoever it would ask."""

    async def answered(*_: object, **__: object) -> object:
        return answers

    module = {"status": status, "sweep": sweep, "reclaim": reclaim, "check": check}[str(command)]
    name = {"status": "ask", "sweep": "run", "reclaim": "run", "check": "check_all"}[str(command)]
    monkeypatch.setattr(module, name, answered)
    monkeypatch.setattr(module, "settings_for", lambda **_: Settings())
    monkeypatch.setattr(module, "configure", lambda *_: None, raising=False)
    try:
        module.command.main(list(arguments), standalone_mode=False)
    except SystemExit as end:
        assert end.code in {0, 1}  # noqa: PT017 - that of a check


def test_status(
    text: str, answer: StatusAnswer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its lines and in its table, and as JSON with the same in it."""
    run(answer, "status", [], monkeypatch)
    said = capsys.readouterr().out
    assert as_text(said)
    assert short(text) in said

    run(answer, "status", ["--json"], monkeypatch)
    said = capsys.readouterr().out
    assert as_text(said)
    assert json.loads(said)["workers"][0]["worker"] == text


def test_check(text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of tables and statements with them, too."""
    found = [
        Finding(
            check="x", weight=Weight.BAD, about=text, says=text, why=text, fix=text, statements=(text,), measured=text
        )
    ]
    run(found, "check", [], monkeypatch)

    said = capsys.readouterr().out
    assert as_text(said)
    assert said.count(short(text)) >= 5


def test_sweep_and_reclaim(text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Names and reasons."""
    swept = Swept(
        lapsed=[text], stale=[text], orphaned=[text], too_early=[text], ambiguous={text: text}, refused={text: text}
    )
    run(swept, "sweep", [], monkeypatch)
    run(
        ReclaimAnswer(worker=text, heard=text, dry_run=False, held=0, reclaimed=0, epoch=None),
        "reclaim",
        ["w"],
        monkeypatch,
    )

    assert as_text(capsys.readouterr().out)


def test_why(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence, and each cell of the story; and what is not known."""
    step = Step(when=Instant(at="2025-11-27T03:11:03Z", ago=1.0), what=text, worker=text, epoch=1, says=text)
    piece = Piece(
        work=text, id=text, table=text, row=None, moves=[], more=False, owner=None, sentence=text, steps=[step]
    )
    show(WhyAnswer(known=True, looked_in=[], pieces=[piece]), console_for())
    nothing = told(WhyAnswer(known=False, looked_in=[text], sentence=text))
    console_for().print(literal(nothing.sentence), highlight=False, soft_wrap=True)

    said = capsys.readouterr().out
    assert as_text(said)
    assert short(text) in said


def test_probes(text: str) -> None:
    """A line stays a line, and a browser takes none of it for a page."""
    answered = _probed([text], "ready", [text])

    assert bytes(answered.body).decode().count("\n") == 2
    assert as_text(bytes(answered.body).decode())
    assert answered.media_type == "text/plain"


def test_json_means_the_same(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As key and as value."""
    print_json({text: [text]})

    said = capsys.readouterr().out
    assert as_text(said)
    assert json.loads(said) == {text: [text]}
