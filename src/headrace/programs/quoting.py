"""The types with which a program's `curve.py` turns accounts into exact quotes of swaps, or a reason for no quote.

A curve is pure integer arithmetic that repeats its program's arithmetic, including rounding. `CURVE` of each `curve.py`
says which accounts a quote reads (`needs`), and turns them into a market (`read`). The market then quotes any amount.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, Self, TypeAlias

import msgspec
from solders.pubkey import Pubkey

from headrace.model.errors import BadInputError, HeadraceError
from headrace.model.events import DecodedAccount
from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT
from headrace.model.keys import TOKEN_2022_PROGRAM as TOKEN_2022_PROGRAM
from headrace.model.keys import TOKEN_PROGRAM as TOKEN_PROGRAM

U64_MAX: Final = 2**64 - 1
BPS: Final = 10_000
SLOTS_PER_EPOCH: Final = 432_000


class NoQuoteError(HeadraceError):
    """There is no quote for this amount on this pool.

    `reason` is one of the constants below, `detail` is for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


COMPLETE: Final = "complete"
"""The curve has sold all its tokens; its coin migrates or has migrated to a pool."""
MIGRATED: Final = "migrated"
EMPTY: Final = "empty"
"""One side of the pool is empty."""
DISABLED: Final = "disabled"
"""Swaps are forbidden by the pool's status, or by the mint's (paused)."""
NOT_OPEN: Final = "not_open"
"""Swaps begin at a later time or slot."""
TOO_SMALL: Final = "too_small"
"""The amount is below 1, or fees exceed the output."""
TOO_LARGE: Final = "too_large"
"""The amount is more than the pool holds, or more than fits the program's integers."""
NO_ACCOUNT: Final = "no_account"
"""An account that the quote reads is not known; `detail` names the account."""
NO_ARRAY: Final = "no_array"
"""The swap continues in a tick or bin array that is not known; `detail` names the array."""
WRONG_MINT: Final = "wrong_mint"
"""The pool does not trade this mint."""
UNSUPPORTED: Final = "unsupported"
"""The pool works in a way that the curve does not implement; see `detail`."""
TRANSFER_HOOK: Final = "transfer_hook"
FROZEN: Final = "frozen"


class Account(msgspec.Struct, frozen=True):
    """Account decoded with its program's IDL. `program` and `name` are empty if no IDL fits the data.

    `fields` lacks fields that the IDL calls padding; `data` has all bytes of the account.
    """

    owner: str
    data: bytes
    program: str = ""
    name: str = ""
    fields: Mapping[str, Any] = {}

    @classmethod
    def of(cls, owner: str, data: bytes, decoded: DecodedAccount | None) -> Self:
        """Return an account with what its data decode to; None if no IDL fits the data."""
        if decoded is None:
            return cls(owner, data)
        return cls(owner, data, decoded.program, decoded.name, decoded.data)


Accounts: TypeAlias = Mapping[str, Account]
"""Accounts by key, all of one slot."""


class Clock(msgspec.Struct, frozen=True):
    """Time on the chain for which a quote is made. A member is None if it is not known."""

    slot: int | None
    unix_timestamp: int | None
    epoch: int | None = None

    def now(self) -> int:
        """Return the time in seconds. Raises NoQuoteError if it is not known."""
        if self.unix_timestamp is None:
            raise NoQuoteError(NO_ACCOUNT, "the time of the state is not known")
        return self.unix_timestamp

    def current_epoch(self) -> int | None:
        """Return the epoch; if it is not known, the epoch of the slot."""
        return self.slot // SLOTS_PER_EPOCH if self.epoch is None and self.slot is not None else self.epoch


CLOCK_SYSVAR: Final = "SysvarC1ock11111111111111111111111111111111"


def sysvar_clock(data: bytes) -> Clock:
    """Return the time in the data of the sysvar of time; nothing is known if it is too short."""
    slot, _, epoch, _, now = (int.from_bytes(data[at : at + 8], "little", signed=at == 32) for at in range(0, 40, 8))
    return Clock(slot, now, epoch) if len(data) >= 40 else Clock(None, None)


class Fee(msgspec.Struct, frozen=True):
    """Part of a swap that is charged as a fee. `to` names its recipient."""

    to: str
    mint: str
    amount: int


class PoolQuote(msgspec.Struct, frozen=True, kw_only=True):
    """Exact result of a swap on one pool, in base units.

    `amount_in` leaves the user's account and `amount_out` arrives, after the transfer fees of mints. `impact` is the
    output, apart from fees, that is lost because the swap moves the price: base units of `mint_out`, rounded down.
    """

    pool: str
    mint_in: str
    mint_out: str
    amount_in: int
    amount_out: int
    fees: tuple[Fee, ...]
    impact: int


