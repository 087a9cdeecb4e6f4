"""After the landing: final once, lost if it must be, and nothing is signed anew."""

import itertools
import json
from pathlib import Path
from typing import Literal

import pytest
from msgspec.structs import replace

from headrace.chains import Answer, Landing
from headrace.model.amounts import BaseUnits
from headrace.model.orders import OrderStatus
from headrace.model.transactions import Signed
from headrace.orders.decisions import ChainStatus, judge_final
from headrace.orders.ended import Finality
from headrace.orders.intake import portfolio_of
from headrace.protocol.orders import notification
from tests.orders.one_order import OneOrder, begin

LIMIT = 100
FAILED = {"InstructionError": [0, {"Custom": 1}]}


@pytest.mark.parametrize(("finalized", "node"), list(itertools.product((None, LIMIT, LIMIT + 1), repeat=2)))
def test_a_landing_is_lost_only_when_it_can_not_come_back(finalized: int | None, node: int | None) -> None:
    answer = None if node is None else Answer(None, node)
    lost = finalized == node == LIMIT + 1
    assert judge_final(LIMIT, ChainStatus(finalized, answer)) == ("lost" if lost else "undecided")


@pytest.mark.parametrize(
    ("depth", "err", "verdict"),
    [
        ("processed", None, "undecided"),
        ("confirmed", None, "undecided"),
        ("confirmed", FAILED, "undecided"),
        ("finalized", None, "finalized"),
        ("finalized", FAILED, "lost"),
    ],
)
def test_a_landing_that_is_not_finalized_leaves_finality_undecided(
    depth: Literal["processed", "confirmed", "finalized"], err: dict[str, object] | None, verdict: str
) -> None:
    assert judge_final(LIMIT, ChainStatus(LIMIT + 9, Answer(Landing(depth, err), LIMIT + 9))) == verdict


async def executed(one: OneOrder) -> Signed:
    one.chain.on_send = one.chain.land
    await one.accept()
    await one.end()
    return one.chain.sent[0]


def finality(one: OneOrder) -> Finality:
    return Finality(one.store, one.chain, one.settings, one.clock)


async def test_an_executed_order_becomes_final_once(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        signed = await executed(one)
        assert await finality(one).look_once() == 0
        one.chain.landed[signed.signature] = replace(one.chain.landed[signed.signature], depth="finalized")
        assert [await finality(one).look_once() for _ in range(3)] == [1, 0, 0]
        order = await one.check()
        assert (order.status, order.outcome.finality) == (OrderStatus.CONFIRMED, "finalized")
        *_, landed, final = await one.store.events(one.order_id, 0, 99)
        assert (landed.kind, final.kind, final.status) == ("landed", "finalized", "CONFIRMED")
        assert json.loads(bytes(final.data)) == {"finality": "finalized", "fate": "executed"}
        assert len((await one.store.fills("u", 0, 9)).fills) == 1


async def test_the_amount_out_is_that_of_the_fork_that_became_final(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        signed = await executed(one)
        confirmed = one.chain.landed[signed.signature]
        one.chain.landed[signed.signature] = replace(confirmed, depth="finalized", amount_out=BaseUnits(6))
        assert await finality(one).look_once() == 1
        assert (confirmed.amount_out, (await one.check()).outcome.amount_out) == (7, 6)
        assert [fill.amount_out for fill in (await one.store.fills("u", 0, 9)).fills] == [6]
        final = (await one.store.events(one.order_id, 0, 99))[-1]
        assert json.loads(bytes(final.data))["amountOut"] == "6"


async def test_a_confirmed_landing_whose_fork_dies_is_lost_and_no_fill(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        signed = await executed(one)
        one.chain.landed.clear()
        one.chain.away = True
        assert await finality(one).look_once() == 0
        one.chain.away = False
        one.chain.move(signed.last_valid_height)
        assert await finality(one).look_once() == 0
        one.chain.move(signed.last_valid_height + 1)
        assert await finality(one).look_once() == 1
        order = await one.order()
        assert (order.outcome.finality, order.outcome.fate) == ("lost", "not_executed")
        *_, landed, undone = await one.store.events(one.order_id, 0, 99)
        assert undone.kind == "landing_lost"
        notices = [json.loads(notification(event) or b"{}") for event in (landed, undone)]
        assert [notice["notification_type"] for notice in notices] == ["order_confirmed", "order_undone"]
        [fill] = (await one.store.fills("u", 0, 9)).fills
        assert fill.finality == "lost"
        assert (await portfolio_of(one.store, "u")).fills == 0
        assert len(one.chain.sent) == 1
