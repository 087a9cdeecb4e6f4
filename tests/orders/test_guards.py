"""Each guard taken away by itself: then the scenario that it is there for must fail, or guard or test is idle.

On every store: two of the guards are the store's own, and the others rely on it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from headrace.chains import Answer, Chain, Landing
from headrace.model.amounts import BaseUnits
from headrace.model.errors import TransientError
from headrace.model.orders import Attempt, Change, EventKind, LeaseLost, Order, Quote
from headrace.model.transactions import Signed
from headrace.orders import decisions, engine, verbs
from headrace.orders.decisions import AttemptVerdict, ChainStatus
from headrace.orders.engine import Engine
from headrace.orders.store import Rate
from headrace.orders.store.postgres import batch
from headrace.orders.store.sqlite import writes
from headrace.testing.orders import ScriptedChain, new_order
from tests.orders.one_order import OneOrder, begin
from tests.orders.test_engine import ERR

Scenario = Callable[[OneOrder], Awaitable[None]]
Mutation = Callable[[pytest.MonkeyPatch, OneOrder], None]


async def lands_between_the_two_questions(one: OneOrder) -> None:
    """The node is on a fork beyond the limit; the other fork has the transaction, and becomes final meanwhile."""
    chain, asked = one.chain, 0

    def sent(signed: Signed) -> None:
        chain.height, chain.finalized = signed.last_valid_height + 5, signed.last_valid_height - 20

    def second() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            signed = chain.sent[0]
            chain.landed[signed.signature] = Landing("confirmed", None, None, BaseUnits(1))
            chain.move(signed.last_valid_height + 40)
            chain.on_send = chain.land

    chain.on_send, chain.before_look, chain.before_height = sent, second, second
    await one.accept()
    await one.end()
    await one.check()


async def fails_on_the_chain(one: OneOrder) -> None:
    one.chain.on_send = lambda signed: one.chain.land(signed, ERR)
    await one.accept()
    await one.end()
    await one.check()


async def lags_behind_the_limit(one: OneOrder) -> None:
    """One node says that the limit is final; the node that is asked for the transaction has not come that far."""
    chain, looks = one.chain, 0

    class TwoNodes(ScriptedChain):
        async def look(self, signature: str) -> Answer:
            nonlocal looks
            looks += 1
            behind = looks < 3 and len(chain.landed) < 2
            return Answer(None, chain.sent[0].last_valid_height - 10) if behind else await super().look(signature)

    chain.__class__ = TwoNodes

    def sent(signed: Signed) -> None:
        chain.land(signed)
        chain.move(signed.last_valid_height + 40)

    chain.on_send = sent
    await one.accept()
    await one.end()
    await one.check()


async def dies_while_journaling(one: OneOrder) -> None:
    """The store is away at the moment of the journal: whoever takes over must find that nothing was sent."""

    class Away:
        def __getattr__(self, name: str) -> Any:
            return getattr(one.store, name)

        async def apply(self, order: Order, change: Change) -> Order:
            raise TransientError("away")

    one.chain.on_send = one.chain.land
    await one.accept()
    await one.work(store=Away())
    one.chain.move(one.chain.height + 1)
    await one.end()
    await one.check()


async def a_zombie_wakes(one: OneOrder) -> None:
    """Its lease is over and another worker has the order."""
    await one.accept()
    [zombie] = await one.store.claim(1, 0, Rate(0))
    await one.store.claim(1, 60_000, Rate(0))
    with pytest.raises(LeaseLost):
        await one.store.apply(zombie.order, Change(kind=EventKind.QUOTED))


async def the_same_key_twice(one: OneOrder) -> None:
    accepted = await asyncio.gather(*[one.store.accept(new_order(f"o{n}", 1), ["key:k"], "print") for n in range(20)])
    assert len({each.order.id for each in accepted}) == 1


def status_before_height(patch: pytest.MonkeyPatch, _: OneOrder) -> None:
    async def look(chain: Chain, signature: str) -> ChainStatus:
        answer = await chain.look(signature)
        return ChainStatus(await chain.finalized_height(), answer)

    patch.setattr(engine, "look_at_chain", look)


def no_err_check(patch: pytest.MonkeyPatch, _: OneOrder) -> None:
    settle = Engine._settle_landed

    async def landed(self: Engine, order: Order, attempt: Attempt, landing: Landing) -> None:
        await settle(self, order, attempt, replace(landing, err=None))

    patch.setattr(Engine, "_settle_landed", landed)


def any_node_will_do(patch: pytest.MonkeyPatch, _: OneOrder) -> None:
    def judge(limit: int, status: ChainStatus) -> AttemptVerdict:
        answer = status.answer and replace(status.answer, height=2**60)
        return decisions.judge(limit, replace(status, answer=answer))

    patch.setattr(engine, "judge", judge)


def send_before_the_journal(patch: pytest.MonkeyPatch, _: OneOrder) -> None:
    build = Engine._build

    async def eager(self: Engine, order: Order, quote: Quote) -> tuple[Change, Attempt]:
        journaled, attempt = await build(self, order, quote)
        await self._chain.send(attempt)
        return journaled, attempt

    patch.setattr(Engine, "_build", eager)


def no_epoch(patch: pytest.MonkeyPatch, _: OneOrder) -> None:
    def unfenced(order: Order | None, held: Order) -> None:
        assert order is not None

    patch.setattr(verbs, "check_held", unfenced)


def no_unique_key(patch: pytest.MonkeyPatch, _: OneOrder) -> None:
    accept, accept_in_batch = writes.accept, batch.accept
    patch.setattr(writes, "accept", lambda order, _keys, *more: accept(order, (), *more))
    patch.setattr(batch, "accept", lambda order, _keys, *more: accept_in_batch(order, (), *more))


def sign_anew_at_once(patch: pytest.MonkeyPatch, one: OneOrder) -> None:
    """What a job queue does: after a crash, begin at the top."""
    execute = Engine.execute

    async def naive(self: Engine, held: Any) -> None:
        if held.order.status == "SUBMITTED":
            outcome = replace(held.order.outcome, failed_tries=held.order.outcome.failed_tries + 1)
            held.order = await self._store.apply(held.order, Change(kind=EventKind.RETRIED, outcome=outcome))
        await execute(self, held)

    patch.setattr(Engine, "execute", naive)


async def dies_after_the_send(one: OneOrder) -> None:
    chain = one.chain

    class Deaf(ScriptedChain):
        """Takes the bytes; the worker hears nothing more."""

        def __getattribute__(self, name: str) -> Any:
            return object.__getattribute__(chain, name) if name != "finalized_height" else dead

    async def dead() -> int:
        from tests.orders.one_order import Crash

        raise Crash

    chain.on_send = chain.land
    await one.accept()
    await one.work(chain=Deaf())
    chain.move(chain.height + 1)
    await one.end()
    await one.check()


GUARDS: list[tuple[Scenario, Mutation]] = [
    (lands_between_the_two_questions, status_before_height),
    (fails_on_the_chain, no_err_check),
    (lags_behind_the_limit, any_node_will_do),
    (dies_while_journaling, send_before_the_journal),
    (a_zombie_wakes, no_epoch),
    (the_same_key_twice, no_unique_key),
    (dies_after_the_send, sign_anew_at_once),
]


@pytest.mark.parametrize(("scenario", "mutation"), GUARDS)
async def test_the_scenario_holds_with_its_guard(
    scenario: Scenario, mutation: Mutation, tmp_path: Path, kind_of_store: tuple[str, str]
) -> None:
    async with begin(tmp_path, *kind_of_store) as one:
        await scenario(one)


@pytest.mark.parametrize(("scenario", "mutation"), GUARDS)
async def test_the_scenario_fails_without_its_guard(
    scenario: Scenario,
    mutation: Mutation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind_of_store: tuple[str, str],
) -> None:
    async with begin(tmp_path, *kind_of_store) as one:
        mutation(monkeypatch, one)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            await scenario(one)
