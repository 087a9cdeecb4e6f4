"""Parses notifications of PubSub and of transaction streams into updates."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from headrace.model.errors import BadInputError
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, TransactionUpdate, TxError
from headrace.solana.encodings import bytes_of
from headrace.solana.rpc_json import U64, KeyText, SignatureText, check_keys, shaped
from headrace.solana.transactions import transaction_from_rpc

ACCOUNT_MAX: int = 10 * 1024 * 1024
"""Maximum number of bytes of an account's data (10 MiB)."""


class _Context(msgspec.Struct):
    slot: U64


class _Logs(msgspec.Struct):
    signature: SignatureText
    err: TxError
    logs: list[str]


class _LogsResult(msgspec.Struct):
    context: _Context
    value: _Logs


class AccountShape(msgspec.Struct):
    """An account as `getAccountInfo` and notifications write it."""

    data: list[str] | str
    owner: KeyText
    lamports: Annotated[int, Meta(ge=0)] = 0
    executable: bool = False


class KeyedAccountShape(msgspec.Struct):
    """An account with its address."""

    pubkey: KeyText
    account: AccountShape


class _ProgramResult(msgspec.Struct):
    context: _Context
    value: KeyedAccountShape


class _AccountResult(msgspec.Struct):
    context: _Context
    value: AccountShape


def update_from_notification(
    frame: Any,
    *,
    source: str,
    feed: str,
    received_ns: int,
    commitment: Commitment = "processed",
    pubkey: str = "",
) -> LogsUpdate | AccountUpdate | TransactionUpdate:
    """Return the update of one notification.

    Accepts `logsNotification`, `programNotification`, `accountNotification` (which does not repeat its `pubkey`) and
    `transactionNotification` (`{"signature", "slot", "transaction": {"transaction", "meta", "version"}}`). Raises
    BadInputError: `unknown_notification` for another method, otherwise the errors of the parts' parsers.
    """
    method = frame.get("method") if isinstance(frame, dict) else None
    params = frame.get("params") if isinstance(frame, dict) else None
    result = params.get("result") if isinstance(params, dict) else None
    if method == "logsNotification":
        logs = shaped(result, _LogsResult)
        (signature,) = check_keys((logs.value.signature,))
        return LogsUpdate(
            source=source,
            feed=feed,
            received_ns=received_ns,
            slot=logs.context.slot,
            signature=signature,
            err=logs.value.err,
            logs=tuple(logs.value.logs),
            commitment=commitment,
        )
    if method == "transactionNotification" and isinstance(result, dict):
        return transaction_from_rpc(
            {**_object(result.get("transaction")), "slot": result.get("slot")},
            source=source,
            feed=feed,
            received_ns=received_ns,
            commitment=commitment,
        )
    if method == "programNotification":
        keyed = shaped(result, _ProgramResult)
        slot, pubkey, account = keyed.context.slot, keyed.value.pubkey, keyed.value.account
    elif method == "accountNotification":
        unkeyed = shaped(result, _AccountResult)
        slot, account = unkeyed.context.slot, unkeyed.value
    else:
        raise BadInputError("unknown_notification", f"method is {str(method)[:40]!r}")
    check_keys((pubkey, account.owner))
    return AccountUpdate(
        source=source,
        feed=feed,
        received_ns=received_ns,
        slot=slot,
        pubkey=pubkey,
        owner=account.owner,
        lamports=account.lamports,
        data=bytes_of(account.data, size_max=ACCOUNT_MAX),
        executable=account.executable,
        commitment=commitment,
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInputError("bad_shape", f"transaction is {type(value).__name__}, expected an object")
    return value
