"""Changes that a newcomer would make, kept as patches: each applies to a copy of this repository and is tested there.

`docs/decisions/` says how many files each of them touches, and why that number counts.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
_KEPT: Final = ("src", "tests", "docs", "clients", "tools", "pyproject.toml", "README.md")
_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", "node_modules", "_build", "*.egg-info", ".hypothesis")


class Touched(NamedTuple):
    """Files that a patch touches: `changed` were there before, `added` were not."""

    changed: tuple[str, ...]
    added: tuple[str, ...]


def apply_patch(name: str, folder: Path) -> Touched:
    """Copy the repository to `folder` and apply `tests/drills/NAME.patch` there; return the files that it touches.

    A patch that no longer applies fails here with what `git apply` says: make it anew, as `docs/decisions/` tells how.
    """
    for kept in _KEPT:
        source = ROOT / kept
        if source.is_dir():
            shutil.copytree(source, folder / kept, ignore=_LEFT_OUT)
        else:
            shutil.copy2(source, folder / kept)
    before = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    patch = Path(__file__).parent / f"{name}.patch"
    done = subprocess.run(["git", "apply", "-p1", str(patch)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{patch.name} does not apply: {done.stderr}"
    listed = subprocess.run(
        ["git", "apply", "--numstat", str(patch)], cwd=folder, capture_output=True, text=True, check=True
    )
    paths = [line.split("\t")[2] for line in listed.stdout.splitlines()]
    return Touched(
        changed=tuple(path for path in paths if path in before),
        added=tuple(path for path in paths if path not in before),
    )


def run_tests(folder: Path, *arguments: str) -> str:
    """Run pytest in the patched copy, with the sources of that copy; return its output.

    Fails if a test fails or none ran.
    """
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--rootdir",
            str(folder),
            *arguments,
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
