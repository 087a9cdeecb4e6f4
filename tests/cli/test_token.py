"""`headrace token`: what it makes is let in by a server with the same settings, and what it can't make it says."""

from typing import Any

import jwt
import pytest

from headrace.gateway.auth.authenticator import Authenticator
from headrace.gateway.auth.settings import AuthSettings
from headrace.model.credentials import Credential
from headrace.model.identity import Identity
from headrace.runtime.clock import SystemClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from tests.cli.conftest import Headrace, in_thread

SECRET = "correct-horse-battery-staple-0123456789"


@pytest.fixture(autouse=True)
def with_a_secret(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_MODE", "hs256")
    monkeypatch.setenv("JWT_SECRET", SECRET)


async def identified(text: str, **settings: Any) -> Identity:
    settings = {"mode": "hs256", "jwt_secret": SECRET, **settings}
    auth = Authenticator(AuthSettings(**settings), SystemClock(), Metrics(), Health())
    return await auth.identify(Credential("token", text.strip()))


async def test_the_server_lets_it_in(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    result = await in_thread(headrace, "token", "--sub", "42")
    assert (result.status, result.err, result.out.count("\n")) == (0, "", 1)
    identity = await identified(result.out)
    assert (identity.subject, identity.admin, identity.permissions.everything) == ("42", False, True)
    monkeypatch.setenv("JWT_AUDIENCE", "headrace")
    monkeypatch.setenv("JWT_ISSUER", "me")
    monkeypatch.setenv("AUTH_TOPICS_CLAIM", "t")
    wanted = ("--sub", "ops", "--admin", "--topics", "slots, trades:*", "--ttl", "30m")
    result = await in_thread(headrace, "token", *wanted)
    identity = await identified(result.out, jwt_audience="headrace", jwt_issuer="me", topics_claim="t")
    assert (identity.admin, identity.may_read("trades:pump"), identity.may_read("tx:pump")) == (True, True, False)
    claims = jwt.decode(result.out.strip(), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 1800


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"JWT_SECRET": ""}, "JWT_SECRET: got nothing, expected 32 bytes or more"),
        ({"JWT_SECRET": "hush"}, "JWT_SECRET: got a shorter one, expected 32 bytes or more"),
        ({"AUTH_MODE": "rs256"}, "JWKS_URL, JWKS_FILE: got neither, expected one of them"),
        (
            {"AUTH_MODE": "es256", "JWKS_FILE": "keys.json", "JWT_AUDIENCE": "x"},
            "AUTH_MODE: got es256, expected hs256: this server has no key to sign with",
        ),
        ({"AUTH_MODE": "off", "JWT_SECRET": ""}, "JWT_SECRET: got nothing, expected 32 bytes or more"),
        ({"AUTH_MODE": "none"}, "auth.mode: got 'none' (from environment AUTH_MODE), expected one of off, hs256"),
    ],
)
def test_settings_it_can_not_work_with(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], told: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    result = headrace("token", "--sub", "42")
    assert (result.status, result.out) == (2, "")
    assert f"headrace: {told}" in result.err
    assert "hush" not in result.err


def test_with_authentication_off_it_says_that_nobody_will_take_it(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_MODE", "off")
    result = headrace("token", "--sub", "42")
    assert (result.status, result.out.count(".")) == (0, 2)
    assert "AUTH_MODE is off" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--sub", ""],
        ["--sub", "ж"],
        ["--sub", "x" * 129],
        ["--sub", "42", "--ttl", "0s"],
        ["--sub", "42", "--ttl", "1"],
        ["--sub", "42", "--ttl", "367d"],
        ["--sub", "42", "--ttl", "-1h"],
    ],
)
def test_wrong_usage(headrace: Headrace, arguments: list[str]) -> None:
    result = headrace("token", *arguments)
    assert (result.status, result.out) == (2, "")


def test_no_secret_in_config_or_help(headrace: Headrace) -> None:
    for arguments in (["config"], ["config", "--json"]):
        result = headrace(*arguments)
        assert result.status == 0
        assert SECRET not in result.out + result.err
        assert "hs256" in result.out
