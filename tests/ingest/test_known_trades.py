"""Trades of transactions whose right trades are known from outside: tests/data/trades says from where."""

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.decoders.registry import Programs
from headrace.inspect.recognise import Found, recognise
from headrace.model.updates import LogsUpdate, TransactionUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.ingest.mainnet import logs_view
from tests.pipelines import SpreadPipeline

DATA = Path(__file__).parents[1] / "data" / "trades"
PROGRAMS = Programs.load()
MORE: dict[str, list[dict[str, Any]]] = json.loads((DATA / "more" / "expected.json").read_text())["files"]
ADDED: dict[str, list[dict[str, Any]]] = {
    "bank/whirlpool_liquidity_20261008__001.json": [
        {
            "program": "orca_whirlpool",
            "event": "Traded",
            "mint": "So11111111111111111111111111111111111111112",
            "quote_mint": "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB",
            "side": "sell",
            "base_amount": "1000000",
            "quote_amount": "113358",
            "pool": "AhhoxZDmsg2snm85vPjqzYzEYESoKfb4KmTj4HrBBNwY",
            "path": [7],
        }
    ]
}
"""Right trades of programs that expected.json did not know. This one is `swap_v2` of 1,000,000 by its arguments; what
came out is what the pool's price before and after gives (test_swap_readers)."""
LAUNCHES: dict[str, dict[str, Any]] = json.loads((DATA / "launches" / "expected.json").read_text())
REPORTED = sorted(path.name for path in (DATA / "reported").glob("[0-9]*.json"))


@cache
def found(file: str) -> tuple[Found, ...]:
    return tuple(recognise((DATA / file).read_text()))


def new_pipeline() -> SpreadPipeline:
    return SpreadPipeline(PROGRAMS, ManualClock(), Metrics())


def messages(pipeline: SpreadPipeline, *updates: Found) -> list[tuple[str, dict[str, Any]]]:
    """(topic, body) of every event that is published."""
    return [
        (publication.topic, msgspec.json.decode(b"{" + publication.body + b"}"))
        for update in updates
        for publication in pipeline.apply(update)
        if publication.kind == "event"
    ]


