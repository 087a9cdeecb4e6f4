"""The runbook has a section for each alert, and names only settings, log lines and metrics that exist."""

import re
from pathlib import Path
from typing import Any, Final

import yaml

from headrace.config.fields import fields_of
from headrace.service.settings import SECTIONS

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
ALERTS: Final[list[dict[str, Any]]] = [
    alert
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    for alert in group["rules"]
]
SOURCES: Final = "\n".join(path.read_text() for path in sorted((ROOT / "src" / "headrace").rglob("*.py")))
OUTSIDE: Final = {"CONFIRMED", "EXPIRED", "FAILED"}
"""Words in capitals that are no settings: statuses of orders."""


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    sections = re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)
    assert sections == [alert["alert"] for alert in ALERTS]
    assert len(set(sections)) == len(sections)


def test_each_alert_has_a_severity_and_a_summary() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert set(alert["annotations"]) == {"summary"}, alert["alert"]


def test_settings_of_the_runbook_exist() -> None:
    known = {name for field in fields_of(SECTIONS).values() for name in field.setting.env}
    named = {name for name in re.findall(r"\$?\b([A-Z][A-Z0-9_]{5,})\b", PAGE) if name not in OUTSIDE}
    assert named - known == {"SIGNATURE"}  # an argument of `headrace decode`


def test_log_lines_of_the_runbook_exist() -> None:
    named = re.findall(r"log\s+line\s+`(\w+)`", PAGE)
    assert len(named) >= 4
    assert {name for name in named if f'"{name}"' not in SOURCES} == set()
