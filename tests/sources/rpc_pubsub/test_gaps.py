"""What is lost upstream is declared, refilled where it can be, and closed with the truth."""

import json

import pytest

from headrace.model.updates import AccountUpdate, GapUpdate, LogsUpdate, SlotUpdate, TransactionUpdate
from headrace.testing.ledger import made_up_key, made_up_signature
from tests.sources.rpc_pubsub.rig import FEED, PROGRAM, Rig, missing, rig

ACCOUNT = made_up_key("account")


async def lose_some(rigged: Rig, count: int = 20) -> list[tuple[str, int]]:
    """Cut all endpoints, let `count` transactions land meanwhile, let them come back."""
    for proxy in rigged.proxies:
        proxy.refuse = True
        proxy.cut()
    await rigged.node.until(lambda: rigged.node.subscribed("slot") == 0)
    landed = []
    for number in range(count):
        landed.append(rigged.node.emit_transaction([PROGRAM], [f"Program log: lost {number}"]))
        rigged.node.advance_slot()
    for proxy in rigged.proxies:
        proxy.refuse = False
    return [(each.signature, each.slot) for each in landed]


def asked_about(rigged: Rig, signature: str) -> bool:
    """Return whether the node was asked for a transaction, or for its status."""
    return any(signature in json.dumps(request["params"][:1]) for request in rigged.node.http.requests)


async def test_a_cut_is_declared_refilled_oldest_first_and_closed() -> None:
    async with rig() as rigged:
        before = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: before.signature in rigged.signatures())
        lost = await lose_some(rigged)
        await rigged.settled()
        opened, closed = rigged.gaps_of(FEED)
        assert (opened.state, closed.state) == ("open", "backfilled")
        assert opened.gap_id == closed.gap_id == f"rpc:{FEED}:{opened.from_slot}-{opened.to_slot}"
        assert opened.from_slot <= lost[0][1] <= lost[-1][1] <= opened.to_slot == opened.slot
        refilled = [update for update in rigged.updates if isinstance(update, TransactionUpdate)]
        assert [(update.signature, update.slot) for update in refilled] == lost
        assert refilled[0].logs == ("Program log: lost 0",)
        assert {(update.feed, update.commitment) for update in refilled} == {(FEED, "confirmed")}
        places = [rigged.updates.index(each) for each in (opened, refilled[0], refilled[-1], closed)]
        assert places == sorted(places)


async def test_the_slots_feed_is_refilled_from_blocks() -> None:
    async with rig() as rigged:
        lost = await lose_some(rigged)
        await rigged.settled()
        assert [gap.state for gap in rigged.gaps_of("slots")] == ["open", "backfilled"]
        confirmed = {
            update.slot for update in rigged.updates if isinstance(update, SlotUpdate) and update.status == "confirmed"
        }
        assert {slot for _, slot in lost} <= confirmed


async def test_live_updates_flow_while_a_gap_is_being_filled() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.hang_up = True
        lost = await lose_some(rigged)
        await rigged.until(lambda: len(rigged.gaps_of(FEED)) == 1, flowing=True)
        live = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: live.signature in rigged.signatures(), flowing=True)
        rigged.node.http_faults.hang_up = False
        await rigged.settled()
        assert missing(rigged, [*lost, (live.signature, live.slot)]) == set()
        assert rigged.gaps_of(FEED)[-1].state == "backfilled"


async def test_a_second_cut_during_a_refill_is_a_gap_of_its_own() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.hang_up = True
        lost = await lose_some(rigged)
        await rigged.until(lambda: len(rigged.gaps_of(FEED)) == 1, flowing=True)
        lost += await lose_some(rigged)
        await rigged.until(lambda: len(rigged.gaps_of(FEED)) == 2, flowing=True)
        rigged.node.http_faults.hang_up = False
        await rigged.settled()
        assert missing(rigged, lost) == set()
        assert [gap.state for gap in rigged.gaps_of(FEED)] == ["open", "open", "backfilled", "backfilled"]
        assert len({gap.gap_id for gap in rigged.gaps_of(FEED)}) == 2


async def test_stopping_during_a_refill_gives_the_gap_up() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.hang = True
        await lose_some(rigged)
        await rigged.until(lambda: len(rigged.gaps_of(FEED)) == 1, flowing=True)
        rigged.source.stop()
        await rigged.until(lambda: rigged.ending is not None)
        opened, closed = rigged.gaps_of(FEED)
        assert (opened.state, closed.state, closed.reason) == ("open", "unrecoverable", "the source stopped")
        assert opened.gap_id == closed.gap_id


