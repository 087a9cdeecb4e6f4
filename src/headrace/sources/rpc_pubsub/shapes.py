"""Shapes of PubSub messages, as `msgspec` types.

Sources: agave `rpc-client-types` and the Solana WebSocket documentation. A notification is `{"jsonrpc","method",
"params":{"result":{"context":{"slot"},"value"},"subscription"}}`; for slots, `result` is only
`{"slot","parent","root"}`.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from headrace.model.updates import TxError
from headrace.sources.subscriptions import Kind

_Slot = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Lamports = Annotated[int, msgspec.Meta(ge=0)]
_Signature = Annotated[str, msgspec.Meta(pattern=r"^[1-9A-HJ-NP-Za-km-z]{64,88}\Z")]


class Context(msgspec.Struct, gc=False):
    """Slot at which the node read the value."""

    slot: _Slot


class LogsValue(msgspec.Struct, gc=False):
    """Logs of one transaction."""

    signature: _Signature
    err: TxError
    logs: tuple[str, ...]


class AccountValue(msgspec.Struct, gc=False):
    """State of one account."""

    lamports: _Lamports
    data: tuple[str, str]
    owner: str
    executable: bool
    space: _Lamports | None = None


class KeyedAccount(msgspec.Struct, gc=False):
    """State of one account of a program."""

    pubkey: str
    account: AccountValue


class SlotInfo(msgspec.Struct, gc=False):
    """Value of a `slotNotification`."""

    slot: _Slot
    parent: _Slot
    root: _Slot


class LogsResult(msgspec.Struct, gc=False):
    context: Context
    value: LogsValue


class AccountResult(msgspec.Struct, gc=False):
    context: Context
    value: AccountValue


class ProgramResult(msgspec.Struct, gc=False):
    context: Context
    value: KeyedAccount


class SignatureResult(msgspec.Struct, gc=False):
    context: Context


class TransactionResult(msgspec.Struct, rename="camel", gc=False):
    """Whole transaction in the form that Helius sends."""

    signature: _Signature
    slot: _Slot
    transaction: Any = None
    transaction_index: Any = None


class LogsParams(msgspec.Struct, gc=False):
    result: LogsResult
    subscription: int


class AccountParams(msgspec.Struct, gc=False):
    result: AccountResult
    subscription: int


class ProgramParams(msgspec.Struct, gc=False):
    result: ProgramResult
    subscription: int


class SlotParams(msgspec.Struct, gc=False):
    result: SlotInfo
    subscription: int


class SignatureParams(msgspec.Struct, gc=False):
    result: SignatureResult
    subscription: int


class TransactionParams(msgspec.Struct, gc=False):
    result: TransactionResult
    subscription: int


class LogsFrame(msgspec.Struct, gc=False):
    method: Literal["logsNotification"]
    params: LogsParams


class AccountFrame(msgspec.Struct, gc=False):
    method: Literal["accountNotification"]
    params: AccountParams


class ProgramFrame(msgspec.Struct, gc=False):
    method: Literal["programNotification"]
    params: ProgramParams


class SlotFrame(msgspec.Struct, gc=False):
    method: Literal["slotNotification"]
    params: SlotParams


class SignatureFrame(msgspec.Struct, gc=False):
    method: Literal["signatureNotification"]
    params: SignatureParams


class TransactionFrame(msgspec.Struct, gc=False):
    method: Literal["transactionNotification"]
    params: TransactionParams


class ErrorValue(msgspec.Struct, gc=False):
    code: int
    message: str = ""


class AnswerFrame(msgspec.Struct, gc=False):
    """An answer, or a notification whose method came late in the message."""

    id: int | None = None
    method: str = ""
    result: int | bool | None = None
    error: ErrorValue | None = None


Frame: TypeAlias = LogsFrame | AccountFrame | ProgramFrame | SlotFrame | SignatureFrame | TransactionFrame
KINDS: Final[dict[str, tuple[Kind, ...]]] = {
    "slotNotification": ("slots",),
    "logsNotification": ("logs", "transactions"),
    "programNotification": ("program",),
    "accountNotification": ("account",),
    "signatureNotification": ("signature",),
    "transactionNotification": ("transactions",),
}
"""Method of a notification → the kinds of subscription that it can belong to."""
SHAPES: Final[dict[type, tuple[Kind, ...]]] = {
    LogsFrame: KINDS["logsNotification"],
    AccountFrame: KINDS["accountNotification"],
    ProgramFrame: KINDS["programNotification"],
    SlotFrame: KINDS["slotNotification"],
    SignatureFrame: KINDS["signatureNotification"],
    TransactionFrame: KINDS["transactionNotification"],
}
"""Type of a notification → the kinds of subscription that it can belong to."""
