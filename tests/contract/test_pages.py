"""Every command that a page shows is one, and the pages of the reference are what the code says."""

import ast
import json
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from liveness.cli import commands
from tests.contract.conftest import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "schemas" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^ *```([^\s`]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]*\bliveness [^`]*)`")
# Behind these the next word is a command of its own.
BEFORE = {"", "--", "&&", "||", ";", "|", "exec", "$", "`"}
BEHIND = {"&&", "||", ";", "|", ">", "&", "2>"}
# What begins like one and is none.
NO_COMMAND = {"liveness worker <name>": "how a worker's connection to NATS is called"}


def commands_in(line: str) -> Iterator[list[str]]:
    """Return the arguments of each call of ours in a line for a shell."""
    words = shlex.split(line, comments=True)
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if (word == "liveness" or word.endswith("bin/liveness")) and before in BEFORE:
            rest = words[place + 1 :]
            yield rest[: next((number for number, one in enumerate(rest) if one in BEHIND), len(rest))]


def refused(arguments: list[str], *, whole: bool) -> str | None:
    """Say why a command line cannot be used, or None; where it is only spoken of, something may be left out."""
    name, *rest = arguments
    group = click.Context(commands, info_name="liveness")
    command = commands.get_command(group, name)
    if command is None:
        return f"there is no command {name}"
    try:
        command.make_context(name, rest, parent=group)
    except click.exceptions.Exit:
        return None
    except click.MissingParameter as error:
        return error.format_message() if whole else None
    except click.ClickException as error:
        return error.format_message()
    return None


def shown(page: Path) -> Iterator[tuple[str, bool]]:
    """Return each line for a shell that a page has, and whether it is there to be entered, or spoken of."""
    text = page.read_text(encoding="utf-8")
    for language, block in FENCED.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        for line in lines:
            if language == "sh" and "<<" not in line:
                yield line.strip(), True
            elif language in {"", "console"} and line.startswith("$ "):
                yield line, True
    for spoken in INLINE.findall(FENCED.sub("", text)):
        if spoken not in NO_COMMAND and spoken.startswith("liveness "):
            # [--dry-run] is one that may be left out.
            yield re.sub(r"\[(--[^\]]*)\]", r"\1", " ".join(spoken.split())), False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_can_be_used(page: Path) -> None:
    """Each has the commands, options and arguments that it is shown with."""
    wrong = [
        f"{line}: {complaint}"
        for line, whole in shown(page)
        for arguments in commands_in(line)
        if arguments and not arguments[0].startswith("-") and (complaint := refused(arguments, whole=whole))
    ]

    assert wrong == []


def test_commands_are_found_and_judged() -> None:
    """By what a page of today has, and by what none may have."""
    found = [line for page in PAGES for line, _ in shown(page) for _ in commands_in(line)]

    assert len(found) > 50
    assert list(commands_in("kubectl exec deploy/liveness -- liveness check > out")) == [["check"]]
    assert list(commands_in("kubectl create secret generic liveness --from-file=a")) == []
    assert list(commands_in("/opt/liveness/bin/liveness migrate && liveness serve")) == [["migrate"], ["serve"]]
    assert refused(["reap"], whole=True) == "there is no command reap"
    assert refused(["sweep", "--dry"], whole=True) is not None
    assert refused(["reclaim"], whole=False) is None
    assert refused(["reclaim"], whole=True) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_is_of_its_language(page: Path) -> None:
    """As far as that can be told without running it; what is run has tests of its own."""
    readers: dict[str, Callable[[str], object]] = {
        "json": json.loads,
        "python": lambda text: compile(text, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST),
        "toml": tomllib.loads,
        "yaml": lambda text: YAML(typ="safe").load(text),
    }
    for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if language in readers:
            readers[language](textwrap.dedent(block))
        elif language == "sh":
            subprocess.run(["bash", "-n", "-c", block], check=True)  # noqa: S607 - by the PATH
        else:
            assert language in {"", "conf", "console", "sql", "text", "{toctree}"}, language


def test_the_reference_is_what_the_code_says() -> None:
    """Whoever changes settings, commands, subjects or events writes it anew: python docs/reference.py."""
    command = [sys.executable, str(ROOT / "docs" / "reference.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_picture_is_what_the_modules_import() -> None:
    """Whoever adds a module gives it a box, and draws it anew: python docs/picture.py."""
    command = [sys.executable, str(ROOT / "docs" / "picture.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_what_the_picture_shows_as_deciding_does_no_io() -> None:
    """The same is forbidden to import anything for that."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (pure,) = [one["source_modules"] for one in contracts["contracts"] if "has no clock" in one["name"]]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (judgement|story) \| [^|]* \| ([^|]*) \|$", page, re.MULTILINE))

    assert set(rows) == {"judgement", "story"}
    for modules in rows.values():
        assert {f"liveness.{module}" for module in re.findall(r"`(\w+)`", modules)} <= set(pure)


def test_what_is_stuck_is_told_in_the_words_of_the_page() -> None:
    """Who looks for a cause compares what `liveness why` says with what stands there."""
    page = (ROOT / "docs" / "stuck.md").read_text(encoding="utf-8")
    table = page.partition("<!-- said:")[2].partition("\n\n| it says |")[2].partition("\n\n")[0]
    said = re.findall(r"`([^`]+)`", "\n".join(row.split(" | ")[0] for row in table.splitlines()))
    source = (ROOT / "liveness" / "explanations.py").read_text(encoding="utf-8")

    assert len(said) == 15
    assert [words for words in said if words not in source] == []
