"""Killing, stalling and cutting the upstream loses nothing that is not declared as a gap."""

import asyncio
import random

import pytest

from tests.sources.rpc_pubsub.rig import FEED, PROGRAM, Rig, missing, rig


async def emit_through_faults(rigged: Rig, rng: random.Random, count: int) -> list[tuple[str, int]]:
    """Land `count` transactions while proxies are cut at random bytes, refused and stalled."""
    emitted = []
    for _ in range(count):
        proxy = rng.choice(rigged.proxies)
        match rng.randrange(12):
            case 0:
                proxy.cut()
            case 1 | 2:
                proxy.cut_after(rng.randrange(1, 2000))
            case 3:
                proxy.cut_next_after(rng.randrange(1, 1200))
            case 4:
                proxy.refuse = not proxy.refuse
            case 5:
                proxy.stalled = not proxy.stalled
        for _ in range(rng.randrange(1, 4)):
            landed = rigged.node.emit_transaction([PROGRAM], ["Program log: x" * rng.randrange(20)])
            emitted.append((landed.signature, landed.slot))
        if rng.random() < 0.7:
            rigged.node.advance_slot(skip=rng.choice((0, 0, 0, 1, 3)))
        await asyncio.sleep(rng.choice((0, 0, 0.002)))  # lets some of it through before the next fault
    for proxy in rigged.proxies:
        proxy.refuse = proxy.stalled = False
    return emitted


@pytest.mark.parametrize("endpoints", [1, 2])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3))])
async def test_delivered_and_declared_is_all_that_happened(endpoints: int, seed: int) -> None:
    rng = random.Random(seed)
    async with rig(endpoints) as rigged:
        emitted = await emit_through_faults(rigged, rng, 120)
        await rigged.settled()
        assert missing(rigged, emitted) == set()
        assert all(gap.state != "unrecoverable" for gap in rigged.gaps_of(FEED))
        assert set(emitted) <= rigged.delivered


async def test_what_can_not_be_refilled_is_declared() -> None:
    async with rig(http=False) as rigged:
        emitted = await emit_through_faults(rigged, random.Random(99), 120)
        await rigged.settled()
        assert missing(rigged, emitted) == set()
        assert not set(emitted) <= rigged.delivered
        assert {gap.state for gap in rigged.gaps_of(FEED)} == {"open", "unrecoverable"}


async def test_at_confirmed_commitment_cuts_lose_nothing() -> None:
    async with rig(commitment="confirmed") as rigged:
        emitted = await emit_through_faults(rigged, random.Random(7), 120)
        await rigged.settled()
        await rigged.until(lambda: set(emitted) <= rigged.delivered, flowing=True)


async def test_a_connection_that_ends_at_any_byte_of_a_notification() -> None:
    async with rig(backoff_max_s=0.002) as rigged:
        before = rigged.proxy.passed
        probe = rigged.node.emit_transaction([PROGRAM], ["Program log: x"])
        await rigged.until(lambda: probe.signature in rigged.signatures())
        length = rigged.proxy.passed - before
        assert length > 200
        emitted = []
        for count in (*range(1, 30), *range(30, length + 1, 4)):  # the frame's head byte by byte
            await rigged.covered()
            rigged.proxy.cut_after(count)
            landed = rigged.node.emit_transaction([PROGRAM], ["Program log: x"])
            emitted.append((landed.signature, landed.slot))
            await rigged.node.until(lambda: rigged.node.subscribed("slot") == 0)
        await rigged.settled()
        assert missing(rigged, emitted) == set()
        assert set(emitted) <= rigged.delivered


async def test_a_connection_that_ends_at_any_byte_of_the_handshake_and_the_acks() -> None:
    async with rig() as rigged:
        for count in range(1, 420, 7):
            rigged.proxy.cut_next_after(count)
        rigged.proxy.cut()
        landed = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: rigged.proxy.connections >= 61, flowing=True)
        await rigged.settled()
        assert (landed.signature, landed.slot) in rigged.delivered
