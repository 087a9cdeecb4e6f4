"""A running demo, which is a whole server, and its documents."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.command import DEMO, settings


@contextmanager
def serving(folder: Path, *command: str | Path) -> Iterator[str]:
    """The URL of a server that a command starts, in a folder of its own; it is ended at the end."""
    env = settings(TMPDIR=str(folder), MOCK_QUOTE_MS="0", MOCK_EXECUTION_MS="0")
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(found[0] for line in process.stderr if (found := re.search(r"http://[\d.]+:\d+", line)))
        finally:
            process.terminate()
            process.communicate()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that plays recorded trades again and again, and takes orders."""
    command = (sys.executable, "-m", "headrace", "demo", "--no-browser", "--quiet", "--port", "0")
    with serving(tmp_path_factory.mktemp("demo"), *command, "--speed", "50") as url:
        yield url


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that has played recorded trades once: its topics stay as they are."""
    command = (sys.executable, "-m", "headrace", "replay", str(DEMO), "--port", "0", "--speed", "max")
    with serving(tmp_path_factory.mktemp("recorded"), *command) as url:
        yield url


@pytest.fixture(scope="session")
def openapi(demo: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the demo's OpenAPI document."""
    return fetch(f"{demo}/schema", tmp_path_factory.mktemp("openapi") / "openapi.json")


@pytest.fixture(scope="session")
def asyncapi(demo: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the demo's AsyncAPI document."""
    return fetch(f"{demo}/schema/asyncapi.json", tmp_path_factory.mktemp("asyncapi") / "asyncapi.json")


def fetch(url: str, file: Path) -> Path:
    file.write_bytes(httpx.get(url, trust_env=False, timeout=60).raise_for_status().content)
    return file
