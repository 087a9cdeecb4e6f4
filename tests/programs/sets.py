"""The sets of accounts in tests/data/mainnet, and what the venues' own SDKs quote for them."""

import json
from functools import cache
from typing import Any, Final, NamedTuple

from headrace.inspect.quotes import pools_of, quote, read_accounts
from headrace.model.keys import WSOL_MINT
from headrace.programs.curves import CURVES
from headrace.programs.quoting import Account, Accounts, Clock, Market, PoolQuote
from tests.mainnet import FOLDER, programs

PROGRAM_OF: Final = {"pumpswap": "pump_amm", "meteora_damm_v2": "meteora_cp_amm"}
"""Name of a venue in the sets → its program's name, where these differ."""


class Pool(NamedTuple):
    """One set: its venue, accounts and time."""

    venue: str
    accounts: dict[str, Account]
    clock: Clock

    def with_fields(self, key: str, **changes: Any) -> "Pool":
        """The set, with these fields of one account replaced."""
        account = self.accounts[key]
        changed = Account(account.owner, account.data, account.program, account.name, {**account.fields, **changes})
        return self._replace(accounts={**self.accounts, key: changed})

    def without(self, key: str) -> "Pool":
        """The set, without this account."""
        return self._replace(accounts={each: account for each, account in self.accounts.items() if each != key})

    def key_of(self, name: str) -> str:
        """Key of the only account that the IDL calls so."""
        (key,) = (key for key, account in self.accounts.items() if account.name == name)
        return key

    @property
    def key(self) -> str:
        """Key of the pool."""
        return self.key_of(CURVES[self.venue].account)

    @property
    def mints(self) -> tuple[str, str]:
        """The pool's mints."""
        mints = CURVES[self.venue].mints(self.key, self.accounts[self.key], self.accounts)
        assert mints is not None
        return mints

    @property
    def left(self) -> int | None:
        """Return the tokens that a bonding curve still sells."""
        left: int | None = self.accounts[self.key].fields.get("real_token_reserves")
        return left

    def market(self) -> Market:
        """The pool's state."""
        return CURVES[self.venue].read(self.key, self.accounts, self.clock)

    def quote(self, mint: str, amount: int, *, exact_out: bool = False) -> PoolQuote:
        """The quote as the command line finds it."""
        assert self.key in pools_of(self.venue, mint, self.accounts)
        return quote(self.venue, mint, amount, self.accounts, self.clock, exact_out=exact_out)


@cache
def pool(name: str) -> Pool:
    """The set in this file, without suffix, below accounts/."""
    accounts, clock = read_accounts((FOLDER / "accounts" / f"{name}.json").read_bytes(), programs())
    folder = name.partition("/")[0]
    return Pool(PROGRAM_OF.get(folder, folder), accounts, clock)


def names() -> list[str]:
    """All sets, as `pool` takes them."""
    files = sorted((FOLDER / "accounts").glob("*/*.json"))
    return [f"{file.parent.name}/{file.stem}" for file in files]


class Answer(NamedTuple):
    """Answer of an SDK: in the set `name`, `amount` of `mint` brings or costs `expected`; None: it refuses."""

    name: str
    mint: str
    amount: int
    exact_out: bool
    expected: int | None
    fees: dict[str, int]


def answers() -> list[Answer]:
    """Every answer in quotes.json of a venue that has a curve."""
    found = []
    for entry in json.loads((FOLDER / "quotes.json").read_text()):
        name = entry["set"].removeprefix("accounts/").removesuffix(".json")
        if pool(name).venue in CURVES:
            found.append(_answer(name, entry))
    return found


def _answer(name: str, entry: dict[str, Any]) -> Answer:
    how, amount = entry["args"][0], int(entry["args"][1])
    result = entry.get("result") or {}
    mints = pool(name).mints
    coin = mints[0] if mints[1] == WSOL_MINT else mints[1]
    mint = {"buy_sol": WSOL_MINT, "buy_tokens": WSOL_MINT, "buy_quote": WSOL_MINT, "buy_base": WSOL_MINT}.get(how, how)
    mint = {"sell": coin, "buy": mints[1], "a2b": mints[0], "b2a": mints[1], "x2y": mints[0], "y2x": mints[1]}.get(
        how, mint
    )
    expected = next(
        (result[each] for each in ("user_out", "quote", "outputAmount", "amount_out") if each in result), None
    )
    known = {"fee": "fee", "trade_fee": "trade_fee", "creator_fee": "creator", "transfer_fee_out": "transfer"}
    fees = {to: int(result[field]) for field, to in known.items() if field in result}
    if how in ("x2y", "y2x"):  # there the fee is that of liquidity providers alone
        fees = {"lp": int(result["fee"]), "protocol": int(result["protocol_fee"])}
    return Answer(
        name, mint, amount, how in ("buy_tokens", "buy_base"), None if expected is None else int(expected), fees
    )


def needed(venue: str, key: str, accounts: Accounts) -> set[str]:
    """Return the accounts that a quote reads, by the curve."""
    return set(CURVES[venue].needs(key, accounts))
