"""Reads PubSub messages: from bytes to updates, typed, bounded, in one pass. Pure."""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.keys import is_key
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, TransactionUpdate
from headrace.solana.encodings import bytes_of, from_base64, is_signature
from headrace.solana.notifications import ACCOUNT_MAX
from headrace.solana.rpc_json import not_stored
from headrace.solana.transactions import transaction_from_rpc
from headrace.sources.connection import Arrival, LandedNotice, SignatureNotice, SlotNotice
from headrace.sources.rpc_pubsub.registry import ServerId
from headrace.sources.rpc_pubsub.shapes import (
    SHAPES,
    AccountFrame,
    AccountValue,
    AnswerFrame,
    Frame,
    LogsFrame,
    ProgramFrame,
    SignatureFrame,
    SlotFrame,
    SlotInfo,
    TransactionFrame,
    TransactionResult,
)
from headrace.sources.subscriptions import ChainSubscription, Kind

_PEEK: Final = 72
"""Number of bytes within which every known node names the method of a notification."""
_KEYS_MAX: Final = 65_536
BYTES_MAX: Final = 1024 * 1024
"""Maximum number of bytes of a message that does not contain an account.

A node cuts logs at 10,000 bytes, unless its owner raised that limit.
Reading the strings of a longer message, or the values of a made-up error, would block the loop for seconds.
"""
_CONTAINERS_MAX: Final = 4_096
"""Maximum number of arrays and objects in such a message.

An error of the chain has four, and logs contain few brackets.
"""


class Ack(NamedTuple):
    """A subscription was accepted under `subscription_id`, or an unsubscription answered (`subscription_id` None)."""

    request_id: int
    subscription_id: ServerId | None


class Refusal(NamedTuple):
    """A request was answered with an error."""

    request_id: int
    code: int
    message: str


class Unknown(NamedTuple):
    """A notification of a subscription that this connection does not have, or no longer has.

    `kinds` are the kinds of subscription to which it may belong. `slot` is the slot that it names.
    """

    subscription_id: ServerId
    kinds: tuple[Kind, ...] = ()
    slot: int | None = None


Heard: TypeAlias = Arrival | Ack | Refusal | Unknown


_DECODERS: Final[tuple[tuple[bytes, msgspec.json.Decoder[Frame]], ...]] = (
    (b"logsNotification", msgspec.json.Decoder(LogsFrame)),
    (b"programNotification", msgspec.json.Decoder(ProgramFrame)),
    (b"accountNotification", msgspec.json.Decoder(AccountFrame)),
    (b"slotNotification", msgspec.json.Decoder(SlotFrame)),
    (b"signatureNotification", msgspec.json.Decoder(SignatureFrame)),
    (b"transactionNotification", msgspec.json.Decoder(TransactionFrame)),
)
_ANSWER: Final = msgspec.json.Decoder(AnswerFrame)
_OF_ACCOUNTS: Final = frozenset({b"programNotification", b"accountNotification"})
_TRANSACTION_TIMES: Final = 4
"""A whole transaction may have four times as many bytes as its logs."""
_known_keys: set[str] = set()


class Stamp(NamedTuple):
    """Fields that every update of one connection carries."""

    source: str
    commitment: Commitment


