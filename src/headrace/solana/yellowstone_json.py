"""Parses Yellowstone updates (transactions, accounts) from the JSON that client libraries print.

Byte fields have several forms, and numbers may be text.
"""

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from headrace.model.errors import BadInputError
from headrace.model.keys import b58encode
from headrace.model.updates import AccountUpdate, Commitment, Instruction, TransactionUpdate, TxVersion
from headrace.solana.encodings import from_base64
from headrace.solana.notifications import ACCOUNT_MAX
from headrace.solana.rpc_json import U64, HeaderShape, Index, StatusShape, check_keys, shaped
from headrace.solana.transaction_errors import transaction_error
from headrace.solana.transactions import DATA_MAX, Parts, Stamp, compiled, put_together, too_new, with_loaded


class _Buffer(msgspec.Struct):
    """A Buffer in Node's JSON."""

    data: list[Index]


Blob: TypeAlias = list[Index] | str | _Buffer
"""Bytes: a list of numbers, a printed Buffer, or text.

Text is base64, as in protobuf's JSON. In keys and signatures, text without padding is base58.
"""


class _Instruction(msgspec.Struct, rename="camel"):
    program_id_index: Index
    accounts: Blob = ""
    data: Blob = ""
    stack_height: Annotated[int, Meta(ge=1, le=64)] | None = None


class _Group(msgspec.Struct):
    index: Index = 0
    instructions: list[_Instruction] = []


class _Message(msgspec.Struct, rename="camel"):
    account_keys: Annotated[list[Blob], Meta(max_length=256)]
    header: HeaderShape | None = None
    instructions: list[_Instruction] = []
    versioned: bool = False
    config: dict[str, object] | None = None


class _Signed(msgspec.Struct):
    message: _Message


class _Meta(msgspec.Struct, rename="camel"):
    inner_instructions: list[_Group] | None = None
    loaded_writable_addresses: list[Blob] | None = None
    loaded_readonly_addresses: list[Blob] | None = None


class _Info(msgspec.Struct):
    signature: Blob
    transaction: _Signed
    meta: dict[str, Any]
    index: U64 | None = None


class _Update(msgspec.Struct):
    transaction: _Info
    slot: U64


class _Account(msgspec.Struct):
    pubkey: Blob
    owner: Blob
    data: Blob = ""
    lamports: U64 = 0
    executable: bool = False


class _AccountUpdate(msgspec.Struct):
    account: _Account
    slot: U64


def transaction_from_yellowstone_json(
    update: Any, *, source: str, feed: str, received_ns: int, commitment: Commitment = "processed"
) -> TransactionUpdate:
    """Return the update of a `SubscribeUpdateTransaction`, alone or inside its `SubscribeUpdate`.

    The form is `{"slot", "transaction": {"signature", "transaction", "meta", …}}`. A message with a config is v1.
    Otherwise `versioned` means v0. Raises the same BadInputErrors as `transactions.transaction_from_rpc`.
    """
    if isinstance(update, dict) and isinstance(update.get("transaction"), dict) and "slot" in update["transaction"]:
        update = update["transaction"]
    parsed = shaped(update, _Update, strict=False)
    info, message = parsed.transaction, parsed.transaction.transaction.message
    meta = shaped(info.meta, _Meta, strict=False)
    status = _status(info.meta, meta)
    version: TxVersion = 1 if message.config is not None else 0 if message.versioned else "legacy"
    stamp = Stamp(
        source=source, feed=feed, received_ns=received_ns, commitment=commitment, slot=parsed.slot, index=info.index
    )
    signature = _text(info.signature, 64)
    if too_new(version):
        return put_together(Parts(version=version, signature=signature), status, stamp)
    keys = with_loaded(tuple([_text(key, 32) for key in message.account_keys]), status)
    parts = Parts(
        version=version,
        signature=signature,
        signers=message.header.num_required_signatures if message.header else 0,
        keys=keys,
        top=[_compiled(keys, each, (n,), 1) for n, each in enumerate(message.instructions)],
        inner=[
            (
                group.index,
                [
                    _compiled(keys, each, (group.index, n), each.stack_height)
                    for n, each in enumerate(group.instructions)
                ],
            )
            for group in meta.inner_instructions or ()
        ],
    )
    return put_together(parts, status, stamp)


def account_from_yellowstone_json(
    update: Any, *, source: str, feed: str, received_ns: int, commitment: Commitment = "processed"
) -> AccountUpdate:
    """Return the update of a `SubscribeUpdateAccount`, alone or inside its `SubscribeUpdate`.

    The form is `{"slot", "account": {"pubkey", "owner", "lamports", "data", …}}`. Raises BadInputError.
    """
    if isinstance(update, dict) and isinstance(update.get("account"), dict) and "slot" in update["account"]:
        update = update["account"]
    parsed = shaped(update, _AccountUpdate, strict=False)
    account = parsed.account
    return AccountUpdate(
        source=source,
        feed=feed,
        received_ns=received_ns,
        commitment=commitment,
        slot=parsed.slot,
        pubkey=_text(account.pubkey, 32),
        owner=_text(account.owner, 32),
        lamports=account.lamports,
        data=_bytes(account.data, ACCOUNT_MAX),
        executable=account.executable,
    )


def _status(written: dict[str, Any], meta: _Meta) -> StatusShape:
    """Return the outcome. Yellowstone names these fields as RPC does, but its error is bincode bytes."""
    err = written.get("err")
    if isinstance(err, dict) and set(err) == {"err"}:
        err = transaction_error(_bytes(shaped(err["err"], Blob)))  # type: ignore[arg-type]
    loaded = {
        "writable": [_text(key, 32) for key in meta.loaded_writable_addresses or ()],
        "readonly": [_text(key, 32) for key in meta.loaded_readonly_addresses or ()],
    }
    renamed = {**written, "err": err, "innerInstructions": None, "loadedAddresses": loaded}
    return shaped(renamed, StatusShape, strict=False)


def _compiled(keys: tuple[str, ...], shape: _Instruction, path: tuple[int, ...], height: int | None) -> Instruction:
    return compiled(keys, shape.program_id_index, _bytes(shape.accounts), _bytes(shape.data), path, height)


def _bytes(blob: Blob, size_max: int = DATA_MAX) -> bytes:
    if isinstance(blob, str):
        return from_base64(blob, size_max=size_max)
    numbers = blob.data if isinstance(blob, _Buffer) else blob
    if len(numbers) > size_max:
        raise BadInputError("too_large", f"{len(numbers)} bytes, expected at most {size_max}")
    return bytes(numbers)


def _text(blob: Blob, size: int) -> str:
    """Return a key (32 bytes) or signature (64) as base58 text."""
    if isinstance(blob, str) and not blob.endswith("="):
        return check_keys((blob,))[0]
    raw = _bytes(blob)
    if len(raw) != size:
        raise BadInputError("bad_shape", f"{len(raw)} bytes, expected {size}")
    return b58encode(raw)
