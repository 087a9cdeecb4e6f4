"""Reads the transfers of SPL Token and Token-2022 from a transaction's instructions and token balances. Pure.

Log lines say nothing: p-token logs none for a transfer. Confidential transfers have no amounts and are left out, and so
is SOL that is wrapped or unwrapped (`SyncNative`, and the balance of a wrapped account that is opened or closed).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from headrace.model.keys import TOKEN_2022_PROGRAM, TOKEN_PROGRAM
from headrace.model.transfers import TokenTransfer, TransferKind
from headrace.model.updates import Instruction, TokenBalance, TransactionUpdate

BATCH: Final = 255
"""p-token: several instructions in one, each with its number of accounts, the length of its data, and its data."""
_FEE_EXTENSION: Final = 26
_WITH_FEE: Final = 1
_WITHDRAW_FROM_MINT, _WITHDRAW_FROM_ACCOUNTS = 2, 3
_PROGRAMS: Final = frozenset({TOKEN_PROGRAM, TOKEN_2022_PROGRAM})


class _Layout(NamedTuple):
    """Places of an instruction's accounts; None for those that it does not have."""

    kind: TransferKind
    mint: int | None
    source: int | None
    destination: int | None
    authority: int


_LAYOUTS: Final[Mapping[int, _Layout]] = {
    3: _Layout("transfer", None, 0, 1, 2),
    7: _Layout("mint", 0, None, 1, 2),
    8: _Layout("burn", 1, 0, None, 2),
    12: _Layout("transfer", 1, 0, 2, 3),
    14: _Layout("mint", 0, None, 1, 2),
    15: _Layout("burn", 1, 0, None, 2),
}
_OPENED: Final[Mapping[int, int | None]] = {1: 2, 16: None, 18: None}
"""Instructions that open an account (account, mint, …); the value is the owner's place, None: the owner is in the data.
"""
_PARSED: Final[Mapping[str, TransferKind]] = {
    "transfer": "transfer",
    "transferChecked": "transfer",
    "transferCheckedWithFee": "transfer",
    "mintTo": "mint",
    "mintToChecked": "mint",
    "burn": "burn",
    "burnChecked": "burn",
}


class _Move(NamedTuple):
    path: tuple[int, ...]
    ordinal: int
    kind: TransferKind
    program_id: str
    mint: str | None
    source: str | None
    destination: str | None
    authority: str | None
    amount: int
    fee: int | None


class _Accounts:
    """Mints and owners of the token accounts of one transaction, and accounts that get withheld fees."""

    def __init__(self, update: TransactionUpdate) -> None:
        self.pre = {held.account: held for held in update.pre_token_balances}
        self.post = {held.account: held for held in update.post_token_balances}
        self.mints: dict[str, str] = {}
        self.owners: dict[str, str] = {}
        self.decimals: dict[str, int] = {}
        self.paid_fees: set[str] = set()
        for held in (*self.post.values(), *self.pre.values()):  # the owner before counts: transfers mostly come first
            self._learn(held)

    def _learn(self, held: TokenBalance) -> None:
        self.mints[held.account] = held.mint
        self.decimals[held.mint] = held.decimals
        if held.owner is not None:
            self.owners[held.account] = held.owner

    def open(self, account: str, mint: str, owner: str | None) -> None:
        self.mints.setdefault(account, mint)
        if owner is not None:
            self.owners.setdefault(account, owner)

    def mint_of(self, move: _Move) -> str | None:
        """Return the mint of a move. Both of its accounts have the same mint."""
        if move.mint is not None:
            return move.mint
        return next((self.mints[each] for each in (move.source, move.destination) if each in self.mints), None)


def token_transfers(update: TransactionUpdate) -> list[TokenTransfer]:
    """Return the transfers, mints and burns of a transaction in their order; none of a failed transaction.

    An instruction that is too short for its kind moves nothing and is left out.
    """
    if update.err is not None:
        return []
    accounts = _Accounts(update)
    moves: list[_Move] = []
    for instruction in update.instructions:
        if instruction.program_id in _PROGRAMS:
            moves += _moves(instruction, accounts)
    if not moves:
        return []
    for move in moves:  # a plain transfer names no mint: learn it from transfers that do
        mint = accounts.mint_of(move)
        for each in (move.source, move.destination):
            if mint is not None and each is not None:
                accounts.mints.setdefault(each, mint)
    fees = _withheld(moves, accounts)
    return [_transfer(move, accounts, fees) for move in moves]


def _moves(instruction: Instruction, accounts: _Accounts) -> Iterator[_Move]:
    if instruction.data is None:
        if instruction.parsed is not None:
            yield from _parsed_move(instruction, instruction.parsed, accounts)
        return
    for ordinal, (keys, data) in enumerate(_parts(instruction.accounts, instruction.data)):
        move = _move(instruction, ordinal, keys, data, accounts)
        if move is not None:
            yield move


def _parts(keys: Sequence[str], data: bytes) -> list[tuple[Sequence[str], bytes]]:
    """Return the instructions of a batch, each with its accounts, or the instruction itself."""
    if not data or data[0] != BATCH:
        return [(keys, data)]
    found: list[tuple[Sequence[str], bytes]] = []
    at, key = 1, 0
    while at + 2 <= len(data):
        count, length = data[at], data[at + 1]
        found.append((keys[key : key + count], data[at + 2 : at + 2 + length]))
        at, key = at + 2 + length, key + count
    return found


