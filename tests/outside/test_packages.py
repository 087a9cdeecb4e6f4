"""The wheel and the npm package are whole: they are built from a clone, installed where nothing else is, and run."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.install.locks import ROOT, RUNTIME
from tests.install.test_install import OWN_PIP
from tests.outside.conftest import serving
from tests.outside.tools import IN_CI, NODE, run

NPM = shutil.which("npm") or ""
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src")
FOLLOW = """
import { Client } from "headrace-client";
const found = [];
for await (const { type, data } of new Client(process.argv[2]).subscribe("trades:pump")) {
  if (type === "event" && found.push(data.side) === 3) break;
}
console.log(JSON.stringify(found));
process.exit(0);
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources with the build tools of the lock."""
    copy, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        else:
            shutil.copy(source, copy)
    pip = (sys.executable, f"{OWN_PIP}/pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--wheel-dir", built, copy)
    (found,) = built.glob("headrace-*.whl")
    return found


def test_wheel_holds_every_file_of_the_sources(wheel: Path) -> None:
    sources = ROOT / "src"
    wanted = {
        str(path.relative_to(sources))
        for path in (sources / "headrace").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("headrace/")}
    assert held == wanted


@pytest.mark.long  # the packages that the lock pins come from the index
def test_wheel_runs_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    pip = (python, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", "--quiet")
    run(*pip, "--require-hashes", "-r", RUNTIME)
    run(*pip, wheel)
    run(python, "-m", "pip", "check")
    assert run(python.with_name("headrace"), "--version", folder=tmp_path).startswith("headrace 0.")
    command = (python.with_name("headrace"), "demo", "--no-browser", "--quiet", "--port", "0")
    with serving(tmp_path, *command) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        for path in ("/", "/dashboard.js", "/client/headrace.js", "/schema", "/schema/asyncapi.json", "/metrics"):
            assert http.get(path).status_code == 200, path


@pytest.mark.skipif(not (IN_CI or (NODE and NPM)), reason="no node with npm on PATH: the npm package is not built")
def test_npm_package_follows_a_topic_where_nothing_else_is_installed(demo: str, tmp_path: Path) -> None:
    run(NPM, "pack", "--silent", "--pack-destination", tmp_path, ROOT / "clients" / "js", folder=tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    (tmp_path / "package.json").write_text('{"type": "module", "private": true}')
    run(NPM, "install", "--offline", "--ignore-scripts", package, folder=tmp_path)
    (tmp_path / "follow.js").write_text(FOLLOW)
    url = f"{demo.replace('http', 'ws', 1)}/ws"
    sides = json.loads(run(NODE, "--experimental-websocket", "--no-warnings", "follow.js", url, folder=tmp_path))
    assert len(sides) == 3
    assert set(sides) <= {"buy", "sell"}
