"""CPU time that processes have used, read from Linux's `/proc`. On other systems it is unknown."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PARENT, _FIRST, _END = (
    1,
    11,
    15,
)  # fields of `stat` after the name: the parent, then user and system time, own and of ended children


def used_s(ancestor: int) -> dict[int, float] | None:
    """Return the CPU seconds of each living descendant of a process, including its ended children. None if unknown."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has just ended
            continue
        pid = int(folder.name)
        parents[pid] = int(stat[_PARENT])
        used[pid] = sum(map(int, stat[_FIRST:_END])) * _TICK_S
    if not used:
        return None
    return {pid: seconds for pid, seconds in used.items() if pid != ancestor and ancestor in _line(pid, parents)}


def spent_s(before: dict[int, float] | None, after: dict[int, float] | None, pids: Collection[int] = ()) -> float:
    """Return the CPU seconds between two readings, of `pids` or of all processes. -1 if unknown."""
    if before is None or after is None:
        return -1.0
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items() if not pids or pid in pids)


def _line(pid: int, parents: dict[int, int]) -> list[int]:
    """Return the process and its ancestors."""
    line = [pid]
    while line[-1] in parents and len(line) <= len(parents):
        line.append(parents[line[-1]])
    return line
