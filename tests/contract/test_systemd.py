"""The unit for systemd: that systemd understands it, and that it goes with what the code does.

And what is beside it: the drop-in for another login, and the command for root.
"""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from liveness import connections, service, systemd
from liveness.settings import NAMES, Settings, load
from tests.contract.conftest import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "liveness.service"
DROP_IN = FOLDER / "liveness.service.d" / "nats-password.conf"
COMMAND = FOLDER / "liveness"
ACCOUNTS = (ROOT / "deploy" / "nats" / "liveness.conf").read_text(encoding="utf-8")
# Of the process, and not of the service.
OF_PYTHON = {"PYTHONUNBUFFERED", "PYTHONFAULTHANDLER"}


def directives(*files: Path) -> dict[str, list[str]]:
    """Return the values of each directive of the unit and its drop-ins, in their order; an empty one takes back."""
    found = defaultdict(list)
    for path in (UNIT, *files):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and line[0] not in "#[":
                name, _, value = line.partition("=")
                if value or name != "LoadCredential":
                    found[name].append(value)
                else:
                    found[name].clear()
    return found


def environment(*files: Path) -> dict[str, str]:
    """Return what the process has in its environment, with `%d` where its credentials are."""
    found = directives(*files)
    pairs = dict(pair.split("=", 1) for line in found["Environment"] for pair in line.split())
    return {name: value for name, value in pairs.items() if name not in found["UnsetEnvironment"]}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a program that is there, for systemd looks for it, and with its drop-ins."""
    unit = tmp_path / UNIT.name
    shutil.copytree(DROP_IN.parent, tmp_path / DROP_IN.parent.name)
    text = UNIT.read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/liveness/bin/liveness", str(shutil.which("true"))), encoding="utf-8")
    return unit


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no systemd that runs."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here: it is in Debian's package systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_systemd_understands_the_unit(installed: Path) -> None:
    """It complains of nothing: a word that it does not know would be ignored, and only told."""
    verified = analyze("verify", str(installed))

    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_the_service_may_do_little(installed: Path) -> None:
    """By systemd's own count from 10 (anything) to 0; docs/systemd.md says the same figure."""
    counted = analyze("security", "--offline=true", str(installed))

    found = re.search(r"Overall exposure level for liveness.service: ([\d.]+)", counted.stdout)
    assert found is not None, counted.stdout + counted.stderr
    assert float(found[1]) < 2


