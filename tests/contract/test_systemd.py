"""The unit for systemd: that systemd understands it, and that it goes with what the code does."""

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from liveness import service, systemd
from liveness.settings import NAMES
from tests.contract.conftest import ROOT

UNIT = ROOT / "deploy" / "systemd" / "liveness.service"
# Of the process, and not of the service.
OF_PYTHON = {"PYTHONUNBUFFERED", "PYTHONFAULTHANDLER"}


def directives() -> dict[str, list[str]]:
    """Return the values of each directive, in their order."""
    found = defaultdict(list)
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a program that is there, for systemd looks for it."""
    unit = tmp_path / UNIT.name
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


def test_names_and_files_of_the_unit_exist() -> None:
    """Each variable is a setting of ours, and each credential that a setting names is loaded."""
    found = directives()
    variables = dict(pair.split("=", 1) for line in found["Environment"] for pair in line.split())
    loaded = {value.partition(":")[0] for value in found["LoadCredential"]}

    for name, value in variables.items():
        assert name in OF_PYTHON | {"LIVENESS_CONFIG"} or name.removeprefix("LIVENESS_").lower() in NAMES
        if value.startswith("%d/"):
            assert value.removeprefix("%d/") in loaded
    assert found["ExecStart"] == ["/opt/liveness/bin/liveness serve"]


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
