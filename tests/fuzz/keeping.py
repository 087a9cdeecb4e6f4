"""Chooses the inputs that stay: small ones that take steps from line to line which no other takes."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import headrace
from tests.fuzz import gzips
from tests.fuzz.seeds import CORPUS, seeds
from tests.fuzz.targets import TARGETS, Target

PLACES: Final = (str(Path(headrace.__file__).parent), gzips.__file__)
"""Where a step counts: in Headrace, and in what stands for zlib's own."""
BYTES_MAX: Final = 2_048
"""Of one input."""
TARGET_BYTES_MAX: Final = 60_000
"""Of all kept inputs of one target."""

Step = tuple[str, int, int]


def steps(target: Target, data: bytes) -> set[Step]:
    """Return the steps from line to line, as (file, line, line), that the target takes with this input."""
    found: set[Step] = set()

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        file, last = frame.f_code.co_filename, 0
        if not file.startswith(PLACES):
            return None

        def go_on(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                found.add((file, last, frame.f_lineno))
                last = frame.f_lineno
            return go_on

        return go_on

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        target(data)
    finally:
        sys.settrace(before)
    return found


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """Write the inputs that reach what neither seeds nor kept nor smaller inputs reach; return their number."""
    target, folder = TARGETS[name], CORPUS / name
    target(b"")  # what is done once, at the first input, counts for none
    reached: set[Step] = set()
    for seed in seeds(name):
        reached |= steps(target, seed)
    room = TARGET_BYTES_MAX - sum(path.stat().st_size for path in folder.glob("*"))
    added = 0
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        if len(data) > min(BYTES_MAX, room):
            break
        more = steps(target, data) - reached
        if more:
            reached |= more
            folder.mkdir(parents=True, exist_ok=True)
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
            room -= len(data)
            added += 1
    return added
