"""Quotes a swap from a file of accounts, for `headrace quote`. Pure."""

from typing import Any, Final

import msgspec

from headrace.decoders.registry import Programs
from headrace.model.errors import BadInputError
from headrace.model.keys import is_key
from headrace.programs.curves import CURVES
from headrace.programs.quoting import CLOCK_SYSVAR, Account, Accounts, Clock, NoQuoteError, PoolQuote, sysvar_clock
from headrace.solana.encodings import bytes_of
from headrace.solana.notifications import ACCOUNT_MAX

ACCOUNTS_MAX: Final = 10_000


class _Captured(msgspec.Struct, frozen=True):
    slot: int | None = None
    unix_timestamp: int | None = None
    epoch: int | None = None


class _Content(msgspec.Struct, frozen=True):
    owner: str
    data: Any


class _Entry(msgspec.Struct, frozen=True):
    pubkey: str
    account: _Content


class _File(msgspec.Struct, frozen=True):
    accounts: list[_Entry]
    captured: _Captured = _Captured()


class Leg(msgspec.Struct, frozen=True, rename="camel"):
    """One pool of a swap's route."""

    venue: str
    pool: str
    input_mint: str
    output_mint: str


class ShownFee(msgspec.Struct, frozen=True):
    """Fee as printed; `amount` is a u64 as text."""

    to: str
    mint: str
    amount: str


class ShownQuote(msgspec.Struct, frozen=True, rename="camel"):
    """Quote as printed; amounts are u64 as text. `slot` is None if the file does not name its slot."""

    venue: str
    input_mint: str
    output_mint: str
    amount_in: str
    amount_out: str
    fees: tuple[ShownFee, ...]
    impact: str
    route: tuple[Leg, ...]
    slot: int | None


class ShownRefusal(msgspec.Struct, frozen=True, rename="camel"):
    """The reason why there is no quote, as printed."""

    venue: str
    input_mint: str
    reason: str
    detail: str
    slot: int | None


def read_accounts(text: bytes, programs: Programs) -> tuple[dict[str, Account], Clock]:
    """Return the decoded accounts of a file by key, and the time of their capture.

    The file is an object with `accounts`, a list of `{"pubkey", "account": {"owner", "data": [base64, "base64"]}}`, and
    `captured`, `{"slot", "unix_timestamp", "epoch"}`. Raises BadInputError that says what is expected.
    """
    try:
        file = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInputError("not a file of accounts", f"{error}, expected an object with accounts") from None
    if len(file.accounts) > ACCOUNTS_MAX:
        raise BadInputError("not a file of accounts", f"{len(file.accounts)} accounts, expected at most {ACCOUNTS_MAX}")
    accounts = {entry.pubkey: _account(entry, programs) for entry in file.accounts}
    captured = file.captured
    sysvar = accounts.get(CLOCK_SYSVAR)
    clock = sysvar_clock(sysvar.data) if sysvar is not None else Clock(None, None)
    return accounts, Clock(
        clock.slot if captured.slot is None else captured.slot,
        clock.unix_timestamp if captured.unix_timestamp is None else captured.unix_timestamp,
        clock.epoch if captured.epoch is None else captured.epoch,
    )


def _account(entry: _Entry, programs: Programs) -> Account:
    owner = entry.account.owner
    if not is_key(entry.pubkey) or not is_key(owner):
        raise BadInputError("not a file of accounts", f"{entry.pubkey[:50]} of {owner[:50]}, expected two public keys")
    data = bytes_of(entry.account.data, size_max=ACCOUNT_MAX)
    return Account.of(owner, data, programs.account(owner, data))


def pools_of(venue: str, mint: str, accounts: Accounts) -> list[str]:
    """Return the keys of a venue's pools that trade a mint. Raises BadInputError if the venue is unknown."""
    curve = CURVES.get(venue)
    if curve is None:
        raise BadInputError("unknown venue", f"{venue}, expected one of {', '.join(CURVES)}")
    pools = []
    for key, account in accounts.items():
        if account.program == venue and account.name == curve.account:
            mints = curve.mints(key, account, accounts)
            if mints is not None and mint in mints:
                pools.append(key)
    return pools


def quote(
    venue: str, mint: str, amount: int, accounts: Accounts, clock: Clock, *, exact_out: bool = False
) -> PoolQuote:
    """Return the best quote among the venue's pools in `accounts`.

    Raises the NoQuoteError of the first pool if no pool gives a quote, and BadInputError if no pool trades this mint.
    """
    pools = pools_of(venue, mint, accounts)
    if not pools:
        raise BadInputError("no pool", f"no account of these is a pool of {venue} that trades {mint}")
    quotes: list[PoolQuote] = []
    refusals: list[NoQuoteError] = []
    for key in pools:
        try:
            market = CURVES[venue].read(key, accounts, clock)
            quotes.append(market.quote(mint, amount, exact_out=exact_out))
        except NoQuoteError as error:
            refusals.append(error)
    if not quotes:
        raise refusals[0]
    return min(quotes, key=lambda each: each.amount_in) if exact_out else max(quotes, key=lambda each: each.amount_out)


def shown(venue: str, found: PoolQuote, slot: int | None) -> ShownQuote:
    """Return a quote as `headrace quote --json` prints it."""
    return ShownQuote(
        venue=venue,
        input_mint=found.mint_in,
        output_mint=found.mint_out,
        amount_in=str(found.amount_in),
        amount_out=str(found.amount_out),
        fees=tuple(ShownFee(fee.to, fee.mint, str(fee.amount)) for fee in found.fees),
        impact=str(found.impact),
        route=(Leg(venue, found.pool, found.mint_in, found.mint_out),),
        slot=slot,
    )


def text_of(found: ShownQuote) -> str:
    """Return a quote as text for people, on several lines."""
    quote = msgspec.to_builtins(found)
    lines = [
        f"{quote['venue']}  {quote['amountIn']} {quote['inputMint']}",
        f"  → {quote['amountOut']} {quote['outputMint']}",
        f"  price impact {quote['impact']}",
    ]
    lines += [f"  fee to {fee['to']}: {fee['amount']} {fee['mint']}" for fee in quote["fees"]]
    lines += [f"  pool {leg['pool']}" for leg in quote["route"]]
    slot = quote["slot"]
    return "\n".join([*lines, f"  state of slot {slot}" if slot is not None else "  state of an unknown slot"])
