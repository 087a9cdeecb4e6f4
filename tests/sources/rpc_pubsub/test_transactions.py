"""`transactions:` subscriptions: whole transactions from nodes that send them, and from those that only name them."""

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.decoders.registry import Programs
from headrace.model.updates import AnyUpdate, LogsUpdate, TransactionUpdate
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.solana.transactions import transaction_from_rpc
from headrace.sources.fetch_queue import STALE_MAX
from headrace.sources.rpc_pubsub.registry import Registry
from headrace.sources.subscriptions import SLOTS, ChainSubscription
from headrace.testing.ledger import made_up_key
from tests.pipelines import SpreadPipeline
from tests.sources.rpc_pubsub.rig import FEED, OTHER, PROGRAM, Rig, rig

WHOLE = f"transactions:{PROGRAM}"
WALLET = made_up_key("wallet")
RESULT: dict[str, Any] = json.loads(
    next((Path(__file__).parents[2] / "data" / "mainnet" / "transactions").glob("2KBsKB*.json")).read_text()
)["result"]


def whole(updates: list[AnyUpdate], feed: str = WHOLE) -> list[TransactionUpdate]:
    return [update for update in updates if isinstance(update, TransactionUpdate) and update.feed == feed]


async def test_a_node_without_the_method_is_asked_for_logs_and_the_ledger_for_the_rest() -> None:
    async with rig(subscriptions=(WHOLE,)) as rigged:
        signature = RESULT["transaction"]["signatures"][0]
        landed = rigged.node.emit_transaction([PROGRAM], ["cut"], result=RESULT, signature=signature)
        await rigged.until(lambda: bool(whole(rigged.updates)), flowing=True)
        (update,) = whole(rigged.updates)
        assert (update.signature, update.slot, update.commitment) == (signature, landed.slot, "confirmed")
        assert len(update.instructions) > 5
        assert not [update for update in rigged.updates if isinstance(update, LogsUpdate)]
        assert "transactionSubscribe" in rigged.node.requests
        assert "transactionUnsubscribe" not in rigged.node.requests
        assert rigged.gaps == []
        assert rigged.count("source_transactions_fetched_total", source="rpc") == 1


async def test_a_node_with_the_method_sends_them_at_once_and_nothing_is_fetched() -> None:
    async with rig(subscriptions=(WHOLE,), whole_transactions=True) as rigged:
        signature = RESULT["transaction"]["signatures"][0]
        landed = rigged.node.emit_transaction([PROGRAM], result=RESULT, signature=signature)
        await rigged.until(lambda: bool(whole(rigged.updates)))
        (update,) = whole(rigged.updates)
        assert (update.signature, update.slot) == (signature, landed.slot)
        assert (update.commitment, update.source, update.index) == ("processed", "rpc-0", 7)
        assert "getTransaction" not in rigged.node.http.calls
        rigged.source.update_subscriptions([])
        await rigged.until(lambda: "transactionUnsubscribe" in rigged.node.requests)


async def test_switched_off_the_method_is_not_tried() -> None:
    async with rig(subscriptions=(WHOLE,), whole_transactions=True, transaction_subscribe=False) as rigged:
        rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: bool(whole(rigged.updates)), flowing=True)
        assert "transactionSubscribe" not in rigged.node.requests


@pytest.mark.parametrize("code", [-32600, -32602, -32603, -32403])
async def test_any_refusal_of_the_method_leads_to_the_logs(code: int) -> None:
    async with rig(subscriptions=(WHOLE,), start=False) as rigged:
        rigged.node.faults.errors["transactionSubscribe"] = (code, "not in this plan")
        await rigged.covered()
        rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: bool(whole(rigged.updates)), flowing=True)
        assert rigged.health.components()["source:rpc"].ready
        assert [name for name in rigged.health.components() if WHOLE in name] == []


async def test_no_answer_to_the_method_leads_to_the_logs() -> None:
    async with rig(subscriptions=(WHOLE,), start=False, ack_timeout_s=0.2) as rigged:
        rigged.node.whole_transactions = True
        rigged.node.faults.unanswered.add("transactionSubscribe")
        await rigged.covered()
        rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: bool(whole(rigged.updates)), flowing=True)
        assert rigged.proxy.connections == 1


