"""`headrace export`: all pages of trades and candles as CSV and NDJSON, and no file where a page is refused."""

import csv
import json
from pathlib import Path

from headrace.cli.exporting import CANDLE_COLUMNS, TRADE_COLUMNS
from headrace.cli.history import PAGE
from headrace.gateway.routes.history import CandleItem, TradeItem
from headrace.model.keys import WSOL_MINT
from tests.cli.conftest import Headrace, in_thread
from tests.flow.desk import desk
from tests.flow.test_history import MINUTE_S, told, until
from tests.history_facts import key, signature, trade


def written(file: str) -> str:
    """The text of a file; empty if there is none."""
    return Path(file).read_text() if Path(file).exists() else ""


async def test_all_pages_are_written_as_csv_and_ndjson(headrace: Headrace, tmp_path: Path) -> None:
    async with told(tmp_path) as client:
        more = [trade(100 + n, f"more{n}", time_s=MINUTE_S + 600 + n) for n in range(PAGE + 100)]
        client.service.pipeline.consumers.deliver(more)
        await until(
            client.http,
            f"/api/trades?user={key('alice')}&from={MINUTE_S + 600 + PAGE + 99}",
            lambda page: page.get("items"),
        )
        url = ("--url", str(client.http.base_url))
        result = await in_thread(headrace, "export", "trades", "--out", "t.csv", *url)
        assert (result.status, result.out) == (0, "")
        assert result.err.startswith(f"{PAGE + 104:,} rows, up to 2026-09-21T14:14:00Z")
        header, *rows = list(csv.reader(written("t.csv").splitlines()))
        assert tuple(header) == TRADE_COLUMNS
        assert [row[2] for row in rows[-4:]] == [signature(f"{n}") for n in (3, 2, 1, 0)]
        assert len(rows) == len({row[3] for row in rows}) == PAGE + 104
        assert rows[-1][:2] + rows[-1][6:] == [
            str(MINUTE_S), "7", "buy", key("M"), WSOL_MINT, "2000", "1000", key("alice"), "", key("pool"), "processed",
        ]  # fmt: skip
        assert written("t.csv.part") == ""
        result = await in_thread(headrace, "export", "candles", key("M"), "--format", "ndjson", "--quiet", *url)
        assert (result.status, result.err) == (0, "")
        found = [json.loads(line) for line in result.out.splitlines()]
        assert [item["trades"] for item in found][:2] == [2, 2]
        assert sum(item["trades"] for item in found) == PAGE + 104


async def test_what_fails_leaves_no_file(headrace: Headrace, tmp_path: Path) -> None:
    async with desk(tmp_path, HISTORY_ENABLED="false") as client:
        url = ("--url", str(client.http.base_url))
        result = await in_thread(headrace, "export", "trades", "--out", "t.csv", *url)
    assert result.status == 1
    assert "keeps no history" in result.err
    assert written("t.csv") == ""


async def test_json_is_one_object_a_line_and_one_row_is_one(headrace: Headrace, tmp_path: Path) -> None:
    async with told(tmp_path) as client:
        url = ("--url", str(client.http.base_url))
        window = ("--from", str(MINUTE_S + 90), "--to", str(MINUTE_S + 91))
        result = await in_thread(headrace, "export", "trades", "--json", *window, *url)
    assert [json.loads(line)["slot"] for line in result.out.splitlines()] == ["10"]
    assert result.err.startswith("1 row, ")


async def test_a_file_that_exists_is_not_overwritten(headrace: Headrace, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("mine")
    result = await in_thread(headrace, "export", "trades", "--out", "t.csv")
    assert result.status == 2
    assert result.err == "headrace: --out: got t.csv, expected a file that is not there yet\n"
    assert written("t.csv") == "mine"


async def test_nothing_is_printed_if_the_server_can_not_be_reached(headrace: Headrace) -> None:
    result = await in_thread(headrace, "export", "trades", "--url", "http://127.0.0.1:9")
    assert (result.status, result.out) == (1, "")


def test_the_columns_are_the_fields_of_the_routes() -> None:
    assert set(TRADE_COLUMNS) == set(TradeItem.__struct_fields__)
    assert set(CANDLE_COLUMNS) == set(CandleItem.__struct_fields__)
