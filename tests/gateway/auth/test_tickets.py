"""Tickets: once, for seconds, bounded in number, and their holder's permissions with them."""

import msgspec
import pytest

from headrace.gateway.auth.tickets import PER_SUBJECT_MAX, MemoryTickets
from headrace.model.errors import RequestError
from headrace.model.identity import Identity, Permissions
from headrace.runtime.clock import ManualClock
from tests.gateway.auth.checking import NOW_S, open_checker
from tests.gateway.issuer import HS256

WHO = Identity("42", (NOW_S + 3600) * 1000, Permissions.of(["slots"]))


def tickets(clock: ManualClock, tickets_max: int = 100) -> MemoryTickets:
    return MemoryTickets(clock, ticket_s=30, tickets_max=tickets_max)


async def test_a_ticket_is_accepted_once() -> None:
    store = tickets(ManualClock())
    ticket = await store.issue(WHO)
    assert len(ticket) >= 43
    assert await store.redeem(ticket) == WHO
    assert await store.redeem(ticket) is None
    assert len(store) == 0


async def test_a_ticket_expires() -> None:
    clock = ManualClock()
    store = tickets(clock)
    early, late = await store.issue(WHO), await store.issue(WHO)
    await clock.advance(29.9)
    assert await store.redeem(early) == WHO
    await clock.advance(0.1)
    assert await store.redeem(late) is None
    assert len(store) == 0


@pytest.mark.parametrize("ticket", ["", "x", "x" * 129, "x" * 1_000_000, "\ud800", "ж"])
async def test_an_unknown_ticket_is_refused(ticket: str) -> None:
    store = tickets(ManualClock())
    await store.issue(WHO)
    assert await store.redeem(ticket) is None
    assert len(store) == 1


async def test_one_user_gets_no_more_tickets_than_its_share() -> None:
    clock = ManualClock()
    store = tickets(clock, tickets_max=PER_SUBJECT_MAX + 2)
    for _ in range(PER_SUBJECT_MAX):
        await store.issue(WHO)
    for subject, allowed in (("42", False), ("43", True), ("44", True), ("45", False)):
        try:
            await store.issue(WHO._replace(subject=subject))
            assert allowed
        except RequestError as refused:
            assert (allowed, refused.code, refused.temporary) == (False, 111, True)
    await clock.advance(30)
    await store.issue(WHO)
    assert len(store) == 1


async def test_a_ticket_has_the_identity_and_expiry_of_its_token() -> None:
    async with open_checker(msgspec.structs.replace(HS256, ticket_s=60)) as opened:
        identity = await opened.show(opened.token(ttl_s=20, topics=["slots"]))
        assert isinstance(identity, Identity)
        first, second = await opened.auth.tickets.issue(identity), await opened.auth.tickets.issue(identity)
        assert await opened.show(first, "ticket") == identity
        assert await opened.show(first, "ticket") == 101
        assert await opened.show(first, "token") == 101
        assert await opened.show(opened.token(), "ticket") == 101
        await opened.clock.advance(25)  # the token's time, and the tolerance, are over before the ticket's
        assert await opened.show(second, "ticket") == 109