async def test_a_connection_that_ends_over_the_method_is_made_again_without_it() -> None:
    async with rig(subscriptions=(WHOLE,), start=False) as rigged:
        rigged.node.whole_transactions = True
        rigged.node.faults.unanswered.add("transactionSubscribe")
        await rigged.until(lambda: "transactionSubscribe" in rigged.node.requests)
        rigged.proxy.cut()
        await rigged.covered()
        assert rigged.node.requests.count("transactionSubscribe") == 1
        assert rigged.node.subscribed("logs", PROGRAM) == 1


@pytest.mark.parametrize(
    "shown",
    [
        lambda told: None,
        lambda told: {**told, "meta": None},
        lambda told: {**told, "meta": {**told["meta"], "innerInstructions": None}},
        lambda told: {**told, "meta": {**told["meta"], "logMessages": None}},
        lambda told: {**told, "transaction": "error: too long"},
        lambda told: {**told, "transaction": ["AAAA", "base64"]},
        lambda told: {key: value for key, value in told.items() if key != "meta"},
        lambda told: RESULT,
    ],
    ids=["null", "meta", "inner", "logs", "sentence", "bytes", "absent", "another"],
)
async def test_a_transaction_that_came_unreadable_is_fetched(shown: Any) -> None:
    async with rig(subscriptions=(WHOLE,), whole_transactions=True) as rigged:
        rigged.node.faults.shown = shown
        landed = rigged.node.emit_transaction([PROGRAM], ["Program log: x"])
        await rigged.until(lambda: bool(whole(rigged.updates)), flowing=True)
        (update,) = whole(rigged.updates)
        assert (update.signature, update.logs) == (landed.signature, ("Program log: x",))


async def test_the_answer_with_another_transaction_is_not_taken() -> None:
    async with rig(subscriptions=(WHOLE,)) as rigged:
        rigged.node.http_faults.results["getTransaction"] = RESULT
        landed = rigged.node.emit_transaction([PROGRAM])
        bad = {"source": "rpc", "reason": "other_signature"}
        await rigged.until(lambda: rigged.count("source_bad_messages_total", **bad) > 0, flowing=True)
        assert whole(rigged.updates) == []
        rigged.node.http_faults.results.clear()
        await rigged.until(lambda: bool(whole(rigged.updates)))
        assert whole(rigged.updates)[0].signature == landed.signature


async def test_failed_transactions_are_delivered() -> None:
    for sent in (False, True):
        async with rig(subscriptions=(WHOLE,), whole_transactions=sent) as rigged:
            error: dict[str, object] = {"InstructionError": [0, "X"]}
            rigged.node.emit_transaction([PROGRAM], err=error)
            await rigged.until(lambda: bool(whole(rigged.updates)), flowing=True)
            assert whole(rigged.updates)[0].err == error


async def test_one_that_concerns_two_feeds_is_fetched_once_and_delivered_to_both() -> None:
    feeds = (WHOLE, f"transactions:{WALLET}")
    async with rig(endpoints=2, subscriptions=feeds) as rigged:
        landed = rigged.node.emit_transaction([PROGRAM, WALLET])
        await rigged.until(lambda: all(whole(rigged.updates, feed) for feed in feeds), flowing=True)
        await rigged.still_flows_whole()
        for feed in feeds:
            assert [update.signature for update in whole(rigged.updates, feed)][:1] == [landed.signature]
        asked = [call["params"][0] for call in rigged.node.http.requests if call["method"] == "getTransaction"]
        assert asked.count(landed.signature) == 1


async def test_many_are_asked_for_in_batches_over_all_endpoints() -> None:
    async with rig(subscriptions=(WHOLE,), transactions_batch=5, http_endpoints=2) as rigged:
        emitted = {rigged.node.emit_transaction([PROGRAM]).signature for _ in range(40)}
        await rigged.until(lambda: {update.signature for update in whole(rigged.updates)} == emitted, flowing=True)
        for http in rigged.http:
            assert max(http.batches) > 1
            assert max(http.batches) <= 5
        assert rigged.gaps == []


async def test_a_node_that_takes_no_batches_is_asked_one_by_one() -> None:
    async with rig(subscriptions=(WHOLE,)) as rigged:
        rigged.node.http_faults.no_batches = True
        emitted = {rigged.node.emit_transaction([PROGRAM]).signature for _ in range(10)}
        await rigged.until(lambda: {update.signature for update in whole(rigged.updates)} == emitted, flowing=True)
        assert rigged.gaps == []


