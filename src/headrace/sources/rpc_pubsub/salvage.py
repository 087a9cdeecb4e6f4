"""Reads messages that the strict reader refused, and names the subscriptions of those that can't be read. Pure.

It reads notifications in undocumented forms: a subscription id as text, numbers as text, several notifications in one
array, or without members that are not needed. If a notification can't be read, its subscription and slot are searched
for, so that the loss can be declared: no notification is dropped silently.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.keys import is_key
from headrace.model.updates import AccountUpdate, LogsUpdate
from headrace.solana.encodings import bytes_of, is_signature
from headrace.solana.notifications import ACCOUNT_MAX
from headrace.sources.connection import LandedNotice, SignatureNotice, SlotNotice, Unreadable
from headrace.sources.rpc_pubsub.frames import Ack, Heard, Refusal, Stamp, Unknown
from headrace.sources.rpc_pubsub.registry import ServerId, server_id_of
from headrace.sources.rpc_pubsub.shapes import KINDS
from headrace.sources.subscriptions import ChainSubscription, Kind

_CONTAINERS_MAX: Final = 65_536
_VALUES_MAX: Final = 262_144
_ARRAYS_MAX: Final = 4
"""Maximum depth of nested arrays that are read. JSON-RPC has one level."""
_SLOT_MAX: Final = 2**63 - 1
_METHOD: Final = re.compile(rb'"method"\s*:\s*"([A-Za-z]{4,32})"')
_ID: Final = re.compile(rb'"subscription"\s*:\s*"?([0-9]{1,20})["\s,}]')
_SLOT: Final = re.compile(rb'"slot"\s*:\s*"?([0-9]{1,19})["\s,}]')
_BASE58: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]+")


def salvage(
    message: bytes, active: Mapping[ServerId, ChainSubscription], stamp: Stamp, received_ns: int, reason: str
) -> list[Heard]:
    """Return the contents of a message refused with `reason`. Empty if the message concerns no subscription."""
    if _has_too_much(message):
        return _by_pattern(message, active, reason)
    try:
        value = msgspec.json.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        return _by_pattern(message, active, reason)
    return [
        heard
        for each in _members(value)
        if isinstance(each, dict)
        for heard in _read_object(each, active, stamp, received_ns, reason)
    ]


def _has_too_much(message: bytes) -> bool:
    """Return whether decoding the message would block the loop for long, or take many times its bytes in memory."""
    return message.count(b",") > _VALUES_MAX or message.count(b"[") + message.count(b"{") > _CONTAINERS_MAX


def _members(value: Any) -> Iterator[Any]:
    """Yield the messages in an array, and in arrays within it. A value that is not an array is yielded itself."""
    level = [value]
    for _ in range(_ARRAYS_MAX):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, list):
                inner += each
            else:
                yield each
        level = inner
    yield from level


def _by_pattern(message: bytes, active: Mapping[ServerId, ChainSubscription], reason: str) -> list[Heard]:
    """Find the subscription of a message that is not JSON (cut off, too deep, bad UTF-8).

    A quote inside a log line is escaped, so text in a log line can't match as a member.
    """
    if message.lstrip()[:1] not in (b"{", b"["):
        return []
    slot = _SLOT.search(message)
    number, method = _ID.search(message), _METHOD.search(message)
    known = active.get(int(number[1])) if number else None
    if known is not None:
        subscriptions: tuple[ChainSubscription, ...] = (known,)
    elif method is not None:
        subscriptions = _of_kind(active, KINDS.get(method[1].decode(), ()))
    else:
        subscriptions = tuple(active.values())
    return _lost(subscriptions, reason, None if slot is None else _integer(slot[1].decode()))


def _read_object(
    frame: dict[str, Any], active: Mapping[ServerId, ChainSubscription], stamp: Stamp, received_ns: int, reason: str
) -> list[Heard]:
    params = frame.get("params")
    kinds = KINDS.get(frame["method"], ()) if isinstance(frame.get("method"), str) else ()
    if not isinstance(params, dict):
        return _lost(_of_kind(active, kinds), reason) if kinds else _answer(frame)
    result = params.get("result")
    server_id = server_id_of(params.get("subscription"))
    subscription = active.get(server_id) if server_id is not None else None
    if subscription is None:
        if server_id is not None:
            return [Unknown(server_id, kinds, _slot_of(result))]
        return _lost(_of_kind(active, kinds), reason, _slot_of(result))
    try:
        return list(_read(subscription, result, stamp, received_ns))
    except BadInputError as error:
        others = _of_kind(active, kinds) if subscription.kind not in kinds else ()
        return _lost((subscription, *others), error.reason, _slot_of(result), _pubkey_of(result))


def _read(subscription: ChainSubscription, result: Any, stamp: Stamp, received_ns: int) -> Iterator[Heard]:
    """Read a notification by the kind of its subscription. Raises BadInputError for the first fault."""
    if subscription.kind == "signature":
        yield SignatureNotice(_slot_of(result) or 0, subscription)
        return
    if subscription.kind == "slots":
        slot, parent, root = (_integer(_member(result, name)) for name in ("slot", "parent", "root"))
        if slot is None:
            raise BadInputError("no_slot")
        if parent is None or parent > slot:
            parent = None
            yield Unreadable((subscription,), "no_parent", slot)
        yield SlotNotice(slot, parent, root if root is not None and root <= slot else 0)
        return
    slot = _slot_of(result)
    if slot is None:
        raise BadInputError("no_slot")
    value = _member(result, "value")
    if subscription.kind == "transactions":
        yield LandedNotice(slot, subscription, _signature(result if value is None else value))
    elif subscription.kind == "logs":
        yield _logs(subscription, slot, value, stamp, received_ns)
    elif subscription.kind == "program":
        yield _account(subscription, slot, _pubkey_of(result), _member(value, "account"), stamp, received_ns)
    else:
        yield _account(subscription, slot, subscription.key, value, stamp, received_ns)


def _signature(value: Any) -> str:
    signature = _member(value, "signature")
    if not (isinstance(signature, str) and _BASE58.fullmatch(signature) and is_signature(signature)):
        raise BadInputError("bad_signature")
    return signature


def _logs(subscription: ChainSubscription, slot: int, value: Any, stamp: Stamp, received_ns: int) -> LogsUpdate:
    signature, logs = _signature(value), _member(value, "logs")
    if not isinstance(value, dict) or not ("err" in value and isinstance(value["err"], str | dict | None)):
        raise BadInputError("no_err")
    if not (isinstance(logs, list) and all(isinstance(line, str) for line in logs)):
        raise BadInputError("no_logs")
    return LogsUpdate(
        source=stamp.source,
        feed=subscription.feed,
        received_ns=received_ns,
        slot=slot,
        signature=signature,
        err=value["err"],
        logs=tuple(logs),
        commitment=stamp.commitment,
        unproven=stamp.commitment == "processed",
    )


def _account(
    subscription: ChainSubscription, slot: int, pubkey: str | None, account: Any, stamp: Stamp, received_ns: int
) -> AccountUpdate:
    owner, lamports = _member(account, "owner"), _integer(_member(account, "lamports"), 2**64 - 1)
    data = _member(account, "data")
    if pubkey is None or not (isinstance(owner, str) and is_key(owner)):
        raise BadInputError("bad_key")
    if lamports is None:
        raise BadInputError("no_lamports")
    if isinstance(data, dict):
        raise BadInputError("json_parsed", "the node's own reading of the data, not the data")
    if isinstance(data, str):
        raise BadInputError("bad_encoding", "text without an encoding, which may as well be an error's")
    content, space = bytes_of(data, size_max=ACCOUNT_MAX), _integer(_member(account, "space"))
    if space is not None and space != len(content):
        raise BadInputError("wrong_size", f"{len(content)} bytes of {space}")
    return AccountUpdate(
        source=stamp.source,
        feed=subscription.feed,
        received_ns=received_ns,
        slot=slot,
        pubkey=pubkey,
        owner=owner,
        lamports=lamports,
        data=content,
        executable=_member(account, "executable") is True,
        commitment=stamp.commitment,
    )


def _answer(frame: dict[str, Any]) -> list[Heard]:
    """Read an answer whose id, or whose subscription id, is text."""
    request_id, error = _integer(frame.get("id")), frame.get("error")
    if request_id is None:
        return []
    if isinstance(error, dict):
        code = error.get("code")
        return [Refusal(request_id, code if isinstance(code, int) else 0, str(error.get("message", ""))[:200])]
    return [Ack(request_id, server_id_of(frame.get("result")))]


def _lost(
    subscriptions: Iterable[ChainSubscription], reason: str, slot: int | None = None, pubkey: str | None = None
) -> list[Heard]:
    named = tuple(dict.fromkeys(subscriptions))
    return [Unreadable(named, reason, slot, pubkey)] if named else []


def _of_kind(active: Mapping[ServerId, ChainSubscription], kinds: Container[Kind]) -> tuple[ChainSubscription, ...]:
    return tuple(subscription for subscription in active.values() if subscription.kind in kinds)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _integer(value: Any, largest: int = _SLOT_MAX) -> int | None:
    """Return a non-negative integer that may be written as text, or with a fraction of zero."""
    is_text = isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) <= 20
    if is_text or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest else None


def _slot_of(result: Any) -> int | None:
    slot = _integer(_member(_member(result, "context"), "slot"))
    return _integer(_member(result, "slot")) if slot is None else slot


def _pubkey_of(result: Any) -> str | None:
    pubkey = _member(_member(result, "value"), "pubkey")
    return pubkey if isinstance(pubkey, str) and is_key(pubkey) else None
