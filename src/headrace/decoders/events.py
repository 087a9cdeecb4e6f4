"""Events of programs: from self-CPIs, from log lines where there is no CPI, never twice and never another program's."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import pybase64

from headrace.decoders.instructions import EVENT_TAG, instructions_of
from headrace.decoders.logs import LoggedData, LogReading, read_logs
from headrace.decoders.native import CALL_NOBODY, SILENT
from headrace.decoders.registry import FoundPart, Program, Programs
from headrace.model.events import DecodedEvent, Via
from headrace.model.updates import UNTOLD, Instruction, LogsUpdate, TransactionUpdate

__all__ = ["EVENT_TAG", "EventReading", "events_of", "instructions_of", "read_events"]

RAY_LOG: Final = "ray_log"
"""The name of the events that a program writes as text behind this word instead of as logged data."""


class FoundEvent(NamedTuple):
    """Event of a transaction, found but not decoded; the fields are those of DecodedEvent."""

    part: FoundPart
    via: Via
    path: tuple[int, ...]
    ordinal: int
    truncated: bool

    def decode(self) -> DecodedEvent:
        """Decode the event's fields, and count."""
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
    """The events of a transaction and what was refused.

    `forged`: self-CPIs that only look like events of a program on board: called by another program, or without its
    event authority. `uncertain`: logged data whose program can't be told for certain (see `logs.read_logs`), and
    self-CPIs whose caller can't.
    """

    events: list[FoundEvent]
    forged: int = 0
    uncertain: int = 0


_Moment: TypeAlias = tuple[int, int, int]
"""Sorts by time: (place of the instruction that began last, 0 for that instruction itself or 1 for a log line, nth)."""


class _Found(NamedTuple):
    """An event before it has an ordinal."""

    path: tuple[int, ...]
    part: FoundPart
    via: Via
    truncated: bool


def events_of(
    update: LogsUpdate | TransactionUpdate, programs: Programs, *, failed: bool = False
) -> list[DecodedEvent]:
    """Return the decoded events of a transaction in the order in which they were emitted; see `read_events`."""
    return [found.decode() for found in read_events(update, programs, failed=failed).events]


def read_events(update: LogsUpdate | TransactionUpdate, programs: Programs, *, failed: bool = False) -> EventReading:
    """Find the events of the programs on board. Never raise: what does not fit is left out and counted.

    A failed transaction changed nothing, so it has none, unless `failed` asks for what it would have emitted.

    A self-CPI counts as an event of program P if P called it and its first account is P's event authority, which only P
    can sign for; its `path` is that of the instruction of P that called it. Where a node left out `stack_height`, log
    lines tell who called; without them, an earlier instruction of P under the same top-level one stands for the caller
    if nothing ran in between that could have called P. A caller that is UNTOLD may be P.

    Events in the log are added only as far as there is no CPI with the same bytes, one for one, so that two equal
    trades stay two. If the node cut the log, events from it are `truncated`: there may have been more.
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
    """Return the events of log lines; the hot path, as most transactions come so."""
    reading = read_logs(lines, programs.bare)
    found: list[_Found] = []
    for data in reading.data:
        payload = _payload(data, programs)
        part = None if payload is None else _part(data, payload, programs)
        if part is not None:
            found.append(_Found(data.path, part, "log", reading.truncated))
    return EventReading(_numbered(found) if found else [], 0, reading.uncertain)


class _Calls(NamedTuple):
    """The events that programs recorded by calling themselves, and what was refused."""

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
    return caller.program_id in (program.program_id, UNTOLD) and instruction.accounts[:1] == (program.event_authority,)


UNCERTAIN: Final = Instruction(program_id="", accounts=(), data=None, path=())
"""Stands for a caller of which nothing proves who it was."""


def _with_callers(
    instructions: Sequence[Instruction], heights: Mapping[int, int]
) -> Iterator[tuple[int, Instruction, Instruction | None]]:
    """Yield (place, instruction, its caller); the caller is None for top-level ones or if there can't be any.

    `heights`, by place, are those that the log lines prove; they count where the node left out `stack_height`.
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
    """Return the instruction of the program that must have called, given those `seen` under the same top-level one.

    Without heights a program's call of itself looks like one by another program that it called. So after the earlier
    instruction of the program there may only be its own events and programs that call nobody of their caller's choice;
    else the caller is UNCERTAIN. None if the program did not run before.
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
    """Yield events in log lines but those in `told` (self-CPIs), and take from `told` what they match."""
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
    """Return the logged bytes if a program on board wrote them as one piece; several in one line are no event."""
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
    """Return the place among the instructions of each invocation in the log; empty if the two disagree."""
    places = [at for at, instruction in enumerate(instructions) if instruction.program_id not in SILENT]
    invoked = [program_id for program_id, _ in reading.invocations]
    if [instructions[at].program_id for at in places[: len(invoked)]] != invoked:
        return []
    return places


def _numbered(found: Sequence[_Found]) -> list[FoundEvent]:
    ordinals: dict[tuple[int, ...], int] = {}
    events: list[FoundEvent] = []
    for path, part, via, truncated in found:
        ordinal = ordinals[path] = ordinals.get(path, -1) + 1
        events.append(FoundEvent(part, via, path, ordinal, truncated))
    return events