def read(
    message: bytes,
    active: Mapping[ServerId, ChainSubscription] | Mapping[int, ChainSubscription],
    stamp: Stamp,
    received_ns: int,
) -> Heard:
    """Read one WebSocket message. `active` maps the node's subscription ids to subscriptions.

    Raises BadInputError: `not_json`, `too_deep`, `wrong_type`, `not_pubsub`, `other_kind` (a notification under the id
    of a subscription of another kind), `bad_key`, `bad_signature`, `bad_slot` (older than its own parent or root),
    `bad_lamports`, `wrong_size` (of account data), and the reasons of `bytes_of`. For a message of no account that is
    larger than any that nodes send: `too_large` or `too_complex`. `salvage` reads messages that are refused here.
    """
    try:
        frame = _decode(message)
    except msgspec.ValidationError as error:
        raise BadInputError("wrong_type", str(error)[:200]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInputError("not_json", str(error)[:200]) from None
    except RecursionError:
        raise BadInputError("too_deep") from None
    if isinstance(frame, AnswerFrame):
        return _answer(frame)
    subscription_id = frame.params.subscription
    subscription = active.get(subscription_id)
    if subscription is None:
        return _unknown(frame)
    return _notification(frame, subscription, stamp, received_ns)


def _decode(message: bytes) -> Frame | AnswerFrame:
    head = message[:_PEEK]
    for name, decoder in _DECODERS:
        if name in head:
            _check_size(message, name)
            return decoder.decode(message)
    answer = _ANSWER.decode(message)
    if answer.method:
        late = answer.method.encode()
        for name, decoder in _DECODERS:
            if name == late:
                _check_size(message, name)
                return decoder.decode(message)
    return answer


def _check_size(message: bytes, name: bytes) -> None:
    """Raise BadInputError before a message that is too large is decoded."""
    if len(message) <= 2 * _CONTAINERS_MAX or name in _OF_ACCOUNTS:
        return  # an array or object takes two bytes at least
    times = _TRANSACTION_TIMES if name == b"transactionNotification" else 1
    if len(message) > times * BYTES_MAX:
        raise BadInputError(
            "too_large", f"{len(message)} bytes of {name.decode()}, expected at most {times * BYTES_MAX}"
        )
    if message.count(b"[") + message.count(b"{") > times * _CONTAINERS_MAX:
        raise BadInputError("too_complex", f"more than {times * _CONTAINERS_MAX} arrays and objects")


def _unknown(frame: Frame) -> Unknown:
    result = frame.params.result
    slot = result.slot if isinstance(result, SlotInfo | TransactionResult) else result.context.slot
    kinds = next(kinds for shape, kinds in SHAPES.items() if isinstance(frame, shape))
    return Unknown(frame.params.subscription, kinds, slot)


def _notification(frame: Frame, subscription: ChainSubscription, stamp: Stamp, received_ns: int) -> Heard:
    if isinstance(frame, LogsFrame):
        value = frame.params.result.value
        if not is_signature(value.signature):
            raise BadInputError("bad_signature", value.signature)
        if subscription.kind == "transactions":
            return LandedNotice(frame.params.result.context.slot, subscription, value.signature)
        _expect(subscription, "logs")
        return LogsUpdate(
            source=stamp.source,
            feed=subscription.feed,
            received_ns=received_ns,
            slot=frame.params.result.context.slot,
            signature=value.signature,
            err=value.err,
            logs=value.logs,
            commitment=stamp.commitment,
            unproven=stamp.commitment == "processed",
        )
    if isinstance(frame, ProgramFrame):
        _expect(subscription, "program")
        keyed, slot = frame.params.result.value, frame.params.result.context.slot
        return _account(keyed.pubkey, keyed.account, slot, subscription, stamp, received_ns)
    if isinstance(frame, AccountFrame):
        _expect(subscription, "account")
        slot = frame.params.result.context.slot
        return _account(subscription.key, frame.params.result.value, slot, subscription, stamp, received_ns)
    if isinstance(frame, SlotFrame):
        _expect(subscription, "slots")
        info = frame.params.result
        if max(info.parent, info.root) > info.slot:
            raise BadInputError("bad_slot", f"slot {info.slot} on {info.parent}, root {info.root}")
        return SlotNotice(info.slot, info.parent, info.root)
    if isinstance(frame, TransactionFrame):
        _expect(subscription, "transactions")
        return _transaction(frame.params.result, subscription, stamp, received_ns)
    _expect(subscription, "signature")
    return SignatureNotice(frame.params.result.context.slot, subscription)


def _transaction(
    whole: TransactionResult, subscription: ChainSubscription, stamp: Stamp, received_ns: int
) -> TransactionUpdate | LandedNotice:
    """Return the transaction, or a notice to fetch it if the message can't be read or has another signature."""
    landed = LandedNotice(whole.slot, subscription, whole.signature)
    if not isinstance(whole.transaction, dict) or not_stored(whole.transaction):
        return landed
    index = whole.transaction_index
    try:
        update = transaction_from_rpc(
            {"version": None, **whole.transaction},
            source=stamp.source,
            feed=subscription.feed,
            received_ns=received_ns,
            commitment=stamp.commitment,
            slot=whole.slot,
            index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        )
    except BadInputError:
        return landed
    if update.signature != whole.signature:
        return landed
    return msgspec.structs.replace(update, unproven=stamp.commitment == "processed")


def _account(
    pubkey: str, account: AccountValue, slot: int, subscription: ChainSubscription, stamp: Stamp, received_ns: int
) -> AccountUpdate:
    text, encoding = account.data
    if encoding == "base64":
        data = from_base64(text, size_max=ACCOUNT_MAX)
    else:
        data = bytes_of(account.data, size_max=ACCOUNT_MAX)
    if account.space is not None and account.space != len(data):
        raise BadInputError("wrong_size", f"{len(data)} bytes of {account.space}")
    if account.lamports >= 2**64:
        raise BadInputError("bad_lamports", str(account.lamports)[:40])
    return AccountUpdate(
        source=stamp.source,
        feed=subscription.feed,
        received_ns=received_ns,
        slot=slot,
        pubkey=pubkey if pubkey in _known_keys else _key(pubkey),
        owner=account.owner if account.owner in _known_keys else _key(account.owner),
        lamports=account.lamports,
        data=data,
        executable=account.executable,
        commitment=stamp.commitment,
    )


def _answer(frame: AnswerFrame) -> Heard:
    if frame.error is not None and frame.id is not None:
        return Refusal(frame.id, frame.error.code, frame.error.message[:200])
    if frame.id is None or frame.method:
        raise BadInputError("not_pubsub")
    number = frame.result
    return Ack(frame.id, number if isinstance(number, int) and not isinstance(number, bool) else None)


def _expect(subscription: ChainSubscription, kind: Kind) -> None:
    if subscription.kind != kind:
        raise BadInputError("other_kind", f"{kind} under the id of {subscription.feed}")


def _key(text: str) -> str:
    """Return `text` if it is a public key. Keys repeat, so valid ones are remembered, up to a bound."""
    if not is_key(text):
        raise BadInputError("bad_key", text[:48])
    if len(_known_keys) >= _KEYS_MAX:
        _known_keys.clear()
    _known_keys.add(text)
    return text
