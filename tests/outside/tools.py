"""The programs of others that these tests use, and what to do where one is not installed."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
MODULES: Final = HERE / "node_modules"
NODE: Final = shutil.which("node") or ""
PROMTOOL: Final = shutil.which("promtool") or ""
COMPOSE: Final = shutil.which("docker-compose") or ""
SYSTEMD: Final = shutil.which("systemd-analyze") or ""

_OWN: Final = HERE.parents[1] / ".tools" / "bin"
"""Folder in which `.ci/run` installs programs from wheels and Go modules."""


def _tool(name: str) -> str:
    return shutil.which(name) or (str(_OWN / name) if (_OWN / name).exists() else "")


HADOLINT: Final = _tool("hadolint")
HELM: Final = _tool("helm")
KUBERNETES_VALIDATE: Final = _tool("kubernetes-validate")
ACTIONLINT: Final = _tool("actionlint")

IN_CI: Final = os.environ.get("CI") == "true"
"""In CI nothing is left out: a tool that is not there is an error."""

needs_node_tools = pytest.mark.skipif(
    not (IN_CI or (NODE and (MODULES / ".bin").is_dir())),
    reason="no node tools: npm ci --prefix tests/outside (Node 20 or newer)",
)
needs_promtool = pytest.mark.skipif(not (IN_CI or PROMTOOL), reason="no promtool on PATH: Prometheus' lint is not run")


def run(*command: str | Path, stdin: str = "", folder: Path | None = None) -> str:
    """Run a program to its end and return what it printed. Fail with that where its status is not 0."""
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout
