"""The order flow on a scripted chain: each danger by itself, and a death at every step."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from headrace.chains import Blockhash, Landing
from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import InvariantError, TransientError
from headrace.model.orders import Change, Order, OrderRequest, OrderStatus, Quote
from headrace.model.transactions import Signed
from headrace.orders.decisions import least_out
from headrace.orders.engine import Engine, Held
from headrace.orders.store import Rate
from headrace.testing.orders import FixedVenue, ScriptedChain, new_order
from tests.orders.life import Life, Mortal, begin

ERR = Landing("confirmed", {"InstructionError": [0, {"Custom": 6001}]}, "slippage_exceeded")
CALLS = ("apply", "apply_later", "blockhash", "sign", "send", "finalized_height", "look", "changed")


async def kinds(life: Life) -> list[str]:
    return [event.kind for event in await life.store.events(life.order_id, 0, 1000)]


async def test_the_best_quote_after_fees_is_executed_once(tmp_path: Path) -> None:
    async with begin(tmp_path) as life:
        life.chain.on_send = life.chain.land
        life.venues = [FixedVenue("a", 90), FixedVenue("b", 100), FixedVenue("c", away=True)]
        await life.accept()
        await life.end()
        order = await life.check()
        assert (order.status, order.outcome.venue, order.outcome.amount_out) == (OrderStatus.CONFIRMED, "b", 7)
        assert order.outcome.left_out == {"c": "no answer"}
        assert order.outcome.min_out == 99
        assert await kinds(life) == ["accepted", "claimed", "quoted", "journaled", "landed"]


async def test_confirmed_with_an_error_is_not_succeeded(tmp_path: Path) -> None:
    async with begin(tmp_path) as life:
        life.chain.on_send = lambda signed: life.chain.land(signed, ERR)
        await life.accept()
        await life.end()
        order = await life.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "slippage_exceeded")
        assert len(life.chain.sent) == 1


async def test_without_a_quote_it_rests_and_gives_up_after_three_tries(tmp_path: Path) -> None:
    async with begin(tmp_path) as life:
        life.venues = [FixedVenue(away=True)]
        await life.accept()
        await life.end()
        order = await life.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "no_quote")
        assert await kinds(life) == ["accepted", "claimed", "retried", "retried", "failed"]
        assert not life.chain.sent


async def test_a_venue_that_gives_no_instructions_is_asked_three_times_and_nothing_is_sent(tmp_path: Path) -> None:
    async with begin(tmp_path) as life:
        life.venues = [FixedVenue(stuck=True)]
        await life.accept()
        await life.end()
        order = await life.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "no_swap")
        assert await kinds(life) == [
            "accepted",
            "claimed",
            "quoted",
            "retried",
            "quoted",
            "retried",
            "quoted",
            "failed",
        ]
        assert not life.chain.sent


async def test_what_made_an_earlier_try_fail_is_no_reason_of_an_executed_order(tmp_path: Path) -> None:
    """Whoever reads `errorReason` as "failed" would buy again."""
    async with begin(tmp_path) as life:
        life.chain.on_send = life.chain.land
        life.venues = [FixedVenue(away=True)]
        await life.accept()
        await life.live()
        assert (await life.order()).outcome.error_reason == "no_quote"
        life.venues = [FixedVenue()]
        await life.end()
        order = await life.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.CONFIRMED, None)


async def test_the_owner_is_not_told_what_a_node_says_of_itself(tmp_path: Path) -> None:
    async def blockhash() -> Blockhash:
        raise TransientError("http://user:secret@10.0.0.5:8899 refused")

    async with begin(tmp_path) as life:
        life.chain.blockhash = blockhash  # type: ignore[method-assign]
        await life.accept()
        await life.end()
        order = await life.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "chain_unavailable")


async def test_what_the_chain_would_refuse_is_not_sent(tmp_path: Path) -> None:
    async with begin(tmp_path) as life:
        order = new_order(life.order_id, 1)
        order = replace(order, request=replace(order.request, min_out=BaseUnits(101)))
        await life.store.accept(order, [], "")
        await life.end()
        order = await life.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "quote_below_min_out")
        assert not life.chain.sent


async def test_nothing_is_given_for_nothing(tmp_path: Path) -> None:
    """So little that a venue's answer is cut to 0; with any slippage."""
    async with begin(tmp_path) as life:
        life.chain.on_send = life.chain.land
        life.venues = [FixedVenue(amount_out=0)]
        order = new_order(life.order_id, 1)
        await life.store.accept(replace(order, request=replace(order.request, slippage_bps=Bps(10_000))), [], "")
        await life.end()
        order = await life.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "quote_below_min_out")
        assert least_out(order.request, await FixedVenue(amount_out=2).quote(order.request)) == 1


@pytest.mark.parametrize("defect", [ValueError("nonsense"), InvariantError("nonsense")])
async def test_a_venue_that_breaks_is_left_out_as_one_that_is_away(tmp_path: Path, defect: Exception) -> None:
    class Broken(FixedVenue):
        async def quote(self, request: OrderRequest) -> Quote:
            raise defect

    async with begin(tmp_path) as life:
        life.chain.on_send = life.chain.land
        life.venues = [Broken("broken"), FixedVenue("well")]
        await life.accept()
        await life.end()
        order = await life.check()
        assert (order.status, order.outcome.venue) == (OrderStatus.CONFIRMED, "well")
        assert order.outcome.left_out == {"broken": "no answer"}