async def test_one_that_is_not_there_yet_is_asked_for_again() -> None:
    async with rig(subscriptions=(WHOLE,)) as rigged:
        rigged.node.http_faults.nulls = 3
        landed = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: bool(whole(rigged.updates)), flowing=True)
        assert whole(rigged.updates)[0].signature == landed.signature
        assert rigged.gaps == []


async def test_a_transaction_that_is_never_found_is_a_gap() -> None:
    async with rig(subscriptions=(WHOLE,)) as rigged:
        landed = rigged.node.emit_transaction([PROGRAM])
        rigged.node.http_faults.lost.add(landed.signature)
        await rigged.until(lambda: len(rigged.gaps) == 2, flowing=True)
        assert [(gap.state, gap.from_slot, gap.to_slot, gap.feed) for gap in rigged.gaps] == [
            ("open", landed.slot, landed.slot, WHOLE),
            ("unrecoverable", landed.slot, landed.slot, WHOLE),
        ]
        assert rigged.gaps[1].reason == "transaction not found"
        await rigged.still_flows_whole()


async def test_what_exceeds_the_nodes_rate_is_a_gap_and_the_rest_comes() -> None:
    async with rig(subscriptions=(WHOLE,), transactions_wait_s=1.0) as rigged:
        rigged.node.http_faults.calls_left = 3
        rigged.node.http_faults.retry_after = "1"
        emitted = [rigged.node.emit_transaction([PROGRAM]) for _ in range(30)]
        await rigged.until(lambda: bool(rigged.gaps), flowing=True)
        await rigged.until(lambda: not len(rigged.stream._fetcher.queue))
        await rigged.until(lambda: missing_whole(rigged, [(each.signature, each.slot) for each in emitted]) == set())
        assert {gap.reason for gap in rigged.gaps if gap.state == "unrecoverable"} == {"rate"}
        assert rigged.count("source_transaction_calls_total", source="rpc", outcome="limited") > 0
        rigged.node.http_faults.calls_left = None
        await rigged.still_flows_whole()


async def test_more_than_may_wait_are_a_gap_and_the_newest_come() -> None:
    async with rig(subscriptions=(WHOLE,), transactions_waiting_max=5) as rigged:
        rigged.node.http_faults.hang_up = True
        emitted = [rigged.node.emit_transaction([PROGRAM]) for _ in range(50)]
        await rigged.until(lambda: bool(rigged.gaps), flowing=True)
        rigged.node.http_faults.hang_up = False
        newest = {each.signature for each in emitted[-5:]}
        await rigged.until(lambda: newest <= {update.signature for update in whole(rigged.updates)}, flowing=True)
        await rigged.until(lambda: missing_whole(rigged, [(each.signature, each.slot) for each in emitted]) == set())


async def test_while_all_endpoints_rest_what_is_lost_is_not_kept() -> None:
    async with rig(subscriptions=(WHOLE,), transactions_waiting_max=5) as rigged:
        rigged.node.http_faults.status, rigged.node.http_faults.retry_after = 429, "60"
        for _ in range(STALE_MAX + 300):
            rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: bool(rigged.gaps), flowing=True)
        queue = rigged.stream._fetcher.queue
        await rigged.until(lambda: len(queue) == 5 and len(queue._ready) <= 5 + STALE_MAX, flowing=True)


async def test_without_an_http_endpoint_each_transaction_is_a_gap() -> None:
    async with rig(subscriptions=(WHOLE,), http=False) as rigged:
        landed = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: len(rigged.gaps) == 2, flowing=True)
        assert {(gap.from_slot, gap.to_slot) for gap in rigged.gaps} == {(landed.slot, landed.slot)}
        assert rigged.gaps[1].reason == "no HTTP endpoint"


@pytest.mark.parametrize("sent", [False, True])
async def test_what_a_lost_connection_missed_is_refilled(sent: bool) -> None:
    async with rig(subscriptions=(WHOLE,), whole_transactions=sent) as rigged:
        emitted = []
        for _ in range(5):
            emitted.append(rigged.node.emit_transaction([PROGRAM]))
            rigged.node.advance_slot()
        rigged.proxy.refuse = True
        await rigged.lose_all()
        for _ in range(5):
            emitted.append(rigged.node.emit_transaction([PROGRAM]))
            rigged.node.advance_slot()
        rigged.proxy.refuse = False
        await rigged.settled()
        await rigged.until(
            lambda: {update.signature for update in whole(rigged.updates)} >= {each.signature for each in emitted},
            flowing=True,
        )
        assert {gap.state for gap in rigged.gaps_of(WHOLE)} == {"open", "backfilled"}