class Market(Protocol):
    """State of one pool, which returns quotes. Immutable."""

    def quote(self, mint_in: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """Return the output for `amount` of `mint_in`; with `exact_out`, the cost of `amount` of the other mint.

        The output may be 0; programs refuse such swaps. If a purchase asks for more than a curve has left, the quote is
        for all that is left. Raises NoQuoteError if there is no quote.
        """


class Curve(NamedTuple):
    """A program's way of pricing swaps.

    `account` is the name of the pool's account in the IDL. `mints` returns the two mints of a decoded pool account.
    `needs` yields the keys that a quote on the pool reads, as far as the known accounts show. Call it again once those
    accounts are known. `read` turns the accounts into a market. It raises NoQuoteError if the pool can't be quoted, and
    BadInputError for an account of the wrong kind. `derive` returns the addresses of pools that follow from a base mint
    and a quote mint alone, whether such pools exist or not. It is None if a program's addresses depend on more.
    """

    account: str
    mints: Callable[[str, Account, Accounts], tuple[str, str] | None]
    needs: Callable[[str, Accounts], Iterable[str]]
    read: Callable[[str, Accounts, Clock], Market]
    derive: Callable[[str, str], Iterable[str]] | None = None


def mint_fields(first: str, second: str) -> Callable[[str, Account, Accounts], tuple[str, str]]:
    """Return the `mints` of a curve whose pool account names both mints in these fields."""

    def mints(key: str, account: Account, accounts: Accounts) -> tuple[str, str]:
        one, other = whole(account, first, second)
        return one, other

    return mints


def key_fields(*names: str, always: Sequence[str] = ()) -> Callable[[str, Accounts], Iterator[str]]:
    """Return the `needs` of a curve that reads its pool, the accounts in `always`, and those that these fields name."""

    def needs(key: str, accounts: Accounts) -> Iterator[str]:
        yield key
        yield from always
        if (pool := accounts.get(key)) is not None:
            yield from whole(pool, *names)

    return needs


def find(accounts: Accounts, key: str, program: str, name: str) -> Account:
    """Return the account with this key, which must have this program and name.

    Raises NoQuoteError if the account is not known, BadInputError if it is another kind of account.
    """
    account = accounts.get(key)
    if account is None:
        raise NoQuoteError(NO_ACCOUNT, f"{name} {key} of {program}")
    if (account.program, account.name) != (program, name):
        given = f"{account.program} {account.name}".strip() or f"{len(account.data)} bytes of {account.owner}"
        raise BadInputError("wrong account", f"{key} is {given}, expected {program} {name}")
    return account


def whole(account: Account, *names: str) -> list[Any]:
    """Return these fields. Raises BadInputError if the account ends before one of them."""
    values = [account.fields.get(name) for name in names]
    if None in values:
        raise BadInputError("truncated account", f"{account.program} {account.name} lacks {names[values.index(None)]}")
    return values


def uint(data: bytes, at: int, size: int) -> int:
    """Return a little-endian unsigned integer of `size` bytes; 0 after the end of the data."""
    return int.from_bytes(data[at : at + size], "little")


def sint(data: bytes, at: int, size: int) -> int:
    """Return a little-endian signed integer of `size` bytes; 0 after the end of the data."""
    return int.from_bytes(data[at : at + size], "little", signed=True)


def key_at(data: bytes, at: int) -> str:
    """Return the key at this offset. Raises BadInputError if the data ends before it does."""
    raw = data[at : at + 32]
    if len(raw) < 32:
        raise BadInputError("truncated account", f"{len(data)} bytes, expected a key at {at}")
    return str(Pubkey.from_bytes(raw))


def pda(program: str, *seeds: bytes | str) -> str:
    """Return the address that a program derives from seeds. A seed given as text is a key in base58."""
    raw = [seed if isinstance(seed, bytes) else bytes(Pubkey.from_string(seed)) for seed in seeds]
    return str(Pubkey.find_program_address(raw, Pubkey.from_string(program))[0])


def ceil_div(number: int, by: int) -> int:
    """Return the quotient rounded up."""
    return -(-number // by)


class TransferFee(NamedTuple):
    """Transfer fee of a Token-2022 mint in one epoch: `bps` of each amount moved, at most `most`."""

    bps: int
    most: int

    def of(self, amount: int) -> int:
        """Return the fee that a transfer of `amount` withholds; rounds up."""
        return min(ceil_div(amount * self.bps, BPS), self.most)

    def before(self, arriving: int) -> int:
        """Return the least amount to send so that at least `arriving` arrives.

        Rounds as Token-2022's inverse fee does: up, and with the maximum fee if that is less.
        """
        if not self.bps or not arriving:
            return arriving
        if self.bps >= BPS:
            return arriving + self.most
        gross = ceil_div(arriving * BPS, BPS - self.bps)
        return arriving + self.most if gross - arriving >= self.most else gross


NO_FEE: Final = TransferFee(0, 0)


class Mint(NamedTuple):
    """Mint, as far as a quote needs it. `supply` is None if the account is not known."""

    key: str
    supply: int | None
    fee: TransferFee


def read_mint(accounts: Accounts, key: str, clock: Clock, *, program: str = TOKEN_2022_PROGRAM) -> Mint:
    """Return a mint with the transfer fee of the clock's epoch.

    `program` owns the mint: a mint of the old token program has no fee, so its account may be missing. Raises
    NoQuoteError for a mint that is not known, is paused, or calls a hook on transfers.
    """
    account = accounts.get(key)
    if account is None:
        if key == WSOL_MINT or program == TOKEN_PROGRAM:
            return Mint(key, None, NO_FEE)
        raise NoQuoteError(NO_ACCOUNT, f"mint {key}")
    if account.name != "Mint":
        raise BadInputError("wrong account", f"{key} is {account.program} {account.name}, expected a mint")
    fee = NO_FEE
    for each in account.fields.get("extensions") or ():
        kind, data = each["extension"], each.get("data") or {}
        if kind == "transferFeeConfig":
            fee = _fee_now(data, clock)
        elif kind == "transferHook" and data.get("program_id") not in (None, SYSTEM_PROGRAM):
            raise NoQuoteError(TRANSFER_HOOK, f"mint {key} calls {data['program_id']} on each transfer")
        elif kind == "pausableConfig" and data.get("paused"):
            raise NoQuoteError(DISABLED, f"mint {key} is paused")
    return Mint(key, account.fields.get("supply"), fee)


def read_plain_mint(accounts: Accounts, key: str, clock: Clock) -> Mint:
    """Return a mint. Raises NoQuoteError if the mint has a transfer fee now, and as `read_mint` does."""
    mint = read_mint(accounts, key, clock)
    if mint.fee.bps:
        raise NoQuoteError(UNSUPPORTED, f"mint {key} has a transfer fee")
    return mint


def _fee_now(config: Mapping[str, Any], clock: Clock) -> TransferFee:
    """Return the fee of the epoch: the newer fee from its epoch on, before that the older fee."""
    older, newer = config["older_transfer_fee"], config["newer_transfer_fee"]
    fees = [TransferFee(each["transfer_fee_basis_points"], each["maximum_fee"]) for each in (older, newer)]
    epoch = clock.current_epoch()
    if epoch is None:
        if fees[0] != fees[1]:
            raise NoQuoteError(NO_ACCOUNT, "the epoch is not known, and the mint's transfer fee depends on it")
        return fees[1]
    return fees[1] if epoch >= newer["epoch"] else fees[0]


def read_vault(accounts: Accounts, key: str) -> int:
    """Return the amount in a pool's token account. Raises NoQuoteError if the account is not known or frozen."""
    account = accounts.get(key)
    if account is None:
        raise NoQuoteError(NO_ACCOUNT, f"token account {key}")
    if account.name != "Account":
        given = f"{account.program} {account.name}".strip() or f"{len(account.data)} bytes of {account.owner}"
        raise BadInputError("wrong account", f"{key} is {given}, expected a token account")
    amount, state = whole(account, "amount", "state")
    if state == "frozen":
        raise NoQuoteError(FROZEN, f"token account {key}")
    return int(amount)


def side(mints: tuple[str, str], mint_in: str, pool: str) -> bool:
    """Return whether the first mint goes in. Raises NoQuoteError for a mint that the pool does not trade."""
    if mint_in not in mints:
        raise NoQuoteError(WRONG_MINT, f"{pool} trades {mints[0]} and {mints[1]}, not {mint_in}")
    return mint_in == mints[0]


def checked(amount: int) -> int:
    """Return an amount that can be swapped. Raises NoQuoteError if it is below 1 or above a u64."""
    if amount < 1:
        raise NoQuoteError(TOO_SMALL, f"{amount}, expected at least 1")
    if amount > U64_MAX:
        raise NoQuoteError(TOO_LARGE, f"{amount}, expected at most {U64_MAX}")
    return amount


def fees(*parts: tuple[str, str, int]) -> tuple[Fee, ...]:
    """Return the fees (recipient, mint, amount) that are not zero."""
    return tuple(Fee(to, mint, amount) for to, mint, amount in parts if amount)
