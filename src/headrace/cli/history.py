"""`headrace history`: past trades, tokens, candles, gaps and slots of a running server."""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

from headrace.cli.ordering import Json, ask, table

PAGE: Final = 1_000

Row = Callable[[Json], list[str]]


def trades(arguments: argparse.Namespace) -> int:
    columns = ("TIME", "SLOT", "SIDE", "BASE", "QUOTE", "MINT", "PROGRAM", "USER", "COMMITMENT")
    return _print(arguments, "/api/trades", ("mint", "program", "user", "from_", "to"), columns, _trade)


def tokens(arguments: argparse.Namespace) -> int:
    columns = ("SLOT", "MINT", "SYMBOL", "NAME", "CREATOR", "COMMITMENT")
    return _print(
        arguments,
        "/api/tokens",
        ("creator",),
        columns,
        _values("slot", "mint", "symbol", "name", "creator", "commitment"),
    )


def candles(arguments: argparse.Namespace) -> int:
    columns = ("TIME", "OPEN", "HIGH", "LOW", "CLOSE", "BASE", "QUOTE", "TRADES")
    path = f"/api/candles/{quote(arguments.mint, safe='')}"
    return _print(arguments, path, ("quote", "interval", "from_", "to"), columns, _candle)


def gaps(arguments: argparse.Namespace) -> int:
    columns = ("FROM", "TO", "STATE", "FEED", "REASON")
    row = _values("from_slot", "to_slot", "state", "feed", "reason")
    return _print(arguments, "/api/gaps", ("feed", "from_", "to"), columns, row)


def slots(arguments: argparse.Namespace) -> int:
    columns = ("SLOT", "STATUS", "PARENT", "REASON")
    return _print(arguments, "/api/slots", ("from_", "to"), columns, _values("slot", "status", "parent", "reason"))


def _print(arguments: argparse.Namespace, path: str, names: Sequence[str], columns: Sequence[str], row: Row) -> int:
    """Print up to `--limit` items, page after page."""
    rows: list[list[str]] = []
    for items in pages(arguments, path, names, limit=arguments.limit):
        for item in items:
            if arguments.json:
                print(json.dumps(item))
            else:
                rows.append(row(item))
    if not arguments.json:
        print(table(columns, rows))
    return 0


def pages(
    arguments: argparse.Namespace, path: str, names: Sequence[str], *, limit: int | None = None
) -> Iterator[list[Json]]:
    """Yield the items of each page, up to `limit` items in all. `names` are the arguments that the query has."""
    query = {name.rstrip("_"): value for name in names if (value := getattr(arguments, name)) is not None}
    left = limit
    while left is None or left > 0:
        page = ask(arguments, "GET", path, params={**query, "limit": PAGE if left is None else min(left, PAGE)})
        yield page["items"]
        if page["next"] is None:
            return
        query["cursor"] = page["next"]
        left = None if left is None else left - len(page["items"])


def time_of(item: Json) -> str:
    """Return the time of a trade or candle in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(item["time"]))


def _trade(item: Json) -> list[str]:
    shown = _values("slot", "side", "base_amount", "quote_amount", "mint", "program", "user", "commitment")(item)
    return [time_of(item), *shown]


def _candle(item: Json) -> list[str]:
    return [time_of(item), *_values("open", "high", "low", "close", "base_amount", "quote_amount", "trades")(item)]


def _values(*names: str) -> Row:
    def row(item: Json) -> list[str]:
        found: list[Any] = [item[name] for name in names]
        return ["" if value is None else str(value) for value in found]

    return row
