"""Shapes of the nodes' JSON for transactions, checked while the JSON is decoded."""

import re
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from headrace.model.errors import BadInputError
from headrace.model.updates import TxError

Shape = TypeVar("Shape")

Index: TypeAlias = Annotated[int, Meta(ge=0, le=255)]
U64: TypeAlias = Annotated[int, Meta(ge=0)]
KeyText: TypeAlias = Annotated[str, Meta(min_length=32, max_length=44)]
SignatureText: TypeAlias = Annotated[str, Meta(min_length=64, max_length=88)]

_STORED_LISTS: Final = ("innerInstructions", "logMessages")
_NOT_BASE58: Final = re.compile("[^1-9A-HJ-NP-Za-km-z]")


class InstructionShape(msgspec.Struct, rename="camel", gc=False):
    """An instruction: compiled (indexes), partly decoded (keys) or parsed by the node.

    Nodes mix the three forms in one list.
    """

    program_id_index: Index | None = None
    program_id: KeyText | None = None
    accounts: list[Index | KeyText] | None = None
    data: str | None = None
    parsed: dict[str, object] | str | None = None
    stack_height: Annotated[int, Meta(ge=1, le=64)] | None = None


class InnerShape(msgspec.Struct):
    """The inner instructions that ran under the top-level instruction at `index`."""

    index: Index
    instructions: list[InstructionShape]


class KeyShape(msgspec.Struct):
    """An account key in jsonParsed. Looked-up keys are in the same list, and `signer` replaces the message header."""

    pubkey: KeyText
    signer: bool = False


class HeaderShape(msgspec.Struct, rename="camel"):
    """The message header. Only this field is needed."""

    num_required_signatures: Index


class LookupShape(msgspec.Struct, rename="camel"):
    """Indexes of the keys that a message takes from one lookup table."""

    writable_indexes: list[object] = []
    readonly_indexes: list[object] = []


class MessageShape(msgspec.Struct, rename="camel"):
    """A message. `transaction_config` is present from v1 on, `address_table_lookups` in v0."""

    account_keys: Annotated[list[KeyText | KeyShape], Meta(max_length=256)]
    instructions: list[InstructionShape]
    header: HeaderShape | None = None
    address_table_lookups: list[LookupShape] | None = None
    transaction_config: dict[str, object] | None = None


class SignaturesShape(msgspec.Struct):
    """The signatures of a transaction, without its other parts, in the encodings json and jsonParsed."""

    signatures: Annotated[list[SignatureText], Meta(min_length=1, max_length=255)]


class TransactionShape(msgspec.Struct):
    """A transaction in the encodings json and jsonParsed."""

    signatures: Annotated[list[SignatureText], Meta(min_length=1)]
    message: MessageShape


class AmountShape(msgspec.Struct):
    """An amount of an SPL coin. `amount` is the integer as text. The float in the same object is never read."""

    amount: Annotated[str, Meta(max_length=20, pattern=r"^[0-9]+\Z")]
    decimals: Index


class BalanceShape(msgspec.Struct, rename="camel"):
    """One element of preTokenBalances or postTokenBalances."""

    account_index: Index
    mint: KeyText
    ui_token_amount: AmountShape
    owner: KeyText | Literal[""] | None = None


class LoadedShape(msgspec.Struct):
    """Keys that lookup tables added, in the order in which instruction indexes count them."""

    writable: list[KeyText] = []
    readonly: list[KeyText] = []


class StatusShape(msgspec.Struct, rename="camel", kw_only=True):
    """The outcome of a transaction: the `meta` of a result. Missing and null mean the same, except for `err`."""

    err: TxError
    fee: U64 | None = None
    inner_instructions: list[InnerShape] | None = None
    log_messages: list[str] | None = None
    pre_token_balances: list[BalanceShape] | None = None
    post_token_balances: list[BalanceShape] | None = None
    loaded_addresses: LoadedShape | None = None
    compute_units_consumed: U64 | None = None


class ResultShape(msgspec.Struct, rename="camel"):
    """The result of getTransaction, or an element of a block's transactions (without slot and time)."""

    transaction: list[str] | str | TransactionShape
    meta: StatusShape | None
    slot: U64 | None = None
    block_time: int | None = None
    version: Literal["legacy"] | Index | None = None
    transaction_index: U64 | None = None


def shaped(value: Any, shape: type[Shape], *, strict: bool = True) -> Shape:
    """Return `value` as `shape`. Raises BadInputError `bad_shape` naming the missing or mistyped member."""
    try:
        return msgspec.convert(value, shape, strict=strict)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise BadInputError("bad_shape", str(error)) from None


def check_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return `keys` if all are base58 (the shape checks their lengths). Raises BadInputError `bad_base58`."""
    if _NOT_BASE58.search("".join(keys)):
        raise BadInputError("bad_base58", "a key with a character outside the base58 alphabet")
    return keys


def not_stored(result: Any) -> tuple[str, ...]:
    """Return the names of the parts that a `getTransaction` result (or a block's element) lacks.

    The parts are `meta`, `innerInstructions` and `logMessages`. The result is empty for a complete transaction. A value
    that is not an object lacks `meta`. A node writes null for a part that it did not store, and an empty list for an
    empty part.
    Source: agave `transaction-status-client-types`, `UiTransactionStatusMeta`: both lists are null if the node ran
    without `--enable-extended-tx-metadata-storage` (or an earlier form of the setting) when it processed the block. A
    transaction that was charged but not executed (`ProgramAccountNotFound`, …) has null for both on every node, because
    it has nothing to list.
    """
    meta = result.get("meta") if isinstance(result, dict) else None
    if not isinstance(meta, dict):
        return ("meta",)
    err = meta.get("err")
    if err is not None and not (isinstance(err, dict) and "InstructionError" in err):
        return ()
    return tuple(name for name in _STORED_LISTS if meta.get(name) is None)
