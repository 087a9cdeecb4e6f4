"""Reads a node's messages into updates and notices, and finds out which request is in force. Pure."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from google.protobuf.message import DecodeError

from headrace.model.errors import BadInputError
from headrace.model.keys import KEY_TEXTS, b58encode
from headrace.model.updates import (
    AccountUpdate,
    Commitment,
    Instruction,
    SlotStatus,
    TokenBalance,
    TransactionUpdate,
)
from headrace.solana.notifications import ACCOUNT_MAX
from headrace.solana.transaction_errors import transaction_error
from headrace.sources.connection import Arrival, LandedNotice, SignatureNotice, SlotNotice, StatusNotice, Unreadable
from headrace.sources.subscriptions import SLOTS, ChainSubscription
from headrace.sources.yellowstone.messages import geyser
from headrace.sources.yellowstone.requests import Requests, request_number

SLOT_MAX: Final = 2**63 - 1
_STATUSES: Final[dict[int, SlotStatus]] = {
    geyser.SLOT_CONFIRMED: "confirmed",
    geyser.SLOT_FINALIZED: "finalized",
    geyser.SLOT_CREATED_BANK: "created_bank",
    geyser.SLOT_DEAD: "dead",
}
_SILENT: Final = frozenset({geyser.SLOT_FIRST_SHRED_RECEIVED, geyser.SLOT_COMPLETED})
"""Statuses of a slot before its bank is created. They change nothing for a subscriber."""
_UNUSED: Final = frozenset({"entry", "pong"})
"""Kinds of updates for which `model.updates` has no type."""
_FILTERS_TAG: Final = 0x0A
_NAMES_MAX: Final = 256
_parse: Final = geyser.SubscribeUpdate.FromString


class Ping(NamedTuple):
    """Ping of a node. The node ends the connection if it gets no answer."""


class InForce(NamedTuple):
    """Sign that the request with this number is in force."""

    number: int


class BlockMeta(NamedTuple):
    """End of a block: everything of `slot` came before. `parent` is the slot of the block's parent."""

    slot: int
    blockhash: str
    parent: int


class Unused(NamedTuple):
    """Update that is dropped: its kind is not used, or its filters are no longer wanted."""

    kind: str


Heard: TypeAlias = Arrival | Ping | InForce | BlockMeta | Unused


