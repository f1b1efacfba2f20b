"""The wheel: what is in it, and what works where only the worker's side is installed."""

import configparser
import email
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.contract.conftest import ROOT

# Runs what follows as in an environment into which nothing but the wheel and its own dependencies were installed.
# Only these may come from outside of the standard library, whatever this environment holds.
WORKER_ONLY = """
import sys

class OnlyTheWorkersSide:
    allowed = sys.stdlib_module_names | {"liveness", "click", "msgspec", "nats"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyTheWorkersSide())
"""
FROM_THE_WHEEL = """
import liveness, pathlib
assert pathlib.Path(liveness.__file__).is_relative_to(pathlib.Path(sys.path[0])), liveness.__file__
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once for all tests."""
    folder = tmp_path_factory.mktemp("wheel")
    # With the build's own environment only where it has to be: making one takes seconds and the network.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        *isolation,
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, to be first on the path."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def content(wheel: Path) -> set[str]:
    """Return the names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def run(folder: Path, program: str, *arguments: str, worker_only: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program on the wheel's content, by default with nothing but the worker's side importable."""
    begin = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    text = begin + (WORKER_ONLY if worker_only else "") + FROM_THE_WHEEL + program
    # -P: not the current folder either, which is the checkout.
    command = [sys.executable, "-P", "-c", text, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_wheel_content(wheel: Path) -> None:
    """The wheel holds every module, statement and DDL file of the checkout, and nothing else but its metadata."""
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "liveness").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    ddl = {f"liveness/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "schemas" / "postgres").rglob("*.sql")}
    inside = {name for name in content(wheel) if ".dist-info/" not in name}
    assert inside == package | ddl
    assert "liveness/py.typed" in inside
    assert any(re.fullmatch(r"liveness/sql/\w+\.sql", name) for name in inside)
    assert {"liveness/schemas/postgres/liveness/0001_initial.sql"} <= ddl
    assert not any(part in {"tests", "conftest.py"} for name in content(wheel) for part in name.split("/"))


def test_wheel_metadata(wheel: Path) -> None:
    """The wheel asks for the worker's side alone, offers the extras, and installs the command."""
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"{folder}/entry_points.txt").decode())
    plain = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert {re.split(r"[^\w-]", need)[0] for need in plain} == {"click", "msgspec", "nats-py"}
    assert {"server", "embedded"} <= set(metadata.get_all("Provides-Extra", []))
    assert scripts["console_scripts"]["liveness"] == "liveness.cli:main"


def test_worker_side_alone(installed: Path) -> None:
    """A worker's process imports what it needs without any extra, and of the service nothing can be imported."""
    tried = run(
        installed,
        "import liveness.testing\n"
        "liveness.Heartbeater('nats://127.0.0.1:4222', worker='w1')\n"
        "for module in ('asyncpg', 'starlette', 'structlog', 'rich', 'uvicorn', 'liveness.service'):\n"
        "    try:\n"
        "        __import__(module)\n"
        "    except ModuleNotFoundError:\n"
        "        print(module)\n",
    )
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.split() == ["asyncpg", "starlette", "structlog", "rich", "uvicorn", "liveness.service"]


def test_help_without_extras(installed: Path) -> None:
    """`liveness --help` names every command without any extra, and which extra each needs."""
    tried = run(installed, "from liveness.cli import main; main()", "--help")
    assert tried.returncode == 0, tried.stderr
    assert "liveness[server]" in tried.stdout
    assert "liveness[embedded]" in tried.stdout


@pytest.mark.parametrize(("command", "extra"), [("serve", "server"), ("dev", "embedded")])
def test_command_says_which_extra_is_missing(installed: Path, command: str, extra: str) -> None:
    """A command of the server's side says in one line what to install, and exits 1."""
    tried = run(installed, "from liveness.cli import main; main()", command)
    assert tried.returncode == 1
    assert tried.stdout == ""
    (line,) = tried.stderr.splitlines()
    assert f"pip install 'liveness[{extra}]'" in line


def test_wheel_brings_its_ddl(installed: Path) -> None:
    """The installed package finds its migrations within itself."""
    tried = run(
        installed,
        "from liveness.store.migrations import _folder, known_migrations\n"
        "print(_folder('liveness'), *(migration.name for migration in known_migrations()))",
        worker_only=False,
    )
    assert tried.returncode == 0, tried.stderr
    folder, *names = tried.stdout.split()
    assert Path(folder).is_relative_to(installed)
    assert "initial" in names
