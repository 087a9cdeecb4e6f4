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
from headrace.runtime.clock import SystemClock
from headrace.testing.orders import FixedVenue, ScriptedChain, new_order
from tests.orders.one_order import Dying, OneOrder, begin

ERR = Landing("confirmed", {"InstructionError": [0, {"Custom": 6001}]}, "slippage_exceeded")
CALLS = ("apply", "apply_later", "blockhash", "sign", "send", "finalized_height", "look", "changed")


async def kinds(one: OneOrder) -> list[str]:
    return [event.kind for event in await one.store.events(one.order_id, 0, 1000)]


async def test_the_best_quote_after_fees_is_executed_once(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        one.chain.on_send = one.chain.land
        one.venues = [FixedVenue("a", 90), FixedVenue("b", 100), FixedVenue("c", away=True)]
        await one.accept()
        await one.end()
        order = await one.check()
        assert (order.status, order.outcome.venue, order.outcome.amount_out) == (OrderStatus.CONFIRMED, "b", 7)
        assert order.outcome.left_out == {"c": "no answer"}
        assert order.outcome.min_out == 99
        assert await kinds(one) == ["accepted", "claimed", "quoted", "journaled", "landed"]


async def test_confirmed_with_an_error_is_not_succeeded(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        one.chain.on_send = lambda signed: one.chain.land(signed, ERR)
        await one.accept()
        await one.end()
        order = await one.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "slippage_exceeded")
        assert len(one.chain.sent) == 1


async def test_without_a_quote_it_rests_and_gives_up_after_three_tries(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        one.venues = [FixedVenue(away=True)]
        await one.accept()
        await one.end()
        order = await one.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "no_quote")
        assert await kinds(one) == ["accepted", "claimed", "retried", "retried", "failed"]
        assert not one.chain.sent


async def test_a_venue_that_gives_no_instructions_is_asked_three_times_and_nothing_is_sent(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        one.venues = [FixedVenue(stuck=True)]
        await one.accept()
        await one.end()
        order = await one.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "no_swap")
        assert await kinds(one) == [
            "accepted",
            "claimed",
            "quoted",
            "retried",
            "quoted",
            "retried",
            "quoted",
            "failed",
        ]
        assert not one.chain.sent


async def test_an_executed_order_has_no_error_reason_of_an_earlier_try(tmp_path: Path) -> None:
    """Whoever reads `errorReason` as "failed" would buy again."""
    async with begin(tmp_path) as one:
        one.chain.on_send = one.chain.land
        one.venues = [FixedVenue(away=True)]
        await one.accept()
        await one.work()
        assert (await one.order()).outcome.error_reason == "no_quote"
        one.venues = [FixedVenue()]
        await one.end()
        order = await one.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.CONFIRMED, None)


async def test_the_text_of_a_node_s_error_is_not_in_the_owner_s_events(tmp_path: Path) -> None:
    async def blockhash() -> Blockhash:
        raise TransientError("http://user:secret@10.0.0.5:8899 refused")

    async with begin(tmp_path) as one:
        one.chain.blockhash = blockhash  # type: ignore[method-assign]
        await one.accept()
        await one.end()
        order = await one.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "chain_unavailable")


async def test_a_quote_below_the_owner_s_limit_is_not_sent(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        order = new_order(one.order_id, 1)
        order = replace(order, request=replace(order.request, min_out=BaseUnits(101)))
        await one.store.accept(order, [], "")
        await one.end()
        order = await one.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "quote_below_min_out")
        assert not one.chain.sent


async def test_a_quote_of_zero_is_not_executed(tmp_path: Path) -> None:
    """So little that a venue's answer is cut to 0; with any slippage."""
    async with begin(tmp_path) as one:
        one.chain.on_send = one.chain.land
        one.venues = [FixedVenue(amount_out=0)]
        order = new_order(one.order_id, 1)
        await one.store.accept(replace(order, request=replace(order.request, slippage_bps=Bps(10_000))), [], "")
        await one.end()
        order = await one.check()
        assert (order.status, order.outcome.error_reason) == (OrderStatus.FAILED, "quote_below_min_out")
        assert least_out(order.request, await FixedVenue(amount_out=2).quote(order.request)) == 1


@pytest.mark.parametrize("defect", [ValueError("nonsense"), InvariantError("nonsense")])
async def test_a_venue_that_breaks_is_left_out_as_one_that_is_away(tmp_path: Path, defect: Exception) -> None:
    class Broken(FixedVenue):
        async def quote(self, request: OrderRequest) -> Quote:
            raise defect

    async with begin(tmp_path) as one:
        one.chain.on_send = one.chain.land
        one.venues = [Broken("broken"), FixedVenue("well")]
        await one.accept()
        await one.end()
        order = await one.check()
        assert (order.status, order.outcome.venue) == (OrderStatus.CONFIRMED, "well")
        assert order.outcome.left_out == {"broken": "no answer"}


