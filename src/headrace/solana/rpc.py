"""The JSON-RPC methods of Solana nodes, with typed answers."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.updates import Commitment, TxError
from headrace.solana.encodings import bytes_of
from headrace.solana.notifications import ACCOUNT_MAX
from headrace.solana.rpc_errors import RpcError, RpcNotYetError
from headrace.solana.rpc_transport import RpcSettings, RpcTransport
from headrace.solana.stored import not_stored

Slot = Annotated[int, msgspec.Meta(ge=0)]

ACCOUNTS_PER_CALL_MAX: Final = 100


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


class SignatureStatuses(NamedTuple):
    """An endpoint's answer to `getSignatureStatuses`: the slot at which it stands, and for each signature the slot, the
    success and whether that is confirmed; None where it is not known, "" where the answer can't be read."""

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


class DataSlice(NamedTuple):
    """The part of an account's data to fetch, in bytes."""

    offset: int
    length: int


class Rpc(RpcTransport):
    """The methods of a node that are used here. Close it with `aclose`; what is raised is told by `RpcTransport`."""

    async def call(self, method: str, params: Sequence[object] = (), *, timeout_s: float | None = None) -> Any:
        """The `result` of any method, as plain JSON values."""
        return await self.ask(method, params, _ANY, timeout_s)

    async def get_slot(self, commitment: Commitment = "processed") -> int:
        """The newest slot that has reached `commitment`."""
        return await self.ask("getSlot", [{"commitment": commitment}], _SLOT)

    async def get_block_height(self, commitment: Commitment = "confirmed") -> int:
        """Number of blocks beneath the newest one; blockhash lifetimes are counted in it."""
        return await self.ask("getBlockHeight", [{"commitment": commitment}], _SLOT)

    async def get_first_available_block(self) -> int:
        """The oldest slot whose block the node can still give."""
        return await self.ask("getFirstAvailableBlock", [], _SLOT)

    async def get_blocks(self, from_slot: int, to_slot: int, commitment: Commitment = "confirmed") -> list[int]:
        """Slots in the range (ends included) that have a block on the chain, ascending; nodes allow 500,000."""
        return await self.ask("getBlocks", [from_slot, to_slot, {"commitment": commitment}], _SLOTS)

    async def get_transaction(self, signature: str, commitment: Commitment = "confirmed") -> Any:
        """Return the `getTransaction` result as JSON values, in base64, of any version up to 1; None if no endpoint
        knows the transaction. Endpoints that have stored all of it are preferred (`stored.not_stored`)."""
        options = _transaction_options(commitment)
        return await self.ask("getTransaction", [signature, options], _ANY, suffices=_is_whole)

    async def get_transactions(
        self, number: int, signatures: Sequence[str], commitment: Commitment = "confirmed"
    ) -> list[Any]:
        """Return the `getTransaction` results of endpoint `number`, asked as one batch: for each signature JSON values,
        None where the node does not know it (or left it out), or the error that it answered with."""
        options = _transaction_options(commitment)
        return await self.ask_each(number, "getTransaction", [[signature, options] for signature in signatures], _ANY)

    async def get_signature_statuses(
        self, signatures: Sequence[str], *, history: bool = False
    ) -> list[SignatureStatuses]:
        """Return the answers of the endpoints, in their order, up to one that knows all `signatures` as confirmed; at
        most 256. `history`: they look further back than a few minutes. Raises BadInputError `rpc_wrong_count`."""
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

    async def get_signatures_for_address(
        self,
        address: str,
        *,
        before: str | None = None,
        until: str | None = None,
        limit: int = 1000,
        commitment: Commitment = "confirmed",
        min_context_slot: int | None = None,
    ) -> list[SignatureInfo]:
        """Transactions that mention `address`, newest first, older than `before`, newer than `until`; limit ≤ 1,000."""
        options: dict[str, object] = {"limit": limit, "commitment": commitment}
        named = {"before": before, "until": until, "minContextSlot": min_context_slot}
        options |= {name: value for name, value in named.items() if value is not None}
        return await self.ask("getSignaturesForAddress", [address, options], _SIGNATURES)

    async def get_account_info(
        self, pubkey: str, commitment: Commitment = "confirmed", *, min_context_slot: int | None = None
    ) -> AccountInfo | None:
        """One account, or None if there is none."""
        found = await self.get_multiple_accounts([pubkey], commitment, min_context_slot=min_context_slot)
        return found[0]

    async def get_multiple_accounts(
        self, pubkeys: Sequence[str], commitment: Commitment = "confirmed", *, min_context_slot: int | None = None
    ) -> list[AccountInfo | None]:
        """Accounts in the order asked for, all as of one slot; at most 100. None where there is none."""
        if len(pubkeys) > ACCOUNTS_PER_CALL_MAX:
            raise ValueError(f"{len(pubkeys)} accounts asked for, expected at most {ACCOUNTS_PER_CALL_MAX}")
        options: dict[str, object] = {"encoding": "base64", "commitment": commitment}
        if min_context_slot is not None:
            options["minContextSlot"] = min_context_slot
        result = await self.ask("getMultipleAccounts", [list(pubkeys), options], _ACCOUNTS)
        if len(result.value) != len(pubkeys):
            raise BadInputError("rpc_wrong_count", "getMultipleAccounts")
        slot = result.context.slot
        return [
            None if account is None else _account(slot, key, account)
            for key, account in zip(pubkeys, result.value, strict=True)
        ]

    async def get_program_accounts(
        self,
        program_id: str,
        commitment: Commitment = "confirmed",
        *,
        filters: Sequence[object] = (),
        data_slice: DataSlice | None = None,
    ) -> list[AccountInfo]:
        """All accounts that `program_id` owns and `filters` let pass. Heavy: many public nodes refuse it."""
        options: dict[str, object] = {"encoding": "base64", "commitment": commitment, "withContext": True}
        if filters:
            options["filters"] = list(filters)
        if data_slice:
            options["dataSlice"] = data_slice._asdict()
        result = await self.ask("getProgramAccounts", [program_id, options], _PROGRAM)
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
    "DataSlice",
    "Rpc",
    "RpcError",
    "RpcNotYetError",
    "RpcSettings",
    "SignatureInfo",
]
