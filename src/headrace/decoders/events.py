"""Events of programs, from self-CPIs or else from log lines: never twice, and never attributed to another program."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import pybase64

from headrace.decoders.instructions import EVENT_TAG, instructions_of
from headrace.decoders.logs import LoggedData, LogReading, read_logs
from headrace.decoders.native import CALL_NOBODY, SILENT
from headrace.decoders.registry import FoundPart, Program, Programs
from headrace.model.events import DecodedEvent, Via
from headrace.model.updates import UNNAMED, Instruction, LogsUpdate, TransactionUpdate

__all__ = ["EVENT_TAG", "EventReading", "events_of", "instructions_of", "read_events"]

RAY_LOG: Final = "ray_log"
"""Name of the events that a program writes as text after this word, instead of as logged data."""


class FoundEvent(msgspec.Struct, frozen=True, gc=False):
    """Event of a transaction, found but not decoded. The fields are those of DecodedEvent."""

    part: FoundPart
    via: Via
    path: tuple[int, ...]
    ordinal: int
    truncated: bool

    def decode(self) -> DecodedEvent:
        """Decode the event's fields, and count mismatches."""
        decoded = self.part.decode()
        return self.event(decoded.data, decoded.leftover)

    def event(self, data: dict[str, Any], leftover: int) -> DecodedEvent:
        """Return the event with these fields."""
        program = self.part.program
        return DecodedEvent(
            program=program.name,
            program_id=program.program_id,
            name=self.part.layout.name,
            via=self.via,
            path=self.path,
            ordinal=self.ordinal,
            data=data,
            leftover=leftover,
            truncated=self.truncated,
        )


class EventReading(NamedTuple):
    """The events of a transaction, and counts of refused data.

    - `forged`: self-CPIs that only look like events of a known program: another program called it, or its event
      authority is missing.
    - `uncertain`: logged data whose program is uncertain (see `logs.read_logs`), and self-CPIs whose caller is
      uncertain.
    """

    events: list[FoundEvent]
    forged: int = 0
    uncertain: int = 0


_Moment: TypeAlias = tuple[int, int, int]
"""Sort key by time: (index of the instruction that began last, 0 for the instruction or 1 for a log line, number)."""


class _Found(msgspec.Struct, frozen=True, gc=False):
    """An event before it gets an ordinal."""

    path: tuple[int, ...]
    part: FoundPart
    via: Via
    truncated: bool


def events_of(
    update: LogsUpdate | TransactionUpdate, programs: Programs, *, failed: bool = False
) -> list[DecodedEvent]:
    """Return the decoded events of a transaction in the order in which they were emitted. See `read_events`."""
    return [found.decode() for found in read_events(update, programs, failed=failed).events]


def read_events(update: LogsUpdate | TransactionUpdate, programs: Programs, *, failed: bool = False) -> EventReading:
    """Find the events of known programs. Never raises: bytes that do not fit are left out and counted.

    A failed transaction changed nothing, so it has no events. `failed` returns the events that it would have emitted.

    A self-CPI counts as an event of program P if P called it and its first account is P's event authority, for which
    only P can sign. Its `path` is that of P's instruction that called it. If a node left out `stack_height`, log lines
    show the caller. Without log lines, an earlier instruction of P under the same top-level instruction counts as the
    caller, if nothing that could have called P ran in between. A caller that is UNNAMED may be P.

    Events in the log are added only if no CPI has the same bytes. Equal events are matched one to one, so that two
    equal trades remain two. If the node cut off the log, its events are `truncated`: there may have been more.
    """
    if update.err is not None and not failed:
        return EventReading([])
    if isinstance(update, LogsUpdate):
        return _from_logs(update.logs, programs)
    reading = read_logs(update.logs or (), programs.bare)
    places = _places(reading, update.instructions)
    heights = {at: depth for at, (_, depth) in zip(places, reading.invocations, strict=False)}
    calls = _self_calls(update.instructions, heights, programs)
    found = calls.found
    found += _logged(reading, places, update.instructions, programs, calls.payloads)
    found.sort(key=itemgetter(0))
    return EventReading(_numbered([each for _, each in found]), calls.forged, reading.uncertain + calls.uncertain)


def _from_logs(lines: Sequence[str], programs: Programs) -> EventReading:
    """Return the events of log lines. This is the hot path, because most transactions arrive as logs."""
    reading = read_logs(lines, programs.bare)
    found: list[_Found] = []
    for data in reading.data:
        payload = _payload(data, programs)
        part = None if payload is None else _part(data, payload, programs)
        if part is not None:
            found.append(_Found(data.path, part, "log", reading.truncated))
    return EventReading(_numbered(found) if found else [], 0, reading.uncertain)


class _Calls(NamedTuple):
    """The events that programs recorded by calling themselves, and counts of refused data."""

    found: list[tuple[_Moment, _Found]]
    payloads: Counter[tuple[str, bytes]]
    forged: int
    uncertain: int


