"""`config` and `check` refuse the settings that `serve` refuses, and `serve` refuses before anything is opened."""

import json
import socket
from pathlib import Path

import pytest

from tests.cli.command import NOWHERE, run
from tests.cli.conftest import Headrace

WRONG = [
    ("TRUSTED_PROXIES", {"TRUSTED_PROXIES": "10.0.0.1/8"}),
    ("ALLOWED_ORIGINS", {"ALLOWED_ORIGINS": "https://a.example/path"}),
    ("TLS_KEY_FILE", {"TLS_CERT_FILE": "cert.pem"}),
    ("TLS_CERT_FILE", {"TLS_CERT_FILE": "cert.pem", "TLS_KEY_FILE": "key.pem"}),
    ("JWKS_FILE", {"AUTH_MODE": "rs256", "JWKS_FILE": "keys.json", "JWT_AUDIENCE": "headrace"}),
    ("SUBSCRIPTIONS", {"SUBSCRIPTIONS": "logs:nonsense"}),
    ("ORDER_AMOUNT_LIMITS", {"ORDER_AMOUNT_LIMITS": "SOL=many"}),
    ("ORDERS_FILE", {"ORDERS_ENABLED": "true", "ORDERS_FILE": "gone/orders.db"}),
    ("INBOX_FILE", {"INBOX_FILE": "gone/inbox.db"}),
    ("MOCK_EXECUTION_MS", {"MOCK_EXECUTION_MS": "9-1"}),
    ("BANK_FILE", {"ORDER_CHAIN": "local", "ORDER_VENUES": "pools"}),
    ("BANK_FILE", {"ORDER_CHAIN": "local", "ORDER_VENUES": "pools", "BANK_FILE": "gone.json"}),
    ("sources.recording.file", {"SOURCES": "recording"}),
]


def files_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


@pytest.mark.parametrize(("setting", "env"), WRONG)
def test_a_setting_that_serve_refuses_is_refused_by_config_and_check(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, setting: str, env: dict[str, str]
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    shown = headrace("config", "--json")
    assert (shown.status, shown.err.count("\n")) == (2, 1), shown.err
    assert shown.err.startswith(f"headrace: {setting}: got ")
    assert json.loads(shown.out)["settings"]
    checked = headrace("check")
    assert checked.status == 1
    assert f"fails    {setting}: got " in checked.out
    assert "all settings are accepted" not in checked.out
    served = headrace("serve", "--port", "0")
    assert (served.status, served.out, served.err) == (2, "", shown.err)
    assert files_in(Path.cwd()) == []


@pytest.mark.parametrize(
    ("setting", "host"), [("SERVER_PORT", "127.0.0.1"), ("SERVER_HOST", "host.invalid")], ids=["taken", "unknown"]
)
async def test_an_address_that_is_not_free_is_refused_before_a_database_is_opened(
    tmp_path: Path, setting: str, host: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        served = await run(tmp_path, "serve", SOLANA_RPC_WS=NOWHERE, SERVER_HOST=host, SERVER_PORT=str(port))
    assert served.status == 2
    assert served.err.startswith(f"headrace: {setting}: got ")
    assert files_in(tmp_path) == []


def test_a_port_that_is_taken_is_named_by_check(headrace: Headrace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        checked = headrace("check", "--port", str(port))
    assert f"careful  SERVER_PORT: got 127.0.0.1:{port}, expected an address that is free here" in checked.out
