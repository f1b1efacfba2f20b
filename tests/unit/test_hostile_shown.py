"""What others have chosen stays what it is wherever commands and HTTP show it: text, in its own line."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

import pytest

from liveness.answers import Expired, Moved, Pause, ReclaimAnswer, StatusAnswer, Swept, WorkerStatus
from liveness.cli import check, reclaim, status, sweep
from liveness.cli.options import print_json
from liveness.cli.terminal import console_for, literal
from liveness.cli.why import show
from liveness.explanations import told
from liveness.facts import Instant, Piece, Step, WhyAnswer
from liveness.findings import Finding, Weight
from liveness.http import _probed
from liveness.page.rendering import View, status_page, status_part, story_page, work_address
from liveness.settings import Settings
from tests.unit.hostile import HOSTILE


class Parsed(HTMLParser):
    """A page as a browser takes it: its elements with the names of their attributes, what it says, where it leads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.said = ""
        self.queries: list[tuple[str, dict[str, list[str]]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        for name, value in attrs:
            if name == "href":
                parts = urlsplit(value or "")
                assert (parts.scheme, parts.netloc) == ("", "")
                if parts.path:
                    self.queries.append((parts.path, parse_qs(parts.query)))
            else:
                self.said += f"{value}\n"

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.said += data


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
        ends=[Expired(worker=text, epoch=1, reason=text, because=text, at="2025-11-27T03:11:03Z", ago=1.0)],
        moves=[Moved(work=text, id=text, worker=text, epoch=1, reason=text, at="2025-11-27T03:11:03Z", ago=1.0)],
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
        lapsed=[text],
        ending=[text],
        stale=[text],
        orphaned=[text],
        too_early=[text],
        ambiguous={text: text},
        refused={text: text},
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


def test_page(text: str, answer: StatusAnswer) -> None:
    """Text, and no element, attribute, or address that is not ours; the name in a link is the very one."""
    page = Parsed(status_page(answer, View(text)))

    assert page.elements == Parsed(status_page(answer, View("harmless"))).elements
    assert all(one.isprintable() or one == "\n" for one in page.said)
    assert short(text) in page.said
    assert text in [name for _, query in page.queries for name in query.get("worker", [])]
    assert {path.split("/")[1] for path, _ in page.queries} == {"", "why", "page.css", "icon.svg"}
    assert "data: " not in status_part(answer, View(text)).split("\n")


def test_page_of_a_story(text: str) -> None:
    """The same."""

    def story(text: str) -> Parsed:
        step = Step(when=Instant(at="2025-11-27T03:11:03Z", ago=1.0), what=text, worker=text, epoch=1, says=text)
        piece = Piece(
            work=text, id=text, table=text, row=None, moves=[], more=True, owner=None, sentence=text, steps=[step]
        )
        return Parsed(story_page(WhyAnswer(known=True, looked_in=[], pieces=[piece], sentence=text), leads=False))

    page = story(text)
    assert page.elements == story("harmless").elements
    assert all(one.isprintable() or one == "\n" for one in page.said)
    assert short(text) in page.said


@pytest.mark.parametrize("work_id", [".", "..", "a/../b", "?x=1#y", "%2e%2e", "\u05d0 \u202e"])
def test_address_of_a_story(work_id: str) -> None:
    """Whatever the id, and what browsers make of an address, the id is asked for."""
    parts = urlsplit(urljoin("http://here/", work_address(work_id)))

    asked = parse_qs(parts.query).get("id", [unquote(parts.path.removeprefix("/why/"))])
    assert asked == [work_id]
    assert parts.fragment == ""


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
