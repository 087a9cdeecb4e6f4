"""Convert facts to columns and columns to rows, in the same way for every database. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.history.candles import MINUTE_S, Candle, Price
from headrace.history.encoding import (
    BY_SLOT,
    CERTAIN,
    TIME_S_MAX,
    U64_MAX,
    UNPROVEN,
    commitment_of,
    event_id_of,
    halves,
    key_of,
    signature_of,
    unwrapped,
    whole,
    wrapped,
)
from headrace.history.rows import SLOT_MAX, CandleQuery, StoredToken, StoredTrade, slot_of
from headrace.model.facts import Origin, Traded


def standing_of(origin: Origin) -> int:
    """Return the standing (CERTAIN, UNPROVEN or BY_SLOT) of a fact of this origin."""
    return CERTAIN if origin.certain else UNPROVEN if origin.unproven else BY_SLOT


def candle_columns(key: tuple[int, int, int], candle: Candle) -> tuple[Any, ...]:
    """Return the columns of a candle: the ids of its mints and its minute (`key`), then its numbers.

    `candle_of` is the inverse.
    """
    prices: list[int | None] = []
    for price in (candle.open, candle.high, candle.low, candle.close):
        prices += (None, None, None) if price is None else (price.row, wrapped(price.base), wrapped(price.quote))
    sums = (*halves(candle.base_amount), *halves(candle.quote_amount))
    return (*key, candle.trades, candle.first, candle.last, *sums, *prices)


def candle_of(row: tuple[Any, ...]) -> Candle:
    """Return the candle stored in a row of the table `candles`."""
    candle = Candle(row[2] * MINUTE_S)
    candle.trades, candle.first, candle.last = row[3:6]
    candle.base_amount, candle.quote_amount = whole(*row[6:8]), whole(*row[8:10])
    candle.open, candle.high, candle.low, candle.close = (
        None if row[at] is None else Price(row[at], unwrapped(row[at + 1]), unwrapped(row[at + 2]))
        for at in (10, 13, 16, 19)
    )
    return candle


def candles_of(trades: Iterable[Sequence[int]], interval_s: int) -> list[Candle]:
    """Return the candles of stored trades in any order. A trade is its id, time in Unix seconds, base and quote."""
    found: dict[int, Candle] = {}
    for row, at_s, base, quote in trades:
        if not (base and quote):
            continue
        time_s = at_s - at_s % interval_s
        candle = found.get(time_s)
        if candle is None:
            candle = found[time_s] = Candle(time_s)
        candle.add(row, unwrapped(base), unwrapped(quote))
    return list(found.values())


def fits(fact: Traded) -> bool:
    """Return whether a trade fits the columns. A foreign IDL may have wider integers, and a node may send any slot."""
    trade, slot = fact.trade, fact.seen.origin.slot
    amounts = 0 <= trade.base_amount <= U64_MAX and 0 <= trade.quote_amount <= U64_MAX
    return amounts and 0 <= slot <= SLOT_MAX and 0 <= fact.time_s <= TIME_S_MAX


def times_of(query: CandleQuery, newest_s: int) -> tuple[int, int]:
    """Return the start of the page's first interval, and the end of the query's last interval, in Unix seconds."""
    length_s = query.interval_s
    end_s = newest_s if query.to_s is None else min(newest_s, query.to_s)
    end_s = -(-end_s // length_s) * length_s
    if query.after is not None:
        return query.after + length_s, end_s
    begin_s = end_s - query.limit * length_s if query.from_s is None else query.from_s
    return max(0, -(-begin_s // length_s) * length_s), end_s


def trade_of(row: tuple[Any, ...], status: int | None) -> StoredTrade:
    slot, signature = slot_of(row[0]), signature_of(row[12])
    mint, quote, user, pool, authority = (None if row[at] is None else key_of(row[at]) for at in (5, 6, 9, 10, 11))
    return StoredTrade(
        slot=slot,
        event_id=event_id_of(slot, signature, row[13]),
        signature=signature,
        time_s=row[1],
        program=row[2],
        program_id=row[3],
        side="sell" if row[4] else "buy",
        mint=mint,
        quote_mint=quote,
        base_amount=unwrapped(row[7]),
        quote_amount=unwrapped(row[8]),
        user=user,
        pool=pool,
        authority=authority,
        commitment=commitment_of(row[14], status),
    )


def token_of(row: tuple[Any, ...], status: int | None) -> StoredToken:
    number, mint, creator, name, symbol, program, raw, place, standing = row
    slot, signature = slot_of(number), signature_of(raw)
    return StoredToken(
        slot=slot,
        event_id=event_id_of(slot, signature, place),
        signature=signature,
        program=program,
        mint=key_of(mint),
        name=name.decode("utf-8", "surrogatepass"),
        symbol=symbol.decode("utf-8", "surrogatepass"),
        creator=key_of(creator),
        commitment=commitment_of(standing, status),
    )