async def test_a_dropped_send_is_resent_as_it_was_and_signed_anew_only_after_its_end(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        chain = one.chain
        one.settings = one.settings.__class__(retry_ms=1, resend_ms=1, look_ms=1)

        def wait() -> None:
            chain.move(chain.height + 10)
            if chain.height > chain.sent[0].last_valid_height:
                chain.on_send = chain.land

        chain.on_wait = wait
        await one.accept()
        await one.end()
        order = await one.check()
        assert order.status is OrderStatus.CONFIRMED
        first, second = dict.fromkeys(signed.signature for signed in chain.sent)
        limit = next(signed.last_valid_height for signed in chain.sent if signed.signature == first)
        assert int(second.rpartition("bh")[2]) > limit, "signed anew while the first could still land"


async def test_an_order_goes_on_after_a_node_could_not_be_asked(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        chain, looks = one.chain, 0

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
        await one.accept()
        await one.end()
        assert (await one.check()).status is OrderStatus.CONFIRMED


async def test_a_landing_on_a_fork_that_dies_is_no_landing(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        chain, waits = one.chain, 0

        def wait() -> None:
            nonlocal waits
            waits += 1
            if waits == 3:
                chain.landed.clear()
            if waits == 6:
                chain.land(chain.sent[0])

        chain.on_send = lambda signed: chain.land(signed, Landing("processed", None))
        chain.on_wait = wait
        await one.accept()
        await one.end()
        assert (await one.check()).status is OrderStatus.CONFIRMED


@pytest.mark.parametrize("lands", [True, False])
async def test_a_late_cancel_ends_as_the_chain_decides_and_stops_resending(tmp_path: Path, lands: bool) -> None:
    async with begin(tmp_path) as one:
        chain, sent_before_the_wish = one.chain, list[int]()
        one.settings = one.settings.__class__(retry_ms=1, resend_ms=1, look_ms=1)

        def wait() -> None:
            sent_before_the_wish.append(len(chain.sent))
            assert one.held is not None
            one.held.cancel_wanted = True
            if lands and len(sent_before_the_wish) == 5:
                chain.land(chain.sent[0])
            chain.move(chain.height + 10)

        chain.on_wait = wait
        await one.accept()
        await one.end()
        order = await one.check()
        assert order.status is (OrderStatus.CONFIRMED if lands else OrderStatus.CANCELLED)
        assert len(chain.sent) == sent_before_the_wish[0], "nothing was sent again after the wish"


async def test_a_cancel_that_comes_as_the_bytes_are_proven_expired_is_not_forgotten(tmp_path: Path) -> None:
    """The owner was told 202; the worker had not heard of it when it gave the order another try."""
    async with begin(tmp_path) as one:
        chain, store = one.chain, one.store

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
        await one.accept()
        await one.work(store=Unheard())
        again = await one.order()
        assert (again.status, again.cancel_requested) == (OrderStatus.ROUTING, True)
        await one.end()
        assert (await one.check()).status is OrderStatus.CANCELLED
        assert len({signed.signature for signed in chain.sent}) == 1


async def test_an_expired_order_ends_without_a_transaction(tmp_path: Path) -> None:
    async with begin(tmp_path) as one:
        await one.accept(expires_at_ms=1)
        await one.end()
        assert (await one.check()).status is OrderStatus.EXPIRED
        assert not one.chain.sent


async def test_an_order_whose_time_is_over_when_its_bytes_expire_is_not_signed_anew(tmp_path: Path) -> None:
    class Later(SystemClock):
        """A wall clock that goes forward by what a test says."""

        by_ns = 0

        def wall_ns(self) -> int:
            return super().wall_ns() + self.by_ns

    async with begin(tmp_path) as one:
        one.clock = later = Later()

        def wait() -> None:
            later.by_ns = 120 * 10**9
            one.chain.move(one.chain.height + 200)

        one.chain.on_wait = wait
        await one.accept(expires_at_ms=later.wall_ns() // 1_000_000 + 60_000)
        await one.end()
        assert (await one.check()).status is OrderStatus.EXPIRED
        assert len({signed.signature for signed in one.chain.sent}) == 1


async def test_a_submitted_order_without_an_attempt_is_an_invariant_error(tmp_path: Path) -> None:
    """SUBMITTED means that bytes may be out, also if somebody deleted ours and the order's time is over."""
    async with begin(tmp_path) as one:
        await one.accept(expires_at_ms=1)
        [claimed] = await one.store.claim(1, 0, Rate(0))
        submitted = replace(claimed.order, status=OrderStatus.SUBMITTED)
        engine = Engine(one.store, one.chain, one.venues, one.settings, one.clock)
        with pytest.raises(InvariantError):
            await engine.execute(Held(submitted, None))
        assert (await one.order()).outcome.fate is None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("call", range(1, 14))
async def test_a_death_at_any_step_neither_loses_nor_doubles(
    tmp_path: Path, call: int, lands: bool, after: bool
) -> None:
    """The first worker dies before or after its n-th call; the next ones finish the order."""
    async with begin(tmp_path) as one:
        chain, calls = one.chain, 0

        def dies() -> bool:
            nonlocal calls
            calls += 1
            return calls == call

        def wait() -> None:
            chain.move(chain.height + 40)

        chain.on_wait = wait
        chain.on_send = lambda signed: chain.land(signed) if lands or len(chain.sent) > 1 else None
        await one.accept()
        await one.work(Dying(one.store, CALLS, dies, after=after), Dying(chain, CALLS, dies, after=after))
        await one.end()
        assert (await one.check()).status is OrderStatus.CONFIRMED


async def test_the_chain_of_the_tests_can_execute_twice() -> None:
    """Else nothing above proves anything."""
    chain = ScriptedChain()
    for signature in ("m:1", "m:2"):
        chain.memos[signature] = "m"
        chain.land(Signed(signature, b"", 2000))
    assert chain.executions("m") == 2