async def test_transactions_that_are_not_there_yet_are_asked_for_again() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.nulls = 2
        lost = await lose_some(rigged)
        await rigged.settled()
        assert set(lost) <= rigged.delivered
        assert rigged.gaps_of(FEED)[-1].state == "backfilled"


async def unrecoverable(rigged: Rig) -> GapUpdate:
    """Lose some; the gap must end as lost."""
    await lose_some(rigged)
    await rigged.settled()
    gap = rigged.gaps_of(FEED)[-1]
    assert gap.state == "unrecoverable"
    return gap


async def test_without_http_a_gap_is_unrecoverable() -> None:
    async with rig(http=False) as rigged:
        assert (await unrecoverable(rigged)).reason == "no HTTP endpoint"


async def test_what_a_node_never_gives_is_counted_in_the_reason() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.lost.update(made_up_signature(number) for number in (3, 4))
        assert (await unrecoverable(rigged)).reason == "2 of 20 transactions not found"
        assert len(rigged.signatures()) == 18


async def test_more_than_the_limit_is_partly_refilled_newest_kept() -> None:
    async with rig(refill_signatures_max=5) as rigged:
        assert (await unrecoverable(rigged)).reason == "more than 5 transactions"
        assert rigged.signatures() == [made_up_signature(number) for number in range(16, 21)]


async def test_a_refill_from_a_pruned_ledger_names_where_it_begins() -> None:
    async with rig() as rigged:
        rigged.node.ledger.first_available = rigged.node.ledger.head + 10
        assert (await unrecoverable(rigged)).reason.startswith("the node's ledger begins at slot 10")


async def test_a_node_without_history_is_no_endless_loop() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.errors["getSignaturesForAddress"] = (-32011, "history is not available")
        assert (await unrecoverable(rigged)).reason == "the node refused (-32011)"


@pytest.mark.parametrize("result", [["not a transaction"], {"slot": 1}, {"transaction": ["!!", "base64"], "meta": {}}])
async def test_a_result_that_is_no_transaction_counts_as_missing(result: object) -> None:
    async with rig() as rigged:
        rigged.node.http_faults.results["getTransaction"] = result
        assert (await unrecoverable(rigged)).reason == "20 of 20 transactions not found"


async def test_a_gap_that_takes_too_long_is_given_up() -> None:
    async with rig(refill_s=0.05) as rigged:
        rigged.node.http_faults.status = 500
        assert (await unrecoverable(rigged)).reason == "the node did not answer in time"


async def test_a_node_that_repeats_a_page_is_no_endless_loop() -> None:
    async with rig() as rigged:
        head = rigged.node.ledger.head
        page = [{"signature": made_up_signature(1), "slot": head + 1, "err": None}]
        rigged.node.http_faults.results["getSignaturesForAddress"] = page
        assert (
            await unrecoverable(rigged)
        ).reason == "the node's answer was unusable (rpc_other_answer); 1 of 1 transactions not found"


async def test_an_account_is_read_again_and_the_versions_between_are_lost() -> None:
    async with rig(subscriptions=(f"account:{ACCOUNT}", f"program:{PROGRAM}")) as rigged:
        await lose_some(rigged)
        rigged.node.emit_account(ACCOUNT, PROGRAM, b"after")
        await rigged.settled()
        opened, closed = rigged.gaps_of(f"account:{ACCOUNT}")
        assert (opened.state, closed.state, closed.reason) == ("open", "unrecoverable", "intermediate versions")
        reread = [update for update in rigged.updates if isinstance(update, AccountUpdate) and update.source == "rpc"]
        assert [(update.pubkey, update.data) for update in reread] == [(ACCOUNT, b"after")]
        assert reread[0].slot >= opened.to_slot
        assert rigged.gaps_of(f"program:{PROGRAM}")[-1].state == "unrecoverable"


async def test_what_was_delivered_before_is_not_fetched_again() -> None:
    async with rig(gap_margin_slots=8) as rigged:
        seen = [rigged.node.emit_transaction([PROGRAM]) for _ in range(5)]
        await rigged.until(lambda: len(rigged.signatures()) == len(seen))
        await lose_some(rigged, count=3)
        await rigged.settled()
        assert rigged.gaps_of(FEED)[0].from_slot <= seen[0].slot
        assert rigged.node.http.calls.count("getTransaction") == 3


