"""Reads filters from TOML, which can express every filter of a Yellowstone request; subscriptions express only some.

Pure. An example:

[accounts.whales]
owner = ["TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"]
filters = [{ datasize = 165 }, { memcmp = { offset = 0, base58 = "So1111…" } }, { lamports = { gt = 5000000 } }]

[transactions.failed]
account_include = ["6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"]
failed = true

[[accounts_data_slice]]
offset = 0
length = 40
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

import pybase64

from headrace.model.errors import ConfigError
from headrace.model.keys import b58decode, is_key, is_signature
from headrace.sources.yellowstone.messages import geyser

SETTING: Final = "YELLOWSTONE_FILTERS"
TEXT_MAX: Final = 1024 * 1024
FILTERS_MAX: Final = 64
"""Maximum number of filters in one text; providers allow fewer."""
COMPARISONS_MAX: Final = 4
MEMCMP_BYTES_MAX: Final = 128
KEYS_MAX: Final = 10_000
SECTIONS: Final = ("accounts", "slots", "transactions", "transactions_status", "blocks", "blocks_meta", "entry")
_NAME: Final = re.compile(r"[a-z0-9_-]{1,24}")
_U64_MAX: Final = 2**64 - 1

Table = Mapping[str, Any]


class Filters(NamedTuple):
    """Filters by section and name, and slices of account data as (offset, length), which apply to all accounts."""

    named: Mapping[tuple[str, str], Any]
    slices: tuple[tuple[int, int], ...] = ()


def parse_filters(text: str) -> Filters:
    """Return the filters in a TOML text. Raises ConfigError that names the first wrong filter and what is expected."""
    if len(text) > TEXT_MAX:
        raise ConfigError(SETTING, f"{len(text)} characters", f"at most {TEXT_MAX}")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(SETTING, str(error), "TOML") from None
    slices = _slices(table.pop("accounts_data_slice", []))
    named: dict[tuple[str, str], Any] = {}
    for section, filters in table.items():
        if section not in SECTIONS:
            raise _wrong(section, "an unknown section", f"one of {', '.join(SECTIONS)}, accounts_data_slice")
        for name, fields in _table(filters, section).items():
            where = f"{section}.{name}"
            if not _NAME.fullmatch(name):
                raise _wrong(where, "this name", "1 to 24 of a-z, 0-9, _ and -")
            named[section, name] = _READERS[section](where, _table(fields, where))
    if len(named) > FILTERS_MAX:
        raise ConfigError(SETTING, f"{len(named)} filters", f"at most {FILTERS_MAX}")
    return Filters(named, slices)


def _accounts(where: str, table: Table) -> Any:
    _known(where, table, ("account", "owner", "filters", "nonempty_txn_signature"))
    found = geyser.SubscribeRequestFilterAccounts(
        account=_keys(where, table, "account"), owner=_keys(where, table, "owner")
    )
    comparisons = table.get("filters", [])
    if not isinstance(comparisons, list) or len(comparisons) > COMPARISONS_MAX:
        raise _wrong(f"{where}.filters", _shown(comparisons), f"a list of at most {COMPARISONS_MAX} tables")
    for number, each in enumerate(comparisons):
        found.filters.append(_comparison(f"{where}.filters[{number}]", _table(each, f"{where}.filters[{number}]")))
    if "nonempty_txn_signature" in table:
        found.nonempty_txn_signature = _flag(where, table, "nonempty_txn_signature")
    if not (found.account or found.owner or found.filters):
        raise _wrong(where, "a filter for every account of the chain", "account, owner or filters")
    return found


def _comparison(where: str, table: Table) -> Any:
    if len(table) != 1:
        raise _wrong(where, _shown(list(table)), "exactly one of memcmp, datasize, token_account_state, lamports")
    ((kind, value),) = table.items()
    comparison = geyser.SubscribeRequestFilterAccountsFilter()
    if kind == "datasize":
        comparison.datasize = _u64(where, table, kind)
    elif kind == "token_account_state":
        comparison.token_account_state = _flag(where, table, kind)
    elif kind == "lamports":
        lamports = _table(value, f"{where}.lamports")
        if len(lamports) != 1 or not set(lamports) <= {"eq", "ne", "lt", "gt"}:
            raise _wrong(f"{where}.lamports", _shown(list(lamports)), "exactly one of eq, ne, lt, gt")
        (operator,) = lamports
        setattr(comparison.lamports, operator, _u64(f"{where}.lamports", lamports, operator))
    elif kind == "memcmp":
        comparison.memcmp.CopyFrom(_memcmp(f"{where}.memcmp", _table(value, f"{where}.memcmp")))
    else:
        raise _wrong(where, kind, "one of memcmp, datasize, token_account_state, lamports")
    return comparison


def _memcmp(where: str, table: Table) -> Any:
    _known(where, table, ("offset", "base58", "base64"))
    encodings = [name for name in ("base58", "base64") if name in table]
    if len(encodings) != 1 or not isinstance(table[encodings[0]], str):
        raise _wrong(where, _shown(list(table)), "offset, and text under exactly one of base58, base64")
    text = table[encodings[0]]
    try:
        raw = b58decode(text) if encodings[0] == "base58" else pybase64.b64decode(text, validate=True)
    except ValueError:
        raise _wrong(f"{where}.{encodings[0]}", _shown(text), encodings[0]) from None
    if not 0 < len(raw) <= MEMCMP_BYTES_MAX:
        raise _wrong(where, f"{len(raw)} bytes", f"1 to {MEMCMP_BYTES_MAX} bytes")
    return geyser.SubscribeRequestFilterAccountsFilterMemcmp(offset=_u64(where, table, "offset"), bytes=raw)


def _slots(where: str, table: Table) -> Any:
    _known(where, table, ("filter_by_commitment", "interslot_updates"))
    return geyser.SubscribeRequestFilterSlots(**{name: _flag(where, table, name) for name in table})


def _transactions(where: str, table: Table) -> Any:
    lists = ("account_include", "account_exclude", "account_required")
    _known(where, table, (*lists, "vote", "failed", "signature", "token_accounts"))
    found = geyser.SubscribeRequestFilterTransactions()
    for name in lists:
        getattr(found, name).extend(_keys(where, table, name))
    for name in ("vote", "failed"):
        if name in table:
            setattr(found, name, _flag(where, table, name))
    if "signature" in table:
        if not isinstance(table["signature"], str) or not is_signature(table["signature"]):
            raise _wrong(f"{where}.signature", _shown(table["signature"]), "a base58 signature")
        found.signature = table["signature"]
    if "token_accounts" in table:
        flags = {"all": geyser.TOKEN_ACCOUNTS_ALL, "balance_changed": geyser.TOKEN_ACCOUNTS_BALANCE_CHANGED}
        if table["token_accounts"] not in flags:
            raise _wrong(f"{where}.token_accounts", _shown(table["token_accounts"]), "all or balance_changed")
        found.token_accounts = flags[table["token_accounts"]]
    return found


def _blocks(where: str, table: Table) -> Any:
    flags = ("include_transactions", "include_accounts", "include_entries")
    _known(where, table, ("account_include", *flags))
    found = geyser.SubscribeRequestFilterBlocks(account_include=_keys(where, table, "account_include"))
    for name in flags:
        if name in table:
            setattr(found, name, _flag(where, table, name))
    return found


def _blocks_meta(where: str, table: Table) -> Any:
    _known(where, table, ())
    return geyser.SubscribeRequestFilterBlocksMeta()


def _entry(where: str, table: Table) -> Any:
    _known(where, table, ())
    return geyser.SubscribeRequestFilterEntry()


_READERS: Final[Mapping[str, Callable[[str, Table], Any]]] = {
    "accounts": _accounts,
    "slots": _slots,
    "transactions": _transactions,
    "transactions_status": _transactions,
    "blocks": _blocks,
    "blocks_meta": _blocks_meta,
    "entry": _entry,
}


def _slices(value: object) -> tuple[tuple[int, int], ...]:
    where = "accounts_data_slice"
    if not isinstance(value, list):
        raise _wrong(where, _shown(value), "a list of tables with offset and length")
    found = []
    for each in value:
        table = _table(each, where)
        _known(where, table, ("offset", "length"))
        found.append((_u64(where, table, "offset"), _u64(where, table, "length")))
    if any(offset + length > after for (offset, length), (after, _) in pairwise(found)):
        raise _wrong(where, _shown(found), "slices in ascending order that do not overlap")
    return tuple(found)


def _keys(where: str, table: Table, name: str) -> list[str]:
    keys = table.get(name, [])
    if not isinstance(keys, list) or len(keys) > KEYS_MAX:
        raise _wrong(f"{where}.{name}", _shown(keys), f"a list of at most {KEYS_MAX} public keys")
    for key in keys:
        if not isinstance(key, str) or not is_key(key):
            raise _wrong(f"{where}.{name}", _shown(key), "base58 public keys")
    return keys


def _flag(where: str, table: Table, name: str) -> bool:
    value = table[name]
    if not isinstance(value, bool):
        raise _wrong(f"{where}.{name}", _shown(value), "true or false")
    return value


def _u64(where: str, table: Table, name: str) -> int:
    value = table.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _U64_MAX:
        raise _wrong(f"{where}.{name}", _shown(value), "an integer from 0 to 2^64 - 1")
    return value


def _table(value: object, where: str) -> Table:
    if not isinstance(value, dict):
        raise _wrong(where, _shown(value), "a table")
    return value


def _known(where: str, table: Table, names: Iterable[str]) -> None:
    for name in table:
        if name not in names:
            raise _wrong(f"{where}.{name}", "an unknown field", f"one of {', '.join(names) or 'none'}")


def _wrong(where: str, given: str, expected: str) -> ConfigError:
    return ConfigError(f"{SETTING} {where}", given, expected)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
