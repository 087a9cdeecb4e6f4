"""PubSub messages from bytes to updates: typed, bounded, one pass. Pure.

Shapes: agave `rpc-client-types` and the Solana WebSocket documentation; `{"jsonrpc","method","params":{"result":
{"context":{"slot"},"value"},"subscription"}}`, and for slots `result` is `{"slot","parent","root"}` alone.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.keys import is_key
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, TransactionUpdate, TxError
from headrace.solana.encodings import bytes_of
from headrace.solana.notifications import ACCOUNT_MAX
from headrace.solana.signatures import is_signature
from headrace.solana.stored import not_stored
from headrace.solana.transactions import transaction_from_rpc
from headrace.sources.subscriptions import Kind, ServerId, Subscription

_Slot = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Lamports = Annotated[int, msgspec.Meta(ge=0)]
_Signature = Annotated[str, msgspec.Meta(pattern=r"^[1-9A-HJ-NP-Za-km-z]{64,88}\Z")]
_PEEK: Final = 72
"""Bytes within which a notification of any known node names its method."""
_KEYS_MAX: Final = 65_536
BYTES_MAX: Final = 1024 * 1024
"""Of a message that is no account. Logs end at 10,000 bytes unless a node's owner raised that limit; the strings of a
longer message, or the values of a made-up error, would keep the loop for seconds."""
_CONTAINERS_MAX: Final = 4_096
"""Arrays and objects in such a message; an error of the chain has four, and logs have few brackets."""


class SlotNotice(NamedTuple):
    """A node began a slot on top of `parent`; `root` is the newest slot that it will never take back (0: not told)."""

    slot: int
    parent: int | None
    root: int
    subscription_id: ServerId


class SignatureNotice(NamedTuple):
    """The transaction of a `signature:` subscription reached the commitment; the node forgets the subscription."""

    slot: int
    subscription: Subscription
    subscription_id: ServerId


class LandedNotice(NamedTuple):
    """A transaction of a `transactions:` subscription is in a slot, but was not brought whole: it must be fetched."""

    slot: int
    subscription: Subscription
    signature: str


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
    """A notification of a subscription that this connection has not, or no longer. `kinds` are those that it can be of,
    `slot` is what it tells."""

    subscription_id: ServerId
    kinds: tuple[Kind, ...] = ()
    slot: int | None = None


Heard: TypeAlias = (
    LogsUpdate
    | AccountUpdate
    | TransactionUpdate
    | SlotNotice
    | SignatureNotice
    | LandedNotice
    | Ack
    | Refusal
    | Unknown
)


class _Context(msgspec.Struct, gc=False):
    slot: _Slot


class _Logs(msgspec.Struct, gc=False):
    signature: _Signature
    err: TxError
    logs: tuple[str, ...]


class _Account(msgspec.Struct, gc=False):
    lamports: _Lamports
    data: tuple[str, str]
    owner: str
    executable: bool
    space: _Lamports | None = None


class _Keyed(msgspec.Struct, gc=False):
    pubkey: str
    account: _Account


class _SlotInfo(msgspec.Struct, gc=False):
    slot: _Slot
    parent: _Slot
    root: _Slot


class _LogsResult(msgspec.Struct, gc=False):
    context: _Context
    value: _Logs


class _AccountResult(msgspec.Struct, gc=False):
    context: _Context
    value: _Account


class _ProgramResult(msgspec.Struct, gc=False):
    context: _Context
    value: _Keyed


class _SignatureResult(msgspec.Struct, gc=False):
    context: _Context


class _TransactionResult(msgspec.Struct, rename="camel", gc=False):
    signature: _Signature
    slot: _Slot
    transaction: Any = None
    transaction_index: Any = None


class _LogsParams(msgspec.Struct, gc=False):
    result: _LogsResult
    subscription: int


class _AccountParams(msgspec.Struct, gc=False):
    result: _AccountResult
    subscription: int


class _ProgramParams(msgspec.Struct, gc=False):
    result: _ProgramResult
    subscription: int


class _SlotParams(msgspec.Struct, gc=False):
    result: _SlotInfo
    subscription: int


class _SignatureParams(msgspec.Struct, gc=False):
    result: _SignatureResult
    subscription: int


class _TransactionParams(msgspec.Struct, gc=False):
    result: _TransactionResult
    subscription: int


class _LogsFrame(msgspec.Struct, gc=False):
    method: Literal["logsNotification"]
    params: _LogsParams


class _AccountFrame(msgspec.Struct, gc=False):
    method: Literal["accountNotification"]
    params: _AccountParams


class _ProgramFrame(msgspec.Struct, gc=False):
    method: Literal["programNotification"]
    params: _ProgramParams


class _SlotFrame(msgspec.Struct, gc=False):
    method: Literal["slotNotification"]
    params: _SlotParams


class _SignatureFrame(msgspec.Struct, gc=False):
    method: Literal["signatureNotification"]
    params: _SignatureParams


class _TransactionFrame(msgspec.Struct, gc=False):
    method: Literal["transactionNotification"]
    params: _TransactionParams


class _Error(msgspec.Struct, gc=False):
    code: int
    message: str = ""


class _AnswerFrame(msgspec.Struct, gc=False):
    """An answer, or a notification that named its method late."""

    id: int | None = None
    method: str = ""
    result: int | bool | None = None
    error: _Error | None = None


_Frame: TypeAlias = _LogsFrame | _AccountFrame | _ProgramFrame | _SlotFrame | _SignatureFrame | _TransactionFrame
_DECODERS: Final[tuple[tuple[bytes, msgspec.json.Decoder[_Frame]], ...]] = (
    (b"logsNotification", msgspec.json.Decoder(_LogsFrame)),
    (b"programNotification", msgspec.json.Decoder(_ProgramFrame)),
    (b"accountNotification", msgspec.json.Decoder(_AccountFrame)),
    (b"slotNotification", msgspec.json.Decoder(_SlotFrame)),
    (b"signatureNotification", msgspec.json.Decoder(_SignatureFrame)),
    (b"transactionNotification", msgspec.json.Decoder(_TransactionFrame)),
)
_ANSWER: Final = msgspec.json.Decoder(_AnswerFrame)
_OF_ACCOUNTS: Final = frozenset({b"programNotification", b"accountNotification"})
_TRANSACTION_TIMES: Final = 4
"""A whole transaction may have four times what its logs may have."""
KINDS: Final[dict[str, tuple[Kind, ...]]] = {
    "slotNotification": ("slots",),
    "logsNotification": ("logs", "transactions"),
    "programNotification": ("program",),
    "accountNotification": ("account",),
    "signatureNotification": ("signature",),
    "transactionNotification": ("transactions",),
}
"""Method of a notification → the kinds of subscription that it can be of."""
_SHAPES: Final[dict[type, tuple[Kind, ...]]] = {
    _LogsFrame: KINDS["logsNotification"],
    _AccountFrame: KINDS["accountNotification"],
    _ProgramFrame: KINDS["programNotification"],
    _SlotFrame: KINDS["slotNotification"],
    _SignatureFrame: KINDS["signatureNotification"],
    _TransactionFrame: KINDS["transactionNotification"],
}
_known_keys: set[str] = set()


class Stamp(NamedTuple):
    """What every update of one connection carries."""

    source: str
    commitment: Commitment


def read(
    message: bytes, active: Mapping[ServerId, Subscription] | Mapping[int, Subscription], stamp: Stamp, received_ns: int
) -> Heard:
    """One WebSocket message. `active` maps the node's subscription ids to what was subscribed.

    Raises BadInputError: `not_json`, `too_deep`, `wrong_type`, `not_pubsub`, `other_kind` (a notification under the
    id of a subscription of another kind), `bad_key`, `bad_signature`, `bad_slot` (older than its own parent or root),
    `bad_lamports`, `wrong_size` (of account data), and those of `bytes_of`; `too_large` or `too_complex` for a
    message of no account that is more than a node sends. `salvage` reads what is refused here.
    """
    try:
        frame = _decode(message)
    except msgspec.ValidationError as error:
        raise BadInputError("wrong_type", str(error)[:200]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInputError("not_json", str(error)[:200]) from None
    except RecursionError:
        raise BadInputError("too_deep") from None
    if isinstance(frame, _AnswerFrame):
        return _answer(frame)
    subscription_id = frame.params.subscription
    subscription = active.get(subscription_id)
    if subscription is None:
        return _unknown(frame)
    return _notification(frame, subscription, stamp, received_ns)


def _decode(message: bytes) -> _Frame | _AnswerFrame:
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
    """Raise BadInputError before values are made of what is too much."""
    if name in _OF_ACCOUNTS:
        return
    times = _TRANSACTION_TIMES if name == b"transactionNotification" else 1
    if len(message) > times * BYTES_MAX:
        raise BadInputError(
            "too_large", f"{len(message)} bytes of {name.decode()}, expected at most {times * BYTES_MAX}"
        )
    if message.count(b"[") + message.count(b"{") > times * _CONTAINERS_MAX:
        raise BadInputError("too_complex", f"more than {times * _CONTAINERS_MAX} arrays and objects")


def _unknown(frame: _Frame) -> Unknown:
    result = frame.params.result
    slot = result.slot if isinstance(result, _SlotInfo | _TransactionResult) else result.context.slot
    kinds = next(kinds for shape, kinds in _SHAPES.items() if isinstance(frame, shape))
    return Unknown(frame.params.subscription, kinds, slot)


def _notification(frame: _Frame, subscription: Subscription, stamp: Stamp, received_ns: int) -> Heard:
    if isinstance(frame, _LogsFrame):
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
    if isinstance(frame, _ProgramFrame):
        _expect(subscription, "program")
        keyed, slot = frame.params.result.value, frame.params.result.context.slot
        return _account(keyed.pubkey, keyed.account, slot, subscription, stamp, received_ns)
    if isinstance(frame, _AccountFrame):
        _expect(subscription, "account")
        slot = frame.params.result.context.slot
        return _account(subscription.key, frame.params.result.value, slot, subscription, stamp, received_ns)
    if isinstance(frame, _SlotFrame):
        _expect(subscription, "slots")
        info = frame.params.result
        if max(info.parent, info.root) > info.slot:
            raise BadInputError("bad_slot", f"slot {info.slot} on {info.parent}, root {info.root}")
        return SlotNotice(info.slot, info.parent, info.root, frame.params.subscription)
    if isinstance(frame, _TransactionFrame):
        _expect(subscription, "transactions")
        return _transaction(frame.params.result, subscription, stamp, received_ns)
    _expect(subscription, "signature")
    return SignatureNotice(frame.params.result.context.slot, subscription, frame.params.subscription)


def _transaction(
    told: _TransactionResult, subscription: Subscription, stamp: Stamp, received_ns: int
) -> TransactionUpdate | LandedNotice:
    """Return the transaction; one that can't be read, or is another's, is to be fetched."""
    landed = LandedNotice(told.slot, subscription, told.signature)
    if not isinstance(told.transaction, dict) or not_stored(told.transaction):
        return landed
    index = told.transaction_index
    try:
        update = transaction_from_rpc(
            {"version": None, **told.transaction},
            source=stamp.source,
            feed=subscription.feed,
            received_ns=received_ns,
            commitment=stamp.commitment,
            slot=told.slot,
            index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        )
    except BadInputError:
        return landed
    if update.signature != told.signature:
        return landed
    return msgspec.structs.replace(update, unproven=stamp.commitment == "processed")


def _account(
    pubkey: str, account: _Account, slot: int, subscription: Subscription, stamp: Stamp, received_ns: int
) -> AccountUpdate:
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
        pubkey=_key(pubkey),
        owner=_key(account.owner),
        lamports=account.lamports,
        data=data,
        executable=account.executable,
        commitment=stamp.commitment,
    )


def _answer(frame: _AnswerFrame) -> Heard:
    if frame.error is not None and frame.id is not None:
        return Refusal(frame.id, frame.error.code, frame.error.message[:200])
    if frame.id is None or frame.method:
        raise BadInputError("not_pubsub")
    number = frame.result
    return Ack(frame.id, number if isinstance(number, int) and not isinstance(number, bool) else None)


def _expect(subscription: Subscription, kind: Kind) -> None:
    if subscription.kind != kind:
        raise BadInputError("other_kind", f"{kind} under the id of {subscription.feed}")


def _key(text: str) -> str:
    """`text` if it is a public key. Keys repeat, so those found good are remembered, up to a bound."""
    if text not in _known_keys:
        if not is_key(text):
            raise BadInputError("bad_key", text[:48])
        if len(_known_keys) >= _KEYS_MAX:
            _known_keys.clear()
        _known_keys.add(text)
    return text
