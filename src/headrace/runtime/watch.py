"""Changes of files, and SIGHUP, as an iterator. Works on any file system, without a dependency."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from headrace.runtime.clock import Clock

SIGHUP: Final = "SIGHUP"
_GONE: Final = (0, 0, 0)


async def watch(paths: Sequence[Path], clock: Clock, *, every_s: float = 1.0) -> AsyncGenerator[frozenset[str], None]:
    """Yield the names of files that changed, appeared or vanished, and "SIGHUP" if the signal arrived.

    Every `every_s` seconds a thread reads modification time, size and inode. A changed file is reported only once it is
    the same in two successive checks, so that no half-written file is read. Must run in the main thread. Iterate under
    `contextlib.aclosing`, which restores the previous signal handler.
    """
    with _hang_ups() as hang_ups:  # before anything else: SIGHUP without a handler ends the process
        known = before = await asyncio.to_thread(_marks, paths)
        while True:
            await clock.sleep(every_s)
            now = await asyncio.to_thread(_marks, paths)
            changed = {str(path) for path in paths if now[path] == before[path] != known[path]}
            known = {path: now[path] if str(path) in changed else known[path] for path in paths}
            before = now
            if hang_ups:
                hang_ups.clear()
                changed.add(SIGHUP)
            if changed:
                yield frozenset(changed)


def _marks(paths: Sequence[Path]) -> dict[Path, tuple[int, int, int]]:
    return {path: _mark(path) for path in paths}


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        stat = os.stat(path)  # noqa: PTH116  (follows the symlinks that container platforms swap)
    except OSError:
        return _GONE
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


@contextmanager
def _hang_ups() -> Iterator[list[int]]:
    """Yield a list that grows by one item with each SIGHUP. Restore the previous handler at the end."""
    received: list[int] = []
    if not hasattr(signal, "SIGHUP"):  # Windows
        yield received
        return
    former = signal.signal(signal.SIGHUP, lambda number, _frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGHUP, former)
