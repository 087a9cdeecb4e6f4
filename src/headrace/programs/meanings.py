"""Define the meanings of events and accounts of programs, and the types with which a `facts.py` declares them."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from headrace.model.facts import MintFacts

Fields: TypeAlias = Mapping[str, Any]
"""Fields of an event or account by name, as decoders return them: None for a field that an older layout lacks."""

Holders: TypeAlias = tuple[str | None, ...]
"""Token accounts of one mint, the most certain first. Any of them may be unknown, or closed within the transaction."""

STAMPS: Final = ("timestamp", "current_timestamp")
"""Fields in which events have the chain's clock, if they have it."""

NO_EVENTS: Final = "its events are self-CPI instructions, which no log line holds: no trade comes"
NO_DIRECTION: Final = "its log lines name neither pool, mint nor direction: no trade comes"
NO_POOL: Final = "its log lines name neither pool nor mint: trades come without mint"


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A pool's two mints in the pool's own order: base and quote, token 0 and 1, X and Y, A and B, coin and pc."""

    first: str
    second: str


class Scene(msgspec.Struct, frozen=True, gc=False):
    """Parts that a whole transaction adds to an event. Empty if only log lines came.

    `accounts` are those of the instruction that emitted the event, in its order: name in the IDL → key, and after the
    named accounts `remaining_0`, …. `mints` maps token accounts to their mints.
    """

    accounts: Mapping[str, str] = {}
    mints: Mapping[str, str] = {}

    def pair(self, first: str, second: str) -> Pair | None:
        """Return the mints that are the accounts with these names; None if one of them is missing."""
        mints = self.accounts.get(first), self.accounts.get(second)
        return None if mints[0] is None or mints[1] is None else Pair(mints[0], mints[1])

    def remaining(self) -> list[str]:
        """Return the accounts after those that the IDL names, in order."""
        return [key for name, key in self.accounts.items() if name.startswith("remaining_")]


class Swap(msgspec.Struct, frozen=True, gc=False):
    """A swap in the pool's own order. `first_in`: the trader gave the pool's first token and got the second.

    The amounts are those by which the pool or curve priced the swap, in base units: what came in and what went out.
    Other fees are further fields of the event. `first`, `second` and `first_in` are None if an old layout lacks them:
    such a swap can't be read. `user` is the trader that the event or its instruction names. `holders` are token
    accounts of the first and the second mint.
    """

    first: int | None
    second: int | None
    first_in: bool | None
    pool: str | None
    user: str | None
    pair: Pair | None = None
    holders: tuple[Holders, Holders] = ((), ())


class NewToken(NamedTuple):
    """A token as the event of its creation describes it; None for what the event and its instruction lack."""

    mint: str | None
    name: str | None
    symbol: str | None
    creator: str | None


class AboutMint(msgspec.Struct, frozen=True, gc=False):
    """Decimals or supply of a mint, from an event or account.

    `nominal`: the program assumes this supply; it was not read from the mint. Nothing is learned if `mint` is None.
    """

    mint: str | None
    facts: MintFacts
    nominal: bool = False


class EventFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Meaning of an event. Readers never raise for a field or account that is missing or None.

    `trade` reads a swap, and returns None for an event that is not a swap. `repeats` names an older event of the same
    swap, which some versions of the program emit as well; the older event then counts. `pool` names the fields with the
    pool that the event creates, and with that pool's first and second mint. `token` reads a token that the event
    creates. `mints` reads the event's facts about mints; it gets the mint that the event trades or creates, None if
    there is none. `reads` names the fields that these readers use (None: any); for other fields no values are made.
    """

    trade: Callable[[Fields, Scene], Swap | None] | None = None
    repeats: str | None = None
    pool: tuple[str, str, str] | None = None
    token: Callable[[Fields, Scene], NewToken] | None = None
    mints: Callable[[Fields, str | None], Iterable[AboutMint]] | None = None
    reads: tuple[str, ...] | None = None

    def wants(self, name: str) -> bool:
        """Return whether a reader may use the field."""
        if name in (self.pool or ()) or name in STAMPS or name in (self.reads or ()):
            return True
        return self.reads is None and (self.trade is not None or self.token is not None or self.mints is not None)


class AccountFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Meaning of an account.

    `pool` names a pool's fields with its first and second mint; None instead of the second stands for SOL. `mints`
    reads the account's facts about mints; it gets the account's key. `reads` is as in EventFacts.
    """

    pool: tuple[str, str | None] | None = None
    mints: Callable[[str, Fields], Iterable[AboutMint]] | None = None
    reads: tuple[str, ...] | None = None

    def wants(self, name: str) -> bool:
        """Return whether a reader may use the field."""
        if name in (self.pool or ()) or name in (self.reads or ()):
            return True
        return self.reads is None and self.mints is not None


class ProgramFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Meanings of a program's events and accounts, by their names in the IDL.

    `log_lines_lack` says why a subscription to its log lines delivers less than whole transactions; empty if it
    delivers the same.
    """

    events: Mapping[str, EventFacts] = {}
    accounts: Mapping[str, AccountFacts] = {}
    log_lines_lack: str = ""


Amounts: TypeAlias = tuple[int | None, int | None, bool | None]
"""`first`, `second` and `first_in` of a Swap."""

_NO_FIELDS: Final[Fields] = MappingProxyType({})


def in_and_out(taken: int | None, given: int | None, first_in: bool | None) -> Amounts:
    """Return the amounts of an event that has what the pool took and what it gave."""
    if first_in is None:
        return None, None, None
    return (taken, given, True) if first_in else (given, taken, False)


def inside(fields: Fields, name: str) -> Fields:
    """Return the fields of a struct within the event; none if there is no such struct."""
    inner = fields.get(name)
    return inner if isinstance(inner, dict) else _NO_FIELDS


def change(before: int | None, after: int | None) -> int | None:
    """Return by how much a reserve changed, in either direction."""
    return None if before is None or after is None else abs(after - before)


def swap_of_result(taken_name: str, first: str, second: str) -> Callable[[Fields, Scene], Swap]:
    """Return a reader of Meteora's `EvtSwap` and `EvtSwap2`; direction 0 is from the `first` mint to the `second`.

    `EvtSwap` has the input amount in the field `taken_name`, `EvtSwap2` in its result. `first` and `second` are
    accounts.
    """

    def read(fields: Fields, scene: Scene) -> Swap:
        result, taken = inside(fields, "swap_result"), fields.get(taken_name)
        taken = result.get("included_fee_input_amount") if taken is None else taken
        amounts = in_and_out(taken, result.get("output_amount"), either(fields.get("trade_direction"), 0, 1))
        return Swap(*amounts, fields.get("pool"), scene.accounts.get("payer"), scene.pair(first, second))

    return read


def either(value: object, yes: object, no: object) -> bool | None:
    """Return whether `value` is `yes`; None if it is neither `yes` nor `no`."""
    return True if value == yes else False if value == no else None


def decimals_of(*names: tuple[str, str]) -> Callable[[str, Fields], Iterable[AboutMint]]:
    """Return a reader for a pool account with pairs of fields (mint, its decimals)."""
    return lambda _, fields: [AboutMint(fields.get(mint), MintFacts(fields.get(count))) for mint, count in names]


def mint_account(pubkey: str, fields: Fields) -> Iterable[AboutMint]:
    """Read the account of a mint itself."""
    return (AboutMint(pubkey, MintFacts(fields.get("decimals"), fields.get("supply"))),)
