"""The manifests for Kubernetes: that they are what Kubernetes takes, and that they go with the code and the image.

No cluster is asked. The schemas are those of the package `kubernetes-validate`; what is put together is looked at where
kubectl or kustomize is there to do it, and each file by itself everywhere.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

import liveness
from liveness import service
from liveness.cli import commands
from liveness.http import Http
from liveness.postgres_settings import has_password
from liveness.settings import _SECRET, NAMES, load
from tests.contract.conftest import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
SETTINGS = FOLDER / "common" / "liveness.toml"
BUILDS = ("base", "migrate", "overlays/standalone", "overlays/sidecar")
# A component that is there for whoever wants it, and what it can be put upon.
PASSWORD = "nats-password"  # noqa: S105 - the name of a folder
WITH_PASSWORD = ("overlays/standalone", "overlays/sidecar")
# Of the oldest with a container that is restarted beside the others for good, and of the newest that is known.
VERSIONS = ("1.33", kubernetes_validate.latest_version())
FILES = sorted(FOLDER.rglob("*.yaml"))
# What is no resource by itself.
PARTS = {"kustomization.yaml", "container.yaml", "spread.yaml", "alone.yaml", "beside.yaml"}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

Document = Mapping[str, Any]


def documents(text: str) -> list[Document]:
    """Return what a text of YAML holds."""
    return [document for document in YAML(typ="safe", pure=True).load_all(text) if document]


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Document]]:
    """All that each kustomization makes, by its folder; and by two folders where one was put upon the other."""
    if program := shutil.which("kubectl"):
        command = [program, "kustomize"]
    elif program := shutil.which("kustomize"):
        command = [program, "build"]
    else:
        pytest.skip("neither kubectl nor kustomize here: only the files by themselves were looked at")
    folders = {name: FOLDER / name for name in BUILDS}
    for name in WITH_PASSWORD:
        folder = folders[f"{name} {PASSWORD}"] = tmp_path_factory.mktemp("upon").resolve()
        within = os.path.relpath(FOLDER.resolve(), folder)
        text = f"resources: [{within}/{name}]\ncomponents: [{within}/{PASSWORD}]\n"
        (folder / "kustomization.yaml").write_text(text, encoding="utf-8")
    return {
        name: documents(subprocess.run([*command, folder], capture_output=True, text=True, check=True).stdout)
        for name, folder in folders.items()
    }


def pods(of: list[Document]) -> Iterator[tuple[Document, Document]]:
    """Yield the templates of pods, with what each is of."""
    for document in of:
        if "template" in document.get("spec", {}):
            yield document, document["spec"]["template"]


def ours(pod: Document) -> Document:
    """Return the container that runs liveness."""
    spec = pod["spec"]
    found: list[Document] = [
        container
        for container in [*spec["containers"], *spec.get("initContainers", [])]
        if "liveness" in container["image"].partition(":")[0]
    ]
    (container,) = found
    return container


def conform(document: Document) -> None:
    """Fail for what Kubernetes would not take."""
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    "path", [file for file in FILES if file.name not in PARTS], ids=lambda path: str(path.relative_to(FOLDER))
)
def test_a_resource_is_what_kubernetes_takes(path: Path) -> None:
    """By its schemas, with no word that they do not know."""
    for document in documents(path.read_text(encoding="utf-8")):
        conform(document)


def test_every_file_is_put_to_use() -> None:
    """A kustomization names it."""
    named = set()
    for file in FOLDER.rglob("kustomization.yaml"):
        (made,) = documents(file.read_text(encoding="utf-8"))
        entries = [*made.get("resources", []), *made.get("components", [])]
        entries += [patch["path"] for patch in made.get("patches", [])]
        entries += [path for generator in made.get("configMapGenerator", []) for path in generator["files"]]
        named |= {(file.parent / entry).resolve() for entry in entries}

    there = {file for file in FOLDER.rglob("*") if file.is_file() and file.name != "kustomization.yaml"}
    folders = {file.parent for file in FOLDER.rglob("kustomization.yaml")}
    on_top = {FOLDER / name for name in (*BUILDS, PASSWORD)}
    assert there | (folders - on_top) <= named
    assert on_top <= folders


def test_the_settings_can_be_used() -> None:
    """Without a warning, and with nothing secret among them."""
    settings, warnings = load({"LIVENESS_CONFIG": str(SETTINGS)})

    assert warnings == []
    text = SETTINGS.read_text(encoding="utf-8")
    assert not any(f"{name} " in text for name in _SECRET - {"nats_url", "postgres_dsn"})
    assert not has_password(settings.postgres_dsn)
    assert "@" not in settings.nats_url


def test_the_schema_is_made_where_the_service_looks_for_it(builds: Mapping[str, list[Document]]) -> None:
    """In the same database of the same server, by another role."""
    settings, _ = load({"LIVENESS_CONFIG": str(SETTINGS)})
    ((_, job),) = pods(builds["migrate"])
    (theirs,) = [one["value"] for one in ours(job)["env"] if one["name"] == "LIVENESS_POSTGRES_DSN"]

    owner, service_role = urlsplit(theirs), urlsplit(settings.postgres_dsn)
    assert owner.netloc.partition("@")[2] == service_role.netloc.partition("@")[2]
    assert (owner.path, owner.username, service_role.username) == (service_role.path, "liveness_owner", "liveness")


def test_all_that_is_made_is_what_kubernetes_takes(builds: Mapping[str, list[Document]]) -> None:
    """Put together, too; and no secret is among it."""
    for made in builds.values():
        for document in made:
            conform(document)
            assert document["kind"] != "Secret"
    kinds = {document["kind"] for document in builds["overlays/standalone"]}
    assert kinds == {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"}


def test_each_container_runs_this_version_as_the_image_means_it(builds: Mapping[str, list[Document]]) -> None:
    """By a command that there is, as the image's user, on its port, with settings that there are and files that are."""
    user = re.search(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    port = re.search(r"LIVENESS_HTTP_LISTEN=\S+:(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user is not None
    assert port is not None
    seen = 0
    for made in builds.values():
        maps = {document["metadata"]["name"] for document in made if document["kind"] == "ConfigMap"}
        for _, pod in pods(made):
            seen += 1
            container, spec = ours(pod), pod["spec"]
            assert container["image"] == f"registry.example/liveness:{liveness.__version__}"
            (command,) = container["args"]
            assert command in commands.list_commands(None)  # type: ignore[arg-type]
            assert [one["containerPort"] for one in container.get("ports", [])] in ([], [int(port[1])])

            security = spec.get("securityContext", {}) | container["securityContext"]
            assert security["runAsUser"] == int(user[1])
            # What the policy `restricted` demands, and more.
            assert security["runAsNonRoot"]
            assert security["readOnlyRootFilesystem"]
            assert not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["resources"]["limits"].keys() == {"memory"}

            volumes = {volume["name"]: volume for volume in spec["volumes"]}
            files = set()
            for mount in container["volumeMounts"]:
                volume = volumes[mount["name"]]
                if "configMap" in volume:
                    assert volume["configMap"]["name"] in maps
                    files.add(f"{mount['mountPath']}/{SETTINGS.name}")
                else:
                    files |= {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
            for variable in container["env"]:
                name = variable["name"].removeprefix("LIVENESS_").lower()
                assert name in NAMES or name == "config"
                assert name not in _SECRET or name == "postgres_dsn"
                assert not has_password(variable["value"])
                if name == "config" or name.endswith("_file"):
                    assert variable["value"] in files
    assert seen == len(BUILDS) + len(WITH_PASSWORD)


def test_probes_ask_what_is_answered(builds: Mapping[str, list[Document]]) -> None:
    """On a port that the container has; the sidecar's readiness is not the server's."""
    http = Http("127.0.0.1:0", troubles=list, ills=list, metrics=lambda _: None)  # type: ignore[arg-type,return-value]
    http._socket.close()
    paths = {route.path for route in http._server.config.app.application.routes}  # type: ignore[union-attr]
    probes = {"livenessProbe": "/livez", "readinessProbe": "/readyz"}

    for name, made in builds.items():
        for _, pod in pods(made):
            container = ours(pod)
            there = {probe: container[probe]["httpGet"] for probe in probes if probe in container}
            assert set(there) == {
                "migrate": set(),
                "overlays/sidecar": {"livenessProbe"},
            }.get(name.partition(" ")[0], set(probes))
            for probe, asked in there.items():
                assert asked["path"] == probes[probe]
                assert asked["path"] in paths
                assert asked["port"] in {port["name"] for port in container["ports"]}


def test_two_replicas_of_which_one_stays(builds: Mapping[str, list[Document]]) -> None:
    """All that selects pods selects those of the service, and no Job's; each has the time that a stop takes."""
    made = builds["overlays/standalone"]
    (deployment, pod), ((_, job),) = next(pods(made)), list(pods(builds["migrate"]))
    labels = pod["metadata"]["labels"].items()
    by_kind = {document["kind"]: document["spec"] for document in made if document["kind"] != "ConfigMap"}
    selectors = [
        by_kind["Service"]["selector"],
        by_kind["NetworkPolicy"]["podSelector"]["matchLabels"],
        by_kind["PodDisruptionBudget"]["selector"]["matchLabels"],
        deployment["spec"]["selector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod["spec"]["topologySpreadConstraints"]),
    ]

    assert all(selector.items() <= labels for selector in selectors)
    assert not any(selector.items() <= job["metadata"]["labels"].items() for selector in selectors)
    assert deployment["spec"]["replicas"] == 2
    assert by_kind["PodDisruptionBudget"]["minAvailable"] == 1
    stop = service.STOP_SECONDS + service.STEP_DOWN_SECONDS + 2 * service.CANCEL_SECONDS
    assert pod["spec"]["terminationGracePeriodSeconds"] > stop
    ports = {port["name"] for port in ours(pod)["ports"]}
    assert {port["targetPort"] for port in by_kind["Service"]["ports"]} <= ports
    assert {port["port"] for rule in by_kind["NetworkPolicy"]["ingress"] for port in rule["ports"]} <= ports


def test_the_sidecar_is_the_same_container(builds: Mapping[str, list[Document]]) -> None:
    """But for what has to differ: it is restarted for good, its readiness is nobody's, and names are its own."""
    ((_, alone),), ((_, beside),) = pods(builds["base"]), pods(builds["overlays/sidecar"])
    service_alone, service_beside = ours(alone), ours(beside)

    assert service_beside["restartPolicy"] == "Always"
    assert "fsGroup" not in beside["spec"].get("securityContext", {})
    for same in ("image", "args", "env", "resources"):
        assert service_beside[same] == service_alone[same]
    paths = [[mount["mountPath"] for mount in one["volumeMounts"]] for one in (service_alone, service_beside)]
    assert paths[0] == paths[1]
    # The server's own is as it was.
    (server,) = beside["spec"]["containers"]
    assert server == {"name": "server", "image": "registry.example/workflow-server:1"}


@pytest.mark.parametrize("name", WITH_PASSWORD)
def test_a_password_for_nats_is_instead_of_a_credentials_file(name: str, builds: Mapping[str, list[Document]]) -> None:
    """As a user that the shipped accounts have, with its inbox; and nothing else is another."""
    ((_, before),), ((_, after),) = pods(builds[name]), pods(builds[f"{name} {PASSWORD}"])
    former, present = ours(before), ours(after)
    settings = {one["name"]: one["value"] for one in present["env"]}
    was = {one["name"]: one["value"] for one in former["env"]}
    accounts = (ROOT / "deploy" / "nats" / "liveness.conf").read_text(encoding="utf-8")
    user, inbox = settings.pop("LIVENESS_NATS_USER"), settings.pop("LIVENESS_NATS_INBOX_PREFIX")
    assert f"LIVENESS_NATS_USER={user} LIVENESS_NATS_INBOX_PREFIX={inbox}\n" in accounts

    assert settings.pop("LIVENESS_NATS_PASSWORD_FILE").endswith("/nats_password")
    assert was.pop("LIVENESS_NATS_CREDENTIALS_FILE").endswith("/nats.creds")
    assert settings == was
    assert {**present, "env": []} == {**former, "env": []}
    (keys,), (wanted,) = (
        [
            [item["key"] for item in volume["secret"]["items"]]
            for volume in pod["spec"]["volumes"]
            if volume.get("secret", {}).get("secretName") == "liveness"
        ]
        for pod in (after, before)
    )
    assert keys == [key.replace("nats.creds", "nats_password") for key in wanted]
