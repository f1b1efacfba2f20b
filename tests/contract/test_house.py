"""The rules of the house: how long a module is, which words are not used, and what a newcomer and a release rest on."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

import liveness
from liveness.cli import commands
from tests.contract.conftest import ROOT

LINES = 400
# Which may be longer, how long, and why.
LONGER = {
    r"tests/\w+/test_\w+\.py": (700, "cases of one duty, one behind the other: nobody has to have all of them in mind"),
    r"tests/acceptance/conftest\.py": (440, "the stage of all acceptance tests, as their fixtures"),
}
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
NOT_USED = set(re.findall(r"`(\w+)`", GLOSSARY.partition("## Words that we do not use")[2].partition("\n\n| ")[2]))
# In names these are of others, and mean what they mean there.
OF_OTHERS = {
    "base": "of Postgres: a type without its length and domain",
    "id_base": "the same of the id's column",
    "handler": "of logging",
    "_PR_SET_CHILD_SUBREAPER": "of Linux",
    "_send_ping": "of nats-py, which calls it",
    "_pings_outstanding": "of nats-py, which counts them",
}
# Plain words of English where they are no name.
IN_PROSE = NOT_USED - {"core", "base"}
PHRASES_OF_OTHERS = (
    r"manager of one's own|procrastinate\.manager|[jJ]ob_?[mM]anager",  # Procrastinate's
    r"signal's handlers?|[hH]andler of a signal|handlers\b|add_signal_handler|(logging|Stream)\.?Handler",  # Python's
    r"importlib\.util|find_spec",
    r"PING",  # of NATS's protocol
    r"\bhandler\.\w+|handler = |\[handler\]",
)


def sources() -> list[Path]:
    """Return every module of the project."""
    folders = ("liveness", "schemas", "examples", "tests", "docs")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(found) > 200
    return found


def test_no_module_is_longer_than_one_can_read() -> None:
    """Over 400 lines there has to be a reason, and a bound all the same."""
    too_long = []
    for path in sources():
        name, lines = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8").count("\n")
        bounds = [bound for pattern, (bound, _) in LONGER.items() if re.fullmatch(pattern, name)]
        if lines > max([LINES, *bounds]):
            too_long.append(f"{name}: {lines}")

    assert too_long == []


def words_of(name: str) -> set[str]:
    """Return the words that a name consists of, in the singular."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return {word for part in parts for word in (part.lower(), part.lower().removesuffix("s"))}


def names_in(path: Path) -> Iterator[str]:
    """Return the names that a module gives, its own among them."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr


def test_the_glossary_has_words_that_are_not_used() -> None:
    """They are read from there."""
    assert len(NOT_USED) == 12


def test_no_name_has_a_word_that_is_not_used() -> None:
    """Of modules, statements, classes, functions, arguments and variables."""
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        if path.is_relative_to(ROOT / "liveness") or path.is_relative_to(ROOT / "schemas")
        for name in names_in(path)
        if name not in OF_OTHERS and words_of(name) & NOT_USED
    ]
    found += [path.name for path in (ROOT / "liveness" / "sql").iterdir() if words_of(path.stem) & NOT_USED]

    assert found == []


def test_what_stood_still_was_not_paused() -> None:
    """One word for one thing: to pause is an operator's, and what a process does that does not run is another."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    paused = re.compile(
        r"\b(leader|worker|replica|replicas|machine|process|processes|service|server)\b[^.|]{0,25}?"
        r"\b(is|are|was|were|itself|only|and|or|killed and) paused\b|\bpauses of\b|\bits own pauses\b"
    )
    said = {path.name: " ".join(path.read_text(encoding="utf-8").split()) for path in pages}
    found = {f"{name}: {match[0]}" for name, text in said.items() for match in paused.finditer(text)}

    assert found == set()


def texts() -> list[Path]:
    """Return what people read: the pages, and the code with its comments, statements and messages."""
    pages = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    code = [path for kind in ("*.py", "*.sql") for path in sorted((ROOT / "liveness").rglob(kind))]
    ddl = sorted((ROOT / "schemas" / "postgres").rglob("*.sql"))
    return [path for path in pages if path.name != "glossary.md"] + code + ddl


def test_no_text_has_a_word_that_is_not_used() -> None:
    """But where it is another's word for another thing."""
    pattern = re.compile(rf"\b({'|'.join(sorted(IN_PROSE))})(s|es|ed|er|ing|ion|d|r)?\b", re.IGNORECASE)
    found = []
    for path in texts():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            own = re.sub("|".join(PHRASES_OF_OTHERS), "", line)
            found += [f"{path.relative_to(ROOT)}:{number}: {word[0]}" for word in pattern.finditer(own)]

    assert found == []


def test_a_newcomer_needs_two_commands() -> None:
    """Together they are the README's one, which CI runs as its first step."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    install, test = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0].splitlines()

    assert f"## Test it\n\n```sh\n{install} && {test}\n```" in readme
    assert "step 'README: test it'" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_dependencies_are_as_many_as_it_is_said() -> None:
    """Each is somebody who has to be trusted."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    worker = sorted(re.findall(r"^[\w-]+", "\n".join(project["dependencies"]), re.MULTILINE))
    server = [one for name in ("server", "nkeys") for one in extras[name] if not one.startswith("liveness")]
    page = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())

    said = f"A worker needs {len(worker)} packages ({', '.join(worker)}), the service {len(server)} more"
    assert said in page


def test_nobody_is_told_to_install_what_is_not_ours() -> None:
    """In the registry its name is not ours: errors alone say such a line, where it is there already."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/*.*")]
    found = {
        f"{path.relative_to(ROOT)}: {line}"
        for path in pages
        for line in re.findall(r"pip install [^`\n]*", path.read_text(encoding="utf-8"))
        if re.search(r"(?<![\w./-])liveness\b", line)
    }

    assert found == {"README.md: pip install 'liveness[otel]'"}


def test_the_version_stands_in_one_place() -> None:
    """What is built reads it from there, and a command says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"] == {"path": "liveness/__init__.py"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", liveness.__version__)


def test_the_changelog_keeps_its_form() -> None:
    """Unreleased comes first, then versions, each with its day, the newest on top; what is in them is of six kinds."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d{2}-\d{2}", version) for version in versions]

    assert first == "[Unreleased]"
    assert None not in released, versions
    numbers = [tuple(map(int, version.groups())) for version in released if version]
    assert numbers == sorted(numbers, reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


@pytest.mark.parametrize(
    ("typed", "begun", "offered"),
    [([], "w", ["watch", "why"]), (["reclaim"], "--d", ["--dry-run"]), (["run"], "--if", ["--if-given-up"])],
)
def test_a_shell_completes_commands_and_options(typed: list[str], begun: str, offered: list[str]) -> None:
    """As far as they are typed."""
    completion = ShellComplete(commands, {}, "liveness", "_LIVENESS_COMPLETE")

    assert [item.value for item in completion.get_completions(typed, begun)] == offered


def test_the_line_that_makes_it_complete_is_the_readme_s() -> None:
    """It prints a script for bash that is one."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r'`(eval "\$\(_LIVENESS_COMPLETE=bash_source liveness\)")`', readme)
    folder = Path(sys.executable).parent
    ran = subprocess.run(
        ["bash", "-c", f"PATH={folder}:$PATH; {line}; complete -p liveness"],  # noqa: S607 - by the PATH
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout == "complete -o nosort -F _liveness_completion liveness\n"