def _move(
    instruction: Instruction, ordinal: int, keys: Sequence[str], data: bytes, accounts: _Accounts
) -> _Move | None:
    kind = data[0] if data else -1
    if kind in _OPENED and len(keys) >= 2:
        place = _OPENED[kind]
        accounts.open(keys[0], keys[1], keys[place] if place is not None and place < len(keys) else None)
        return None
    fee: int | None = 0 if instruction.program_id == TOKEN_PROGRAM else None
    layout, begins = _LAYOUTS.get(kind), 1
    if kind == _FEE_EXTENSION and len(data) >= 2:
        if data[1] in (_WITHDRAW_FROM_MINT, _WITHDRAW_FROM_ACCOUNTS) and len(keys) >= 2:
            accounts.paid_fees.add(keys[1])
        if data[1] == _WITH_FEE and len(data) >= 19:
            layout, begins, fee = _LAYOUTS[12], 2, int.from_bytes(data[11:19], "little")
    if layout is None or len(data) < begins + 8 or len(keys) <= layout.authority:
        return None
    if layout.kind != "transfer":
        fee = 0
    return _Move(
        instruction.path,
        ordinal,
        layout.kind,
        instruction.program_id,
        None if layout.mint is None else keys[layout.mint],
        None if layout.source is None else keys[layout.source],
        None if layout.destination is None else keys[layout.destination],
        keys[layout.authority],
        int.from_bytes(data[begins : begins + 8], "little"),
        fee,
    )


def _parsed_move(instruction: Instruction, parsed: Mapping[str, object], accounts: _Accounts) -> Iterator[_Move]:
    """Read what a `jsonParsed` node made of an instruction."""
    name, info = parsed.get("type"), parsed.get("info")
    if not isinstance(name, str) or not isinstance(info, dict):
        return
    account, mint = _text(info, "account"), _text(info, "mint")
    if name.startswith("initializeAccount") and account is not None and mint is not None:
        accounts.open(account, mint, _text(info, "owner"))
    elif name.startswith("withdrawWithheld") and (receiver := _text(info, "feeRecipient")) is not None:
        accounts.paid_fees.add(receiver)
    kind, amount = _PARSED.get(name), _units(info, "amount", "tokenAmount")
    if kind is None or amount is None:
        return
    fee = 0 if instruction.program_id == TOKEN_PROGRAM or kind != "transfer" else _units(info, "feeAmount")
    source = _text(info, "source") if kind == "transfer" else account if kind == "burn" else None
    destination = _text(info, "destination") if kind == "transfer" else account if kind == "mint" else None
    authority = next(filter(None, (_text(info, each) for each in ("authority", "multisigAuthority"))), None)
    authority = authority or _text(info, "mintAuthority")
    yield _Move(instruction.path, 0, kind, instruction.program_id, mint, source, destination, authority, amount, fee)


def _withheld(moves: Sequence[_Move], accounts: _Accounts) -> dict[str, int | None]:
    """Return the fee withheld at each destination whose transfers do not name a fee; None where it is not shown.

    The fee is what came in and is not in the balance after the transaction.
    """
    unnamed: dict[str, int] = {}
    for move in moves:
        if move.fee is None and move.destination is not None:
            unnamed[move.destination] = unnamed.get(move.destination, 0) + 1
    found: dict[str, int | None] = {}
    for account, count in unnamed.items():
        found[account] = None
        if account in accounts.post and account not in accounts.paid_fees:
            before = accounts.pre[account].amount if account in accounts.pre else 0
            came = sum(move.amount - (move.fee or 0) for move in moves if move.destination == account)
            went = sum(move.amount for move in moves if move.source == account)
            lacking = before + came - went - accounts.post[account].amount
            if lacking == 0 or (count == 1 and lacking > 0):
                found[account] = lacking
    return found


def _transfer(move: _Move, accounts: _Accounts, fees: Mapping[str, int | None]) -> TokenTransfer:
    mint = accounts.mint_of(move)
    fee = fees.get(move.destination or "") if move.fee is None else move.fee
    return TokenTransfer(
        path=move.path,
        ordinal=move.ordinal,
        kind=move.kind,
        program_id=move.program_id,
        mint=mint,
        decimals=None if mint is None else accounts.decimals.get(mint),
        source=move.source,
        source_owner=accounts.owners.get(move.source or ""),
        destination=move.destination,
        destination_owner=accounts.owners.get(move.destination or ""),
        amount=move.amount,
        fee=fee if fee is None or fee <= move.amount else None,
        authority=move.authority,
    )


def _text(info: Mapping[Any, Any], name: str) -> str | None:
    value = info.get(name)
    return value if isinstance(value, str) else None


def _units(info: Mapping[Any, Any], *names: str) -> int | None:
    """Return the first of these amounts: a decimal text, or an object with one as `amount`."""
    for name in names:
        value = info.get(name)
        if isinstance(value, dict):
            value = value.get("amount")
        if isinstance(value, str) and value.isdecimal():
            return int(value)
    return None
