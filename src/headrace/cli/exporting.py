"""`headrace export`: all trades or candles of a query as CSV or NDJSON, with the progress on standard error."""

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import quote

from headrace.cli.history import pages, time_of
from headrace.cli.ordering import Json
from headrace.model.errors import ConfigError

REPORT_S: Final = 0.5
TRADE_COLUMNS: Final = (
    "time", "slot", "signature", "event_id", "program", "program_id", "side", "mint", "quote_mint", "base_amount",
    "quote_amount", "user", "authority", "pool", "commitment",
)  # fmt: skip
CANDLE_COLUMNS: Final = ("time", "open", "high", "low", "close", "base_amount", "quote_amount", "trades")


def trades(arguments: argparse.Namespace) -> int:
    return _export(arguments, "/api/trades", ("mint", "program", "user", "from_", "to"), TRADE_COLUMNS)


def candles(arguments: argparse.Namespace) -> int:
    arguments.from_ = arguments.from_ or 0  # without `from`, the route answers with the last candles only
    path = f"/api/candles/{quote(arguments.mint, safe='')}"
    return _export(arguments, path, ("quote", "interval", "from_", "to"), CANDLE_COLUMNS)


def _export(arguments: argparse.Namespace, path: str, names: Sequence[str], columns: Sequence[str]) -> int:
    """Write all rows of the query. Returns the exit status; raises what `ask` raises."""
    csv_wanted = arguments.format == "csv" and not arguments.json
    progress = _Progress(sys.stderr, shown=not arguments.quiet)
    with _out(arguments.out) as out:
        table = csv.writer(out)
        for number, items in enumerate(pages(arguments, path, names)):
            if csv_wanted and number == 0:  # a refused query prints nothing
                table.writerow(columns)
            if csv_wanted:
                table.writerows([["" if item[name] is None else item[name] for name in columns] for item in items])
            else:
                out.writelines(json.dumps(item) + "\n" for item in items)
            progress.count(items)
    progress.end()
    return 0


@contextmanager
def _out(file: str) -> Iterator[TextIO]:
    """Yield the file to write, which gets its name once all is written; `-` is standard output.

    Raises ConfigError for a file that exists.
    """
    if file == "-":
        yield sys.stdout
        return
    if Path(file).exists():
        raise ConfigError("--out", file, "a file that is not there yet")
    part = Path(f"{file}.part")
    with part.open("w", encoding="utf-8", newline="") as out:
        yield out
    part.replace(file)


class _Progress:
    """Line that says how many rows were written, and how far the export has come. On a terminal, one line for all."""

    def __init__(self, out: TextIO, *, shown: bool) -> None:
        self._out, self._shown = out, shown
        self._begin = self._last = time.monotonic()
        self._rows, self._at = 0, ""

    def count(self, items: Sequence[Json]) -> None:
        """Add a page."""
        self._rows += len(items)
        if items:
            self._at = time_of(items[-1])
        if self._shown and self._out.isatty() and time.monotonic() - self._last >= REPORT_S:
            self._last = time.monotonic()
            self._out.write(f"\r{self._line()}\x1b[K")
            self._out.flush()

    def end(self) -> None:
        """Write the last line."""
        if self._shown:
            start = "\r" if self._out.isatty() else ""
            self._out.write(f"{start}{self._line()}\n")

    def _line(self) -> str:
        rate = self._rows / max(time.monotonic() - self._begin, 0.001)
        rows = "1 row" if self._rows == 1 else f"{self._rows:,} rows"
        return f"{rows}{f', up to {self._at}' if self._at else ''}, {rate:,.0f} rows/s"
