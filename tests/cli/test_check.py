"""`headrace check` names what keeps a deployment from others' reach, and fails for what must not be so."""

import socket
from collections.abc import Iterator

import pytest

from headrace.cli.checking import of_files, of_settings
from headrace.config import load
from headrace.service.settings import REGISTERS, SECTIONS
from tests.cli.conftest import Headrace

OPEN = {"SERVER_HOST": "0.0.0.0", "SOLANA_RPC_WS": "ws://127.0.0.1:9"}
SAFE = {**OPEN, "AUTH_MODE": "hs256", "JWT_SECRET": "x" * 32, "TRUSTED_PROXIES": "10.0.0.0/8"}


def findings(**env: str) -> list[tuple[str, str]]:
    return list(of_settings(load(SECTIONS, env=env, dotenv=None, toml=None), REGISTERS))


def grades(word: str, **env: str) -> list[str]:
    """Return the grades of the findings that contain a word."""
    return [grade for grade, text in findings(**env) if word in text]


def test_no_authentication_fails_where_others_can_connect() -> None:
    assert grades("AUTH_MODE is off", **OPEN) == ["fails"]
    assert grades("AUTH_MODE is off", **SAFE) == []
    assert grades("AUTH_MODE is off", **OPEN | {"SERVER_HOST": "127.0.0.1"}) == []


@pytest.mark.parametrize(
    ("word", "env"),
    [
        ("TRUSTED_PROXIES", {"TRUSTED_PROXIES": ""}),
        ("ALLOWED_ORIGINS", {"ALLOWED_ORIGINS": "*"}),
        ("/metrics", {}),
        ("ORDER_CHAIN is mock", {}),
        ("is a public node", {"SOLANA_RPC_WS": "wss://api.mainnet-beta.solana.com"}),
        ("without DATABASE_URL", {"REDIS_URL": "redis://h"}),
        ("did you mean SERVER_PORT?", {"SERVER_PROT": "1"}),
    ],
)
def test_what_is_perhaps_not_wanted_is_named(word: str, env: dict[str, str]) -> None:
    assert grades(word, **SAFE | env) == ["careful"]


@pytest.mark.parametrize(
    ("word", "env"),
    [
        ("TRUSTED_PROXIES", {}),
        ("/metrics", {"AUTH_METRICS_OPEN": "false"}),
        ("ORDER_CHAIN is mock", {"ORDERS_ENABLED": "false"}),
        ("is a public node", {"TRANSACTION_LISTENER_ENABLED": "false", "SOLANA_RPC_WS": "wss://api.devnet.solana.com"}),
        ("without DATABASE_URL", {"REDIS_URL": "redis://h", "DATABASE_URL": "postgresql://h/d"}),
        ("AUTH_MODE", {"GATEWAY_ENABLED": "false", "AUTH_MODE": "off"}),
    ],
)
def test_what_is_as_it_should_be_is_not_named(word: str, env: dict[str, str]) -> None:
    assert grades(word, **SAFE | env) == []


def test_too_few_open_files_fail() -> None:
    config = load(SECTIONS, env={"WEBSOCKET_MAX_CONNECTIONS": "1000"}, dotenv=None, toml=None)
    assert of_files(config, 1255).grade == "fails"
    assert of_files(config, 1256).grade == "fine"
    assert of_files(config, -1).grade == "fine"


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of a server that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "{}:{}".format(*server.getsockname())


def test_servers_that_take_connections_are_fine(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, listening: str
) -> None:
    monkeypatch.setenv("SOLANA_RPC_WS", f"ws://{listening}/secret-in-the-path")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:hunter2@{listening}/d")
    monkeypatch.setenv("REDIS_URL", f"redis://:hunter2@{listening}")
    monkeypatch.setenv("WEBSOCKET_MAX_CONNECTIONS", "10")
    result = headrace("check")
    assert (result.status, result.err) == (0, "")
    assert [f"{name}: {listening} takes connections" in result.out for name in ("DATABASE_URL", "REDIS_URL")] == [
        True
    ] * 2
    assert f"node 127.0.0.1: {listening} takes connections" in result.out
    assert "hunter2" not in result.out
    assert "secret" not in result.out


def test_a_server_that_is_not_there_fails(headrace: Headrace) -> None:
    result = headrace("check")
    assert result.status == 1
    assert "fails    node 127.0.0.1: 127.0.0.1:9 can't be reached: " in result.out


def test_a_wrong_setting_ends_the_check(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_PORT", "70000")
    assert headrace("check").status == 2
