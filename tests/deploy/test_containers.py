"""The image's files, the compose file and the systemd units: what they name exists, and the linters of others agree."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from headrace.config import load
from headrace.service.settings import SECTIONS
from tests.cli.command import running
from tests.outside.tools import COMPOSE, HADOLINT, IN_CI, SYSTEMD, run

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
COMPOSED: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yml").read_text())
UNITS: Final = sorted((DEPLOY / "systemd").glob("*.service"))


def copied() -> list[str]:
    """Return what the Dockerfile copies from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return [source.removeprefix("./") for line in lines for source in line.split()[:-1]]


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    admitted = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert len(copied()) > 5
    for source in copied():
        assert (ROOT / source).exists(), source
        assert source in admitted, source
    assert set(admitted) == set(copied())


@pytest.mark.skipif(not (IN_CI or HADOLINT), reason="no hadolint on PATH: the Dockerfile is not linted")
def test_dockerfile_passes_hadolint() -> None:
    assert run(HADOLINT, DEPLOY / "Dockerfile") == ""


async def health(**env: str) -> tuple[int | None, str]:
    """Run the health check of the image; return its exit code and what it wrote."""
    script = (sys.executable, str(DEPLOY / "healthcheck.py"))
    process = await asyncio.create_subprocess_exec(*script, env=env, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        said = (await process.communicate())[1]
    return process.returncode, said.decode()


async def test_healthcheck_passes_on_a_server_that_lives_and_fails_on_none(tmp_path: Path) -> None:
    async with running(tmp_path, "serve", TRANSACTION_LISTENER_ENABLED="false") as command:
        port = (await command.url()).rpartition(":")[2]
        assert await health(SERVER_PORT=port) == (0, "")
    status, said = await health(PORT=port)
    assert status == 1
    assert said.startswith("not alive: ")


@pytest.mark.skipif(not (IN_CI or COMPOSE), reason="no docker-compose on PATH: the compose file is not checked")
def test_compose_file_passes_docker_compose() -> None:
    run(COMPOSE, "-f", DEPLOY / "compose.yml", "config", "--quiet")


def test_servers_of_the_compose_file_start_with_its_settings(tmp_path: Path) -> None:
    run(DEPLOY / "make-secrets", tmp_path)
    for name in ("server-1", "server-2"):
        given = COMPOSED["services"][name]
        env = {key: value.replace("/run/secrets", str(tmp_path)) for key, value in given["environment"].items()}
        config = load(SECTIONS, env=env, dotenv=DEPLOY / "server.env", toml=None)
        assert config.warnings == ()
        assert set(given["secrets"]) == {path.name for path in config.paths[1:]}


def test_secrets_that_exist_stay_and_are_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    run(DEPLOY / "make-secrets", folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == set(COMPOSED["secrets"])
    assert len(made["jwt_secret"]) == 64
    (folder / "jwt_secret").write_text("mine")
    run(DEPLOY / "make-secrets", folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {**made, "jwt_secret": "mine"}
    assert folder.stat().st_mode & 0o077 == 0


def test_files_that_the_compose_file_mounts_exist() -> None:
    mounts = [each for service in COMPOSED["services"].values() for each in service.get("volumes", [])]
    paths = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(paths) == 5
    assert [path for path in paths if not (DEPLOY / path).exists()] == []


def test_each_server_of_the_compose_file_is_scraped_and_proxied() -> None:
    servers = [f"{name}:8080" for name in COMPOSED["services"] if name.startswith("server-")]
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["job_name"] == "headrace"
    assert scraped["static_configs"][0]["targets"] == servers
    assert re.findall(r"^ +server (\S+)", (DEPLOY / "nginx" / "nginx.conf").read_text(), re.MULTILINE)[:2] == servers


@pytest.mark.skipif(not (IN_CI or SYSTEMD), reason="no systemd-analyze on PATH: the units are not verified")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_passes_systemd_and_is_confined(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/headrace/.venv/bin/headrace", "/bin/true"))
    said = subprocess.run([SYSTEMD, "verify", copy], capture_output=True, text=True, timeout=120)
    assert (said.returncode, said.stderr) == (0, "")
    run(SYSTEMD, "security", "--offline=yes", "--threshold=20", copy)


def test_both_units_run_a_command_that_exists_with_the_same_limits() -> None:
    one, other = (unit.read_text().splitlines() for unit in UNITS)
    differing = {
        line.split("=")[0].lstrip("#") for pair in zip(one, other, strict=True) for line in pair if pair[0] != pair[1]
    }
    assert {name for name in differing if name.isalpha()} == {
        "Description",
        "ExecStart",
        "StateDirectory",
        "WorkingDirectory",
    }
    commands = [line.split()[-1] for unit in (one, other) for line in unit if line.startswith("ExecStart=")]
    assert sorted(commands) == ["serve", "worker"]
