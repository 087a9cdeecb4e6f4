"""Recognises the format of a text from a node, a file or a person, and reads the text as updates."""

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.keys import b58decode, is_key
from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate
from headrace.solana.encodings import bytes_of, from_base58, from_base64
from headrace.solana.notifications import ACCOUNT_MAX, AccountShape, update_from_notification
from headrace.solana.rpc_json import StatusShape, check_keys, shaped
from headrace.solana.transactions import (
    Stamp,
    put_together,
    transaction_from_rpc,
    transaction_from_simulation,
    wire_parts,
)
from headrace.solana.web3_json import rpc_form
from headrace.solana.wire import SIZE_MAX, parse_wire
from headrace.solana.yellowstone_json import account_from_yellowstone_json, transaction_from_yellowstone_json

Found: TypeAlias = TransactionUpdate | LogsUpdate | AccountUpdate

TEXT_MAX: Final = 64 * 1024 * 1024
DEPTH_MAX: Final = 8
_NO_JSON: Final = object()
ACCEPTED: Final = (
    "a getTransaction, getBlock, simulateTransaction or getAccountInfo response, a notification, a Yellowstone "
    "update, a transaction as web3.js writes it or in base64 or base58, or base64 account data with its owner"
)

_STAMP: Final[dict[str, Any]] = {"source": "decode", "feed": "decode", "received_ns": 0}
OUTCOME_UNKNOWN: Final[dict[str, Any]] = {**_STAMP, "feed": "decode, without outcome"}
"""Fields that mark an executed transaction whose outcome is unknown (`meta` is null)."""


def chain_name(text: str) -> Literal["signature", "pubkey"] | None:
    """Return whether `text` is a signature or a public key, which a node can look up; None if it is neither."""
    text = text.strip()
    if is_key(text):
        return "pubkey"
    try:
        return "signature" if 64 <= len(text) <= 88 and len(b58decode(text)) == 64 else None
    except ValueError:
        return None


def pieces(text: bytes) -> list[tuple[str, bytes]]:
    """Return (place, text) of each part that can be read alone: JSON lines, or the items of an array or a response.

    Any other text is one part without a place.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and _json(lines[0]) is not _NO_JSON:  # JSON lines: the first line is a complete value
        return [(f"line {number}", line) for number, line in enumerate(lines, 1)]
    items = _items(_json(text)) if len(text) <= TEXT_MAX else []
    if len(items) > 1:
        return [(f"item {number}", msgspec.json.encode(each)) for number, each in enumerate(items, 1)]
    return [("", text)]


def _items(value: Any) -> list[Any]:
    """Return the answers of a batch, or the accounts of a response with several accounts."""
    if isinstance(value, list):
        return value if any(each is None or (isinstance(each, dict) and "pubkey" not in each) for each in value) else []
    result = value.get("result") if isinstance(value, dict) else None
    accounts = result.get("value") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(accounts, list) or None not in accounts:
        return []
    return [{"result": {**result, "value": each}} for each in accounts]


def recognise(text: str | bytes, *, owner: str | None = None) -> list[Found]:
    """Return everything that `text` contains: one transaction or account, or several in a list or in JSON lines.

    `owner` is the id of the program that owns bare account data. Fields that the text lacks are empty or 0: a slot, the
    pubkey of an account, the `account_keys` of a simulation without its transaction. Raises BadInputError, which says
    what was found and what is accepted.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise BadInputError("not_text", f"{error}; accepted is {ACCEPTED}") from None
    text = text.strip()
    if len(text) > TEXT_MAX:
        raise BadInputError("too_large", f"{len(text)} characters, at most {TEXT_MAX}")
    if not text:
        raise _unknown("empty")
    if not text.startswith(("{", "[", '"')):
        return [_bare(text, owner)]
    return [found for value in _values(text) for found in _read(value, owner, 0)]


