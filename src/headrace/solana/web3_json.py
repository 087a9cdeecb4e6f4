"""Converts the JSON of web3.js's transaction objects into the form of a node's answer.

A `VersionedMessage` has other field names than a node's answer. Bytes are Buffers, `Uint8Array`s or, in old releases,
the inner number of a `PublicKey`.
"""

from collections.abc import Mapping
from typing import Any, Final

from headrace.model.keys import b58encode

_BYTES_MAX: Final = 10_240
_KEY_HEX_MAX: Final = 64


def rpc_form(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` (`{"transaction", "meta", …}`) in a node's form. A value in that form is returned unchanged."""
    transaction, meta = value.get("transaction"), value.get("meta")
    changed = dict(value)
    if isinstance(transaction, dict):
        changed["transaction"] = transaction_form(transaction)
    if isinstance(meta, dict):
        changed["meta"] = _meta(meta)
    return changed


def transaction_form(transaction: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"signatures", "message"}` in a node's form."""
    message = transaction.get("message")
    changed = dict(transaction)
    if isinstance(message, dict):
        changed["message"] = _message(message)
    changed["signatures"] = _texts(transaction.get("signatures"))
    return changed


def _message(message: dict[str, Any]) -> dict[str, Any]:
    changed = dict(message)
    if "staticAccountKeys" in message:
        changed["accountKeys"] = message["staticAccountKeys"]
    changed["accountKeys"] = _texts(changed.get("accountKeys"))
    if "compiledInstructions" in message:
        compiled = message["compiledInstructions"]
        changed["instructions"] = [
            {**each, "accounts": _numbers(each.get("accountKeyIndexes"))} if isinstance(each, dict) else each
            for each in (compiled if isinstance(compiled, list) else [])
        ]
    changed["instructions"] = _instructions(changed.get("instructions"))
    return changed


def _meta(meta: dict[str, Any]) -> dict[str, Any]:
    changed = dict(meta)
    loaded, inner = meta.get("loadedAddresses"), meta.get("innerInstructions")
    if isinstance(loaded, dict):
        changed["loadedAddresses"] = {name: _texts(keys) for name, keys in loaded.items()}
    if isinstance(inner, list):
        changed["innerInstructions"] = [
            {**group, "instructions": _instructions(group.get("instructions"))} if isinstance(group, dict) else group
            for group in inner
        ]
    return changed


def _instructions(given: Any) -> Any:
    if not isinstance(given, list):
        return given
    return [_instruction(each) if isinstance(each, dict) else each for each in given]


def _instruction(given: dict[str, Any]) -> dict[str, Any]:
    changed = dict(given)
    for name in ("data", "programId"):
        if name in given:
            changed[name] = _text(given[name])
    if isinstance(given.get("accounts"), list):
        changed["accounts"] = _texts(given["accounts"])
    return changed


def _texts(given: Any) -> Any:
    if not isinstance(given, list):
        return given
    keyed = [
        {**each, "pubkey": _text(each["pubkey"])} if isinstance(each, dict) and "pubkey" in each else each
        for each in given
    ]
    return [_text(each) for each in keyed]


def _text(given: Any) -> Any:
    """Return bytes as base58, and any other value unchanged."""
    raw = _bytes(given)
    return given if raw is None else b58encode(raw)


def _numbers(given: Any) -> Any:
    raw = _bytes(given)
    return given if raw is None else list(raw)


def _bytes(given: Any) -> bytes | None:
    """Return the bytes of a Buffer, a Uint8Array (`{"0": 200, …}`) or an old PublicKey (`{"_bn": hex}`), or None."""
    if not isinstance(given, dict):
        return None
    if given.get("type") == "Buffer" and isinstance(given.get("data"), list):
        numbers = given["data"]
    elif isinstance(number := given.get("_bn"), str) and 0 < len(number) <= _KEY_HEX_MAX:
        try:
            return bytes.fromhex(number.rjust(_KEY_HEX_MAX, "0"))
        except ValueError:
            return None
    elif list(given) == [str(index) for index in range(min(len(given), _BYTES_MAX + 1))]:
        numbers = list(given.values())
    else:
        return None
    fits = len(numbers) <= _BYTES_MAX and all(type(each) is int and 0 <= each < 256 for each in numbers)
    return bytes(numbers) if fits else None
