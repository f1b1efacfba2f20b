"""`liveness why` says what the golden answers say, and the README shows what it says."""

import io
import re
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from liveness.cli.why import show
from liveness.explanations import told
from liveness.facts import Piece, WhyAnswer
from tests.contract.conftest import ROOT, SCHEMAS, example_paths, message_of, name_of, read

README = (ROOT / "README.md").read_text(encoding="utf-8")
HOSTILE = "w\x1b[2J[bold red]7[/]\nforged"


def answer(path: Path) -> WhyAnswer:
    """Return a golden answer."""
    return msgspec.json.decode(path.read_bytes(), type=WhyAnswer)


def shown(told_of: WhyAnswer, columns: int) -> str:
    """Return what a terminal of so many columns shows of an answer, without its colours."""
    written = io.StringIO()
    show(told_of, Console(file=written, width=columns))
    return written.getvalue()


@pytest.mark.parametrize(
    "path", [path for path in example_paths("good") if message_of(path) == "why-answer"], ids=name_of
)
def test_the_words_follow_from_the_facts(path: Path) -> None:
    """Whoever has the facts of a golden answer makes its words again."""
    golden = answer(path)
    facts = msgspec.structs.replace(golden, sentence="")
    assert told(facts) == golden
    assert golden.sentence


def test_the_readme_shows_it() -> None:
    """What the README shows is what the command says of the golden answer."""
    golden = answer(SCHEMAS / "examples" / "good" / "why-answer--lapsed-and-held-again.json")
    (example,) = re.findall(rf"```\n\$ liveness why {golden.pieces[0].id}\n(.*?)```", README, re.DOTALL)
    lines = [line.rstrip() for line in shown(golden, 110).splitlines()]
    # On a page the sentence is broken into lines; a terminal does that.
    assert " ".join(example[: example.index("┏")].split()) == lines[0]
    assert example[example.index("┏") :].splitlines() == lines[1:]


def test_nothing_is_a_command_to_the_terminal() -> None:
    """What workers chose is shown without control characters and markup, in the sentence and in the table."""
    golden = read(SCHEMAS / "examples" / "good" / "why-answer--lapsed-and-held-again.json")
    text = msgspec.json.encode(golden).decode().replace('"w7"', msgspec.json.encode(HOSTILE).decode())
    said = shown(told(msgspec.json.decode(text, type=WhyAnswer)), 400)
    assert "\x1b" not in said
    assert "w\ufffd[2J[bold red]7[/]\ufffdforged was not heard" in said
    assert said.count("w\ufffd[2J[bold red]7[/]\ufffdforged") >= len(golden["pieces"][0]["steps"]) - 2


def test_more_before_that() -> None:
    """A story that is cut says so."""
    golden = answer(SCHEMAS / "examples" / "good" / "why-answer--waiting.json")
    cut: list[Piece] = [msgspec.structs.replace(piece, more=True) for piece in golden.pieces]
    assert "there was more before that: see --limit" in shown(msgspec.structs.replace(golden, pieces=cut), 200)
    assert "--limit" not in shown(golden, 200)
