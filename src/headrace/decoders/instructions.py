"""Instructions with names: program, instruction, accounts and arguments."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pybase64

from headrace.decoders import native
from headrace.decoders.registry import Programs
from headrace.model.events import DecodedInstruction
from headrace.model.keys import b58encode
from headrace.model.updates import Instruction, TransactionUpdate

EVENT_TAG: Final = bytes.fromhex("e445a52e51cb9a1d")
"""What instruction data begins with when a program calls itself to record an event (Anchor's `emit_cpi!`)."""

EVENT_CALL: Final = "emit_cpi"
"""The name that such an instruction is given here."""

_BASE58_MAX: Final = 1024


def instructions_of(update: TransactionUpdate, programs: Programs) -> list[DecodedInstruction]:
    """Return every instruction of a transaction in execution order, with what names are known. Never raise.

    `accounts` has the IDL's names (`outer.inner` in groups; an optional account that is absent is the program's own id,
    as on chain), extra ones are `remaining_0`, …; of an unknown instruction all are. `args` is ready for JSON, integers
    wider than 32 bits are text; of an unknown one `{"data": <base58>}`, or `{"base64": …}` if long. The call by which a
    program records an event is `emit_cpi`, without arguments: the event is among `events_of`. What a node has parsed
    keeps the node's names.
    """
    return [_named(instruction, programs) for instruction in update.instructions]


def _named(instruction: Instruction, programs: Programs) -> DecodedInstruction:
    program_id, data = instruction.program_id, instruction.data
    program = programs.by_id.get(program_id)
    name: str | None = None
    args: dict[str, Any] | None = None
    names: Sequence[str] = ()
    leftover = 0
    if data is None:
        name, args = _parsed(instruction.parsed or {})
    elif program is None:
        known = native.command(program_id, data)
        if known is not None:
            name, args, names = known
    elif data.startswith(EVENT_TAG):
        name, args, names = EVENT_CALL, {}, ("event_authority",)
    else:
        part = program.instruction(data)
        if part is not None:
            name, leftover = part.name, part.leftover
            names = part.account_names(len(instruction.accounts))
            args = msgspec.json.decode(part.layout.encode_json(part.data))
    if args is None:
        args = _undecoded(data or b"")
    return DecodedInstruction(
        program=program.name if program is not None else native.program_name(program_id) or program_id,
        program_id=program_id,
        name=name,
        path=instruction.path,
        accounts=_keyed(names, instruction.accounts),
        args=args,
        leftover=leftover,
    )


def _undecoded(data: bytes) -> dict[str, Any]:
    """Return data as base58, as nodes and explorers show it; not for long data, as the cost grows with the square."""
    if len(data) > _BASE58_MAX:
        return {"base64": pybase64.b64encode_as_string(data)}
    return {"data": b58encode(data)}


def _parsed(parsed: dict[str, object]) -> tuple[str | None, dict[str, Any]]:
    kind, info = parsed.get("type"), parsed.get("info")
    return kind if isinstance(kind, str) else None, info if isinstance(info, dict) else {"info": info}


def _keyed(names: Sequence[str], accounts: Sequence[str]) -> dict[str, str]:
    extra = [f"remaining_{n}" for n in range(len(accounts) - len(names))]
    return dict(zip((*names, *extra), accounts, strict=False))
