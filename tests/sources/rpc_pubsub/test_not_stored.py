"""A node that stored no logs or no inner instructions: never `backfilled`, and another endpoint is asked."""

from collections.abc import Callable
from typing import Any

import pytest

from headrace.model.updates import LogsUpdate, TransactionUpdate
from headrace.testing.ledger import made_up_signature
from headrace.testing.node import ScriptedNode
from tests.sources.rpc_pubsub.rig import FEED, Rig, rig
from tests.sources.rpc_pubsub.test_gaps import lose_some

Strip = Callable[[dict[str, Any]], None]


def no_meta(result: dict[str, Any]) -> None:
    result["meta"] = None


def without(*names: str) -> Strip:
    def strip(result: dict[str, Any]) -> None:
        result["meta"] |= dict.fromkeys(names)

    return strip


STRIPS = {
    "meta null": no_meta,
    "logs null": without("logMessages"),
    "inner null": without("innerInstructions"),
    "both null": without("logMessages", "innerInstructions"),
}


def strip_one(rigged: Rig, lost: list[tuple[str, int]], how: Strip) -> None:
    how(rigged.node.ledger.by_signature[lost[0][0]].result)


@pytest.mark.parametrize("name", STRIPS)
async def test_a_refill_that_met_it_is_unrecoverable(name: str) -> None:
    async with rig() as rigged:
        rigged.node.http_faults.hang_up = True
        lost = await lose_some(rigged, count=2)
        strip_one(rigged, lost, STRIPS[name])
        rigged.node.http_faults.hang_up = False
        await rigged.settled()
        gap = rigged.gaps_of(FEED)[-1]
        assert (gap.state, gap.reason) == ("unrecoverable", "1 of 2 transactions without their events")
        assert lost[1][0] in rigged.signatures()


async def test_what_was_stored_is_delivered_as_what_it_shows() -> None:
    shown = {}
    for name, strip in STRIPS.items():
        async with rig() as rigged:
            rigged.node.http_faults.hang_up = True
            lost = await lose_some(rigged, count=2)
            strip_one(rigged, lost, strip)
            rigged.node.http_faults.hang_up = False
            await rigged.settled()
            kinds = (LogsUpdate, TransactionUpdate)
            shown[name] = [
                type(update)
                for update in rigged.updates
                if isinstance(update, kinds) and update.signature == lost[0][0]
            ]
    assert shown == {"meta null": [], "logs null": [TransactionUpdate], "inner null": [LogsUpdate], "both null": []}


@pytest.mark.parametrize("name", STRIPS)
async def test_another_endpoint_that_stored_it_is_asked(name: str) -> None:
    async with ScriptedNode() as archive, rig(other_http=archive.http_url) as rigged:
        archive.http.ledger = rigged.node.ledger  # one chain, and what each node stored of it
        rigged.node.http_faults.hang_up = archive.http_faults.hang_up = True
        lost = await lose_some(rigged, count=2)
        whole = rigged.node.ledger.by_signature[lost[0][0]].result
        poor = {**whole, "meta": {**whole["meta"]}}
        STRIPS[name](poor)
        rigged.node.http_faults.transactions[lost[0][0]] = poor
        rigged.node.http_faults.hang_up = archive.http_faults.hang_up = False
        await rigged.settled()
        assert rigged.gaps_of(FEED)[-1].state == "backfilled"
        assert set(lost) <= rigged.delivered
        assert archive.http.calls.count("getTransaction") == 1


@pytest.mark.parametrize("name", STRIPS)
async def test_a_signature_whose_events_were_not_stored_is_declared(name: str) -> None:
    signature = made_up_signature(81)
    async with rig(subscriptions=(f"signature:{signature}",), start=False) as rigged:
        landed = rigged.node.emit_transaction(["11111111111111111111111111111112"], signature=signature)
        STRIPS[name](landed.result)
        for _ in range(5):
            rigged.node.advance_slot()
        await rigged.until(lambda: len(rigged.gaps) == 2)
        assert (rigged.gaps[-1].state, rigged.gaps[-1].reason) == ("unrecoverable", "transaction without its events")
