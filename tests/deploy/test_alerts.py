"""The alerts: Prometheus' own tool accepts them, and they speak of metrics that a running daemon has."""

import asyncio
import re
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
import yaml

from tests.deploy.conftest import DEPLOY, guarded_server, running_daemon

RULES: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
SELECTOR: Final = re.compile(r"\b((?:quotebus|process|python)_\w+)(?:\{([^}]*)\})?")
MATCHER: Final = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')


def check(promtool: str, *arguments: str, text: str | None = None) -> str:
    """Run promtool in the kit's folder; its complaint, or what it said."""
    done = subprocess.run(
        [promtool, *arguments],
        cwd=DEPLOY,
        input=text,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exposition(tmp_path_factory: Any) -> AsyncIterator[str]:
    """What /metrics of a daemon says that is subscribed and storing."""
    folder: Path = tmp_path_factory.mktemp("daemon")
    acl = (DEPLOY / "acl/users.acl").read_text()
    with guarded_server(folder, acl) as guarded:
        async with running_daemon(guarded, folder, "AAPL") as running:
            yield await asyncio.to_thread(_fetch, f"{running.http}/metrics")


def test_promtool_accepts_the_configuration(promtool: str) -> None:
    """Scrape configuration and alerts are syntactically sound."""
    assert f"{len(RULES)} rules found" in check(promtool, "check", "config", "prometheus.yml")
    check(promtool, "check", "rules", "alerts.yaml")


def test_alerts_fire_when_they_should_and_not_otherwise(promtool: str) -> None:
    """The cases beside the rules hold."""
    check(promtool, "test", "rules", "alerts_test.yaml")


def test_every_alert_has_cases() -> None:
    """Each alert fires in one case, and each keeps silent in another."""
    cases = yaml.safe_load((DEPLOY / "alerts_test.yaml").read_text())["tests"]
    results = [
        (test["alertname"], bool(test["exp_alerts"])) for case in cases for test in case["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in RULES}
    assert {name for name, fires in results if fires} == names
    assert {name for name, fires in results if not fires} == names


def test_every_alert_says_what_to_do() -> None:
    """Severity, summary, description, and a heading in the runbook; no heading is left over."""
    headings = re.findall(r"^## (\w+)$", (DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        annotations = rule["annotations"]
        assert annotations.keys() == {"summary", "description", "runbook"}, rule["alert"]
        assert annotations["runbook"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"


def test_every_section_of_the_runbook_is_complete() -> None:
    """Symptom, check, act, in this order."""
    for section in (DEPLOY / "RUNBOOK.md").read_text().split("\n## ")[1:]:
        assert re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE) == ["Symptom", "Check", "Act"], section[
            :40
        ]


async def test_promtool_accepts_the_metrics(promtool: str, exposition: str) -> None:
    """Names, units and help of a running daemon's metrics follow Prometheus' conventions."""
    await asyncio.to_thread(check, promtool, "check", "metrics", text=_ours(exposition))


async def test_alerts_speak_of_metrics_that_exist(exposition: str) -> None:
    """Every name is exposed, and every label value that is compared for equality stands there from the start."""
    lines = [line for line in exposition.splitlines() if not line.startswith("#")]
    names = {re.split(r"[{ ]", line)[0] for line in lines}
    used = [(rule["alert"], match) for rule in RULES for match in SELECTOR.finditer(rule["expr"])]
    assert used
    for alert, match in used:
        name, matchers = match[1], match[2] or ""
        assert name in names, f"{alert}: no metric {name}"
        series = [line for line in lines if re.match(rf"{name}[{{ ]", line)]
        for label, operator, value in MATCHER.findall(matchers):
            assert any(f'{label}="' in line for line in series), f"{alert}: {name} has no label {label}"
            if operator == "=":
                assert any(f'{label}="{value}"' in line for line in series), f"{alert}: no {label}={value}"


async def test_the_runbook_speaks_of_metrics_that_exist(exposition: str) -> None:
    """A metric that a page tells to look at is exposed."""
    page = (DEPLOY / "RUNBOOK.md").read_text()
    for name in set(re.findall(r"\b((?:quotebus|process)_\w+)", page)):
        assert f"\n{name}" in exposition, name


@pytest.mark.parametrize(
    ("alert", "place"), [("QuotebusMemoryFilling", "memory"), ("QuotebusSpoolFilling", "spool")]
)
def test_what_fills_is_measured_by_the_daemon_s_own_bound(alert: str, place: str) -> None:
    """Memory and disk are compared with what this daemon may hold, whatever its settings."""
    (rule,) = [rule for rule in RULES if rule["alert"] == alert]
    assert re.search(rf"quotebus_{place}_bytes > 0\.\d+ \* quotebus_{place}_limit_bytes", rule["expr"])


def test_the_scrape_finds_the_daemon() -> None:
    """Target and job are those of the compose file and of the alerts."""
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    daemon = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["daemon"]
    port = daemon["environment"]["QUOTEBUS_HTTP"].rpartition(":")[2]
    assert job["static_configs"][0]["targets"] == [f"daemon:{port}"]
    assert f'up{{job="{job["job_name"]}"}}' in RULES[0]["expr"]


def _ours(exposition: str) -> str:
    """Without the families of the client library, whose names are not ours to choose."""
    families = re.split(r"(?=^# HELP )", exposition, flags=re.MULTILINE)
    return "".join(family for family in families if family.startswith("# HELP quotebus_"))


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())