@pytest.mark.parametrize("files", [(), (DROP_IN,)], ids=["unit", "drop-in"])
def test_names_and_files_of_the_unit_exist(files: tuple[Path, ...]) -> None:
    """Each variable is a setting of ours, and what is loaded is what the settings name."""
    found, variables = directives(*files), environment(*files)
    loaded = {value.partition(":")[0] for value in found["LoadCredential"]}

    for name in variables:
        assert name in OF_PYTHON | {"LIVENESS_CONFIG"} or name.removeprefix("LIVENESS_").lower() in NAMES
    assert {value.removeprefix("%d/") for value in variables.values() if value.startswith("%d/")} == loaded
    assert found["ExecStart"] == ["/opt/liveness/bin/liveness serve"]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """What is in /etc/liveness: settings, and secrets that only their owner can read."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "liveness.toml").write_text('postgres_dsn = "postgresql://liveness@db/flow"\n', encoding="utf-8")
    (folder / "postgres_password").touch(0o400)
    return folder


def logs_in_as(settings: Settings, file: Path) -> None:
    """Fail unless it is by that secret, and as deploy/nats has it."""
    assert settings.postgres_dsn == "postgresql://liveness@db/flow"
    assert settings.postgres_password_file == str(file.parent / "postgres_password")
    if file.name == "nats.creds":
        assert (settings.nats_credentials_file, settings.nats_user) == (str(file), "")
        return
    assert (settings.nats_password_file, settings.nats_credentials_file) == (str(file), "")
    (block,) = re.findall(rf"\{{ user: {settings.nats_user}, password: .*?\n      \}} \}}", ACCOUNTS, re.DOTALL)
    assert f'"{settings.nats_inbox_prefix}.>"' in block
    assert (
        f"LIVENESS_NATS_USER={settings.nats_user} LIVENESS_NATS_INBOX_PREFIX={settings.nats_inbox_prefix}" in ACCOUNTS
    )


@pytest.mark.parametrize(("files", "secret"), [((), "nats.creds"), ((DROP_IN,), "nats_password")])
def test_the_unit_logs_in_one_way(machine: Path, files: tuple[Path, ...], secret: str) -> None:
    """The settings can be used, and name the user and the inbox that the shipped accounts have."""
    (machine / secret).touch(0o400)
    there = {name: value.replace("%d", str(machine)) for name, value in environment(*files).items()}
    settings, _ = load(there | {"LIVENESS_CONFIG": str(machine / "liveness.toml")})

    logs_in_as(settings, machine / secret)


def commanded(folder: Path, **beforehand: str) -> dict[str, str]:
    """Return what the command for root hands on to the program, in its environment."""
    program = folder / "program"
    program.write_text('#!/bin/sh\necho "$@"\nenv -0\n', encoding="utf-8")
    program.chmod(0o755)
    text = COMMAND.read_text(encoding="utf-8")
    text = text.replace("folder=/etc/liveness", f"folder={folder}").replace("/opt/liveness/bin/liveness", str(program))
    script = folder / "liveness"
    script.write_text(text, encoding="utf-8")
    ran = subprocess.run(
        ["sh", script, "why", "two words"],  # noqa: S607 - by the PATH
        env={"PATH": os.environ["PATH"], **beforehand},
        capture_output=True,
        text=True,
        check=True,
    )
    said, _, rest = ran.stdout.partition("\n")
    assert (said, ran.stderr) == ("why two words", "")
    return dict(pair.split("=", 1) for pair in rest.split("\0") if pair.startswith("LIVENESS_"))


@pytest.mark.parametrize("secret", ["nats.creds", "nats_password"])
def test_the_command_for_root_finds_what_the_unit_has(machine: Path, secret: str) -> None:
    """Settings and secrets, whichever way NATS is logged in to."""
    (machine / secret).touch(0o400)

    settings, warnings = load(commanded(machine))

    assert warnings == []
    logs_in_as(settings, machine / secret)


def test_what_was_given_before_the_command_wins(machine: Path) -> None:
    """Over the file that the unit reads, which wins over the rest; and nothing in that file is carried out."""
    (machine / "nats.creds").touch(0o400)
    (machine / "environment").write_text(
        "# more\nLIVENESS_LEADER_TIMEOUT=2\nLIVENESS_MODE='observe'\nLIVENESS_HTTP_LISTEN=\"127.0.0.1:1\"\n"
        f"touch {machine}/done\nLIVENESS_SUBJECT_PREFIX=$(touch {machine}/done) ; touch {machine}/done",
        encoding="utf-8",
    )

    found = commanded(machine, LIVENESS_NATS_USER="operator", LIVENESS_MODE="act", LIVENESS_CONFIG="/other.toml")

    assert found == {
        "LIVENESS_NATS_USER": "operator",
        "LIVENESS_MODE": "act",
        "LIVENESS_CONFIG": "/other.toml",
        "LIVENESS_LEADER_TIMEOUT": "2",
        "LIVENESS_HTTP_LISTEN": "127.0.0.1:1",
        "LIVENESS_SUBJECT_PREFIX": f"$(touch {machine}/done) ; touch {machine}/done",
        "LIVENESS_POSTGRES_PASSWORD_FILE": str(machine / "postgres_password"),
    }
    assert not (machine / "done").exists()


def test_what_the_page_installs_is_all_there_is() -> None:
    """From where it lies, under the names by which systemd and root look for it; and its own comments say the same."""
    page = (ROOT / "docs" / "systemd.md").read_text(encoding="utf-8")
    lines = re.findall(r"install -D -m (\d+) -t (\S+) (\S+)", page)
    there = {path for path in FOLDER.rglob("*") if path.is_file()}

    assert {ROOT / source for _, _, source in lines} == there
    assert {(folder, mode) for mode, folder, _ in lines} == {
        ("/etc/systemd/system", "0644"),
        ("/etc/systemd/system/liveness.service.d", "0644"),
        ("/usr/local/sbin", "0755"),
    }
    for path in (COMMAND, DROP_IN):
        (own,) = re.findall(r"^#     install (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert f"install {own}\n" in page


def test_the_command_can_be_run() -> None:
    """It runs what the unit runs, on a machine as the page sets it up."""
    assert COMMAND.stat().st_mode & 0o111 == 0o111
    assert "program=/opt/liveness/bin/liveness\n" in COMMAND.read_text(encoding="utf-8")
    assert "folder=/etc/liveness\n" in COMMAND.read_text(encoding="utf-8")


def test_the_times_of_the_unit_are_those_of_the_code() -> None:
    """It is given the time that a stop takes, and a loop that stalls for a moment is not ended for it."""
    found = directives()

    assert (
        float(found["TimeoutStopSec"][0])
        > service.STOP_SECONDS + service.STEP_DOWN_SECONDS + 2 * service.CANCEL_SECONDS
    )
    assert float(found["WatchdogSec"][0]) >= 4 * systemd.LOOK_SECONDS
    assert (found["Type"], found["TimeoutStartSec"]) == (["notify"], ["infinity"])
    assert found["RestartPreventExitStatus"] == ["2"]


def test_the_unit_has_descriptors_for_all_connections() -> None:
    """For those of HTTP many times over: some are there before one sees that there are too many."""
    assert int(directives()["LimitNOFILE"][0]) >= 4 * (connections.MOST + connections.QUEUE)
