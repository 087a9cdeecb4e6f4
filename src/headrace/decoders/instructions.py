"""Instructions with names: program, instruction and accounts, and on request the arguments."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pybase64

from headrace.decoders import native
from headrace.decoders.registry import Programs
from headrace.model.events import NamedInstruction
from headrace.model.keys import b58encode
from headrace.model.updates import Instruction, TransactionUpdate

EVENT_TAG: Final = bytes.fromhex("e445a52e51cb9a1d")
"""First bytes of instruction data when a program calls itself to record an event (Anchor's `emit_cpi!`)."""

EVENT_CALL: Final = "emit_cpi"
"""Name of an instruction whose data begin with EVENT_TAG."""

_EVENT_ACCOUNTS: Final = ("event_authority",)
_BASE58_MAX: Final = 1024


def instructions_of(update: TransactionUpdate, programs: Programs) -> list[NamedInstruction]:
    """Return every instruction of a transaction in execution order, with the known names. Never raises.

    Accounts have the IDL's names (`outer.inner` in groups). For an absent optional account the key is the program's own
    id, as on chain. The call by which a program records an event is `emit_cpi`; the event itself is among `events_of`.
    Instructions that a node has parsed keep the node's names.
    """
    return [_named(instruction, programs) for instruction in update.instructions]


def _named(instruction: Instruction, programs: Programs) -> NamedInstruction:
    program_id, data, keys = instruction.program_id, instruction.data, instruction.accounts
    program = programs.by_id.get(program_id)
    name: str | None = None
    names: Sequence[str] = ()
    if data is None:
        name, _ = _parsed(instruction)
    elif program is None:
        known = native.command_name(program_id, data)
        if known is not None:
            name, names = known
    elif data.startswith(EVENT_TAG):
        name, names = EVENT_CALL, _EVENT_ACCOUNTS
    else:
        found = program.instruction_names(data)
        if found is not None:
            name, names = found.name, found.of_accounts(len(keys))
    shown = program.name if program is not None else native.program_name(program_id) or program_id
    return NamedInstruction(shown, program_id, name, instruction.path, names, keys)


def arguments_of(instruction: Instruction, programs: Programs) -> dict[str, Any]:
    """Return the arguments of an instruction as wire JSON; for an unknown one `{"data": …}` or `{"base64": …}`.

    An `emit_cpi` has no arguments.
    """
    data, program = instruction.data, programs.by_id.get(instruction.program_id)
    if data is None:
        return _parsed(instruction)[1]
    if program is None:
        known = native.command(instruction.program_id, data)
        return _undecoded(data) if known is None or known.args is None else known.args
    if data.startswith(EVENT_TAG):
        return {}
    part = program.instruction(data)
    if part is None:
        return _undecoded(data)
    args: dict[str, Any] = msgspec.json.decode(part.layout.encode_json(part.data))
    return args


def _undecoded(data: bytes) -> dict[str, Any]:
    """Return data as base58, as nodes and explorers show it. Long data becomes base64: base58 takes quadratic time."""
    if len(data) > _BASE58_MAX:
        return {"base64": pybase64.b64encode_as_string(data)}
    return {"data": b58encode(data)}


def _parsed(instruction: Instruction) -> tuple[str | None, dict[str, Any]]:
    parsed = instruction.parsed or {}
    kind, info = parsed.get("type"), parsed.get("info")
    return kind if isinstance(kind, str) else None, info if isinstance(info, dict) else {"info": info}
