"""Parses executed transactions from a node's JSON and resolves every key. Legacy, v0 and v1 share one resolver.

Accepts `getTransaction` results and the elements of `getBlock` and `blockSubscribe`, in the encodings json, jsonParsed,
base58, base64 and base64+zstd. Also accepts `simulateTransaction` values together with the simulated transaction.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.keys import b58encode
from headrace.model.updates import UNNAMED, Commitment, Instruction, TokenBalance, TransactionUpdate, TxVersion
from headrace.solana.encodings import bytes_of, from_base58
from headrace.solana.rpc_json import (
    BalanceShape,
    InstructionShape,
    KeyShape,
    ResultShape,
    SignaturesShape,
    StatusShape,
    TransactionShape,
    check_keys,
    shaped,
)
from headrace.solana.wire import SIZE_MAX, WireTransaction, parse_wire

NEWEST_VERSION: Final = 1
LOOKED_UP: Final = "lookup_0"
"""Name of the first unknown key that a lookup table adds."""

DATA_MAX: Final = 10_240
"""Maximum number of bytes of one instruction's data: the limit of a cross-program call.

The transaction's size limits top-level data.
"""


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """Origin of an update: the fields of TransactionUpdate that are not in the transaction itself.

    `slot` is 0 if the upstream gave none (one element of a block, a bare transaction).
    """

    source: str
    feed: str
    received_ns: int
    commitment: Commitment = "confirmed"
    slot: int = 0
    block_time_s: int | None = None
    index: int | None = None


class _SignedShape(msgspec.Struct):
    transaction: list[str] | str | SignaturesShape


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a transaction of any form. If the version is too new, only version and signature are set."""

    version: TxVersion
    signature: str
    signers: int = 0
    keys: tuple[str, ...] = ()
    top: Sequence[Instruction] = ()
    inner: Sequence[tuple[int, Sequence[Instruction]]] = ()


def transaction_from_rpc(
    result: Any,
    *,
    source: str,
    feed: str,
    received_ns: int,
    commitment: Commitment = "confirmed",
    slot: int | None = None,
    index: int | None = None,
    unexecuted: bool = False,
) -> TransactionUpdate:
    """Return the update of a `getTransaction` result, or of an element of a block's `transactions` with its `slot`.

    A transaction of an unknown version keeps signature, error, logs and version number. With `unexecuted`, `meta` may
    be null. In that case the update has only the signed parts, and looked-up keys are called `lookup_0`, …
    Raises BadInputError: `not_found` for null; `bad_shape` for another shape; `bad_index` for an index without a key,
    or if a successful transaction does not name its looked-up keys; and the reasons of `encodings` and `wire` for
    malformed bytes.
    """
    if result is None:
        raise BadInputError("not_found", "the node does not know this transaction (null)")
    answer = shaped(result, ResultShape)
    if answer.meta is None and not unexecuted:
        raise BadInputError("bad_shape", "meta is null: the node does not say what this transaction did")
    status = answer.meta or StatusShape(err=None)
    stamp = Stamp(
        source=source,
        feed=feed,
        received_ns=received_ns,
        commitment=commitment,
        slot=(answer.slot or 0) if slot is None else slot,
        block_time_s=answer.block_time,
        index=answer.transaction_index if index is None else index,
    )
    if isinstance(answer.transaction, TransactionShape):
        parts = _json_parts(answer.transaction, answer.version, status)
    else:
        parts = wire_parts(parse_wire(bytes_of(answer.transaction, size_max=SIZE_MAX)), status)
    if answer.meta is not None and status.err is None and LOOKED_UP in parts.keys:
        raise BadInputError("bad_index", "keys are looked up in tables, and loadedAddresses does not name them")
    return put_together(parts, status, stamp)


def signature_of(result: Any) -> str:
    """Return the first signature of a `getTransaction` result, from the transaction itself.

    Empty if the version is too new to be parsed. Raises the same BadInputErrors as `transaction_from_rpc`.
    """
    transaction = shaped(result, _SignedShape).transaction
    if isinstance(transaction, SignaturesShape):
        return transaction.signatures[0]
    wire = parse_wire(bytes_of(transaction, size_max=SIZE_MAX))
    return b58encode(wire.signatures[0]) if wire.signatures else ""


