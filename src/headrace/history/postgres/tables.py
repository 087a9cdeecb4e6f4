"""Statements of a history on PostgreSQL, and the tables of a segment."""

from typing import Final

from headrace.history.encoding import UNPROVEN

OF_SEGMENT: Final = ("history_keys", "history_trades", "history_minutes", "history_candles")
"""Tables that each segment has, with its number behind the name."""

TRADE_COLUMNS: Final = (
    "id", "time", "base", "quote", "mint", "quote_mint", "trader", "pool", "authority", "program", "standing", "sells",
    "signature", "place",
)  # fmt: skip

_CANDLE_TYPES: Final = ("integer",) * 4 + ("bigint",) * 18
_CANDLE_NUMBERS: Final = (
    "trades", "first", "last", "base_high", "base_low", "quote_high", "quote_low", "open", "open_base", "open_quote",
    "high", "high_base", "high_quote", "low", "low_base", "low_quote", "close", "close_base", "close_quote",
)  # fmt: skip
_CANDLE_ARRAYS: Final = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_CANDLE_TYPES, 1))

SLOT: Final = """insert into history_slots as known values ($1, $2, $3, null) on conflict (slot) do update set
    status = excluded.status, parent = coalesce(excluded.parent, known.parent), reason = null
    where excluded.status in (1, 2, 3) or known.status not in (1, 2)
    and (known.status <> 3 or known.reason = 'equivocation')"""
DIES: Final = "update history_slots set reason = $2 where slot = $1 and status = 3"
GAP: Final = """insert into history_gaps (gap_id, feed, program, first, last, state, reason)
    values ($1, $2, $3, $4, $5, $6, $7) on conflict (gap_id, feed, program) do update set first = excluded.first,
    last = excluded.last, state = excluded.state, reason = excluded.reason"""
MINTED: Final = """insert into history_tokens
    select coalesce((select max(id) from history_tokens where id between $1 and $2) + 1, $1),
        $3, $4, $5, $6, $7, $8, $9, $10
    where not exists (select 1 from history_tokens where id between $1 and $2 and signature = $8 and place = $9)"""
TOKENS_VOID: Final = "delete from history_tokens where id between $1 and $2 and standing <> $3"
TOKENS_LANDED: Final = f"""update history_tokens set standing = $4
    where id between $1 and $2 and signature = any($3::bytea[]) and standing = {UNPROVEN}"""
TOKENS_ABSENT: Final = f"""delete from history_tokens
    where id between $1 and $2 and signature = any($3::bytea[]) and standing = {UNPROVEN}"""
PROGRAM: Final = """insert into history_programs (program_id, name) values ($1, $2)
    on conflict (program_id) do update set name = excluded.name returning id"""
SIZE: Final = """select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'headrace' and c.relkind = 'r' and c.relname like 'history\\_%'"""
SIZE_OF_SEGMENT: Final = """select coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint
    from unnest($1::text[]) as name"""


def names_of(number: int) -> list[str]:
    """Return the names of the tables of a segment."""
    return [f"{table}_{number}" for table in OF_SEGMENT]


def creation(number: int) -> str:
    """Return the statements that create the tables of a segment."""
    return ";".join(f"create table {table}_{number} (like {table} including all)" for table in OF_SEGMENT)


def upsert_minutes(number: int) -> str:
    """Return the statement that adds rows to the ranges of minutes; its values are three lists."""
    table = f"history_minutes_{number}"
    return f"""insert into {table} as known select * from unnest($1::bigint[], $2::bigint[], $3::bigint[])
        on conflict (minute) do update set first = least(known.first, excluded.first),
        last = greatest(known.last, excluded.last)"""


def upsert_candles(number: int) -> str:
    """Return the statement that writes candles; its values are a list for each column."""
    changes = ", ".join(f"{column} = excluded.{column}" for column in _CANDLE_NUMBERS)
    return f"""insert into history_candles_{number} select * from unnest({_CANDLE_ARRAYS})
        on conflict (mint, quote_mint, minute) do update set {changes}"""
