"""What every store in the register must do; a new one is tested by being registered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import InvariantError, TransientError
from headrace.model.orders import (
    Attempt,
    AttemptEvent,
    AttemptStatus,
    Change,
    Claimed,
    EventKind,
    LeaseLost,
    Order,
    OrderEvent,
    OrderRefused,
    OrderStatus,
    Outcome,
    Quote,
    Trigger,
)
from headrace.order_types import ORDER_TYPES, OrderBody, register
from headrace.orders import verbs
from headrace.orders.requests import TOKENS
from headrace.orders.store import STORES, Rate, Store
from headrace.orders.verbs import Room
from headrace.runtime.clock import SystemClock
from headrace.testing.orders import new_order
from tests.contracts.contexts import Opener
from tests.orders.store.servers import settings_of, write
from tests.orders.trailing_stop import TrailingStop

_PAIR = (TOKENS["SOL"], TOKENS["USDC"], BaseUnits(10**9))
FREE = Rate(0)
LEASE_MS = 60_000
THREE = Room(of_user=3)

Open = Callable[[], Awaitable[Store]]


@pytest.fixture
async def open_one(kind_of_store: tuple[str, str], store_place: str) -> AsyncIterator[Open]:
    """Opens the same database each time, as another process would."""
    async with Opener(STORES, kind_of_store[0], SystemClock()) as opener:
        yield partial(opener.open, **settings_of(store_place))


@pytest.fixture
async def store(open_one: Open) -> Store:
    return await open_one()


async def place(store: Store, *ids: str, key: str | None = None, **more: Any) -> Order:
    for order_id in ids:
        order = new_order(order_id, 1, **more)
        accepted = await store.accept(order, [f"key:{key}"] if key else [], "print")
    return accepted.order


def resting(order_id: str, user_id: str = "u", expires_at_ms: int | None = None) -> Order:
    """An order that awaits its trigger."""
    order = new_order(order_id, 1, user_id=user_id, expires_at_ms=expires_at_ms)
    trigger = Trigger(when="at_least", out=BaseUnits(1), per=BaseUnits(2))
    return replace(order, request=replace(order.request, trigger=trigger))


async def claim_one(store: Store, lease_ms: int = LEASE_MS) -> Order:
    claimed = await store.claim(1, lease_ms, FREE)
    return claimed[0].order


def attempt_of(order: Order, number: int = 1) -> Attempt:
    quote = Quote(venue="v", amount_in=BaseUnits(1), amount_out=BaseUnits(2**64 - 1), fee_bps=Bps(1))
    return Attempt(
        order_id=order.id,
        number=number,
        status=AttemptStatus.JOURNALED,
        signature=f"s-{order.id}-{number}",
        raw=b"\0raw",
        last_valid_height=9,
        quote=quote,
        min_out=BaseUnits(2**64 - 1),
    )


def landed(order: Order, outcome: Outcome | None = None) -> Change:
    """The step that ends an executed order."""
    return Change(kind=EventKind.LANDED, outcome=outcome, attempt=attempt_of(order), learnt=AttemptEvent.LANDED_OK)


async def submit(store: Store, order: Order) -> Order:
    order = store.apply_later(order, Change(kind=EventKind.QUOTED))
    return await store.apply(order, Change(kind=EventKind.JOURNALED, attempt=attempt_of(order)))


async def log(store: Store, order_id: str) -> list[tuple[int, str, str]]:
    return [(event.seq, event.kind, event.status) for event in await store.events(order_id, 0, 100)]


async def test_an_order_may_be_claimed_with_its_acceptance(store: Store) -> None:
    heard: list[OrderEvent] = []
    store.attach(heard.extend)
    accepted = await store.accept(new_order("a", 1), ["key:k"], "print", lease_ms=LEASE_MS)
    order = accepted.order
    assert (accepted.claimed, order.status, order.epoch, order.seq) == (True, OrderStatus.ROUTING, 1, 2)
    assert await store.get("a") == order
    assert await log(store, "a") == [(1, "accepted", "PENDING"), (2, "claimed", "ROUTING")]
    assert [(event.order_id, event.seq) for event in heard] == [("a", 1), ("a", 2)]
    assert await store.claim(1, LEASE_MS, FREE) == [], "it is under a lease"
    again = await store.accept(new_order("b", 1), ["key:k"], "print", lease_ms=LEASE_MS)
    assert (again.replayed, again.claimed, again.order) == (True, False, order)
    assert (await submit(store, order)).status is OrderStatus.SUBMITTED


async def test_an_order_that_was_claimed_with_its_acceptance_and_left_is_taken_over(store: Store) -> None:
    left = await store.accept(new_order("a", 1), [], "print", lease_ms=1)
    await asyncio.sleep(0.005)
    [taken] = await store.claim(1, LEASE_MS, FREE)
    assert (taken.order.id, taken.order.epoch, taken.order.status) == ("a", 2, OrderStatus.ROUTING)
    with pytest.raises(LeaseLost):
        await submit(store, left.order)
    await submit(store, taken.order)


async def test_a_resting_order_is_not_claimed_with_its_acceptance(store: Store) -> None:
    accepted = await store.accept(resting("a"), [], "print", lease_ms=LEASE_MS)
    assert (accepted.claimed, accepted.order.status) == (False, OrderStatus.PENDING)


async def test_a_stale_belief_in_one_order_harms_no_other_of_the_same_commit(store: Store) -> None:
    await place(store, "a", "b", "c")
    a, b, c = [claimed.order for claimed in await store.claim(3, LEASE_MS, FREE)]
    a, c = await submit(store, a), await submit(store, c)
    await store.cancel("a", None)  # whoever holds it does not know yet
    await store.cancel("b", None)  # its lease is lost
    done = await asyncio.gather(
        store.apply(a, landed(a)),
        submit(store, b),
        store.apply(c, landed(c)),
        return_exceptions=True,
    )
    assert [getattr(each, "seq", type(each)) for each in done] == [6, LeaseLost, 5]
    for order_id in "abc":
        seqs = [seq for seq, _, _ in await log(store, order_id)]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_an_order_and_its_log_are_of_one_moment(store: Store) -> None:
    await place(store, "a")
    order = await claim_one(store)
    found = await store.read("a", 1, 10)
    assert found is not None
    assert (found[0], [event.seq for event in found[1]]) == (order, [2])
    assert await store.read("a", 2, 10) == (order, [])
    assert await store.read("none", 0, 10) is None


async def test_an_order_goes_its_way_with_a_gapless_log(store: Store) -> None:
    await place(store, "a")
    order = await submit(store, await claim_one(store))
    done = await store.apply(order, landed(order))
    assert (done.status, done.seq) == (OrderStatus.CONFIRMED, 5)
    assert await store.get("a") == done
    assert await log(store, "a") == [
        (1, "accepted", "PENDING"),
        (2, "claimed", "ROUTING"),
        (3, "quoted", "BUILDING"),
        (4, "journaled", "SUBMITTED"),
        (5, "landed", "CONFIRMED"),
    ]
    assert await store.claim(10, LEASE_MS, FREE) == []


async def test_a_claim_leaves_an_order_as_the_verb_does(store: Store) -> None:
    await place(store, "new")
    for order_id, status in (("left", OrderStatus.ROUTING), ("sent", OrderStatus.SUBMITTED)):
        await place(store, order_id, priority=0)
        claimed = await claim_one(store, 0)
        if status is OrderStatus.SUBMITTED:
            await submit(store, claimed)
        await store.renew([claimed], LEASE_MS)
    await store.release([order for name in ("left", "sent") if (order := await store.get(name)) is not None])
    await store.accept(resting("expired", expires_at_ms=1), [], "print")
    before = {name: await store.get(name) for name in ("new", "left", "sent", "expired")}
    after = {each.order.id: each.order for each in await store.claim(9, LEASE_MS, FREE)}
    assert after.keys() == before.keys()
    for name, order in before.items():
        assert order is not None
        expected = verbs.claim(order, after[name].updated_at_ms, LEASE_MS)
        assert after[name] == expected.order == await store.get(name)
        assert await store.events(name, order.seq, 9) == list(expected.events)


async def test_each_verb_of_the_store_leaves_an_order_as_the_verb_of_the_machine_does(store: Store) -> None:
    await store.accept(resting("rests"), [], "print")
    await place(store, "sent", "fresh")
    await submit(store, await claim_one(store))
    before = {name: await store.get(name) for name in ("rests", "sent", "fresh")}
    await store.trigger("rests", {"n": 1})
    await store.cancel("sent", None)
    await store.cancel("fresh", None)
    for name, order in before.items():
        after = await store.get(name)
        assert order is not None
        assert after is not None
        now_ms = after.updated_at_ms
        expected = verbs.trigger(order, {"n": 1}, now_ms) if name == "rests" else verbs.cancel(order, None, now_ms)
        assert expected is not None
        assert after == expected.order
        assert await store.events(name, order.seq, 9) == list(expected.events)


async def test_a_step_that_the_machine_does_not_know_is_an_error_and_writes_nothing(store: Store) -> None:
    await place(store, "a")
    order = await claim_one(store)
    with pytest.raises(InvariantError):
        await store.apply(order, Change(kind=EventKind.LANDED))
    with pytest.raises(InvariantError):
        store.apply_later(order, Change(kind=EventKind.JOURNALED))
    assert await log(store, "a") == [(1, "accepted", "PENDING"), (2, "claimed", "ROUTING")]


async def test_a_step_finds_the_wish_that_came_meanwhile(store: Store) -> None:
    await place(store, "a")
    order = await submit(store, await claim_one(store))
    await store.cancel("a", None)
    done = await store.apply(order, landed(order))
    assert (done.cancel_requested, done.seq) == (True, 6)
    assert [kind for _, kind, _ in await log(store, "a")][-2:] == ["cancel_requested", "landed"]


async def test_a_thousand_identical_requests_at_once_make_one_order(store: Store, open_one: Open) -> None:
    other = await open_one()
    orders = [new_order(f"o{n:04}", 1) for n in range(1000)]
    accepted = await asyncio.gather(
        *[(store, other)[n % 2].accept(order, ["key:k"], "print") for n, order in enumerate(orders)]
    )
    assert len({each.order.id for each in accepted}) == 1
    assert sum(not each.replayed for each in accepted) == 1
    assert len((await store.list(user_id=None, status=None, mint=None, cursor=None, limit=10)).orders) == 1


async def test_a_key_belongs_to_one_request_and_one_user(store: Store) -> None:
    await place(store, "a", key="k")
    with pytest.raises(OrderRefused) as refused:
        await store.accept(new_order("b", 1), ["key:k"], "another print")
    assert refused.value.status == 422
    assert not (await store.accept(new_order("c", 1, user_id="else"), ["key:k"], "print")).replayed


async def test_an_order_that_would_be_refused_now_is_found_under_its_key(store: Store) -> None:
    late = OrderRefused(400, "invalid_order", "it is too late")
    with pytest.raises(OrderRefused) as refused:
        await store.accept(new_order("a", 1), ["key:k"], "print", refusal=late)
    assert refused.value is late
    assert await store.get("a") is None
    await place(store, "b", key="k")
    again = await store.accept(new_order("c", 1), ["key:k"], "print", refusal=late)
    assert (again.replayed, again.order.id) == (True, "b")
    with pytest.raises(OrderRefused) as reused:
        await store.accept(new_order("d", 1), ["key:k"], "another print", refusal=late)
    assert reused.value.status == 422


async def test_a_key_that_found_an_order_by_another_name_belongs_to_it(store: Store) -> None:
    await store.accept(new_order("a", 1), ["key:1", "client:c"], "print")
    again = await store.accept(new_order("b", 1), ["key:2", "client:c"], "print")
    assert (again.replayed, again.order.id) == (True, "a")
    with pytest.raises(OrderRefused) as reused:
        await store.accept(new_order("c", 1), ["key:2"], "another print")
    assert reused.value.status == 422
    with pytest.raises(OrderRefused):
        await store.accept(new_order("d", 1), ["key:1", "key:3"], "another print")
    assert not (await store.accept(new_order("e", 1), ["key:3"], "third print")).replayed, "a refusal names nothing"


async def test_urgent_orders_overtake_and_equals_keep_their_turn(store: Store) -> None:
    await place(store, "a", "b")
    await place(store, "z", priority=0)
    assert [each.order.id for each in await store.claim(3, LEASE_MS, FREE)] == ["z", "a", "b"]


async def test_two_workers_never_hold_the_same_epoch(store: Store, open_one: Open) -> None:
    other = await open_one()
    await place(store, *[f"o{n}" for n in range(40)])
    taken = await asyncio.gather(*[(store, other)[n % 2].claim(3, LEASE_MS, FREE) for n in range(20)])
    ids = [each.order.id for batch in taken for each in batch]
    assert len(ids) == len(set(ids)) == 40


async def test_an_ended_lease_is_taken_over_and_the_former_worker_can_write_nothing(
    store: Store, open_one: Open
) -> None:
    other = await open_one()
    await place(store, "a")
    zombie = await submit(store, await claim_one(store, lease_ms=0))
    [taken] = await other.claim(1, LEASE_MS, FREE)
    assert taken.order.epoch == zombie.epoch + 1
    assert taken.attempt == attempt_of(zombie)
    with pytest.raises(LeaseLost):
        await store.apply(zombie, Change(kind=EventKind.LANDED))
    store.note(zombie, attempt_of(zombie), AttemptEvent.SENT)
    assert not (await store.renew([zombie], LEASE_MS)).held
    [again] = await _after_release(other, taken.order)
    assert again.attempt is not None
    assert again.attempt.status is AttemptStatus.JOURNALED
    assert [seq for seq, _, _ in await log(store, "a")] == [1, 2, 3, 4]


async def _after_release(store: Store, order: Order) -> list[Claimed]:
    await store.release([order])
    return await store.claim(1, LEASE_MS, FREE)


async def test_a_renewed_lease_is_kept(store: Store) -> None:
    await place(store, "a")
    order = await claim_one(store, lease_ms=0)
    assert (await store.renew([order], LEASE_MS)).held == {"a"}
    assert await store.claim(1, LEASE_MS, FREE) == []


async def test_the_database_refuses_steps_that_the_machine_does_not_know(store: Store) -> None:
    await place(store, "a")
    order = await claim_one(store)
    forged = replace(order, status=OrderStatus.SUBMITTED)
    with pytest.raises(LeaseLost):
        await store.apply(forged, Change(kind=EventKind.LANDED))
    assert (await log(store, "a"))[-1] == (2, "claimed", "ROUTING")


async def test_a_failed_change_writes_nothing_and_spoils_no_other(store: Store) -> None:
    await place(store, "a", "b")
    a, b = (each.order for each in await store.claim(2, LEASE_MS, FREE))
    a, b = await submit(store, a), await submit(store, b)
    bad = replace(attempt_of(a), number=7)  # no such attempt: fails after the order's row was updated
    results = await asyncio.gather(
        store.apply(a, Change(kind=EventKind.LANDED, attempt=bad, learnt=AttemptEvent.LANDED_OK)),
        store.apply(b, landed(b)),
        return_exceptions=True,
    )
    assert isinstance(results[0], LeaseLost)
    assert isinstance(results[1], Order)
    assert (await log(store, "a"))[-1][2] == "SUBMITTED"
    assert (await log(store, "b"))[-1][2] == "CONFIRMED"


async def test_cancelling_fences_off_the_worker_until_bytes_may_be_out(store: Store) -> None:
    await place(store, "a", "b")
    a, b = (each.order for each in await store.claim(2, LEASE_MS, FREE))
    cancelled = await store.cancel("a", "u")
    assert cancelled is not None
    assert (cancelled.requested, cancelled.order.status) == (False, OrderStatus.CANCELLED)
    with pytest.raises(LeaseLost):
        await submit(store, a)
    b = await submit(store, b)
    wish = await store.cancel("b", "u")
    assert wish is not None
    assert (wish.requested, wish.order.status) == (True, OrderStatus.SUBMITTED)
    assert (await store.renew([b], LEASE_MS)).cancel_requested == {"b"}
    with pytest.raises(OrderRefused) as over:
        await store.cancel("a", "u")
    assert over.value.status == 409
    assert await store.cancel("b", "someone else") is None
    assert await store.cancel("none", None) is None


async def test_an_order_that_is_being_built_is_cancelled_at_once(store: Store) -> None:
    await place(store, "a")
    building = store.apply_later(await claim_one(store), Change(kind=EventKind.QUOTED))
    cancelled = await store.cancel("a", "u")
    assert cancelled is not None
    assert (cancelled.requested, cancelled.order.status) == (False, OrderStatus.CANCELLED)
    with pytest.raises(LeaseLost):
        await store.apply(building, Change(kind=EventKind.JOURNALED, attempt=attempt_of(building)))


async def test_a_rest_is_a_lease_that_ends_then(store: Store) -> None:
    await place(store, "a", "b")
    a, b = (each.order for each in await store.claim(2, LEASE_MS, FREE))
    await store.apply(a, Change(kind=EventKind.RETRIED, rest_ms=300_000))
    await store.apply(b, Change(kind=EventKind.RETRIED, rest_ms=0))
    assert [each.order.id for each in await store.claim(2, LEASE_MS, FREE)] == ["b"]


async def test_a_resting_order_is_claimed_only_after_its_trigger_or_its_end(store: Store, open_one: Open) -> None:
    other = await open_one()
    for order_id, expires_at_ms in (("a", None), ("b", 2**50), ("c", 1)):
        await store.accept(resting(order_id, expires_at_ms=expires_at_ms), [], "print")
    assert [order.id for order in await store.resting("", 2)] == ["a", "b"]
    assert [order.id for order in await store.resting("b", 2)] == ["c"]
    [ended] = await store.claim(9, LEASE_MS, FREE)
    assert (ended.order.id, ended.order.awaits_trigger) == ("c", True)
    seen = await asyncio.gather(*[(store, other)[n % 2].trigger("a", {"n": n}) for n in range(10)])
    assert sum(seen) == 1
    assert [order.id for order in await other.resting("", 9)] == ["b"]
    [woken] = await other.claim(9, LEASE_MS, FREE)
    assert (woken.order.id, woken.order.awaits_trigger) == ("a", False)
    assert (await log(store, "a"))[:2] == [(1, "accepted", "PENDING"), (2, "triggered", "PENDING")]
    assert not await store.trigger("a", {})
    assert not await store.trigger("none", {})
    await place(store, "d")
    assert not await store.trigger("d", {})


@pytest.fixture
def trailing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Order]:
    """Makes orders of a type with state, which is in the register for the time of a test."""
    known = {**ORDER_TYPES, "trailing_stop": "tests.orders.trailing_stop:TrailingStop"}
    monkeypatch.setattr(register, "ORDER_TYPES", known)

    def made(order_id: str) -> Order:
        order, watch = new_order(order_id, 1), TrailingStop().terms(OrderBody({"trailBps": 500}, *_PAIR)).watch
        assert watch is not None
        return replace(order, request=replace(order.request, type="trailing_stop", watch=watch))

    return made


async def test_a_watch_is_kept_joined_with_the_stored_one_until_the_trigger(
    store: Store, open_one: Open, trailing: Callable[[str], Order]
) -> None:
    other = await open_one()
    order = trailing("a")
    await store.accept(order, [], "print", lease_ms=LEASE_MS)
    assert order.watch is not None
    low, high, last = (TrailingStop().observe(order.watch, BaseUnits(out), BaseUnits(1)) for out in (5, 9, 7))
    assert await store.claim(9, LEASE_MS, FREE) == [], "an order with a watch waits"
    assert await store.keep_watch("a", low)
    assert await other.keep_watch("a", high)
    assert not await store.keep_watch("a", last), "another process has seen a higher rate"
    [rests] = await store.resting("", 9)
    assert rests.watch == high
    assert rests.request == order.request
    assert rests.trigger == high.trigger
    assert [kind for _, kind, _ in await log(store, "a")] == ["accepted"]
    assert await store.trigger("a", {})
    assert not await store.keep_watch("a", TrailingStop().observe(high, BaseUnits(99), BaseUnits(1)))
    [claimed] = await store.claim(9, LEASE_MS, FREE)
    assert claimed.order.watch == high


async def test_a_watch_of_an_order_without_one_is_an_error_and_of_no_order_changes_nothing(
    store: Store, trailing: Callable[[str], Order]
) -> None:
    await store.accept(resting("a"), [], "print")
    watch = trailing("b").watch
    assert watch is not None
    with pytest.raises(InvariantError):
        await store.keep_watch("a", watch)
    assert not await store.keep_watch("none", watch)


async def test_a_user_has_only_so_many_orders_that_rest(store: Store) -> None:
    asked = [store.accept(resting(f"o{n}"), [f"key:{n}"], "print", THREE) for n in range(5)]
    answers = await asyncio.gather(*asked, store.accept(resting("else", "v"), [], "", THREE), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, OrderRefused)]
    assert [(each.status, each.reason) for each in refused] == [(409, "too_many_resting")] * 2
    assert (await store.accept(resting("again"), ["key:0"], "print", THREE)).replayed, "a known key is no new order"
    await place(store, "market")
    assert await store.trigger("o0", {})
    await store.accept(resting("room"), [], "", THREE)
    with pytest.raises(OrderRefused):
        await store.accept(resting("none"), [], "", THREE)
    await store.cancel("o1", None)
    await store.accept(resting("room again"), [], "", THREE)


async def test_all_users_together_have_only_so_many_orders_that_rest(store: Store) -> None:
    room = Room(of_user=2, in_all=3)
    asked = [store.accept(resting(f"o{n}", f"user {n}"), [], "", room) for n in range(5)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, OrderRefused)]
    assert [(each.status, each.reason, each.temporary) for each in refused] == [
        (503, "too_many_resting_in_all", True)
    ] * 2
    with pytest.raises(OrderRefused):
        await store.accept(resting("none", "user 0"), [], "", Room(in_all=3))
    await place(store, "market")
    assert await store.trigger("o1", {})
    await store.accept(resting("room", "user 0"), [], "", room)
    await store.cancel("o2", None)
    with pytest.raises(OrderRefused, match="of this user"):
        await store.accept(resting("none of this user", "user 0"), [], "", room)
    await store.accept(resting("room for another", "user 2"), [], "", room)


async def test_the_rate_holds_back_new_orders_and_no_others(store: Store) -> None:
    await place(store, *[f"o{n}" for n in range(9)])
    first = await store.claim(9, 0, Rate(4))
    assert len(first) == 4
    again = await store.claim(9, 0, Rate(4))
    assert {each.order.id for each in again} == {each.order.id for each in first}


async def test_pages_follow_the_cursor_and_filters_hold(store: Store) -> None:
    await place(store, "a", "b", "c")
    await place(store, "d", user_id="else")
    page = await store.list(user_id="u", status=OrderStatus.PENDING, mint=None, cursor=None, limit=2)
    assert ([order.id for order in page.orders], page.cursor) == (["c", "b"], "b")
    page = await store.list(user_id="u", status=None, mint=page.orders[0].request.token_in.mint, cursor="b", limit=2)
    assert ([order.id for order in page.orders], page.cursor) == (["a"], None)
    hostile = "' or 1=1 --"
    assert not (await store.list(user_id=hostile, status=None, mint=hostile, cursor=hostile, limit=2)).orders
    assert await store.get(hostile) is None


async def test_finality_is_written_down_once(store: Store, open_one: Open) -> None:
    other = await open_one()
    await place(store, "a", "b")
    for _ in range(2):
        order = await submit(store, await claim_one(store))
        await store.apply(order, landed(order))
    waiting = await store.unfinal(9)
    assert [each.order.id for each in waiting] == ["a", "b"]
    assert waiting[0].attempt == replace(attempt_of(waiting[0].order), status=AttemptStatus.LANDED_OK)
    outcome = replace(waiting[0].order.outcome, finality="finalized", fate="executed")
    done = await asyncio.gather(*[(store, other)[n % 2].finalize(waiting[0].order, outcome) for n in range(6)])
    assert sum(done) == 1
    assert (await log(store, "a"))[-1] == (6, "finalized", "CONFIRMED")
    assert [each.order.id for each in await other.unfinal(9)] == ["b"]
    assert await store.claim(9, LEASE_MS, FREE) == []


async def test_fills_come_in_the_order_of_the_log_and_are_those_of_the_user(store: Store) -> None:
    await place(store, "a", "b", "c")
    await place(store, "d", user_id="else")
    claimed = {each.order.id: each.order for each in await store.claim(9, LEASE_MS, FREE)}
    for order_id in ("c", "a", "d"):
        order = await submit(store, claimed[order_id])
        outcome = replace(order.outcome, amount_out=BaseUnits(2**64 - 1))
        await store.apply(
            order,
            landed(order, outcome),
        )
    await store.apply(claimed["b"], Change(kind=EventKind.FAILED))
    found = await store.fills("u", 0, 9)
    assert [(fill.order_id, fill.amount_in, fill.amount_out) for fill in found.fills] == [
        ("c", 10**9, 2**64 - 1),
        ("a", 10**9, 2**64 - 1),
    ]
    assert found.after is None
    first, after, _, _ = await store.fills("u", 0, 1)
    assert [fill.order_id for fill in first] == ["c"]
    assert after == first[-1].position
    assert [fill.order_id for fill in (await store.fills("u", after, 9)).fills] == ["a"]
    assert await store.fills("nobody' or 1=1 --", 0, 9) == ([], None, 0, 0)


async def test_an_unreadable_order_is_left_out_and_counted_and_holds_up_no_other(
    store_place: str, store: Store
) -> None:
    await place(store, "a", "b", "c", "d")
    for each in await store.claim(9, LEASE_MS, FREE):
        order = await submit(store, each.order)
        await store.apply(order, landed(order))
    await write(store_place, "update orders set outcome = '{garbage' where id = ?", "b")
    await write(store_place, "update orders set request = '[]' where id = ?", "d")
    heard: list[int] = []
    store.unreadable.on_more = heard.append
    cursor: str | None = None
    pages: list[tuple[list[str], int]] = []
    while not pages or cursor is not None:
        page = await store.list(user_id="u", status=None, mint=None, cursor=cursor, limit=1)
        cursor = page.cursor
        pages.append(([order.id for order in page.orders], page.unreadable))
    assert pages == [([], 1), (["c"], 0), ([], 1), (["a"], 0)]
    after: int | None = 0
    fills: list[tuple[list[str], int]] = []
    while after is not None:
        moved, after, _, unreadable = await store.fills("u", after, 2)
        fills.append(([fill.order_id for fill in moved], unreadable))
    assert fills == [(["a"], 1), (["c"], 1), ([], 0)]
    assert store.unreadable.order_ids == {"b", "d"}
    assert heard == [1, 2]


async def test_sinks_hear_every_commit_of_every_process_in_order(store: Store, open_one: Open) -> None:
    other = await open_one()
    heard: list[OrderEvent] = []
    other_heard: list[OrderEvent] = []
    store.attach(heard.extend)
    other.attach(other_heard.extend)
    following = [asyncio.create_task(each.follow()) for each in (store, other)]
    try:
        await place(store, "a")
        await submit(other, await claim_one(other))
        async with asyncio.timeout(10):
            while len(heard) < 4 or len(other_heard) < 4:  # noqa: ASYNC110  (another process's commit tells nobody here)
                await asyncio.sleep(0.005)
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    assert [event.seq for event in heard] == [event.seq for event in other_heard] == [1, 2, 3, 4]


async def test_a_closed_store_is_away(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(TransientError):
        await store.get("a")


def first_steps(order: Order) -> list[Change]:
    """The steps that bring a claimed order to signed bytes."""
    return [Change(kind=EventKind.QUOTED), Change(kind=EventKind.JOURNALED, attempt=attempt_of(order))]


async def test_an_order_may_be_journaled_with_its_acceptance(store: Store, open_one: Open) -> None:
    heard: list[OrderEvent] = []
    store.attach(heard.extend)
    order = new_order("a", 1)
    accepted = await store.accept(order, ["key:k"], "print", lease_ms=1, steps=first_steps(order))
    assert (accepted.claimed, accepted.order.status, accepted.order.seq) == (True, OrderStatus.SUBMITTED, 4)
    assert await store.get("a") == accepted.order
    assert [event.kind for event in heard] == ["accepted", "claimed", "quoted", "journaled"]
    other = await open_one()
    claimed: list[Claimed] = []
    while not claimed:  # until the lease has ended
        claimed = await other.claim(1, LEASE_MS, FREE)
    assert (claimed[0].order.status, claimed[0].attempt) == (OrderStatus.SUBMITTED, attempt_of(order))
    with pytest.raises(LeaseLost):
        await store.apply(accepted.order, landed(accepted.order))


async def test_a_key_that_is_known_takes_none_of_the_steps(store: Store) -> None:
    first = await store.accept(new_order("a", 1), ["key:k"], "print")
    order = new_order("b", 1)
    again = await store.accept(order, ["key:k"], "print", lease_ms=LEASE_MS, steps=first_steps(order))
    assert (again.replayed, again.claimed, again.order) == (True, False, first.order)
    assert await store.get("b") is None
    assert [claimed.attempt for claimed in await store.claim(5, LEASE_MS, FREE)] == [None]


async def test_an_order_that_is_not_claimed_takes_none_of_the_steps(store: Store) -> None:
    for order, lease_ms in ((resting("a"), LEASE_MS), (new_order("b", 1), 0)):
        accepted = await store.accept(order, [], "print", lease_ms=lease_ms, steps=first_steps(order))
        assert (accepted.claimed, accepted.order.status, accepted.order.seq) == (False, OrderStatus.PENDING, 1)
    await store.trigger("a", {})
    for claimed in await store.claim(5, LEASE_MS, FREE):
        assert claimed.attempt is None
        assert (await submit(store, claimed.order)).status is OrderStatus.SUBMITTED, (
            "there is no attempt of this number"
        )