class Reader:
    """Reader of one connection's messages. Its updates carry `source` and `commitment`."""

    def __init__(self, requests: Requests, source: str, commitment: Commitment) -> None:
        self._requests, self._source, self._commitment = requests, source, commitment
        self._finalized = 0

    def read(self, message: bytes, received_ns: int) -> Sequence[Heard]:
        """Return the contents of a message, with one update for each subscription whose filter it names.

        A message that can't be read becomes an Unreadable of the subscriptions that it names, or of all subscriptions
        if it names none. Never raises.
        """
        try:
            update = _parse(message)
        except DecodeError:
            return self._unreadable(leading_names(message), "not_protobuf")
        kind = update.WhichOneof("update_oneof")
        if kind == "account":
            return self._account(update, received_ns)
        if kind == "transaction":
            return self._transaction(update, received_ns)
        if kind == "slot":
            return self._slot(update)
        if kind == "block_meta":
            meta = update.block_meta
            if meta.slot > SLOT_MAX or meta.parent_slot > meta.slot:
                return self._unreadable(update.filters, "bad_slot")
            return (BlockMeta(meta.slot, meta.blockhash, meta.parent_slot), *self._of_filters(update, kind))
        if kind == "block":
            return self._block(update, received_ns)
        if kind == "ping":
            return (Ping(),)
        if kind == "transaction_status":
            return self._transaction_status(update)
        if kind in _UNUSED:
            return (Unused(str(kind)),)
        return self._unreadable(update.filters, "unknown_kind")

    # Accounts.

    def _account(self, update: Any, received_ns: int) -> Sequence[Heard]:
        account, names = update.account, update.filters
        slot = account.slot
        if len(names) == 1 and (feed := self._requests.feeds.get(names[0])) is not None:
            try:
                return (self._account_of(account.account, slot, feed, received_ns),)
            except BadInputError:
                pass  # the slower way below fails again, and declares the loss
        subscriptions = self._wanted(names)
        if not subscriptions:
            return (Unused("account"),)
        try:
            made = self._account_of(account.account, slot, subscriptions[0].feed, received_ns)
        except BadInputError as error:
            return (Unreadable(subscriptions, error.reason, slot if slot <= SLOT_MAX else None),)
        if len(subscriptions) == 1:
            return (made,)
        return (made, *[msgspec.structs.replace(made, feed=each.feed) for each in subscriptions[1:]])

    def _account_of(self, info: Any, slot: int, feed: str, received_ns: int) -> AccountUpdate:
        data = info.data
        if len(data) > ACCOUNT_MAX:
            raise BadInputError("too_large", f"{len(data)} bytes, expected at most {ACCOUNT_MAX}")
        _check_slot(slot)
        signature = info.txn_signature
        try:
            return AccountUpdate(
                source=self._source,
                feed=feed,
                received_ns=received_ns,
                slot=slot,
                pubkey=KEY_TEXTS[info.pubkey],
                owner=KEY_TEXTS[info.owner],
                lamports=info.lamports,
                data=data,
                executable=info.executable,
                write_version=info.write_version,
                signature=_signature(signature) if signature else None,
                commitment=self._commitment,
            )
        except ValueError as error:
            raise BadInputError("bad_key", str(error)) from None

    # Transactions.

    def _transaction(self, update: Any, received_ns: int) -> Sequence[Heard]:
        subscriptions = self._wanted(update.filters)
        slot, info = update.transaction.slot, update.transaction.transaction
        if not subscriptions:
            return (Unused("transaction"),)
        return self._transactions_of(info, slot, subscriptions, received_ns)

    def _transaction_status(self, update: Any) -> Sequence[Heard]:
        """Return notices that have the transaction fetched, as its status has neither instructions nor logs."""
        subscriptions, status = self._wanted(update.filters), update.transaction_status
        if not subscriptions:
            return (Unused("transaction_status"),)
        try:
            _check_slot(status.slot)
            signature = _signature(status.signature)
        except BadInputError as error:
            return (Unreadable(subscriptions, error.reason, status.slot if status.slot <= SLOT_MAX else None),)
        return [LandedNotice(status.slot, each, signature) for each in subscriptions]

    def _transactions_of(
        self, info: Any, slot: int, subscriptions: Sequence[ChainSubscription], received_ns: int
    ) -> list[Heard]:
        """Return the transaction for each subscription.

        If the node sent neither logs nor inner instructions, return notices that have the transaction fetched.
        """
        try:
            _check_slot(slot)
            signature = _signature(info.signature)
            whole = not (info.meta.inner_instructions_none and info.meta.log_messages_none)
            made = self._transaction_of(info, signature, slot, received_ns) if whole else None
        except BadInputError as error:
            return [Unreadable(tuple(subscriptions), error.reason, slot if slot <= SLOT_MAX else None)]
        heard: list[Heard] = []
        for each in subscriptions:
            if each.kind == "signature":
                heard.append(SignatureNotice(slot, each))
            elif made is None:
                heard.append(LandedNotice(slot, each, signature))
            else:
                heard.append(msgspec.structs.replace(made, feed=each.feed))
        return heard

    def _transaction_of(self, info: Any, signature: str, slot: int, received_ns: int) -> TransactionUpdate:
        message, meta = info.transaction.message, info.meta
        try:
            keys = tuple(
                [
                    KEY_TEXTS[raw]
                    for raw in (
                        *message.account_keys,
                        *meta.loaded_writable_addresses,
                        *meta.loaded_readonly_addresses,
                    )
                ]
            )
            return TransactionUpdate(
                source=self._source,
                feed="",
                received_ns=received_ns,
                slot=slot,
                signature=signature,
                err=transaction_error(meta.err.err) if meta.HasField("err") else None,
                version=1 if message.HasField("config") else 0 if message.versioned else "legacy",
                account_keys=keys,
                instructions=_instructions(keys, message, meta),
                logs=None if meta.log_messages_none else tuple(meta.log_messages),
                signers=message.header.num_required_signatures,
                fee=meta.fee,
                index=info.index,
                pre_token_balances=_balances(keys, meta.pre_token_balances),
                post_token_balances=_balances(keys, meta.post_token_balances),
                compute_units=meta.compute_units_consumed if meta.HasField("compute_units_consumed") else None,
                commitment=self._commitment,
            )
        except IndexError:
            raise BadInputError("bad_index", "an index to no key") from None
        except ValueError as error:
            raise BadInputError("bad_shape", str(error)) from None

    # Slots and blocks.

    def _slot(self, update: Any) -> Sequence[Heard]:
        told = update.slot
        slot, parent = told.slot, told.parent if told.HasField("parent") else None
        if slot > SLOT_MAX or (parent is not None and parent > slot):
            return self._unreadable(update.filters, "bad_slot")
        heard: list[Heard] = [
            InForce(number) for name in update.filters if (number := request_number(name)) is not None
        ]
        if told.status == geyser.SLOT_PROCESSED:
            heard.append(SlotNotice(slot, parent, min(self._finalized, slot)))
        elif (status := _STATUSES.get(told.status)) is not None:
            if status == "finalized":
                self._finalized = max(self._finalized, slot)
            heard.append(StatusNotice(slot, status, parent))
        elif told.status not in _SILENT:
            heard.append(Unreadable((SLOTS,), "unknown_status", slot))
        return heard

    def _block(self, update: Any, received_ns: int) -> Sequence[Heard]:
        """Return a block's transactions and accounts for each subscription whose filter asks for blocks."""
        block, subscriptions = update.block, self._wanted(update.filters)
        heard: list[Heard] = []
        for info in block.transactions if subscriptions else ():
            heard += self._transactions_of(info, block.slot, subscriptions, received_ns)
        for info in block.accounts if subscriptions else ():
            for each in subscriptions:
                try:
                    heard.append(self._account_of(info, block.slot, each.feed, received_ns))
                except BadInputError as error:
                    heard.append(Unreadable((each,), error.reason, min(block.slot, SLOT_MAX)))
        return heard or (Unused("block"),)

    # Filters.

    def _wanted(self, names: Sequence[str]) -> tuple[ChainSubscription, ...]:
        wants = self._requests.wants
        return tuple([found for name in names if (found := wants(name)) is not None])

    def _of_filters(self, update: Any, kind: str) -> list[Heard]:
        """Return an Unused for an update that subscribers never get, if a filter from TOML asks for it."""
        return [Unused(kind)] if self._wanted(update.filters) else []

    def _unreadable(self, names: Sequence[str], reason: str) -> Sequence[Heard]:
        """Return an Unreadable of the subscriptions with these filter names, or of all if none of them is wanted.

        If the names belong only to filters that are no longer wanted, nothing is lost: return an Unused.
        """
        concerned = self._wanted(names)
        if not concerned and names and all(map(self._requests.knows, names)):
            return (Unused(reason),)
        return (Unreadable(concerned or self._requests.wanted, reason),)


