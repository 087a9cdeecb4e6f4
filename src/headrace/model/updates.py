"""Chain updates as sources deliver them, before any program's layout is applied: undecoded bytes, resolved keys."""

from typing import Final, Literal, TypeAlias

import msgspec

Commitment: TypeAlias = Literal["processed", "confirmed", "finalized"]
SlotStatus: TypeAlias = Literal["processed", "confirmed", "finalized", "dead", "created_bank"]
GapState: TypeAlias = Literal["open", "backfilled", "unrecoverable"]
TxVersion: TypeAlias = Literal["legacy"] | int
TxError: TypeAlias = str | dict[str, object] | None
"""The chain's own error value as JSON.

None is success; an error is, for example, `"AccountNotFound"` or `{"InstructionError":[2,…]}`.
"""

UNNAMED: Final = ""
"""Used in place of the program of an executed instruction, if no answer names it.

A simulation's answer names only the programs of inner instructions.
"""


_UPDATE_BYTES: Final = 400
_TEXT_BYTES: Final = 60
_INSTRUCTION_BYTES: Final = 300


class Update(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Fields that every update has.

    `source` names the source instance (`rpc-0`). `feed` names the subscription that delivered the update (`logs:6EF8…`,
    `program:…`, `account:…`, `slots`, `signature:…`). `received_ns` is the wall time in ns at which its bytes arrived,
    by the source's clock.
    """

    source: str
    feed: str
    received_ns: int
    slot: int


class AccountUpdate(Update, frozen=True, gc=False, kw_only=True, tag="account"):
    """One version of one account. `data` is complete unless the subscription asked for a slice.

    `write_version` orders versions only within one Yellowstone node; RPC PubSub has none.
    """

    pubkey: str
    owner: str
    lamports: int
    data: bytes
    executable: bool = False
    write_version: int | None = None
    signature: str | None = None
    commitment: Commitment = "processed"


class LogsUpdate(Update, frozen=True, gc=False, kw_only=True, tag="logs"):
    """Log lines of one transaction (`logsNotification`). Events can be read from them; instructions cannot."""

    signature: str
    err: TxError
    logs: tuple[str, ...]
    commitment: Commitment = "processed"
    unproven: bool = False
    """A LandingUpdate will say whether the slot's block contains the transaction. Until then it is not confirmed."""


class Instruction(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One executed instruction with its keys resolved.

    - `path`: `(top,)` for a top-level instruction and `(top, n)` for the n-th inner instruction under it. Both numbers
      count from 0 in execution order, so `path` is known even if `stack_height` is missing.
    - `stack_height`: 1 for a top-level instruction.
    - `parsed`: the object that a `jsonParsed` node sends in place of `data` (which is then None): `{"type": …, "info":
      {…}}`.
    """

    program_id: str
    accounts: tuple[str, ...]
    data: bytes | None
    path: tuple[int, ...]
    stack_height: int | None = None
    parsed: dict[str, object] | None = None


class TokenBalance(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Balance of one SPL coin account before or after a transaction. `amount` is in base units of `mint`."""

    account: str
    mint: str
    owner: str | None
    amount: int
    decimals: int


class TransactionUpdate(Update, frozen=True, gc=False, kw_only=True, tag="transaction"):
    """One executed transaction. `instructions` are in execution order, each top-level one followed by its inner ones.

    `logs` is None if the node kept none. `index` is the place in the block, if the source knows it. `version` is
    `"legacy"`, 0, 1, or a number newer than this code, in which case `instructions` is empty.
    """

    signature: str
    err: TxError
    version: TxVersion
    account_keys: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    logs: tuple[str, ...] | None
    signers: int = 0
    fee: int | None = None
    block_time_s: int | None = None
    index: int | None = None
    pre_token_balances: tuple[TokenBalance, ...] = ()
    post_token_balances: tuple[TokenBalance, ...] = ()
    compute_units: int | None = None
    commitment: Commitment = "processed"
    unproven: bool = False
    """Same meaning as `LogsUpdate.unproven`."""


class SlotUpdate(Update, frozen=True, gc=False, kw_only=True, tag="slot"):
    """A slot reached a status. `parent` is set if the source knows it (always with `slotSubscribe`)."""

    status: SlotStatus
    parent: int | None = None


class LandingUpdate(Update, frozen=True, gc=False, kw_only=True, tag="landing"):
    """Answer about signatures that were delivered as `unproven`.

    - `landed`: in the block of `slot`.
    - `absent`: not in the block.
    - `unknown`: no node answered in time. Their feeds get a gap at the slot.
    """

    landed: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class GapUpdate(Update, frozen=True, gc=False, kw_only=True, tag="gap"):
    """The source may have missed updates of `feed` from `from_slot` to `to_slot`, both included.

    The same `gap_id` comes again when its `state` changes from `open`: to `backfilled` (everything in the gap was
    delivered) or to `unrecoverable` (some of it can't be fetched). `slot` repeats `to_slot`.
    """

    gap_id: str
    from_slot: int
    to_slot: int
    state: GapState
    reason: str = ""


class PoolUpdate(Update, frozen=True, gc=False, kw_only=True, tag="pool"):
    """Answer to a request for a pool's mints. `mints` are the first and the second mint in the pool's own order.

    - `known`: `mints` are set.
    - `none`: the account does not exist, or is not a pool of the program.
    - `unanswered`: no node answered in time.

    `slot` is the slot of the answer, or 0 if the mints were known before.
    """

    pool: str
    state: Literal["known", "none", "unanswered"]
    mints: tuple[str, str] | None = None


class RewindUpdate(Update, frozen=True, gc=False, kw_only=True, tag="rewind"):
    """A recording starts again (demo lap). The updates that follow were delivered before, but are not duplicates."""

    lap: int


AnyUpdate: TypeAlias = (
    AccountUpdate | LogsUpdate | TransactionUpdate | SlotUpdate | LandingUpdate | GapUpdate | PoolUpdate | RewindUpdate
)


def weight_of(update: AnyUpdate) -> int:
    """Return roughly how many bytes `update` takes in memory. Keys add little, because updates share their texts."""
    if isinstance(update, LogsUpdate):
        return _UPDATE_BYTES + _TEXT_BYTES * len(update.logs) + sum(map(len, update.logs))
    if isinstance(update, AccountUpdate):
        return _UPDATE_BYTES + len(update.data)
    if isinstance(update, TransactionUpdate):
        logs = update.logs or ()
        instructions = sum(
            _INSTRUCTION_BYTES + 8 * len(each.accounts) + len(each.data or b"") for each in update.instructions
        )
        balances = _UPDATE_BYTES * (len(update.pre_token_balances) + len(update.post_token_balances))
        return _UPDATE_BYTES + instructions + balances + _TEXT_BYTES * len(logs) + sum(map(len, logs))
    return _UPDATE_BYTES