def trades(published: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The trades on the topics of programs."""
    return [body for topic, body in published if topic == f"trades:{body['data'].get('program')}"]


def whole(file: str) -> TransactionUpdate:
    (update,) = found(file)
    assert isinstance(update, TransactionUpdate)
    return update


@pytest.mark.parametrize("file", MORE)
def test_every_file_has_its_right_trades(file: str) -> None:
    pipeline = new_pipeline()
    published = messages(pipeline, *found(f"more/{file}"))
    seen = [{**body["data"], "path": body["chain"]["ix"]} for body in trades(published)]
    for one, right in zip(seen, [*MORE[file], *ADDED.get(file, [])], strict=True):
        for name, value in right.items():
            if name == "event" and one["event"] == "ray_log":
                assert one["fields"]["log_type"] == value
            elif name != "confirmed_by" and value is not None:
                assert one[name] == value, name
    assert not pipeline.measures.bad
    assert not pipeline.measures.unread
    on_mints = Counter((topic, body["event_id"]) for topic, body in published if topic.startswith("trades:"))
    for one in trades(published):
        if one["data"]["mint"] is not None:
            assert on_mints[f"trades:{one['data']['mint']}", one["event_id"]] == 1


@pytest.mark.parametrize("file", LAUNCHES)
def test_launches_have_their_right_trade(file: str) -> None:
    (trade,) = trades(messages(new_pipeline(), whole(f"launches/{file}")))
    assert {name: trade["data"][name] for name in LAUNCHES[file]["right"]} == LAUNCHES[file]["right"]
    assert LAUNCHES[file]["source"]


def test_the_files_are_all_there() -> None:
    entries = json.loads((DATA / "more" / "INDEX.json").read_text())
    assert len(MORE) == 31
    assert {each["file"] for each in entries} == {*MORE, *(each["file"] for each in entries if each["kind"] == "logs")}
    assert all(each["source"] and each["licence"] for each in entries)
    told = json.loads((DATA / "reported" / "expected.json").read_text())
    assert set(told) == set(REPORTED)
    assert all(each["source"] for each in told.values())


def test_damm_v2_writes_its_newer_event() -> None:
    published = messages(new_pipeline(), whole("reported/1_damm_v2_evtswap2.json"))
    topics = Counter(topic for topic, _ in published)
    assert topics["trades:meteora_cp_amm"] == topics["events:meteora_cp_amm"] == 1
    (trade,) = trades(published)
    assert (trade["data"]["base_amount"], trade["data"]["quote_amount"]) == ("9800", "8971")


def test_the_purchase_that_completes_a_curve_is_two_trades() -> None:
    published = messages(new_pipeline(), whole("reported/2_pump_post_complete_buy.json"))
    assert [(t["data"]["side"], t["data"]["base_amount"], t["data"]["quote_amount"]) for t in trades(published)] == [
        ("buy", "644543231258886", "80184401685"),
        ("buy", "91934105720705", "67963746460"),
    ]


def test_pumpswap_spending_an_exact_amount_gives_what_the_pool_priced() -> None:
    (trade,) = trades(messages(new_pipeline(), whole("reported/3_pumpswap_exact_in_gross.json")))
    assert trade["data"]["quote_amount"] == "98814227"


@pytest.mark.parametrize(
    ("file", "number", "right"),
    [
        (
            "reported/4_clmm_old_swap_no_mint.json",
            0,
            {
                "mint": "8SgNwESovnbG1oNEaPVhg6CR9mTMSK7jPvcYRe3wpump",
                "quote_mint": "So11111111111111111111111111111111111111112",
                "side": "sell",
                "base_amount": "100000000",
                "quote_amount": "12309272",
                "sol": "0.012309272",
            },
        ),
        (
            "reported/5_pumpswap_multihop_no_mint.json",
            0,
            {
                "mint": "821LrUvsrX5oQNyqJrHZgrTmhwKoYrxZNgTbN4Fi4dwm",
                "quote_mint": "So11111111111111111111111111111111111111112",
                "quote_amount": "99950",
            },
        ),
        (
            "reported/9_user_is_router.json",
            0,
            {
                "user": "GKj54MVFppoYsxPU9jMn7CMniVRAuveFadyTtFhn1vXy",
                "authority": "BQ72nSv9f3PRyRKCBnHLVrerrv37CYTHm5h3s9VSGQDV",
            },
        ),
    ],
)
def test_mints_and_users_that_only_the_transaction_names(file: str, number: int, right: dict[str, str]) -> None:
    data = trades(messages(new_pipeline(), whole(file)))[number]["data"]
    assert {name: data[name] for name in right} == right


def test_meteora_swaps_of_a_whole_transaction_are_trades_though_its_log_lines_have_none() -> None:
    update = whole("reported/8_meteora_logs_only.json")
    assert not trades(messages(new_pipeline(), logs_view(update)))
    programs = [each["data"]["program"] for each in trades(messages(new_pipeline(), update))]
    assert programs == ["meteora_dlmm"] * 2


ALL_WHOLE = [f"reported/{name}" for name in REPORTED] + [
    f"more/{name}"
    for name in MORE
    if isinstance(found(f"more/{name}")[0], TransactionUpdate) and found(f"more/{name}")[0].logs  # type: ignore[union-attr]
]


@pytest.mark.parametrize("file", ALL_WHOLE)
def test_log_lines_first_then_the_whole_transaction_publishes_what_it_alone_does(file: str) -> None:
    update = whole(file)
    alone = messages(new_pipeline(), update)
    bare = logs_view(update)
    for order in ((bare, update), (bare, bare, update, bare), (update, bare)):
        both = messages(new_pipeline(), *order)
        assert not [key for key, count in ids(both).items() if count > 1], "an event came twice on a topic"
        assert set(ids(both)) == set(ids(alone))
    _nothing_but_mints_differs(alone, messages(new_pipeline(), bare, update))


def ids(published: list[tuple[str, dict[str, Any]]]) -> Counter[tuple[str, str]]:
    return Counter(
        (topic, body["event_id"])
        for topic, body in published
        if topic.startswith(("trades:", "events:", "token_updates", "token:"))
    )


def _nothing_but_mints_differs(alone: list[tuple[str, dict[str, Any]]], both: list[tuple[str, dict[str, Any]]]) -> None:
    """The topics of single mints have the same bodies; on that of the program the first view may have lacked mints."""
    for topic, body in alone:
        data = body["data"]
        if data["type"] == "Trade" and topic == f"trades:{data['mint']}":
            (other,) = [o["data"] for t, o in both if (t, o["event_id"]) == (topic, body["event_id"])]
            ignored = {"user", "authority"}
            assert {k: v for k, v in other.items() if k not in ignored} == {
                k: v for k, v in data.items() if k not in ignored
            }


def test_failed_transactions_have_no_trades() -> None:
    update = whole("reported/2_pump_post_complete_buy.json")
    failed = msgspec.structs.replace(update, err={"InstructionError": [7, {"Custom": 1}]})
    assert not [topic for topic, _ in messages(new_pipeline(), failed) if not topic.startswith("tx:")]
    bare = LogsUpdate(
        source="rpc-0", feed="f", received_ns=0, slot=1, signature="s", err="AccountInUse", logs=update.logs or ()
    )
    assert not [topic for topic, _ in messages(new_pipeline(), bare) if not topic.startswith("tx:")]
