"""A clean place for commands that run inside the test's own process."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cli import main
from headrace.config.fields import fields_of
from headrace.runtime import log
from headrace.service.settings import SECTIONS
from tests.cli.command import NOWHERE, Result

Headrace = Callable[..., Result]


@pytest.fixture
def headrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Headrace:
    """`headrace("decode", "-", …)` in an empty folder, with no settings but a node that is not there."""
    for name in {name for field in fields_of(SECTIONS).values() for name in field.setting.env} & os.environ.keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("SOLANA_RPC_WS", NOWHERE)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        try:
            status = main([*arguments])
        except SystemExit as wrong_usage:
            status = int(wrong_usage.code or 0)
        finally:
            log.configure("debug", "console")
        return Result(status, *capsys.readouterr())

    return call


async def in_thread(headrace: Headrace, *arguments: str) -> Result:
    """The command beside a running event loop, on which its peers live."""
    return await asyncio.to_thread(headrace, *arguments)