def _values(text: str) -> list[Any]:
    """Return the JSON values of the text: one, or one for each line."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return [msgspec.json.decode(text)]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        whole = error
    try:
        return [msgspec.json.decode(line) for line in lines]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise BadInputError("bad_json", f"{whole}; accepted is {ACCEPTED}") from None


def _json(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _NO_JSON


def _read(value: Any, owner: str | None, depth: int) -> Iterator[Found]:
    """Unwrap nested objects until their fields show the format."""
    if depth > DEPTH_MAX:
        raise _unknown("envelopes in envelopes")
    if isinstance(value, str):
        yield _bare(value, owner)
    elif isinstance(value, list):
        if owner is not None and len(value) == 2 and isinstance(value[1], str):
            yield _account("", owner, bytes_of(value, size_max=ACCOUNT_MAX))
        else:
            for each in value:
                yield from _read(each, owner, depth + 1)
    elif isinstance(value, dict):
        yield from _read_object(value, owner, depth)
    elif value is None:
        raise BadInputError("not_found", "null: the node does not know this transaction or account")
    else:
        raise _unknown(f"a JSON {type(value).__name__}")


def _read_object(value: dict[str, Any], owner: str | None, depth: int) -> Iterator[Found]:
    inside = value.get("value")
    if value.get("error") is not None:
        raise BadInputError("rpc_error", msgspec.json.encode(value["error"]).decode()[:300])
    if value.get("method") == "blockNotification":
        yield from _read(value.get("params"), owner, depth + 1)
    elif isinstance(value.get("method"), str):
        yield update_from_notification(value, **_STAMP, commitment="processed", pubkey="")
    elif "wire" in value and "response" in value:
        yield _simulation(value["response"], value["wire"])
    elif "result" in value:
        yield from _read(value["result"], owner, depth + 1)
    elif "context" in value and _is_simulation(inside):
        yield _simulation(value, None)
    elif _is_simulation(value):
        yield _simulation({"value": value}, None)
    elif "context" in value and "value" in value:
        yield from _read(inside, owner, depth + 1)
    elif isinstance(value.get("transactions"), list) and "blockhash" in value:
        yield from _block(value, None)
    elif isinstance(value.get("block"), dict):
        yield from _block(value["block"], value.get("slot"))
    elif "transaction" in value and "meta" in value:
        yield _transaction(value)
    elif "signatures" in value and "message" in value:
        yield _transaction({"transaction": value}, executed=False)
    elif isinstance(value.get("transaction"), dict):
        yield transaction_from_yellowstone_json(value, **_STAMP)
    elif "logs" in value and "signature" in value:
        frame = {"method": "logsNotification", "params": {"result": {"context": {"slot": 0}, "value": value}}}
        yield update_from_notification(frame, **_STAMP)
    elif isinstance(value.get("accounts"), list):
        yield from _read(value["accounts"], owner, depth + 1)
    elif "account" in value and "pubkey" not in value:
        yield account_from_yellowstone_json(value, **_STAMP)
    elif "account" in value:
        yield _rpc_account(value["account"], value["pubkey"])
    elif "data" in value and "owner" in value:
        yield _rpc_account(value)
    else:
        raise _unknown(f"a JSON object of {', '.join(list(value)[:8]) or 'nothing'}")


def _transaction(value: Any, slot: int | None = None, *, executed: bool = True) -> TransactionUpdate:
    """Return a transaction from the JSON of nodes or web3.js.

    An `executed` transaction without its outcome is marked.
    """
    if not isinstance(value, dict) or value.get("meta") is not None:
        return transaction_from_rpc(rpc_form(value) if isinstance(value, dict) else value, **_STAMP, slot=slot)
    stamp = OUTCOME_UNKNOWN if executed else _STAMP
    return transaction_from_rpc({"meta": None, **rpc_form(value)}, **stamp, slot=slot, unexecuted=True)


def _block(block: dict[str, Any], slot: Any) -> Iterator[Found]:
    """Yield all transactions of a block. A block does not contain its own slot; a notification does."""
    for each in block.get("transactions") or ():
        yield _transaction(each, slot if isinstance(slot, int) and slot >= 0 else None)


def _is_simulation(value: Any) -> bool:
    """Return whether the value is a simulation: it has no signature.

    Which other fields are missing depends on the node.
    """
    outcome = {"logs", "innerInstructions", "unitsConsumed"}
    return isinstance(value, dict) and "err" in value and "signature" not in value and not outcome.isdisjoint(value)


def _simulation(response: Any, wire: Any) -> TransactionUpdate:
    """Return a simulation. Without the transaction's base64, only its inner instructions are known."""
    if isinstance(response, dict) and response.get("error") is not None:
        raise BadInputError("rpc_error", msgspec.json.encode(response["error"]).decode()[:300])
    result = response.get("result", response) if isinstance(response, dict) else None
    if not isinstance(result, dict) or not (wire is None or isinstance(wire, str)):
        raise _unknown("a simulation without a result")
    context = result.get("context")
    slot = context.get("slot") if isinstance(context, dict) else None
    raw = None if wire is None else from_base64(wire, size_max=SIZE_MAX)
    return transaction_from_simulation(
        result.get("value"), raw, **_STAMP, slot=slot if isinstance(slot, int) and slot > 0 else 0
    )


def _rpc_account(value: Any, pubkey: Any = "") -> AccountUpdate:
    if isinstance(value, dict) and isinstance(value.get("data"), dict):
        raise BadInputError("parsed_account", 'the node parsed this account: ask for it with "encoding": "base64"')
    account = shaped(value, AccountShape)
    if not isinstance(pubkey, str) or (pubkey and not is_key(pubkey)):
        raise BadInputError("bad_shape", "pubkey is no public key")
    check_keys((account.owner,))
    return _account(pubkey, account.owner, bytes_of(account.data, size_max=ACCOUNT_MAX), account.lamports)


def _account(pubkey: str, owner: str, data: bytes, lamports: int = 0) -> AccountUpdate:
    return AccountUpdate(**_STAMP, slot=0, pubkey=pubkey, owner=owner, lamports=lamports, data=data)


def _bare(text: str, owner: str | None) -> Found:
    """Read text that is not JSON: account data if `owner` is given, otherwise a transaction in its wire format."""
    if owner is not None:
        return _account("", owner, from_base64(text, size_max=ACCOUNT_MAX))
    try:
        raw = from_base64(text, size_max=SIZE_MAX)
        return _unexecuted(raw)
    except BadInputError as error:
        first = error
    try:
        return _unexecuted(from_base58(text, size_max=SIZE_MAX))
    except BadInputError:
        raise BadInputError(first.reason, f"{first.detail}; accepted is {ACCEPTED}") from None


def _unexecuted(raw: bytes) -> TransactionUpdate:
    """Return a signed transaction, without any outcome."""
    nothing = StatusShape(err=None)
    return put_together(wire_parts(parse_wire(raw), nothing), nothing, Stamp(**_STAMP))


def _unknown(seen: str) -> BadInputError:
    return BadInputError("unrecognised", f"this is {seen}; accepted is {ACCEPTED}")