async def test_what_is_not_fetched_when_the_source_stops_is_not_covered() -> None:
    async with rig(subscriptions=(WHOLE,)) as rigged:
        await rigged.until(lambda: rigged.node.ledger.head > 1050, flowing=True)
        rigged.node.http_faults.hang = True
        landed = rigged.node.emit_transaction([PROGRAM])
        queue = rigged.stream._fetcher.queue
        await rigged.until(lambda: len(queue) == 1, flowing=True)
        goal = landed.slot + 50
        await rigged.until(lambda: rigged.node.ledger.head > goal, flowing=True)
        rigged.node.emit_transaction([PROGRAM])  # the feed is alive all the while
        await rigged.until(lambda: len(queue) == 2, flowing=True)
        rigged.source.stop()
        await rigged.until(lambda: rigged.ending is not None)
        assert rigged.source.covered[WHOLE] == landed.slot - 1


async def test_unsubscribing_forgets_waiting_transactions() -> None:
    async with rig(subscriptions=(WHOLE, FEED)) as rigged:
        rigged.node.http_faults.nulls = 1000
        rigged.node.emit_transaction([PROGRAM])
        queue = rigged.stream._fetcher.queue
        await rigged.until(lambda: len(queue) == 1, flowing=True)
        rigged.source.update_subscriptions([FEED])
        assert len(queue) == 0


async def test_at_processed_the_logs_are_asked_for_at_confirmed() -> None:
    subscription = ChainSubscription("transactions", OTHER)
    known = Registry((SLOTS, subscription), "processed", "base64", whole=True)
    known.due(0)
    assert known.whole_unanswered
    assert known.refuse(2, -32601, "no", 0) is None
    (request,) = known.due(0)
    sent = json.loads(request)
    assert (sent["method"], sent["params"]) == (
        "logsSubscribe",
        [{"mentions": [OTHER]}, {"commitment": "confirmed"}],
    )
    known.acknowledge(1, 11)
    known.acknowledge(3, 33)
    assert known.commitment_of(subscription) == "confirmed"
    assert known.complete
    assert not known.whole_unanswered


def missing_whole(rigged: Rig, emitted: list[tuple[str, int]]) -> set[tuple[str, int]]:
    lost = [gap for gap in rigged.gaps_of(WHOLE) if gap.state == "unrecoverable"]
    return {
        (signature, slot)
        for signature, slot in set(emitted) - rigged.delivered
        if not any(gap.from_slot <= slot <= gap.to_slot for gap in lost)
    }


REPORT = Path(__file__).parents[2] / "data" / "trades" / "reported" / "8_meteora_logs_only.json"
METEORA: dict[str, Any] = json.loads(REPORT.read_text())["result"]
PROGRAMS = Programs.load()
METEORA_DLMM = "LBUZKhRxPF3XUpBCjp4YzTKgLccjZhTSDM9YuVaPwxo"


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize(("word", "trades"), [("logs", 0), ("transactions", 2)])
async def test_meteora_trades_come_with_whole_transactions_and_not_with_logs(
    word: str, trades: int, sent: bool
) -> None:
    result = METEORA
    wanted = (f"{word}:{METEORA_DLMM}", f"logs:{PROGRAM}")
    async with rig(subscriptions=wanted, whole_transactions=sent) as rigged:
        signature = transaction_from_rpc(result, source="", feed="", received_ns=0).signature
        rigged.node.emit_transaction([METEORA_DLMM], result["meta"]["logMessages"], result=result, signature=signature)
        await rigged.until(lambda: bool(rigged.signatures(wanted[0])), flowing=True)
        await rigged.still_flows()
        flow = SpreadPipeline(PROGRAMS, SystemClock(), Metrics())
        published = [each for update in rigged.updates for each in flow.apply(update)]
        assert sum(each.topic == "trades:meteora_dlmm" for each in published) == trades
