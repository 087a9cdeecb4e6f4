"""Make a server's name: unique on the machine, and the same after a restart where a file can be kept."""

import fcntl
import os
import re
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

SERVERS_MAX: Final = 64
"""Maximum number of servers that keep their names in one folder."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def made_server_id(host: str, file: Path) -> tuple[str, Callable[[], None]]:
    """Return a name that begins with `host`, and a function that lets others have the name.

    The name is kept in `file`, or in `file-2` and so on while other processes of the machine use the files before. If
    no file can be used, the name is new with each start.
    """
    for number in range(1, SERVERS_MAX + 1):
        path = file if number == 1 else file.with_name(f"{file.stem}-{number}{file.suffix}")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            break
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                continue
            break
        return _kept(descriptor, host), partial(os.close, descriptor)
    return _new(host), lambda: None


def _kept(descriptor: int, host: str) -> str:
    """Return the name in the file, after writing one if there is none that can be used."""
    known = os.pread(descriptor, 100, 0).decode("ascii", "replace").strip()
    if _NAME.fullmatch(known) and known.startswith(f"{host[:55]}-"):
        return known
    name = _new(host)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{name}\n".encode(), 0)
    return name


def _new(host: str) -> str:
    return f"{host[:55]}-{secrets.token_hex(4)}"
