"""`headrace decode --messages`: the messages of the stream, from every input that `decode` takes."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.decoders.registry import Programs
from headrace.inspect.recognise import recognise
from headrace.market import MarketSettings
from headrace.market.stats import Stats
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.cli.conftest import Headrace
from tests.mainnet import FOLDER, entries, entry
from tests.pipelines import SpreadPipeline

SOLD = FOLDER / entry("2KBsKB").file
"""A sale on pump.fun."""


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def trades(out: str) -> list[tuple[str, str]]:
    return [(each["topic"], each["event_id"]) for each in lines(out) if each["data"].get("type") == "Trade"]


def test_a_trade_is_a_line_for_each_of_its_topics(headrace: Headrace) -> None:
    result = headrace("decode", str(SOLD), "--messages", "--json")
    assert (result.status, result.err) == (0, "")
    (first, second) = (each for each in lines(result.out) if each["data"]["type"] == "Trade")
    assert list(first) == ["topic", "type", "event_id", "data", "chain"]
    assert (first["topic"], first["type"]) == ("trades:pump", "event")
    assert second == {**first, "topic": f"trades:{first['data']['mint']}"}
    assert {each["topic"] for each in lines(result.out)} >= {"events:pump", "tx:pump", "market-data"}


@pytest.mark.parametrize("given", entries(), ids=lambda given: given.file.partition("/")[2][:8])
def test_lines_are_what_the_pipeline_publishes(headrace: Headrace, given: Any) -> None:
    file = FOLDER / given.file
    result = headrace("decode", str(file), "--messages")
    assert (result.status, result.err) == (0, "")
    flow = SpreadPipeline(Programs.load(), ManualClock(), Metrics(), market=Stats(MarketSettings()))
    published = [each for found in recognise(file.read_bytes()) for each in flow.apply(found)]
    assert [(each["topic"], each["type"]) for each in lines(result.out)] == [(p.topic, p.kind) for p in published]


def test_several_files_are_one_stream(headrace: Headrace) -> None:
    once, twice = (headrace("decode", *[str(SOLD)] * times, "--messages").out for times in (1, 2))
    assert once == twice


def test_simulations_are_no_repeats_of_each_other(headrace: Headrace) -> None:
    files = [str(FOLDER / each.file) for each in entries() if each.kind == "simulations"][:3]
    alone = [headrace("decode", file, "--messages").out for file in files]
    assert headrace("decode", *files, "--messages").out == "".join(alone)


def test_log_lines_then_the_whole_transaction(headrace: Headrace) -> None:
    told = json.loads(SOLD.read_text())["result"]
    value = {"signature": told["transaction"]["signatures"][0], "err": None, "logs": told["meta"]["logMessages"]}
    frame = {
        "method": "logsNotification",
        "params": {"result": {"context": {"slot": told["slot"]}, "value": value}, "subscription": 1},
    }
    Path("both.jsonl").write_text(f"{json.dumps(frame)}\n{json.dumps(told)}\n")
    result = headrace("decode", "both.jsonl", "--messages")
    assert result.status == 0
    published = trades(result.out)
    assert len(published) == len(set(published)) == 2


def test_accounts(headrace: Headrace) -> None:
    file = FOLDER / "pubsub" / "programNotification.projected.jsonl"
    result = headrace("decode", str(file), "--messages")
    assert result.status == 0
    assert {each["data"]["type"] for each in lines(result.out)} == {"Account"}


def test_a_bad_line_spoils_no_other(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{{}}\n{json.dumps(json.loads(SOLD.read_text()))}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    result = headrace("decode", "-", "--messages")
    assert result.status == 1
    assert len(trades(result.out)) == 2
    assert result.err.startswith("headrace: standard input, line 1: unrecognised")


def test_a_bad_file_spoils_no_other(headrace: Headrace) -> None:
    Path("bad.json").write_text("{}")
    result = headrace("decode", "bad.json", str(SOLD), "--messages")
    assert (result.status, len(trades(result.out))) == (1, 2)
    assert result.err.startswith("headrace: bad.json: unrecognised")
