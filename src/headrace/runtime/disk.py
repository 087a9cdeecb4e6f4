"""Checks the free space on the disks that a process writes to."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from headrace.model.errors import TransientError

FREE_MIN: Final = 524_288
"""Minimum free space in bytes. With less, the next commit may fail in the middle."""


class Disk:
    """The file systems of some files. Each must have `free_min` bytes free."""

    def __init__(self, files: Iterable[str], *, free_min: int = FREE_MIN) -> None:
        self._free_min = free_min
        self._folders = sorted({str(Path(file).parent) for file in files})

    async def check(self, *, thorough: bool) -> str:
        """Return the free space in words. Raises TransientError if it is too small or the folder does not exist."""
        free = await asyncio.to_thread(lambda: [_free(folder, self._free_min) for folder in self._folders])
        return f"{min(free) // 1_048_576} MiB free" if free else "not used"


def _free(folder: str, free_min: int) -> int:
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise TransientError(f"the folder of a file can't be read: {error.strerror}") from error
    free = found.f_bavail * found.f_frsize
    if free < free_min:
        raise TransientError(f"{free} bytes are free, {free_min} are needed")
    if found.f_files and not found.f_favail:
        raise TransientError("no inode is free")
    return free
