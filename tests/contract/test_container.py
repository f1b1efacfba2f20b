"""The image and compose.yaml, as far as they can be read: what runs there, as whom, and with which settings."""

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from liveness import service
from liveness.cli import commands
from liveness.settings import _SECRET, NAMES
from tests.contract.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
# Of ours; the others are NATS and Postgres.
OURS = ("migrate", "liveness", "demo-worker")


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the image that is kept, in their order, each as one line."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found = [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines if line)]
    last = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def test_the_image_runs_the_service_as_a_user_that_may_nothing() -> None:
    """By a number, which an orchestrator can tell from root; with its own health, and nothing secret in it."""
    found = dict(instructions())
    port = found["EXPOSE"]

    assert re.fullmatch(r"[1-9]\d*", found["USER"])
    assert f"--uid {found['USER']} " in found["RUN"]
    assert (found["ENTRYPOINT"], found["CMD"]) == ('["liveness"]', '["serve"]')
    assert f"LIVENESS_HTTP_LISTEN=0.0.0.0:{port}" in found["ENV"]
    assert f"http://127.0.0.1:{port}/livez" in found["HEALTHCHECK"]
    assert "ARG" not in found
    for name in re.findall(r"LIVENESS_(\w+)=", found["ENV"]):
        assert name.lower() in set(NAMES) - _SECRET
    # What has to be there when it is built, and nothing else, is taken from the folder.
    copied = {
        source for source in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for source in source.split()
    }
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied | {"schemas"}


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_may_nothing(name: str) -> None:
    """It has settings that there are, writes nowhere, and has the time that a stop takes."""
    one = COMPOSE["services"][name]

    assert {variable.removeprefix("LIVENESS_").lower() for variable in one["environment"]} <= set(NAMES)
    assert (one["read_only"], one["cap_drop"], one["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    stop = service.STOP_SECONDS + service.STEP_DOWN_SECONDS + 2 * service.CANCEL_SECONDS
    assert float(one["stop_grace_period"].removesuffix("s")) > stop
    if one.get("command"):
        assert one["command"][0] in commands.list_commands(None)  # type: ignore[arg-type]


def test_two_replicas_that_only_this_machine_reaches() -> None:
    """Each has a port of its own here."""
    replicas = COMPOSE["services"]["liveness"]["deploy"]["replicas"]
    (ports,) = COMPOSE["services"]["liveness"]["ports"]
    found = re.fullmatch(r"127\.0\.0\.1:(\d+)-(\d+):8470", ports)

    assert replicas == 2
    assert found is not None
    assert int(found[2]) - int(found[1]) + 1 == replicas
    assert all(port.startswith("127.0.0.1:") for one in COMPOSE["services"].values() for port in one.get("ports", []))
