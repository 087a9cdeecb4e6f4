"""How much processor time processes have used, from Linux's `/proc`; elsewhere it is not known."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PARENT, _FIRST, _END = 1, 11, 15  # of `stat` behind the name: the parent; user, system, and both of ended children


def used_s(ancestor: int) -> dict[int, float] | None:
    """Seconds of each living descendant of a process, with those of its ended children; None where nobody tells."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        pid = int(folder.name)
        parents[pid] = int(stat[_PARENT])
        used[pid] = sum(map(int, stat[_FIRST:_END])) * _TICK_S
    if not used:
        return None
    return {pid: seconds for pid, seconds in used.items() if pid != ancestor and ancestor in _line(pid, parents)}


def spent_s(before: dict[int, float] | None, after: dict[int, float] | None, pids: Collection[int] = ()) -> float:
    """Seconds between two looks: of `pids`, or of all. -1 where it is not known."""
    if before is None or after is None:
        return -1.0
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items() if not pids or pid in pids)


def _line(pid: int, parents: dict[int, int]) -> list[int]:
    """The process and those above it."""
    line = [pid]
    while line[-1] in parents and len(line) <= len(parents):
        line.append(parents[line[-1]])
    return line
