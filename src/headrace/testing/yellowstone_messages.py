"""Encodes updates as the messages of a Yellowstone node, which the Yellowstone source decodes."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from headrace.model.keys import b58decode
from headrace.model.updates import AccountUpdate, SlotUpdate, TokenBalance, TransactionUpdate
from headrace.solana.transaction_errors import transaction_error_bytes
from headrace.sources.yellowstone.messages import geyser

STATUSES: Final = {
    "processed": geyser.SLOT_PROCESSED,
    "confirmed": geyser.SLOT_CONFIRMED,
    "finalized": geyser.SLOT_FINALIZED,
    "first_shred": geyser.SLOT_FIRST_SHRED_RECEIVED,
    "completed": geyser.SLOT_COMPLETED,
    "created_bank": geyser.SLOT_CREATED_BANK,
    "dead": geyser.SLOT_DEAD,
}


def account_message(update: AccountUpdate) -> Any:
    """Return a `SubscribeUpdate` of one account."""
    message = geyser.SubscribeUpdate()
    message.account.slot = update.slot
    info = message.account.account
    info.pubkey, info.owner = b58decode(update.pubkey), b58decode(update.owner)
    info.lamports, info.data, info.executable = update.lamports, update.data, update.executable
    info.rent_epoch, info.write_version = 2**64 - 1, update.write_version or 0
    if update.signature is not None:
        info.txn_signature = b58decode(update.signature)
    return message


def transaction_message(update: TransactionUpdate) -> Any:
    """Return a `SubscribeUpdate` of one transaction. All its keys are static: none is from a lookup table."""
    message = geyser.SubscribeUpdate()
    message.transaction.slot = update.slot
    info = message.transaction.transaction
    info.signature, info.index = b58decode(update.signature), update.index or 0
    info.transaction.signatures.append(info.signature)
    _write_message(info.transaction.message, update)
    _write_meta(info.meta, update)
    return message


def slot_message(update: SlotUpdate) -> Any:
    """Return a `SubscribeUpdate` of a slot's status."""
    return status_message(update.slot, update.status, update.parent)


def status_message(slot: int, status: str, parent: int | None = None) -> Any:
    """Return a `SubscribeUpdate` of a slot's status, which must be in STATUSES."""
    message = geyser.SubscribeUpdate()
    message.slot.slot, message.slot.status = slot, STATUSES[status]
    if parent is not None:
        message.slot.parent = parent
    return message


def block_meta_message(slot: int, blockhash: str, parent: int, transactions: int = 0) -> Any:
    """Return a `SubscribeUpdate` that ends a block."""
    message = geyser.SubscribeUpdate()
    message.block_meta.slot, message.block_meta.blockhash = slot, blockhash
    message.block_meta.parent_slot = parent
    message.block_meta.executed_transaction_count = transactions
    return message


def _write_message(message: Any, update: TransactionUpdate) -> None:
    message.header.num_required_signatures = update.signers
    message.account_keys.extend(map(b58decode, update.account_keys))
    message.recent_blockhash = bytes(32)
    message.versioned = update.version != "legacy"
    if update.version == 1:
        message.config.SetInParent()
    for each in update.instructions:
        if len(each.path) == 1:
            _write_instruction(message.instructions.add(), update.account_keys, each)


def _write_meta(meta: Any, update: TransactionUpdate) -> None:
    if update.err is not None:
        meta.err.err = transaction_error_bytes(update.err)
    meta.fee = update.fee or 0
    meta.log_messages_none = update.logs is None
    meta.log_messages.extend(update.logs or ())
    groups: dict[int, Any] = {}
    for each in update.instructions:
        if len(each.path) == 1:
            continue
        group = groups.get(each.path[0])
        if group is None:
            group = groups[each.path[0]] = meta.inner_instructions.add(index=each.path[0])
        inner = group.instructions.add()
        _write_instruction(inner, update.account_keys, each)
        if each.stack_height is not None:
            inner.stack_height = each.stack_height
    meta.pre_balances.extend([0] * len(update.account_keys))
    meta.post_balances.extend([0] * len(update.account_keys))
    _write_balances(meta.pre_token_balances, update.account_keys, update.pre_token_balances)
    _write_balances(meta.post_token_balances, update.account_keys, update.post_token_balances)
    if update.compute_units is not None:
        meta.compute_units_consumed = update.compute_units


def _write_instruction(written: Any, keys: Sequence[str], instruction: Any) -> None:
    written.program_id_index = keys.index(instruction.program_id)
    written.accounts = bytes([keys.index(key) for key in instruction.accounts])
    written.data = instruction.data or b""


def _write_balances(written: Any, keys: Sequence[str], balances: Iterable[TokenBalance]) -> None:
    for each in balances:
        balance = written.add(account_index=keys.index(each.account), mint=each.mint, owner=each.owner or "")
        balance.ui_token_amount.amount, balance.ui_token_amount.decimals = str(each.amount), each.decimals
