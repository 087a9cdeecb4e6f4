"""The JSON-RPC methods of Solana nodes, with typed answers."""

from collections.abc import Collection, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from headrace.model.errors import BadInputError, TransientError
from headrace.model.keys import is_key, is_signature
from headrace.model.updates import Commitment, TxError
from headrace.solana.encodings import bytes_of
from headrace.solana.notifications import ACCOUNT_MAX
from headrace.solana.rpc_errors import RpcError, RpcNotYetError
from headrace.solana.rpc_json import not_stored
from headrace.solana.rpc_transport import RpcSettings, RpcTransport
from headrace.solana.transactions import signature_of

Slot = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

ACCOUNTS_PER_CALL_MAX: Final = 100
SIGNATURES_PER_CALL_MAX: Final = 1000

OTHER_ANSWER: Final = "rpc_other_answer"
"""Reason of a BadInputError for a result of the right type that does not match the request."""

ENVELOPE_BYTES: Final = 65_536
"""Maximum size in bytes of a response apart from its result: the JSON-RPC envelope, or an error with simulation
logs."""
SLOT_BYTES: Final = 24
"""Maximum number of bytes of a slot in a list: the digits of a u64, a comma and blanks."""
TRANSACTION_BYTES: Final = 2 * 1024 * 1024
"""Maximum number of bytes of a transaction.

The runtime allows about 1.3 MB: 64 instructions in the trace with 10 KiB of data each, in base58; 256 keys, each with a
coin balance before and after; and 10 kB of logs, each byte of which may be written as `\\u0000`.
"""
LISTING_BYTES: Final = 8 * 1024 * 1024
"""Maximum number of bytes of a page of signatures.

A line has 250 bytes, or up to 24 kB with an escaped memo that fills its transaction. If a page is longer, it is
requested again as smaller pages.
"""
BLOCK_SIGNATURES_MAX: Final = 100_000
"""Maximum number of signatures in a block: its 100 million compute units allow fewer transfers, at 1,470 units each."""
SIGNATURE_BYTES: Final = 96
"""Maximum number of bytes of a signature in a list: base58 with quotes, a comma and blanks."""
ACCOUNT_BYTES: Final = 1_024
"""Maximum number of bytes of an account without its data. Base64 makes the data a third longer."""


class SignatureInfo(msgspec.Struct, frozen=True, gc=False):
    """One line of `getSignaturesForAddress`."""

    signature: str
    slot: Slot
    err: TxError = None


class AccountInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An account as a node knew it at `slot`."""

    slot: int
    pubkey: str
    owner: str
    lamports: int
    data: bytes
    executable: bool


class AccountsAt(NamedTuple):
    """Accounts in the order in which they were asked for, all as of the end of `slot`."""

    slot: int
    accounts: list[AccountInfo | None]


class _Account(msgspec.Struct):
    lamports: Annotated[int, msgspec.Meta(ge=0)]
    owner: str
    data: tuple[str, str]
    executable: bool


class _Keyed(msgspec.Struct):
    pubkey: str
    account: _Account


class _Context(msgspec.Struct):
    slot: Slot


class _AccountsResult(msgspec.Struct):
    context: _Context
    value: list[_Account | None]


class _ProgramResult(msgspec.Struct):
    context: _Context
    value: list[_Keyed]


class _SignedBlock(msgspec.Struct, rename="camel"):
    signatures: Annotated[list[str], msgspec.Meta(max_length=BLOCK_SIGNATURES_MAX)]
    parent_slot: Slot


class SignatureStatuses(NamedTuple):
    """An endpoint's answer to `getSignatureStatuses`: the slot of its answer, and a status for each signature.

    A status is (slot, success, whether the slot is confirmed). It is None for an unknown signature, and "" for a
    malformed status.
    """

    slot: int
    words: list[tuple[int, bool, bool] | str | None]


class _StatusesResult(msgspec.Struct):
    context: _Context
    value: list[Any]


_STATUSES: Final = msgspec.json.Decoder(_StatusesResult)
_ANY: Final = msgspec.json.Decoder(Any)
_SLOT: Final = msgspec.json.Decoder(Slot)
_SLOTS: Final = msgspec.json.Decoder(list[Slot])
_SIGNATURES: Final = msgspec.json.Decoder(list[SignatureInfo])
_ACCOUNTS: Final = msgspec.json.Decoder(_AccountsResult)
_PROGRAM: Final = msgspec.json.Decoder(_ProgramResult)
_SIGNED_BLOCK: Final = msgspec.json.Decoder(_SignedBlock | None)


class DataSlice(NamedTuple):
    """The part of an account's data to fetch, in bytes."""

    offset: int
    length: int