def leading_names(message: bytes) -> list[str]:
    """Return the filter names at the start of a message that can't be parsed. Nodes write these names first."""
    names: list[str] = []
    at = 0
    while at + 2 <= len(message) and message[at] == _FILTERS_TAG and message[at + 1] < 0x80 and len(names) < _NAMES_MAX:
        end = at + 2 + message[at + 1]
        if end > len(message):
            break
        names.append(message[at + 2 : end].decode("utf-8", "replace"))
        at = end
    return names


def _check_slot(slot: int) -> None:
    if slot > SLOT_MAX:
        raise BadInputError("bad_slot", str(slot))


def _signature(raw: bytes) -> str:
    if len(raw) != 64:
        raise BadInputError("bad_signature", f"{len(raw)} bytes, expected 64")
    return b58encode(raw)


def _instructions(keys: Sequence[str], message: Any, meta: Any) -> tuple[Instruction, ...]:
    """Return the instructions in the order of execution.

    Raises BadInputError if inner instructions belong to no instruction of the message, or to one of them twice.
    """
    top, under = message.instructions, {group.index: group for group in meta.inner_instructions}
    if len(under) != len(meta.inner_instructions) or any(index >= len(top) for index in under):
        raise BadInputError("bad_index", f"inner instructions of {sorted(under)[:8]} under {len(top)} instructions")
    made = []
    for number, each in enumerate(top):
        made.append(_instruction(keys, each, (number,), 1))
        if number in under:
            for place, inner in enumerate(under[number].instructions):
                height = inner.stack_height if inner.HasField("stack_height") else None
                made.append(_instruction(keys, inner, (number, place), height))
    return tuple(made)


def _instruction(keys: Sequence[str], told: Any, path: tuple[int, ...], height: int | None) -> Instruction:
    return Instruction(
        program_id=keys[told.program_id_index],
        accounts=tuple([keys[index] for index in told.accounts]),
        data=told.data,
        path=path,
        stack_height=height,
    )


def _balances(keys: Sequence[str], told: Any) -> tuple[TokenBalance, ...]:
    return tuple(
        [
            TokenBalance(
                account=keys[each.account_index],
                mint=each.mint,
                owner=each.owner or None,
                amount=int(each.ui_token_amount.amount),
                decimals=each.ui_token_amount.decimals,
            )
            for each in told
        ]
    )
