"""Applies a request's filters to messages, and slices account data, as a Yellowstone node does."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from headrace.model.keys import TOKEN_2022_PROGRAM, TOKEN_PROGRAM, b58decode, b58encode
from headrace.sources.yellowstone.messages import geyser

TOKEN_PROGRAMS: Final = frozenset({TOKEN_PROGRAM, TOKEN_2022_PROGRAM})
_TOKEN_ACCOUNT_BYTES: Final = 165
_INTERSLOT: Final = frozenset(
    {geyser.SLOT_FIRST_SHRED_RECEIVED, geyser.SLOT_COMPLETED, geyser.SLOT_CREATED_BANK, geyser.SLOT_DEAD}
)


def names_of(message: Any, request: Any) -> list[str]:
    """Return the names of the filters of `request` that `message` passes. If there are none, do not send it."""
    kind = message.WhichOneof("update_oneof")
    if kind == "account":
        return _fitting(request.accounts, lambda each: _account_fits(message.account.account, each))
    if kind == "transaction":
        return _fitting(request.transactions, lambda each: _transaction_fits(message.transaction.transaction, each))
    if kind == "slot":
        return _fitting(request.slots, lambda each: _slot_fits(message.slot.status, each, request.commitment))
    if kind == "block_meta":
        return list(request.blocks_meta)
    if kind == "block":
        return list(request.blocks)
    if kind == "entry":
        return list(request.entry)
    return list(request.transactions_status) if kind == "transaction_status" else []


def sliced(message: Any, slices: Iterable[Any]) -> Any:
    """Return a copy of a message. Its account data are the given slices, joined; without slices they are complete."""
    copy = geyser.SubscribeUpdate()
    copy.CopyFrom(message)
    if copy.WhichOneof("update_oneof") == "account" and (wanted := list(slices)):
        data = copy.account.account.data
        copy.account.account.data = b"".join(data[each.offset : each.offset + each.length] for each in wanted)
    return copy


def _fitting(filters: Mapping[str, Any], fits: Any) -> list[str]:
    return [name for name, each in filters.items() if fits(each)]


def _account_fits(info: Any, wanted: Any) -> bool:
    if wanted.account and b58encode(info.pubkey) not in wanted.account:
        return False
    if wanted.owner and b58encode(info.owner) not in wanted.owner:
        return False
    if wanted.HasField("nonempty_txn_signature") and wanted.nonempty_txn_signature != bool(info.txn_signature):
        return False
    return all(_comparison_fits(info, each) for each in wanted.filters)


def _comparison_fits(info: Any, comparison: Any) -> bool:
    kind = comparison.WhichOneof("filter")
    if kind == "datasize":
        return bool(len(info.data) == comparison.datasize)
    if kind == "token_account_state":
        is_token = b58encode(info.owner) in TOKEN_PROGRAMS and len(info.data) >= _TOKEN_ACCOUNT_BYTES
        return bool(is_token == comparison.token_account_state)
    if kind == "lamports":
        operator = comparison.lamports.WhichOneof("cmp")
        limit = getattr(comparison.lamports, operator)
        held = info.lamports
        return bool({"eq": held == limit, "ne": held != limit, "lt": held < limit, "gt": held > limit}[operator])
    memcmp = comparison.memcmp
    wanted = memcmp.bytes if memcmp.WhichOneof("data") == "bytes" else b58decode(memcmp.base58)
    return bool(info.data[memcmp.offset : memcmp.offset + len(wanted)] == wanted)


def _transaction_fits(info: Any, wanted: Any) -> bool:
    meta, message = info.meta, info.transaction.message
    if wanted.HasField("vote") and wanted.vote != info.is_vote:
        return False
    if wanted.HasField("failed") and wanted.failed != meta.HasField("err"):
        return False
    if wanted.HasField("signature") and b58decode(wanted.signature) != info.signature:
        return False
    keys = {
        b58encode(raw)
        for raw in (*message.account_keys, *meta.loaded_writable_addresses, *meta.loaded_readonly_addresses)
    }
    if wanted.account_include and keys.isdisjoint(wanted.account_include):
        return False
    return keys.isdisjoint(wanted.account_exclude) and keys.issuperset(wanted.account_required)


def _slot_fits(status: int, wanted: Any, commitment: int) -> bool:
    if status in _INTERSLOT:
        return bool(wanted.interslot_updates)
    return not wanted.filter_by_commitment or status == commitment