class Rpc(RpcTransport):
    """The methods of a node that Headrace uses. Close with `aclose`. Errors are those of `RpcTransport`."""

    async def call(self, method: str, params: Sequence[object] = (), *, timeout_s: float | None = None) -> Any:
        """Return the `result` of any method, as plain JSON values."""
        return await self.ask(method, params, _ANY, timeout_s)

    async def get_slot(self, commitment: Commitment = "processed") -> int:
        """Return the newest slot that has reached `commitment`."""
        return await self.ask("getSlot", [{"commitment": commitment}], _SLOT, bytes_max=ENVELOPE_BYTES)

    async def get_block_height(self, commitment: Commitment = "confirmed") -> int:
        """Return the number of blocks below the newest block. The lifetime of a blockhash is counted in blocks."""
        return await self.ask("getBlockHeight", [{"commitment": commitment}], _SLOT, bytes_max=ENVELOPE_BYTES)

    async def get_first_available_block(self) -> int:
        """Return the oldest slot whose block the node still has."""
        return await self.ask("getFirstAvailableBlock", [], _SLOT, bytes_max=ENVELOPE_BYTES)

    async def get_blocks(self, from_slot: int, to_slot: int, commitment: Commitment = "confirmed") -> list[int]:
        """Return the slots of a range (both ends included) that have a block, ascending. Nodes allow 500,000 slots."""
        return await self.ask(
            "getBlocks",
            [from_slot, to_slot, {"commitment": commitment}],
            _SLOTS,
            bytes_max=ENVELOPE_BYTES + SLOT_BYTES * (to_slot - from_slot + 1),
            check=partial(_check_slots, from_slot, to_slot),
        )

    async def get_transaction(self, signature: str, commitment: Commitment = "confirmed") -> Any:
        """Return the `getTransaction` result as JSON values, in base64, of any version up to 1.

        None if no endpoint knows the transaction. Endpoints that have stored the complete transaction are preferred
        (`rpc_json.not_stored`).
        """
        return await self.ask(
            "getTransaction",
            [signature, _transaction_options(commitment)],
            _ANY,
            bytes_max=ENVELOPE_BYTES + TRANSACTION_BYTES,
            check=partial(_check_transaction, signature),
            suffices=_is_whole,
        )

    async def get_transactions(
        self, number: int, signatures: Sequence[str], commitment: Commitment = "confirmed"
    ) -> list[Any]:
        """Return the `getTransaction` results of endpoint `number`, requested as one batch.

        For each signature the result is JSON values, None if the node does not know the transaction (or left it out),
        or the node's error. The node may return another transaction, so check with `signature_of`.
        """
        options = _transaction_options(commitment)
        return await self.ask_each(
            number,
            "getTransaction",
            [[signature, options] for signature in signatures],
            _ANY,
            bytes_max=ENVELOPE_BYTES + TRANSACTION_BYTES,
        )

    async def get_signature_statuses(
        self, signatures: Sequence[str], *, history: bool = False
    ) -> list[SignatureStatuses]:
        """Return the endpoints' answers, in order, up to the first that knows all `signatures` as confirmed.

        Accepts at most 256 signatures. Without `history`, nodes search only the last few minutes. Raises BadInputError
        `rpc_wrong_count`.
        """
        answers: list[SignatureStatuses] = []

        def knows_all(result: _StatusesResult) -> bool:
            if len(result.value) != len(signatures):
                return False
            answers.append(SignatureStatuses(result.context.slot, list(map(_status, result.value))))
            return all(isinstance(word, tuple) and word[2] for word in answers[-1].words)

        options = {"searchTransactionHistory": history}
        await self.ask("getSignatureStatuses", [list(signatures), options], _STATUSES, suffices=knows_all)
        if not answers:
            raise BadInputError("rpc_wrong_count", "getSignatureStatuses")
        return answers

    async def get_block_signatures(
        self, slot: int, wanted: Collection[str] = (), commitment: Commitment = "confirmed"
    ) -> list[frozenset[str]]:
        """Return the signatures of the block of `slot`, one set per endpoint, up to the first that has all `wanted`.

        Empty if no endpoint has the block. A set does not show which of its transactions failed.
        """
        lists: list[frozenset[str]] = []

        def has_all(block: _SignedBlock | None) -> bool:
            if block is None:
                return False
            lists.append(frozenset(block.signatures))
            return lists[-1].issuperset(wanted)

        options = {**_transaction_options(commitment), "transactionDetails": "signatures", "rewards": False}
        await self.ask(
            "getBlock",
            [slot, options],
            _SIGNED_BLOCK,
            bytes_max=ENVELOPE_BYTES + SIGNATURE_BYTES * BLOCK_SIGNATURES_MAX,
            check=partial(_check_block, slot),
            suffices=has_all,
        )
        return lists

    async def get_signatures_for_address(
        self,
        address: str,
        *,
        before: str | None = None,
        until: str | None = None,
        limit: int = SIGNATURES_PER_CALL_MAX,
        commitment: Commitment = "confirmed",
        min_context_slot: int | None = None,
    ) -> list[SignatureInfo]:
        """Return at most 1,000 transactions that mention `address`, newest first, between `until` and `before`."""
        options: dict[str, object] = {"limit": limit, "commitment": commitment}
        named = {"before": before, "until": until, "minContextSlot": min_context_slot}
        options |= {name: value for name, value in named.items() if value is not None}
        return await self.ask(
            "getSignaturesForAddress",
            [address, options],
            _SIGNATURES,
            bytes_max=LISTING_BYTES,
            check=partial(_check_signatures, limit, (before, until)),
        )

    async def get_account_info(
        self, pubkey: str, commitment: Commitment = "confirmed", *, min_context_slot: int | None = None
    ) -> AccountInfo | None:
        """Return one account, or None if it does not exist."""
        found = await self.get_multiple_accounts([pubkey], commitment, min_context_slot=min_context_slot)
        return found[0]

    async def get_multiple_accounts(
        self, pubkeys: Sequence[str], commitment: Commitment = "confirmed", *, min_context_slot: int | None = None
    ) -> list[AccountInfo | None]:
        """Return at most 100 accounts in the order of `pubkeys`, all as of one slot.

        An account that does not exist is None.
        """
        return (await self.read_accounts(pubkeys, commitment, min_context_slot=min_context_slot)).accounts

    async def read_accounts(
        self, pubkeys: Sequence[str], commitment: Commitment = "confirmed", *, min_context_slot: int | None = None
    ) -> "AccountsAt":
        """Return what `get_multiple_accounts` does, with its slot."""
        if len(pubkeys) > ACCOUNTS_PER_CALL_MAX:
            raise ValueError(f"{len(pubkeys)} accounts asked for, expected at most {ACCOUNTS_PER_CALL_MAX}")
        options: dict[str, object] = {"encoding": "base64", "commitment": commitment}
        if min_context_slot is not None:
            options["minContextSlot"] = min_context_slot
        result = await self.ask(
            "getMultipleAccounts",
            [list(pubkeys), options],
            _ACCOUNTS,
            bytes_max=ENVELOPE_BYTES + (ACCOUNT_BYTES + ACCOUNT_MAX * 4 // 3) * len(pubkeys),
            check=partial(_check_accounts, len(pubkeys), min_context_slot),
        )
        slot = result.context.slot
        found = [
            None if account is None else _account(slot, key, account)
            for key, account in zip(pubkeys, result.value, strict=True)
        ]
        return AccountsAt(slot, found)

    async def get_program_accounts(
        self,
        program_id: str,
        commitment: Commitment = "confirmed",
        *,
        filters: Sequence[object] = (),
        data_slice: DataSlice | None = None,
    ) -> list[AccountInfo]:
        """Return all accounts that `program_id` owns and that pass `filters`.

        Many public nodes refuse this expensive method. Raises BadInputError for an answer longer than the setting
        `response_bytes_max`.
        """
        options: dict[str, object] = {"encoding": "base64", "commitment": commitment, "withContext": True}
        if filters:
            options["filters"] = list(filters)
        if data_slice:
            options["dataSlice"] = data_slice._asdict()
        result = await self.ask(
            "getProgramAccounts",
            [program_id, options],
            _PROGRAM,
            bytes_max=None,
            check=partial(_check_owned, program_id),
        )
        return [_account(result.context.slot, entry.pubkey, entry.account) for entry in result.value]


def _transaction_options(commitment: Commitment) -> dict[str, object]:
    return {"encoding": "base64", "commitment": commitment, "maxSupportedTransactionVersion": 1}


def _status(value: Any) -> tuple[int, bool, bool] | str | None:
    if value is None:
        return None
    slot = value.get("slot") if isinstance(value, dict) else None
    if not isinstance(slot, int) or isinstance(slot, bool) or "err" not in value:
        return ""
    level = value.get("confirmationStatus")
    return slot, value["err"] is None, level in ("confirmed", "finalized") or (level is None and _is_rooted(value))


def _is_rooted(value: dict[str, Any]) -> bool:
    return "confirmations" in value and value["confirmations"] is None


# Each answer is checked against its request. A node whose answer does not match may be broken or malicious, or a cache
# in front of it may mix up answers. Such an answer is refused, and the next endpoint is asked.


def _check_slots(from_slot: int, to_slot: int, slots: list[int]) -> None:
    ascending = all(earlier < later for earlier, later in pairwise(slots))
    if not ascending or (slots and not from_slot <= slots[0] <= slots[-1] <= to_slot):
        raise _other_answer("getBlocks", f"slots that are not within {from_slot} to {to_slot}, ascending")


def _check_transaction(signature: str, result: Any) -> None:
    found = "" if result is None else signature_of(result)
    if found not in ("", signature):
        raise _other_answer("getTransaction", f"{found[:88]}, asked for {signature}")


def _check_block(slot: int, block: _SignedBlock | None) -> None:
    if block is not None and block.parent_slot >= slot:
        raise _other_answer("getBlock", f"a block on top of slot {block.parent_slot}, asked for {slot}")


def _check_signatures(limit: int, excluded: Sequence[str | None], found: list[SignatureInfo]) -> None:
    names = {info.signature for info in found}
    if len(found) > limit or len(names) < len(found) or not names.isdisjoint(excluded):
        raise _other_answer("getSignaturesForAddress", "more than was asked for, or the same again")
    if any(newer.slot < older.slot for newer, older in pairwise(found)):
        raise _other_answer("getSignaturesForAddress", "not newest first")
    if not all(map(is_signature, names)):
        raise _other_answer("getSignaturesForAddress", "a signature that is none")


def _check_accounts(count: int, min_context_slot: int | None, result: _AccountsResult) -> None:
    if len(result.value) != count:
        raise BadInputError("rpc_wrong_count", f"getMultipleAccounts: {len(result.value)} accounts, expected {count}")
    if min_context_slot is not None and result.context.slot < min_context_slot:
        raise TransientError(f"getMultipleAccounts: as of slot {result.context.slot}, asked for {min_context_slot}")
    if not all(account is None or is_key(account.owner) for account in result.value):
        raise _other_answer("getMultipleAccounts", "an owner that is no key")


def _check_owned(program_id: str, result: _ProgramResult) -> None:
    if not all(entry.account.owner == program_id and is_key(entry.pubkey) for entry in result.value):
        raise _other_answer("getProgramAccounts", f"an account that is not of {program_id}")


def _other_answer(method: str, detail: str) -> BadInputError:
    return BadInputError(OTHER_ANSWER, f"{method}: {detail}")


def _is_whole(result: Any) -> bool:
    return result is not None and not not_stored(result)


def _account(slot: int, pubkey: str, account: _Account) -> AccountInfo:
    return AccountInfo(
        slot=slot,
        pubkey=pubkey,
        owner=account.owner,
        lamports=account.lamports,
        data=bytes_of(account.data, size_max=ACCOUNT_MAX),
        executable=account.executable,
    )


__all__ = [
    "AccountInfo",
    "AccountsAt",
    "DataSlice",
    "Rpc",
    "RpcError",
    "RpcNotYetError",
    "RpcSettings",
    "SignatureInfo",
]
