"""Finds which program logged which bytes, with an invoke stack over the log lines of one transaction.

The runtime frames what programs write: `Program <id> invoke [<depth>]`, … then `Program <id> success` or `failed: …`. A
program's own text follows a prefix (`Program log: `, `Program data: `, `Program return: `) in a line of its own,
newlines included. So a program can imitate neither a frame nor another program's data. Lines are therefore used as the
node delivers them, and never split or joined.
"""

import re
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

TRUNCATED: Final = "Log truncated"
"""The node's own line once 10,000 bytes are full.

After it the node drops lines, but a shorter line may still fit, so the end of a frame can be present without its start.
Lines after this one therefore prove nothing.
"""

_DATA: Final = "Program data: "
_LOG: Final = "Program log: "
_RAY_LOG: Final = "Program log: ray_log: "
_BARE_MIN: Final = len(_LOG) + 12
"""Minimum number of characters of a line with a bare event. Its discriminator of 8 bytes is 12 characters of base64."""
_CONSUMED: Final = " compute units"
_FRAME: Final = re.compile(
    r"Program ([1-9A-HJ-NP-Za-km-z]{32,44}) (?:invoke \[([1-9]\d{0,2})\]|success|(failed)(?:: .*)?)", re.DOTALL
)


Frame: TypeAlias = tuple[str, int]
"""A line that opens (program id, depth from 1) or closes (program id, SUCCESS or FAILURE) an invocation."""

SUCCESS: Final = 0
FAILURE: Final = -1


class LoggedData(msgspec.Struct, frozen=True, gc=False):
    """Bytes that a program logged, as base64 text.

    - `path`: the path of the writing instruction, as counted in `model.updates.Instruction`. Precompiles (ed25519,
      secp256k1, secp256r1) log nothing, so after each of them the path's first number is too low by one.
    - `frame`: the number of the writing invocation, counted from 0 within the transaction.
    - `latest`: the last invocation that had begun at the time of writing, which gives the order in time.
    - `ray`: the text followed `ray_log: `.
    - `bare`: the text directly followed `Program log: `, where Anchor before 0.22 wrote events and where a program
      writes all of its text.
    """

    program_id: str
    text: str
    path: tuple[int, ...]
    frame: int
    latest: int
    ray: bool
    bare: bool = False


class LogReading(NamedTuple):
    """Facts that the log lines of one transaction prove.

    `data` is in order of writing, `invocations` in order of execution. `truncated` means that the node cut off the log,
    so there may have been more. `uncertain` is the number of data lines that are left out because the frames around
    them do not fit together.
    """

    data: list[LoggedData]
    invocations: list[Frame]
    truncated: bool
    uncertain: int


_CACHE_MAX: Final = 8192
_CACHED_LINE_MAX: Final = 80
_frames: dict[str, Frame] = {}
"""Lines already parsed as frames. They repeat from transaction to transaction, and a look-up is ten times as fast."""


def read_logs(lines: Sequence[str], bare_of: Collection[str] = ()) -> LogReading:
    """Attribute logged data to programs, and for programs in `bare_of` also text that may be an event. Never raises.

    Data is proven in two cases: its top-level invocation has closed, with all frames inside in order; or the node's
    `Log truncated` follows, because nothing is missing before that line.
    After the first line that does not fit, all later lines are ignored, and so is the data of the open top-level
    invocation, which is counted in `uncertain`. A line does not fit if its depth is not one more than the stack's, if
    it ends another program, if it has data outside any program, or if anything but further failures follows a failure.
    """
    stack: list[str] = []
    invocations: list[Frame] = []
    data: list[LoggedData] = []
    proven = tops = top_frame = 0
    at = -1
    failing = False
    for frame in map(_frames.get, lines):
        at += 1
        if frame is None:
            line = lines[at]
            if line.endswith(_CONSUMED):
                continue
            bare = False
            ray = line.startswith(_LOG)
            if ray and not line.startswith(_RAY_LOG):
                if not bare_of or not _may_be_bare(line) or not stack or stack[-1] not in bare_of:
                    continue
                ray, bare = False, True
            if ray or bare or line.startswith(_DATA):
                if not stack:
                    break
                running = _running(invocations, len(stack))
                path = (tops - 1, running - top_frame - 1) if running > top_frame else (tops - 1,)
                text = line[len(_RAY_LOG if ray else _LOG if bare else _DATA) :]
                data.append(LoggedData(stack[-1], text, path, running, len(invocations) - 1, ray, bare))
                continue
            if line == TRUNCATED:
                return LogReading(data, invocations, True, _data_lines(lines[at:]))
            frame = _frame(line)
            if frame is None:
                continue
        program_id, depth = frame
        if failing and depth != FAILURE:
            break
        if depth > 0:
            stack.append(program_id)
            if depth != len(stack):
                break
            if depth == 1:
                tops += 1
                top_frame = len(invocations)
            invocations.append(frame)
        elif not stack or stack.pop() != program_id:
            break
        else:
            failing = depth == FAILURE
            if not stack:
                proven = len(data)
    else:
        if proven == len(data):
            return LogReading(data, invocations, False, 0)
        return LogReading(data[:proven], invocations, False, _certain_data(data[proven:]))
    uncertain = _certain_data(data[proven:]) + _data_lines(lines[at:])
    return LogReading(data[:proven], invocations, TRUNCATED in lines, uncertain)


def _may_be_bare(line: str) -> bool:
    return len(line) >= _BARE_MIN and (len(line) - len(_LOG)) % 4 == 0 and " " not in line[len(_LOG) :]


def _certain_data(data: Sequence[LoggedData]) -> int:
    """Return how many of `data` are certainly data. The others may be text that only looks like base64."""
    return sum(not each.bare for each in data)


def _running(invocations: Sequence[Frame], depth: int) -> int:
    """Return the running invocation: the last one that began at the stack's depth."""
    running = len(invocations) - 1
    while invocations[running][1] != depth:
        running -= 1
    return running


def _frame(line: str) -> Frame | None:
    match = _FRAME.fullmatch(line)
    if match is None:
        return None
    frame = match[1], FAILURE if match[3] else int(match[2] or SUCCESS)
    if len(line) <= _CACHED_LINE_MAX:
        if len(_frames) >= _CACHE_MAX:
            _frames.clear()
        _frames[line] = frame
    return frame


def _data_lines(lines: Sequence[str]) -> int:
    return sum(line.startswith((_DATA, _RAY_LOG)) for line in lines)