def _self_calls(instructions: Sequence[Instruction], heights: Mapping[int, int], programs: Programs) -> _Calls:
    found: list[tuple[_Moment, _Found]] = []
    payloads: Counter[tuple[str, bytes]] = Counter()
    forged = uncertain = 0
    for at, instruction, caller in _with_callers(instructions, heights):
        program = programs.by_id.get(instruction.program_id)
        if program is None or instruction.data is None or not instruction.data.startswith(EVENT_TAG):
            continue
        if caller is UNCERTAIN:
            uncertain += 1
            continue
        if caller is None or not _authentic(instruction, caller, program):
            forged += 1
            continue
        payload = instruction.data[len(EVENT_TAG) :]
        payloads[program.program_id, payload] += 1
        part = program.find_event(payload)
        if part is not None:
            found.append(((at, 0, 0), _Found(caller.path, part, "cpi", False)))
    return _Calls(found, payloads, forged, uncertain)


def _authentic(instruction: Instruction, caller: Instruction, program: Program) -> bool:
    return caller.program_id in (program.program_id, UNNAMED) and instruction.accounts[:1] == (program.event_authority,)


UNCERTAIN: Final = Instruction(program_id="", accounts=(), data=None, path=())
"""Replacement for a caller whose identity is not proven."""


def _with_callers(
    instructions: Sequence[Instruction], heights: Mapping[int, int]
) -> Iterator[tuple[int, Instruction, Instruction | None]]:
    """Yield (index, instruction, its caller). The caller is None for a top-level instruction, or if there can be none.

    `heights` are the heights that the log lines prove, by index. They are used if the node left out `stack_height`.
    """
    stack: list[Instruction] = []
    seen: list[Instruction] = []
    for at, instruction in enumerate(instructions):
        height = instruction.stack_height
        if height is None:
            height = heights.get(at)
        caller: Instruction | None = None
        if len(instruction.path) == 1:
            stack, seen = [instruction], []
        elif height is None:
            caller = _likely_caller(instruction.program_id, seen)
        elif 1 < height <= len(stack) + 1:
            caller = stack[height - 2]
            stack[height - 1 :] = [instruction]
        seen.append(instruction)
        yield at, instruction, caller


def _likely_caller(program_id: str, seen: Sequence[Instruction]) -> Instruction | None:
    """Return the instruction of the program that must be the caller, among those `seen` under the same top-level one.

    Without heights, a program's call of itself looks the same as a call by another program that it called. So after the
    program's earlier instruction, only its own events and programs that never call a program of their caller's choice
    may follow. Otherwise the caller is UNCERTAIN. None if the program did not run before.
    """
    certain = True
    for earlier in reversed(seen):
        if earlier.program_id == program_id:
            if not (earlier.data or b"").startswith(EVENT_TAG):
                return earlier if certain else UNCERTAIN
        elif earlier.program_id not in CALL_NOBODY:
            certain = False
    return None


def _logged(
    reading: LogReading,
    places: Sequence[int],
    instructions: Sequence[Instruction],
    programs: Programs,
    told: Counter[tuple[str, bytes]],
) -> Iterator[tuple[_Moment, _Found]]:
    """Yield the logged events that self-CPIs (`told`) did not also record. Remove each match from `told`."""
    for nth, data in enumerate(reading.data):
        payload = _payload(data, programs)
        if payload is None:
            continue
        if told[data.program_id, payload]:
            told[data.program_id, payload] -= 1
            continue
        part = _part(data, payload, programs)
        if part is not None:
            path = instructions[places[data.frame]].path if places else data.path
            moment = places[data.latest] if places else data.latest, 1, nth
            yield moment, _Found(path, part, "log", reading.truncated)


def _payload(data: LoggedData, programs: Programs) -> bytes | None:
    """Return the logged bytes if a known program wrote them as one piece.

    A line with several pieces is not an event.
    """
    if data.program_id not in programs.by_id:
        return None
    try:
        return pybase64.b64decode(data.text, validate=True)
    except ValueError:
        return None


def _part(data: LoggedData, payload: bytes, programs: Programs) -> FoundPart | None:
    program = programs.by_id[data.program_id]
    part = program.find_bare_event(payload) if data.bare else program.find_event(payload)
    return part if part is not None and (part.layout.name == RAY_LOG) == data.ray else None


def _places(reading: LogReading, instructions: Sequence[Instruction]) -> list[int]:
    """Return, for each invocation in the log, the index of its instruction; empty if log and instructions disagree."""
    places = [at for at, instruction in enumerate(instructions) if instruction.program_id not in SILENT]
    invoked = [program_id for program_id, _ in reading.invocations]
    if [instructions[at].program_id for at in places[: len(invoked)]] != invoked:
        return []
    return places


def _numbered(found: Sequence[_Found]) -> list[FoundEvent]:
    ordinals: dict[tuple[int, ...], int] = {}
    events: list[FoundEvent] = []
    for each in found:
        path = each.path
        ordinal = ordinals[path] = ordinals.get(path, -1) + 1
        events.append(FoundEvent(each.part, each.via, path, ordinal, each.truncated))
    return events
