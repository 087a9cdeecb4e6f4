"""What every chain in the register must do; a new chain is tested by being registered."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from headrace.chains import CHAINS, Chain
from headrace.model.errors import InvariantError
from headrace.model.transactions import Instruction, Signed, memo
from headrace.runtime.clock import ManualClock
from headrace.testing.orders import mock_swap
from tests.contracts.banks import bank_file, local_swap
from tests.contracts.contexts import opened

LOOKS_MAX: Final = 2_000


class Means(msgspec.Struct, frozen=True):
    """How a chain is opened for these tests, and instructions that it can execute, or can't."""

    settings: Callable[[Path], dict[str, Any]]
    swap: Callable[[int], Instruction]
    """Takes the least amount out: with 1 the swap succeeds, with 2**60 it fails on the chain."""


MEANS: Final = {
    "local": Means(lambda folder: {"file": str(bank_file(folder))}, local_swap),
    "mock": Means(lambda folder: {"file": str(folder / "chain.db")}, mock_swap),
}


@dataclass
class Opened:
    """A chain on a clock that stands."""

    chain: Chain
    clock: ManualClock
    means: Means

    async def signed(self, text: str = "o", min_out: int = 1) -> Signed:
        """Return a new transaction with a memo."""
        return self.chain.sign([self.means.swap(min_out), memo(text)], await self.chain.blockhash())

    async def pass_until(self, holds: Callable[[Any], bool], signature: str) -> None:
        """Let time pass until an answer about the signature is as wanted."""
        for _ in range(LOOKS_MAX):
            if holds(await self.chain.look(signature)):
                return
            await self.clock.advance(0.25)
        raise AssertionError("the chain never came there")


@pytest.fixture(params=sorted(CHAINS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def a(name: str, tmp_path: Path) -> AsyncIterator[Opened]:
    async with open_chain(name, tmp_path) as chain:
        yield chain


@asynccontextmanager
async def open_chain(name: str, folder: Path) -> AsyncIterator[Opened]:
    clock, means = ManualClock(), MEANS[name]
    settings = await asyncio.to_thread(means.settings, folder)
    async with opened(CHAINS, name, clock, **settings) as (chain, _):
        yield Opened(chain, clock, means)


async def test_the_same_instructions_and_blockhash_give_the_same_bytes(a: Opened) -> None:
    blockhash = await a.chain.blockhash()
    one, again = (a.chain.sign([a.means.swap(1), memo("o")], blockhash) for _ in range(2))
    assert one == again
    assert one.last_valid_height == blockhash.last_valid_height


async def test_another_memo_amount_or_blockhash_gives_another_signature(a: Opened) -> None:
    signed = [await a.signed(), await a.signed("other"), await a.signed(min_out=2)]
    await a.clock.advance(60)
    signed.append(await a.signed())
    assert len({each.signature for each in signed}) == len({each.raw for each in signed}) == 4


async def test_instructions_that_no_transaction_can_hold_are_refused(a: Opened) -> None:
    with pytest.raises(InvariantError, match="expected"):
        a.chain.sign([], await a.chain.blockhash())


async def test_signing_sends_nothing(a: Opened) -> None:
    signed = await a.signed()
    await a.clock.advance(30)
    assert (await a.chain.look(signed.signature)).landing is None


async def test_a_transaction_lands_and_its_depth_only_grows(a: Opened) -> None:
    signed = await a.signed()
    await a.chain.send(signed)
    depths: list[str] = []

    def final(answer: Any) -> bool:
        if answer.landing is not None:
            depths.append(answer.landing.depth)
        return bool(depths) and depths[-1] == "finalized"

    await a.pass_until(final, signed.signature)
    order = ("processed", "confirmed", "finalized")
    assert [order.index(depth) for depth in depths] == sorted(map(order.index, depths))
    landing = (await a.chain.look(signed.signature)).landing
    assert landing is not None
    assert (landing.err, landing.reason) == (None, None)
    assert landing.amount_out is not None
    assert landing.amount_out >= 1


async def test_identical_bytes_sent_again_change_nothing(a: Opened) -> None:
    signed = await a.signed()
    for _ in range(3):
        await a.chain.send(signed)
    await a.pass_until(
        lambda answer: answer.landing is not None and answer.landing.depth == "finalized", signed.signature
    )
    landed = (await a.chain.look(signed.signature)).landing
    await a.chain.send(signed)
    await a.clock.advance(60)
    assert (await a.chain.look(signed.signature)).landing == landed


async def test_a_swap_below_its_least_amount_fails_with_a_reason_and_gives_nothing(a: Opened) -> None:
    signed = await a.signed(min_out=2**60)
    await a.chain.send(signed)
    await a.pass_until(
        lambda answer: answer.landing is not None and answer.landing.depth == "confirmed", signed.signature
    )
    landing = (await a.chain.look(signed.signature)).landing
    assert landing is not None
    assert landing.err is not None
    assert (landing.reason, landing.amount_out) == ("slippage_exceeded", None)


async def test_bytes_sent_after_their_last_valid_height_never_land(a: Opened) -> None:
    signed = await a.signed()
    while await a.chain.finalized_height() <= signed.last_valid_height:
        await a.clock.advance(10)
    await a.chain.send(signed)
    await a.clock.advance(120)
    answer = await a.chain.look(signed.signature)
    assert answer.landing is None
    assert answer.height > signed.last_valid_height


async def test_heights_grow_and_the_finalized_height_is_behind(a: Opened) -> None:
    before = await a.chain.finalized_height()
    first = await a.chain.blockhash()
    assert before < first.last_valid_height
    await a.clock.advance(30)
    assert await a.chain.finalized_height() > before
    second = await a.chain.blockhash()
    assert second.last_valid_height > first.last_valid_height
    assert second.hash != first.hash
    assert (await a.chain.look("unknown")).height >= await a.chain.finalized_height()


async def test_an_unknown_signature_has_no_landing(a: Opened) -> None:
    assert (await a.chain.look("unknown")).landing is None


async def test_changed_returns_after_its_time_at_the_latest(a: Opened) -> None:
    waiting = asyncio.ensure_future(a.chain.changed("unknown", 5.0))
    while not (a.clock.sleepers or waiting.done()):  # noqa: ASYNC110  (a ledger may be asked first, in a thread)
        await asyncio.sleep(0)
    await a.clock.advance(5.0)
    await asyncio.wait_for(waiting, 60)


async def test_a_chain_opened_again_knows_what_landed(name: str, tmp_path: Path) -> None:
    async with open_chain(name, tmp_path) as before:
        signed = await before.signed()
        await before.chain.send(signed)
    async with open_chain(name, tmp_path) as after:
        await after.pass_until(lambda answer: answer.landing is not None, signed.signature)


async def test_a_chain_that_works_passes_both_checks_has_an_owner_and_closes_twice(a: Opened) -> None:
    await a.chain.check(thorough=False)
    await a.chain.check(thorough=True)
    assert a.chain.owner
    await a.chain.close()
