"""The result of `headrace decode`: a transaction or account with every known name."""

from typing import Any, Final, TypeAlias

import msgspec
import pybase64

from headrace.decoders.events import events_of
from headrace.decoders.instructions import arguments_of, instructions_of
from headrace.decoders.native import program_name
from headrace.decoders.registry import Programs
from headrace.inspect.recognise import OUTCOME_UNKNOWN, Found, recognise
from headrace.model.errors import BadInputError
from headrace.model.events import DecodedEvent, NamedInstruction
from headrace.model.keys import b58encode, is_key
from headrace.model.updates import UNNAMED, AccountUpdate, Instruction, LogsUpdate, TransactionUpdate

Result: TypeAlias = dict[str, Any]

UNSIGNED: Final = ("", b58encode(bytes(64)))
"""Signatures of transactions that nobody signed: a simulation has only zeros, or no signature."""


def inspect(text: str | bytes, programs: Programs, *, owner: str | None = None) -> Result | list[Result]:
    """Decode the contents of `text`; return a list if there are several.

    A transaction is `{"signature", "slot", "version", "err", "events": [{"program", "name", "via", "truncated",
    "leftover", "data"}], "instructions": [{"program", "name", "path", "accounts", "args"}]}`. An account is
    `{"program", "name", "leftover", "data"}`, in a list also with its `pubkey`. Bytes without a layout are `{"raw":
    <base64>}`. Values that the text lacks are null (`events` if the node lacks the outcome). Integers wider than 32
    bits are text. A failed transaction shows the events that it would have emitted. `owner`, an id or a name, is the
    program that owns bare account data.

    Raises BadInputError, which says what was found and what is accepted (see `recognise`).
    """
    found = recognise(text, owner=owner_id(owner, programs))
    results = [_shown(each, programs) for each in found]
    if len(found) == 1:
        return results[0]
    return [
        {"pubkey": each.pubkey or None, **result} if isinstance(each, AccountUpdate) else result
        for each, result in zip(found, results, strict=True)
    ]


def owner_id(owner: str | None, programs: Programs) -> str | None:
    """Return the id of the program that `owner` names; an id is returned as given.

    Raises BadInputError `unknown_owner`.
    """
    if owner is not None and owner in programs.by_name:
        return programs.by_name[owner].program_id
    if owner is not None and not is_key(owner):
        known = ", ".join(sorted(programs.by_name))
        raise BadInputError("unknown_owner", f"{owner!r} is no program id and no program on board ({known})")
    return owner


def _shown(found: Found, programs: Programs) -> Result:
    if isinstance(found, AccountUpdate):
        return _account(found, programs)
    instructions: list[Result] = []
    if isinstance(found, TransactionUpdate):
        named = zip(instructions_of(found, programs), found.instructions, strict=True)
        instructions = [_instruction(*each, programs) for each in named if each[0].program_id != UNNAMED]
    untold = found.feed == OUTCOME_UNKNOWN["feed"]
    events = None if untold else [_event(each, programs) for each in events_of(found, programs, failed=True)]
    return {
        "signature": None if found.signature in UNSIGNED else found.signature,
        "slot": found.slot or None,
        "version": _version(found),
        "err": found.err,
        "events": events,
        "instructions": instructions,
    }


def _version(found: TransactionUpdate | LogsUpdate) -> str | int | None:
    """Return the version. None for log lines and for a simulation without its transaction, which have no version."""
    if isinstance(found, LogsUpdate) or (not found.account_keys and found.version == "legacy"):
        return None
    return found.version


def _event(event: DecodedEvent, programs: Programs) -> Result:
    layout = programs.by_id[event.program_id].events[event.name]
    return {
        "program": event.program,
        "name": event.name,
        "via": event.via,
        "truncated": event.truncated,
        "leftover": event.leftover,
        "data": msgspec.json.decode(layout.encode_json(event.data)),
    }


def _instruction(named: NamedInstruction, instruction: Instruction, programs: Programs) -> Result:
    return {
        "program": named.program,
        "name": named.name,
        "path": list(named.path),
        "accounts": named.accounts,
        "args": arguments_of(instruction, programs),
    }


def _account(found: AccountUpdate, programs: Programs) -> Result:
    decoded = programs.account(found.owner, found.data)
    if decoded is None:
        on_board = programs.by_id.get(found.owner)
        return {
            "program": on_board.name if on_board else program_name(found.owner) or found.owner,
            "name": None,
            "leftover": len(found.data),
            "data": {"raw": pybase64.b64encode_as_string(found.data)},
        }
    layout = programs.by_id[found.owner].accounts[decoded.name]
    return {
        "program": decoded.program,
        "name": decoded.name,
        "leftover": decoded.leftover,
        "data": msgspec.json.decode(layout.encode_json(decoded.data)),
    }