@pytest.mark.parametrize("refuses", ["", "getSignatureStatuses"])
@pytest.mark.parametrize("passes", [True, False])
async def test_an_empty_page_after_an_unknown_transaction_is_not_the_end_of_a_listing(
    passes: bool, refuses: str
) -> None:
    async with rig(refill_s=60.0 if passes else 0.5) as rigged:
        unknown = made_up_signature(1_000_000)
        rigged.node.http_faults.first_page = [{"signature": unknown, "slot": rigged.node.ledger.head + 40, "err": None}]
        rigged.node.http_faults.errors = {refuses: (-32011, "no history")}
        lost = await lose_some(rigged)
        if passes:
            await rigged.until(lambda: asked_about(rigged, unknown), flowing=True)
            rigged.node.http_faults.first_page = None
        await rigged.settled()
        assert missing(rigged, lost) == set()
        assert rigged.gaps_of(FEED)[-1].state == ("backfilled" if passes else "unrecoverable")


async def test_while_one_endpoint_lives_nothing_is_lost() -> None:
    async with rig(endpoints=2) as rigged:
        for number in range(40):
            if number % 10 == 0:
                await rigged.overlap()
                await rigged.lose(number // 10 % 2)
                await rigged.covered()
            rigged.node.emit_transaction([PROGRAM])
            rigged.node.advance_slot()
        await rigged.until(lambda: len(set(rigged.signatures())) == 40, flowing=True)
        assert rigged.gaps == []
        live = [update for update in rigged.updates if isinstance(update, LogsUpdate)]
        assert {update.source for update in live} == {"rpc-0", "rpc-1"}


async def test_when_all_endpoints_are_lost_at_once_there_is_one_gap() -> None:
    async with rig(endpoints=2) as rigged:
        lost = await lose_some(rigged)
        await rigged.settled()
        assert missing(rigged, lost) == set()
        assert [gap.state for gap in rigged.gaps_of(FEED)] == ["open", "backfilled"]


async def drop_the_feed(rigged: Rig) -> list[tuple[str, int]]:
    """The nodes go on with slots alone, well past the margin, while transactions land."""
    rigged.node.faults.dropped.add("logs")
    landed = [rigged.node.emit_transaction([PROGRAM]) for _ in range(3)]
    goal = rigged.node.ledger.head + 20
    await rigged.until(lambda: rigged.connections[0].progress.head >= goal, flowing=True)
    rigged.node.faults.dropped.clear()
    return [(each.signature, each.slot) for each in landed]


@pytest.mark.parametrize("commitment", ["processed", "confirmed", "finalized"])
@pytest.mark.parametrize("alive_before", [True, False])
async def test_a_feed_dropped_shortly_before_its_connection_ends_is_refilled(
    commitment: str, alive_before: bool
) -> None:
    async with rig(commitment=commitment) as rigged:
        if alive_before:
            await rigged.still_flows()
        landed = await drop_the_feed(rigged)
        await rigged.lose(0)
        await rigged.until(lambda: set(landed) <= rigged.delivered, flowing=True)
        await rigged.settled()
        assert {gap.state for gap in rigged.gaps_of(FEED)} == {"open", "backfilled"}


async def test_a_feed_dropped_shortly_before_the_source_stops_is_not_covered() -> None:
    async with rig() as rigged:
        landed = await drop_the_feed(rigged)
        rigged.source.stop()
        await rigged.until(lambda: rigged.ending is not None)
        assert rigged.source.covered[FEED] < landed[0][1]


async def test_a_feed_dropped_after_it_was_subscribed_anew_is_refilled() -> None:
    async with rig() as rigged:
        await rigged.still_flows()
        rigged.source.update_subscriptions([f"account:{ACCOUNT}"])
        rigged.source.update_subscriptions([FEED])
        await rigged.covered()
        landed = await drop_the_feed(rigged)
        await rigged.lose(0)
        await rigged.until(lambda: set(landed) <= rigged.delivered, flowing=True)


async def test_what_a_second_node_covers_is_no_gap_though_the_feed_was_quiet() -> None:
    async with rig(2) as rigged:
        await rigged.overlap()
        await rigged.lose(0)
        await rigged.covered()
        assert rigged.gaps_of(FEED) == []


async def test_a_quiet_feed_that_the_ledger_bore_out_leaves_a_short_gap_filled_with_nothing() -> None:
    async with rig(quiet_feed_s=0.05) as rigged:
        await rigged.still_flows()
        heard = rigged.connections[0].progress.last[FEED]
        await rigged.until(lambda: rigged.connections[0].progress.surely()[FEED] > heard + 20, flowing=True)
        await rigged.lose(0)
        await rigged.until(lambda: len(rigged.gaps_of(FEED)) == 2, flowing=True)
        opened, closed = rigged.gaps_of(FEED)
        assert (opened.state, closed.state) == ("open", "backfilled")
        assert opened.from_slot > heard + 20
        assert len(rigged.signatures()) == len(set(rigged.signatures()))
