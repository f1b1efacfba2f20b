"""The alerts and the dashboard: that they ask for what is there, and that the alerts fire when they should."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from liveness.measures import MEASURES
from liveness.metrics import Metrics
from liveness.settings import Settings
from tests.contract.conftest import ROOT
from tests.prometheus import MISSING, find

RULES = ROOT / "deploy" / "prometheus" / "liveness.rules.yml"
TESTS = sorted((ROOT / "deploy" / "prometheus" / "tests").glob("*.yml"))
DASHBOARD = ROOT / "deploy" / "grafana" / "liveness.json"
# What Prometheus adds itself.
OF_PROMETHEUS = {"up": {"job", "instance"}}
WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def loaded(path: Path) -> Any:
    """Return a YAML file as plain data."""
    return YAML(typ="safe", pure=True).load(path)


def alerts() -> list[dict[str, Any]]:
    """Return all alerts."""
    return [rule for group in loaded(RULES)["groups"] for rule in group["rules"]]


def of_the_dashboard() -> list[str]:
    """Return all queries of the dashboard, as Prometheus would get them."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            (of, label) = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            found.append(f"group by ({label}) ({of})")
    return [
        query.replace("$__rate_interval", "1m").replace("$job", "liveness").replace("$instance", ".*")
        for query in found
    ]


def exposed() -> dict[str, set[str]]:
    """Return the names that the service's registry exposes, each with the labels that its samples have."""
    labels = {one.name: set(one.labels) for one in MEASURES}
    found = {}
    for family in Metrics(Settings(), lambda: None, list).registry.collect():
        of_family = labels.get(family.name, set()) | {"job", "instance"}
        match family.type:
            case "counter":
                found[f"{family.name}_total"] = of_family
            case "histogram":
                found |= {f"{family.name}_{part}": of_family for part in ("sum", "count")}
                found[f"{family.name}_bucket"] = of_family | {"le"}
            case _:
                found[family.name] = of_family
    return found | OF_PROMETHEUS


def asked(query: str) -> Iterator[tuple[str, set[str]]]:
    """Return the metrics that a query asks for, each with the labels that it names of all of them."""
    groupings = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", query)
    grouped = {label for labels in groupings for label in WORD.findall(labels)}
    rest = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", re.sub(r"\[[^\]]*\]", " ", query))
    for name, labels in re.findall(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}", rest):
        yield name, grouped | set(re.findall(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)", labels))
    bare = re.sub(r"[a-zA-Z_:][\w:]*\s*\{[^}]*\}", " ", rest)
    for name in re.findall(r"([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare):
        if name not in {"and", "or", "unless", "bool"}:
            yield name, grouped


QUERIES = [*[rule["expr"] for rule in alerts()], *of_the_dashboard()]


@pytest.mark.parametrize("query", dict.fromkeys(QUERIES))
def test_a_query_asks_for_what_the_service_exposes(query: str) -> None:
    """By names that there are, and labels that these have."""
    names, found = exposed(), list(asked(query))

    assert found
    for name, labels in found:
        assert name in names
        assert labels <= names[name]


def test_what_a_query_asks_for_is_read_from_it() -> None:
    """Of a wrong name or label it would be told."""
    query = 'sum by (kind) (rate(a_total{job="b", c=~"x|y"}[5m])) / on (kind) d > 3 and max(e)'

    assert dict(asked(query)) == {"a_total": {"kind", "job", "c"}, "d": {"kind"}, "e": {"kind"}}


def test_every_metric_is_asked_for() -> None:
    """One that nobody looks at is missing in the dashboard, or need not be."""
    named = {name for query in QUERIES for name, _ in asked(query)}

    for one in MEASURES:
        assert {one.shown, f"{one.name}_bucket"} & named, one.name


def test_the_panels_of_the_dashboard_lie_beside_each_other() -> None:
    """Each at a place of its own, with a title, and with what it shows from the Prometheus that was chosen."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    places: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        taken = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert panel["title"]
        assert max(x for x, _ in taken) < 24
        assert not taken & places
        places |= taken
        assert {target["datasource"]["uid"] for target in panel.get("targets", [])} <= {"${datasource}"}

    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do_and_is_tested(alert: dict[str, Any]) -> None:
    """In a test of its name it is silent at one time, and fires at another."""
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert all(alert["annotations"][part] for part in ("summary", "description", "action"))
    (test,) = [test for path in TESTS for test in loaded(path)["tests"] if test["name"] == alert["alert"]]
    fires = [bool(one["exp_samples"]) for one in test["promql_expr_test"] if alert["alert"] in str(one)]
    assert set(fires) == {True, False}


def promtool(*arguments: str | Path) -> str:
    """Run promtool; return what it says. Skip the test where there is none."""
    program = find("promtool")
    if program is None:
        pytest.skip(MISSING.format("promtool"))
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    """By promtool, which checks besides what they look like, and what scrapes."""
    promtool("check", "config", ROOT / "deploy" / "prometheus" / "prometheus.yml")

    assert "SUCCESS" in promtool("test", "rules", *TESTS)


def test_how_the_token_is_shown_is_understood(tmp_path: Path) -> None:
    """The line that whoever has one takes in stands where Prometheus looks for it."""
    shipped = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    path = tmp_path / "prometheus.yml"
    path.write_text(shipped.replace("# authorization:", "authorization:"), encoding="utf-8")

    (job,) = loaded(path)["scrape_configs"]
    assert job["authorization"].keys() == {"type", "credentials_file"}
    promtool("check", "config", "--syntax-only", path)


def test_the_queries_of_the_dashboard_are_understood(tmp_path: Path) -> None:
    """As the expressions of rules."""
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(of_the_dashboard())]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(rules)} rules found" in promtool("check", "rules", path)
