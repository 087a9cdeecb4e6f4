"""`headrace config`, and what every command says of settings that are wrong."""

import json
from pathlib import Path

import pytest

from headrace.config.fields import fields_of
from headrace.cores import installed
from headrace.service.settings import SECTIONS
from tests.cli.conftest import Headrace


def line_of(out: str, name: str) -> list[str]:
    """The columns of a setting's line."""
    return next(line.split() for line in out.splitlines() if line.startswith(f"  {name} "))


def test_each_value_has_the_place_it_came_from(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("headrace.toml").write_text("[gateway]\nport = 1\nhost = '::1'\n")
    Path(".env").write_text("# here\nSERVER_ID=eu-1\nSERVER_PORT=2\n")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    result = headrace("config", "--port", "3")
    assert (result.status, result.err) == (0, "")
    assert line_of(result.out, "log_level ~") == ["log_level", "~", "debug", "environment", "LOG_LEVEL"]
    assert line_of(result.out, "server_id") == ["server_id", "eu-1", ".env:2", "SERVER_ID"]
    assert line_of(result.out, "host") == ["host", "::1", "headrace.toml:3"]
    assert line_of(result.out, "port") == ["port", "3", "environment", "SERVER_PORT"]
    assert line_of(result.out, "log_format") == ["log_format", "console", "default", "(LOG_FORMAT)"]


def test_every_setting_is_there_as_json(headrace: Headrace) -> None:
    settings = json.loads(headrace("config", "--json").out)["settings"]
    assert [each["key"] for each in settings] == list(fields_of(SECTIONS))


def test_no_secret_is_shown(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "hush0123456789abcdef0123456789ab"
    monkeypatch.setenv("SOLANA_RPC_WS", f"wss://a.example/?api-key=hush,wss://me:hush@b.example/v2/{key}")
    monkeypatch.setenv("DATABASE_URL", "postgresql://headrace:hush@db/orders")
    monkeypatch.setenv("REDIS_URL", "redis://:hush@cache:6379/0")
    for arguments in ([], ["--json"]):
        result = headrace("config", *arguments)
        assert result.status == 0
        assert "hush" not in result.out + result.err
        assert "wss://a.example/?api-key=***" in result.out


@pytest.mark.parametrize("command", [["serve"], ["demo"], ["config"], ["decode", "-"], ["record", "a.hrec"]])
def test_everything_wrong_is_said_at_once(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("SERVER_PORT", "70000")
    monkeypatch.setenv("REDIS_URL", "http://:hush@cache")
    Path(".env").write_text("LOG_LEVEL=loud\n")
    Path("headrace.toml").write_text("[gateway]\ntopics_max = 0\n[bus]\nhistory_siez = 1\n")
    result = headrace(*command)
    assert (result.status, result.out) == (2, "")
    assert set(result.err.splitlines()) == {
        "headrace: bus.history_siez: got an unknown setting (from headrace.toml:4), expected a known one; did you mean"
        " bus.history_size?",
        "headrace: core.log_level: got 'loud' (from .env:1 LOG_LEVEL), expected one of debug, info, warning, error",
        "headrace: core.redis_url: got '***' (from environment REDIS_URL), expected a redis://, rediss:// or"
        " unix:// URL, or nothing",
        "headrace: gateway.port: got '70000' (from environment SERVER_PORT), expected an integer from 0 to 65535",
        "headrace: gateway.topics_max: got 0 (from headrace.toml:2), expected an integer of at least 1",
    }


@pytest.mark.parametrize("option", ["--config", "--env-file"])
def test_a_file_that_was_asked_for_must_be_there(headrace: Headrace, option: str) -> None:
    assert headrace("serve", option, "gone") == (
        2,
        "",
        "headrace: gone: got no such file, expected a file that exists\n",
    )


def test_a_settings_file_elsewhere(headrace: Headrace) -> None:
    Path("other.toml").write_text("[bus]\nhistory_size = 7\n")
    result = headrace("config", "--config", "other.toml")
    assert line_of(result.out, "history_size") == ["history_size", "7", "other.toml:2"]


def test_an_idl_folder_that_is_none(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("idls").mkdir()
    Path("idls/broken.json").write_text("{")
    monkeypatch.setenv("IDL_FOLDER", "idls")
    result = headrace("serve")
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert "broken.json" in result.err
    monkeypatch.setenv("IDL_FOLDER", "gone")
    assert headrace("serve").status == 2


@pytest.mark.parametrize("port", ["x", "-1", "65536", "1.5"])
def test_a_port_that_is_none(headrace: Headrace, port: str) -> None:
    result = headrace("config", f"--port={port}")
    assert result.status == 2
    assert f"argument --port: got '{port}', expected an integer from 0 to 65535" in result.err


@pytest.mark.parametrize("arguments", [["nonsense"], ["serve", "--nonsense"], ["decode"]])
def test_wrong_usage(headrace: Headrace, arguments: list[str]) -> None:
    result = headrace(*arguments)
    assert result.status == 2
    assert result.err.startswith("usage: headrace")


def test_version(headrace: Headrace) -> None:
    from headrace import __version__

    assert headrace("--version") == (0, f"headrace {__version__} (core: {installed()[-1]})\n", "")
