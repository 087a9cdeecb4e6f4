"""Makes a bank file of pools as a node has them: the accounts of quotes and swaps, and the programs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import pybase64

from headrace.decoders.registry import Programs
from headrace.model.errors import BadInputError, TransientError
from headrace.model.keys import is_key
from headrace.programs.curves import CURVES
from headrace.programs.quoting import CLOCK_SYSVAR, Account, Clock, NoQuoteError, key_at, sysvar_clock
from headrace.programs.swapping import Order
from headrace.programs.swaps import SWAPS, instructions
from headrace.solana.rpc import ACCOUNTS_PER_CALL_MAX, AccountInfo, Rpc
from headrace.venues.swapping import ANYONE

LOADERS: Final = ("BPFLoader1111111111111111111111111111111111", "BPFLoader2111111111111111111111111111111111")
"""Owners of programs whose account holds their bytes."""
UPGRADEABLE_LOADER: Final = "BPFLoaderUpgradeab1e11111111111111111111111"
"""Owner of programs whose account names another account with their bytes, after a header."""
HEADER_BYTES: Final = 45
ROUNDS_MAX: Final = 8
TRIES_MAX: Final = 5
"""Maximum number of times that all accounts are read again until they are as of one slot."""
AMOUNTS: Final = tuple(10**digits for digits in range(6, 13))
"""Amounts that are tried to find one for which a pool gives a swap."""


async def clone_bank(rpc: Rpc, programs: Programs, pools: Collection[str], mints: Collection[str]) -> dict[str, Any]:
    """Return a bank file's content with these pools, all accounts as of one slot.

    `mints` are further mints to include: that of the coin of a pump.fun curve, whose account does not name it. Raises
    BadInputError for a key that is not a pool of a known program, TransientError if the node does not answer.
    """
    for key in (*pools, *mints):
        if not is_key(key):
            raise BadInputError("not a public key", key[:50])
    keys = {*pools, *mints, CLOCK_SYSVAR}
    infos: dict[str, AccountInfo] = {}
    for _ in range(ROUNDS_MAX):
        infos = await _read_at_once(rpc, keys)
        accounts, clock = _decoded(infos, programs)
        more = keys.union(*[_needs(key, accounts, clock) for key in pools])
        if more == keys:
            break
        keys = more
    return {
        "captured": {"slot": clock.slot, "unix_timestamp": clock.unix_timestamp, "epoch": clock.epoch},
        "programs": [await _program(rpc, info) for info in infos.values() if info.executable and _has_bytes(info)],
        "accounts": [_entry(info) for info in infos.values() if not info.executable and info.pubkey != CLOCK_SYSVAR],
    }


async def _read_at_once(rpc: Rpc, keys: Collection[str]) -> dict[str, AccountInfo]:
    """Return the existing accounts, all as of one slot. Raises TransientError if the node never answers so."""
    ordered = sorted(keys)
    calls = [ordered[at : at + ACCOUNTS_PER_CALL_MAX] for at in range(0, len(ordered), ACCOUNTS_PER_CALL_MAX)]
    for _ in range(TRIES_MAX):
        answers = [await rpc.read_accounts(some, "confirmed") for some in calls]
        if len({answer.slot for answer in answers}) == 1:
            return {info.pubkey: info for answer in answers for info in answer.accounts if info is not None}
    raise TransientError(f"{len(keys)} accounts could not be read as of one slot in {TRIES_MAX} tries")


def _decoded(infos: Mapping[str, AccountInfo], programs: Programs) -> tuple[dict[str, Account], Clock]:
    accounts = {
        key: Account.of(info.owner, info.data, programs.account(info.owner, info.data)) for key, info in infos.items()
    }
    sysvar = accounts.pop(CLOCK_SYSVAR, None)
    if sysvar is None:
        raise TransientError("the node does not know the time of the chain")
    return accounts, sysvar_clock(sysvar.data)


def _needs(key: str, accounts: Mapping[str, Account], clock: Clock) -> set[str]:
    """Return the accounts that quotes and swaps on a pool read, as far as the known accounts show."""
    account = accounts.get(key)
    curve = None if account is None else CURVES.get(account.program)
    if account is None or curve is None or account.name != curve.account:
        given = "does not exist" if account is None else f"is {account.program} {account.name} of {account.owner}"
        raise BadInputError("not a pool", f"{key} {given}, expected a pool of {', '.join(CURVES)}")
    pair = curve.mints(key, account, accounts)
    if pair is None:
        raise BadInputError("mint not known", f"{key} does not name its coin, expected the mint with --mint")
    found = {*pair, *curve.needs(key, accounts)}
    return found.union(*[_touched(key, mint, accounts, clock) for mint in pair])


def _touched(key: str, mint_in: str, accounts: Mapping[str, Account], clock: Clock) -> Iterable[str]:
    """Return the accounts and programs of a swap; none while the pool gives no swap."""
    program = accounts[key].program
    if program not in SWAPS:
        return ()
    for amount in AMOUNTS:
        try:
            quote = CURVES[program].read(key, accounts, clock).quote(mint_in, amount)
            built = instructions(program, Order(quote=quote, user=ANYONE, limit=1), accounts)
        except (NoQuoteError, BadInputError):
            continue
        return {each.program_id for each in built} | {meta.pubkey for each in built for meta in each.accounts}
    return ()


def _has_bytes(info: AccountInfo) -> bool:
    return info.owner in (*LOADERS, UPGRADEABLE_LOADER)


async def _program(rpc: Rpc, info: AccountInfo) -> dict[str, object]:
    """Return a program with its bytes."""
    data = info.data
    if info.owner == UPGRADEABLE_LOADER:
        held = await rpc.get_account_info(key_at(info.data, 4))
        if held is None:
            raise TransientError(f"the node has no bytes of program {info.pubkey}")
        data = held.data[HEADER_BYTES:]
    return {"pubkey": info.pubkey, "data": _encoded(data)}


def _entry(info: AccountInfo) -> dict[str, object]:
    content = {"owner": info.owner, "data": _encoded(info.data), "lamports": info.lamports}
    return {"pubkey": info.pubkey, "account": content}


def _encoded(data: bytes) -> Sequence[str]:
    return [pybase64.b64encode(data).decode(), "base64"]