async def test_a_dropped_send_is_resent_as_it_was_and_signed_anew_only_after_its_end(tmp_path: Path) -> None:
    async with begin(tmp_path) as life:
        chain = life.chain
        life.settings = life.settings.__class__(retry_ms=1, resend_ms=1, look_ms=1)

        def wait() -> None:
            chain.move(chain.height + 10)
            if chain.height > chain.sent[0].last_valid_height:
                chain.on_send = chain.land

        chain.on_wait = wait
        await life.accept()
        await life.end()
        order = await life.check()
        assert order.status is OrderStatus.CONFIRMED
        first, second = dict.fromkeys(signed.signature for signed in chain.sent)
        limit = next(signed.last_valid_height for signed in chain.sent if signed.signature == first)
        assert int(second.rpartition("bh")[2]) > limit, "signed anew while the first could still land"


async def test_a_node_that_cannot_be_asked_fails_no_order(tmp_path: Path) -> None:
    async with begin(tmp_path) as life:
        chain, looks = life.chain, 0

        def on_send(signed: Signed) -> None:
            chain.land(signed)
            chain.away = True

        def wait() -> None:
            nonlocal looks
            looks += 1
            chain.move(chain.height + 100)
            if looks == 30:
                chain.away = False

        chain.on_send, chain.on_wait, chain.send_fails = on_send, wait, True
        await life.accept()
        await life.end()
        assert (await life.check()).status is OrderStatus.CONFIRMED


async def test_a_landing_on_a_fork_that_dies_is_no_landing(tmp_path: Path) -> None:
    async with begin(tmp_path) as life:
        chain, waits = life.chain, 0

        def wait() -> None:
            nonlocal waits
            waits += 1
            if waits == 3:
                chain.landed.clear()
            if waits == 6:
                chain.land(chain.sent[0])

        chain.on_send = lambda signed: chain.land(signed, Landing("processed", None))
        chain.on_wait = wait
        await life.accept()
        await life.end()
        assert (await life.check()).status is OrderStatus.CONFIRMED


@pytest.mark.parametrize("lands", [True, False])
async def test_a_late_cancel_ends_as_the_chain_decides_and_stops_resending(tmp_path: Path, lands: bool) -> None:
    async with begin(tmp_path) as life:
        chain, waits = life.chain, 0
        life.settings = life.settings.__class__(retry_ms=1, resend_ms=1, look_ms=1)

        def wait() -> None:
            nonlocal waits
            waits += 1
            assert life.held is not None
            life.held.cancel_wanted = True
            if lands and waits == 5:
                chain.land(chain.sent[0])
            chain.move(chain.height + 10)

        chain.on_wait = wait
        await life.accept()
        await life.end()
        order = await life.check()
        assert order.status is (OrderStatus.CONFIRMED if lands else OrderStatus.CANCELLED)
        assert len(chain.sent) == 1


async def test_a_cancel_that_comes_as_the_bytes_are_proven_expired_is_not_forgotten(tmp_path: Path) -> None:
    """The owner was told 202; the worker had not heard of it when it gave the order another try."""
    async with begin(tmp_path) as life:
        chain, store = life.chain, life.store

        class Unheard:
            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            async def apply(self, order: Order, change: Change) -> Order:
                if change.kind == "retried":
                    cancelled = await store.cancel(order.id, None)
                    assert cancelled is not None
                    assert cancelled.requested
                return await store.apply(order, change)

        def wait() -> None:
            chain.move(chain.height + 200)
            chain.on_send = chain.land

        chain.on_wait = wait
        await life.accept()
        await life.live(store=Unheard())
        again = await life.order()
        assert (again.status, again.cancel_requested) == (OrderStatus.ROUTING, True)
        await life.end()
        assert (await life.check()).status is OrderStatus.CANCELLED
        assert len({signed.signature for signed in chain.sent}) == 1


async def test_an_order_that_is_late_is_not_begun(tmp_path: Path) -> None:
    async with begin(tmp_path) as life:
        await life.accept(expires_at_ms=1)
        await life.end()
        assert (await life.check()).status is OrderStatus.EXPIRED
        assert not life.chain.sent


async def test_nothing_is_said_of_bytes_that_are_not_there(tmp_path: Path) -> None:
    """SUBMITTED means that bytes may be out, also if somebody deleted ours and the order's time is over."""
    async with begin(tmp_path) as life:
        await life.accept(expires_at_ms=1)
        [claimed] = await life.store.claim(1, 0, Rate(0))
        submitted = replace(claimed.order, status=OrderStatus.SUBMITTED)
        engine = Engine(life.store, life.chain, life.venues, life.settings, life.clock)
        with pytest.raises(InvariantError):
            await engine.execute(Held(submitted, None))
        assert (await life.order()).outcome.fate is None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("call", range(1, 14))
async def test_a_death_at_any_step_neither_loses_nor_doubles(
    tmp_path: Path, call: int, lands: bool, after: bool
) -> None:
    """The first worker dies before or after its n-th call; the next ones finish the order."""
    async with begin(tmp_path) as life:
        chain, calls = life.chain, 0

        def dies() -> bool:
            nonlocal calls
            calls += 1
            return calls == call

        def wait() -> None:
            chain.move(chain.height + 40)

        chain.on_wait = wait
        chain.on_send = lambda signed: chain.land(signed) if lands or len(chain.sent) > 1 else None
        await life.accept()
        await life.live(Mortal(life.store, CALLS, dies, after=after), Mortal(chain, CALLS, dies, after=after))
        await life.end()
        assert (await life.check()).status is OrderStatus.CONFIRMED


async def test_the_chain_of_the_tests_can_execute_twice() -> None:
    """Else nothing above proves anything."""
    chain = ScriptedChain()
    for signature in ("m:1", "m:2"):
        chain.memos[signature] = "m"
        chain.land(Signed(signature, b"", 2000))
    assert chain.executions("m") == 2
