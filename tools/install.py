"""Install into .venv exactly the packages of the given locks, then the project itself; `make` runs this file.

pip does not choose versions: `--no-deps` switches its resolver off, so a release newer than the lock changes nothing,
and `--require-hashes` refuses every file that the lock does not name. `pip check` then confirms that the locks are
complete. The first lock holds the build tools, with which packages of later locks are built (`--no-build-isolation`).
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PIP: Final = ("-m", "pip", "--disable-pip-version-check", "--no-input")
LOCKED: Final = ("--no-deps", "--require-hashes", "--no-build-isolation", "--use-pep517")
PROJECT: Final = ("--no-deps", "--no-build-isolation", "--editable", ".")
QUIET: Final = ("--no-compile", "--no-warn-script-location")
FETCHED: Final = ("--no-deps", "--require-hashes")
UNREACHABLE: Final = re.compile(r"Retrying \(|Temporary failure|ConnectTimeout|ConnectionError|NewConnectionError")
PIN: Final = re.compile(r"([\w.-]+)==([\w.!+-]+)")


def main(arguments: Sequence[str]) -> None:
    """Create the environment if needed, and install. Exit with one line if that is impossible."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(";")[0])
    parser.add_argument("locks", nargs="+", type=Path)
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    parser.add_argument("--fetch", type=Path, help="a lock whose files are put into wheels/ of the environment")
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    python = environment(given.venv)
    for lock in given.locks:
        install_lock(python, lock)
    install_project(python)
    check(python)
    if given.fetch:
        run(python, "download", *FETCHED, "--dest", given.venv / "wheels", "-r", given.fetch)
    print(f"installed into {given.venv} in {time.monotonic() - begun:.0f} s", flush=True)


def environment(venv: Path) -> Path:
    """Return the Python of the environment. The environment is created again unless it works and has pip."""
    python = venv / "bin" / "python"
    fit = works(python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))")
    if fit and (works(python, "-m", "pip", "--version") or works(python, "-m", "ensurepip")):
        return python
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            sys.exit(f"{sys.executable} has no module {module}: install it (Debian, Ubuntu: apt install python3-venv).")
    print(f"making {venv} with Python {sys.version.split()[0]}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", venv], capture_output=True, text=True, check=False)
    if made.returncode:
        said = " ".join((made.stdout + made.stderr).split())
        sys.exit(f"{sys.executable} can't make {venv} (Debian, Ubuntu: apt install python3-venv): {said}")
    return python


def works(*command: str | Path) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def install_lock(python: Path, lock: Path) -> None:
    """Install the pins of one lock whose markers apply. Print each name when pip begins with it."""
    total = sum(1 for line in lock.read_text().splitlines() if PIN.match(line))
    progress = Progress(lock.name, total)
    pip = (python, *PIP, "install", *LOCKED, *QUIET, "--progress-bar", "off", "-r", lock)
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ) as running:
        assert running.stdout is not None
        output = [progress.read(line) for line in running.stdout]
    progress.end()
    if running.returncode:
        fail(lock, output)


class Progress:
    """Progress of pip: one changing line on a terminal, otherwise one line for each package."""

    def __init__(self, lock: str, total: int) -> None:
        self.lock, self.total, self.done = lock, total, 0
        self.terminal = sys.stdout.isatty()

    def read(self, line: str) -> str:
        pin = PIN.search(line)
        if line.startswith("Ignoring "):
            self.total -= 1
        elif line.startswith(("Collecting ", "Requirement already satisfied: ")) and pin:
            self.done += 1
            self.show(f"{self.done}/{self.total} {pin[1]} {pin[2]}")
        elif line.startswith("Processing "):  # a file of a local index
            self.done += 1
            self.show(f"{self.done}/{self.total} {Path(line.split()[1]).name}")
        elif line.startswith("Building wheel for ") and "started" in line:
            self.show(f"building {line.split()[3]}")
        elif line.startswith("Installing collected packages"):
            self.show(f"unpacking {line.count(',') + 1} packages")
        elif UNREACHABLE.search(line):
            self.show("no answer from the package index, trying again")
        return line

    def show(self, text: str) -> None:
        start, end = ("\r\033[K", "") if self.terminal else ("", "\n")
        print(f"{start}{self.lock}: {text}", end=end, flush=True)

    def end(self) -> None:
        if self.terminal:
            print("\r\033[K", end="", flush=True)


def fail(lock: Path, output: Sequence[str]) -> None:
    """Exit with one line that says who must act, after pip's own lines if they are needed."""
    if any(UNREACHABLE.search(line) for line in output):
        sys.exit(f"The package index can't be reached, so {lock} was not installed: check the network, then run again.")
    print("".join(output[-15:]), file=sys.stderr)
    sys.exit(f"pip could not install {lock}: its last lines are above.")


def install_project(python: Path) -> None:
    """Install the project itself, editable; the build tools are already in the environment."""
    run(python, "install", *PROJECT, *QUIET)


def check(python: Path) -> None:
    """Exit if an installed package misses a dependency, or has another version of it than required."""
    run(python, "check")


def run(python: Path, *arguments: str | Path) -> None:
    """Run pip. If it fails, print its output and exit."""
    done = subprocess.run(
        (python, *PIP, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        sys.exit(
            f"pip {arguments[0]} failed: its lines are above. If packages do not fit together: make clean, then again."
        )


if __name__ == "__main__":
    main(sys.argv[1:])
