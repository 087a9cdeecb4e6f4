"""`headrace migrate`: databases that are made, that are of a newer version, and that a running server has."""

import sqlite3
from pathlib import Path

import pytest

from headrace.history.sqlite import files
from tests.cli.conftest import Headrace


def test_every_database_is_made_and_stays_as_it_is(headrace: Headrace) -> None:
    for _ in range(2):
        result = headrace("migrate")
        assert result.status == 0, result.err
        assert result.out.splitlines() == [
            f"{name}: {file} is up to date"
            for name, file in (
                ("orders", "headrace-orders.db"),
                ("inboxes", "headrace-inbox.db"),
                ("history", "headrace-history.db"),
            )
        ]
    assert Path("headrace-history.db").exists()


def test_a_newer_version_is_refused(headrace: Headrace) -> None:
    assert headrace("migrate").status == 0
    for file, key in (("headrace-history.db", "HISTORY_FILE"), ("headrace-orders.db", "DATABASE_URL")):
        db = sqlite3.connect(file)
        db.execute("pragma user_version = 9999")
        db.close()
        result = headrace("migrate")
        assert result.status == 2
        assert f"{key}: got a " in result.err
        assert "of version 9999, expected version" in result.err


def test_a_history_that_a_server_writes_is_left_alone(headrace: Headrace) -> None:
    with files.lock(Path("headrace-history.db")):
        result = headrace("migrate")
    assert result.status == 1
    assert result.err == (
        "headrace: history: headrace-history.db: another process has the history; "
        "if a server runs here, stop it first\n"
    )


def test_what_is_switched_off_is_left_out(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISTORY_ENABLED", "false")
    monkeypatch.setenv("ORDERS_ENABLED", "false")
    assert headrace("migrate").out == "inboxes: headrace-inbox.db is up to date\n"
