"""`tools/install.py` installs what is locked although all packages have newer releases; failures are one line."""

import ensurepip
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.install.locks import DEVELOPMENT, PROJECT, ROOT, RUNTIME, digest, make_wheel, read, requirements_of

INSTALL: Final = ROOT / "tools" / "install.py"
OWN_PIP: Final = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
OLDEST_PIP: Final = next((Path(sys.prefix) / "wheels").glob("pip-*.whl"), None)
"""The pip of Python 3.11.0; `make test` fetches it by tests/install/pip.lock."""

BACKEND: Final = """
import shutil

def build_editable(folder, config_settings=None, metadata_directory=None):
    return shutil.copy("{wheel}", folder).rpartition("/")[2]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with both locks, and `index`, in which every package has its pinned release and a newer one.

    The packages are small wheels with the true names, versions and requirements.
    """
    folder = tmp_path_factory.mktemp("project")
    index = folder / "index"
    index.mkdir()
    made: dict[str, str] = {}
    for pin in read(DEVELOPMENT):
        if pin.applies:
            requires = requirements_of(pin.name)
            made[pin.name] = digest(make_wheel(index, pin.name, pin.version, requires))
            newer = f"{Version(pin.version).major + 1}.0"
            make_wheel(index, pin.name, newer, requires)
    for lock in (RUNTIME, DEVELOPMENT):
        lines = [f"{pin.requirement} --hash=sha256:{made.get(pin.name, '0' * 64)}\n" for pin in read(lock)]
        (folder / lock.name).write_text("".join(lines))
    wheel = make_wheel(folder, "headrace", "0.1.0", PROJECT["project"]["dependencies"])
    (folder / "backend.py").write_text(BACKEND.format(wheel=wheel.name))
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return folder


def install(project: Path, venv: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the program in the project, with nothing of the caller's pip settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "COV_"))}
    return subprocess.run(
        [sys.executable, INSTALL, "--venv", venv, *arguments],
        cwd=project,
        env={**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def local(index: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}


def installed(venv: Path) -> Mapping[str, str]:
    """Return version by name of all that is in the environment."""
    (site,) = venv.glob("lib/python*/site-packages")
    return {canonicalize_name(found.name): found.version for found in distributions(path=[str(site)])}


def put_pip(venv: Path, wheel: Path) -> None:
    """Make an environment whose pip is the given one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this Python's own pip and nothing else, made without ensurepip, which is slow."""
    venv = tmp_path_factory.mktemp("environment") / "venv"
    put_pip(venv, OWN_PIP)
    return venv


@pytest.mark.parametrize("pip", [OWN_PIP, OLDEST_PIP], ids=["this Python's", "oldest"])
def test_pinned_packages_are_installed_although_newer_ones_exist(
    project: Path, tmp_path: Path, pip: Path | None
) -> None:
    if pip is None:
        pytest.skip("the oldest pip is not in wheels/ of the environment: `make test` fetches it")
    venv = tmp_path / "venv"
    put_pip(venv, pip)
    done = install(project, venv, RUNTIME.name, DEVELOPMENT.name, **local(project / "index"))
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = {pin.name: pin.version for pin in read(DEVELOPMENT) if pin.applies}
    assert {name: version for name, version in installed(venv).items() if name not in ("pip", "headrace")} == wanted
    first = sum(pin.applies for pin in read(RUNTIME))
    assert {f"requirements.lock: 1/{first}", f"requirements-dev.lock: {len(wanted)}/{len(wanted)}"} <= {
        line.rpartition(" ")[0] if line.endswith(".whl") else " ".join(line.split()[:2])
        for line in done.stdout.splitlines()
    }


def test_file_with_another_hash_is_refused(project: Path, environment: Path, tmp_path: Path) -> None:
    (tmp_path / "one.lock").write_text(f"structlog==26.1.0 --hash=sha256:{'0' * 64}\n")
    done = install(project, environment, str(tmp_path / "one.lock"), **local(project / "index"))
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("pip could not install")


def test_package_that_misses_another_is_reported(project: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    put_pip(venv, OWN_PIP)
    wheel = make_wheel(tmp_path, "alone", "1.0", ["missing>=1"])
    (tmp_path / "one.lock").write_text(f"alone==1.0 --hash=sha256:{digest(wheel)}\n")
    done = install(project, venv, str(tmp_path / "one.lock"), **local(tmp_path))
    assert done.returncode == 1
    assert "alone 1.0 requires missing, which is not installed" in done.stderr
    assert "make clean" in done.stderr.splitlines()[-1]


def test_no_network_is_one_line(project: Path, environment: Path) -> None:
    done = install(project, environment, RUNTIME.name, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "index can't be reached, so requirements.lock was not installed" in line


def test_python_without_ensurepip_is_one_line(project: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    done = install(project, tmp_path / "venv", RUNTIME.name, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "apt install python3-venv" in line


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", ROOT, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_old_python_is_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python"
    program = "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{program}' \"$2\"\n")
    old.chmod(0o755)
    done = make("demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert "needs Python 3.11 or newer, and this is 3.9" in done.stderr.splitlines()[0]


def test_no_python_is_one_line(tmp_path: Path) -> None:
    done = make("demo", "PYTHON=python9", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert "There is no python9 on PATH" in done.stderr.splitlines()[0]