def transaction_from_simulation(
    value: Any, wire: bytes | None, *, source: str, feed: str, received_ns: int, slot: int = 0
) -> TransactionUpdate:
    """Return the update of a `simulateTransaction` value and the transaction's bytes, which the value lacks.

    Without the bytes there are no keys, and top-level instructions have the program UNNAMED. Raises the same
    BadInputErrors as `transaction_from_rpc`.
    """
    if not isinstance(value, dict):
        raise BadInputError("bad_shape", f"a simulation's value is {type(value).__name__}, expected an object")
    renamed = {**value, "logMessages": value.get("logs"), "computeUnitsConsumed": value.get("unitsConsumed")}
    status = shaped(renamed, StatusShape)
    stamp = Stamp(source=source, feed=feed, received_ns=received_ns, commitment="processed", slot=slot)
    if wire is None:
        status.pre_token_balances = status.post_token_balances = None
        return put_together(_unnamed_parts(status), status, stamp)
    return put_together(wire_parts(parse_wire(wire), status), status, stamp)


def put_together(parts: Parts, status: StatusShape, stamp: Stamp) -> TransactionUpdate:
    """Return the update of a transaction and its outcome.

    Raises BadInputError `bad_index` for an index without a key.
    """
    return TransactionUpdate(
        source=stamp.source,
        feed=stamp.feed,
        received_ns=stamp.received_ns,
        slot=stamp.slot,
        signature=parts.signature,
        err=status.err,
        version=parts.version,
        account_keys=parts.keys,
        instructions=_in_order(parts.top, parts.inner),
        logs=None if status.log_messages is None else tuple(status.log_messages),
        signers=parts.signers,
        fee=status.fee,
        block_time_s=stamp.block_time_s,
        index=stamp.index,
        pre_token_balances=_balances(parts, status.pre_token_balances),
        post_token_balances=_balances(parts, status.post_token_balances),
        compute_units=status.compute_units_consumed,
        commitment=stamp.commitment,
    )


def wire_parts(wire: WireTransaction, status: StatusShape) -> Parts:
    """Return the parts of a transaction that was given as bytes. Inner instructions and looked-up keys are in `status`.

    Unknown keys of a lookup table (the transaction failed before they were loaded) are called `lookup_0`, …
    """
    signature = b58encode(wire.signatures[0]) if wire.signatures else ""
    if too_new(wire.version):
        return Parts(version=wire.version, signature=signature)
    keys = _all_keys(wire.keys, wire.looked_up, status)
    top = [compiled(keys, ix.program_index, ix.accounts, ix.data, (n,), 1) for n, ix in enumerate(wire.instructions)]
    return Parts(
        version=wire.version,
        signature=signature,
        signers=wire.signers,
        keys=keys,
        top=top,
        inner=_inner_of(keys, status),
    )


def _json_parts(transaction: TransactionShape, version: TxVersion | None, status: StatusShape) -> Parts:
    message = transaction.message
    (signature,) = check_keys((transaction.signatures[0],))
    if version is None:
        version = 1 if message.transaction_config is not None else 0 if message.address_table_lookups else "legacy"
    if too_new(version):
        return Parts(version=version, signature=signature)
    keys = check_keys(tuple([key.pubkey if isinstance(key, KeyShape) else key for key in message.account_keys]))
    signers = sum(isinstance(key, KeyShape) and key.signer for key in message.account_keys)
    if message.header is not None:
        signers = message.header.num_required_signatures
        lookups = message.address_table_lookups or ()
        looked_up = sum(len(each.writable_indexes) + len(each.readonly_indexes) for each in lookups)
        keys = _all_keys(keys, looked_up, status) if looked_up else with_loaded(keys, status)
    return Parts(
        version=version,
        signature=signature,
        signers=signers,
        keys=keys,
        top=[_resolved(keys, shape, (n,), 1) for n, shape in enumerate(message.instructions)],
        inner=_inner_of(keys, status),
    )


def _unnamed_parts(status: StatusShape) -> Parts:
    """Return the parts that the inner instructions alone show. Instructions with indexes instead of keys show none."""
    groups = status.inner_instructions or ()
    named = all(each.program_id_index is None for group in groups for each in group.instructions)
    count = max((group.index + 1 for group in groups), default=0) if named else 0
    top = [Instruction(program_id=UNNAMED, accounts=(), data=b"", path=(n,), stack_height=1) for n in range(count)]
    return Parts(version="legacy", signature="", top=top, inner=_inner_of((), status) if named else ())


