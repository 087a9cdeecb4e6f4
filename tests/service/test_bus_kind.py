"""The bus that a process uses: MESSAGE_BROKER_ENABLED is the switch, and contradictions are refused."""

import pytest

from headrace.config import load
from headrace.model.errors import ConfigError
from headrace.service.settings import REGISTERS, SECTIONS

URL = {"REDIS_URL": "localhost:6379"}
ON, OFF = {"MESSAGE_BROKER_ENABLED": "true"}, {"MESSAGE_BROKER_ENABLED": "false"}
MEMORY, REDIS = {"BUS_KIND": "memory"}, {"BUS_KIND": "redis"}


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ({}, "memory"),
        (URL, "redis"),
        (ON, "redis"),
        (ON | URL, "redis"),
        (OFF, "memory"),
        (OFF | URL, "memory"),
        ({"MESSAGE_BROKER_ENABLED": ""} | URL, "redis"),
        (REDIS, "redis"),
        (REDIS | ON, "redis"),
        (MEMORY, "memory"),
        (MEMORY | URL, "memory"),
        (MEMORY | OFF, "memory"),
    ],
)
def test_the_switch_and_the_url_choose_the_bus(env: dict[str, str], kind: str) -> None:
    config = load(SECTIONS, env=env, dotenv=None, toml=None)
    assert REGISTERS.bus_kind(config) == kind
    REGISTERS.check(config)


@pytest.mark.parametrize("env", [MEMORY | ON, REDIS | OFF, REDIS | OFF | URL])
def test_a_contradiction_is_refused_with_both_settings(env: dict[str, str]) -> None:
    config = load(SECTIONS, env=env, dotenv=None, toml=None)
    with pytest.raises(ConfigError, match=r"bus.kind: got (memory|redis), and MESSAGE_BROKER_ENABLED=(true|false)"):
        REGISTERS.check(config)