def too_new(version: TxVersion) -> bool:
    """Return whether this code can't parse transactions of this version."""
    return version != "legacy" and version > NEWEST_VERSION


def _all_keys(static: tuple[str, ...], looked_up: int, status: StatusShape) -> tuple[str, ...]:
    """Return static and looked-up keys. Unknown keys are called `lookup_0`, `lookup_1` and so on."""
    keys = with_loaded(static, status)
    if len(keys) == len(static):
        keys = (*keys, *(f"lookup_{n}" for n in range(looked_up)))
    if len(keys) != len(static) + looked_up:
        raise BadInputError("bad_index", f"{len(keys) - len(static)} keys loaded, {looked_up} looked up")
    return keys


def with_loaded(static: tuple[str, ...], status: StatusShape) -> tuple[str, ...]:
    """Return keys in the order of every version: static, then loaded writable, then loaded readonly."""
    loaded = status.loaded_addresses
    if loaded is None or not (loaded.writable or loaded.readonly):
        return static
    return static + check_keys((*loaded.writable, *loaded.readonly))


def compiled(
    keys: Sequence[str], program: int, accounts: Iterable[int], data: bytes, path: tuple[int, ...], height: int | None
) -> Instruction:
    """Return an instruction with its indexes resolved. Raises BadInputError `bad_index` for an index without a key."""
    try:
        resolved = tuple([keys[index] for index in accounts])
        return Instruction(program_id=keys[program], accounts=resolved, data=data, path=path, stack_height=height)
    except IndexError:
        raise BadInputError("bad_index", f"instruction {path} points outside the {len(keys)} keys") from None


def _inner_of(keys: tuple[str, ...], status: StatusShape) -> list[tuple[int, list[Instruction]]]:
    return [
        (
            group.index,
            [
                _resolved(keys, shape, (group.index, n), shape.stack_height)
                for n, shape in enumerate(group.instructions)
            ],
        )
        for group in status.inner_instructions or ()
    ]


def _resolved(keys: tuple[str, ...], shape: InstructionShape, path: tuple[int, ...], height: int | None) -> Instruction:
    accounts = shape.accounts or []
    data = None if shape.data is None else from_base58(shape.data, size_max=DATA_MAX)
    if shape.program_id_index is not None:
        indexes = [index for index in accounts if isinstance(index, int)]
        if data is None or len(indexes) != len(accounts):
            raise BadInputError("bad_shape", f"instruction {path} lacks data or mixes keys and indexes")
        return compiled(keys, shape.program_id_index, indexes, data, path, height)
    parsed: dict[str, object] | None = {"info": shape.parsed} if isinstance(shape.parsed, str) else shape.parsed
    named = tuple([key for key in accounts if isinstance(key, str)])
    if shape.program_id is None or len(named) != len(accounts) or (data is None and parsed is None):
        raise BadInputError("bad_shape", f"instruction {path} is neither compiled nor parsed")
    check_keys((shape.program_id, *named))
    return Instruction(
        program_id=shape.program_id, accounts=named, data=data, path=path, stack_height=height, parsed=parsed
    )


def _in_order(
    top: Sequence[Instruction], inner: Sequence[tuple[int, Sequence[Instruction]]]
) -> tuple[Instruction, ...]:
    under = dict(inner)
    if len(under) != len(inner) or any(index >= len(top) for index in under):
        raise BadInputError("bad_index", f"inner instructions of {sorted(under)[:8]} under {len(top)} instructions")
    return tuple([each for n, instruction in enumerate(top) for each in (instruction, *under.get(n, ()))])


def _balances(parts: Parts, shapes: Sequence[BalanceShape] | None) -> tuple[TokenBalance, ...]:
    if too_new(parts.version):
        return ()
    try:
        return tuple(
            [
                TokenBalance(
                    account=parts.keys[each.account_index],
                    mint=each.mint,
                    owner=each.owner or None,
                    amount=int(each.ui_token_amount.amount),
                    decimals=each.ui_token_amount.decimals,
                )
                for each in shapes or ()
            ]
        )
    except IndexError:
        raise BadInputError("bad_index", f"a token balance points outside the {len(parts.keys)} keys") from None
