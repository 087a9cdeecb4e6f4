"""The mock chain's dangers, one by one, on a clock that stands."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.chains.mock import MockChain, MockChainSettings
from headrace.model.errors import ConfigError, InvariantError, TransientError
from headrace.model.transactions import MOCK_SWAP_PROGRAM, Instruction, Signed, memo
from headrace.runtime.clock import ManualClock
from headrace.testing.orders import mock_swap

BLOCK_MS, VALIDITY, FINALITY = 250, 150, 32
SWAP = mock_swap(90)
Chain = tuple[MockChain, ManualClock]


@asynccontextmanager
async def opened(folder: Path, clock: ManualClock | None = None, **settings: Any) -> AsyncIterator[Chain]:
    clock = clock or ManualClock()
    chain = MockChain(MockChainSettings(file=str(folder / "chain.db"), **settings), clock)
    try:
        yield chain, clock
    finally:
        await chain.close()


async def signed(chain: MockChain, order_id: str = "o", *, min_out: int = 90) -> Signed:
    return chain.sign([mock_swap(min_out), memo(order_id)], await chain.blockhash())


async def depths(chain: MockChain, clock: ManualClock, it: Signed, for_ms: int) -> list[str | None]:
    """How deep a transaction is seen, block by block; what repeats is left out."""
    seen: list[str | None] = []
    for _ in range(0, for_ms + 1, BLOCK_MS):
        landing = (await chain.look(it.signature)).landing
        depth = None if landing is None else landing.depth
        if not seen or seen[-1] != depth:
            seen.append(depth)
        await clock.advance(BLOCK_MS / 1000)
    return seen


async def test_a_transaction_goes_its_way_and_is_executed_once_however_often_it_is_sent(tmp_path: Path) -> None:
    async with opened(tmp_path) as (chain, clock):
        it = await signed(chain)
        for _ in range(3):
            await chain.send(it)
        assert await depths(chain, clock, it, 15_000) == [None, "processed", "confirmed", "finalized"]
        await chain.send(it)
        assert await chain.executions() == {"o": 1}
        other = await signed(chain)
        await chain.send(other)
        await clock.advance(5)
        assert await chain.executions() == {"o": 2}, "other bytes are another execution"


async def test_confirmation_takes_two_to_three_seconds_unless_told_otherwise(tmp_path: Path) -> None:
    async with opened(tmp_path) as (chain, clock):
        its = [await signed(chain, f"o{n}") for n in range(20)]
        for it in its:
            await chain.send(it)
        await clock.advance(1.99)
        assert await chain.executions() == {}
        await clock.advance(1.02)
        assert len(await chain.executions()) == 20


async def test_heights_grow_with_time_and_a_blockhash_ends(tmp_path: Path) -> None:
    async with opened(tmp_path) as (chain, clock):
        first = await chain.blockhash()
        height = first.last_valid_height - VALIDITY
        assert await chain.finalized_height() == height - FINALITY
        it = await signed(chain)
        await clock.advance((VALIDITY + 1) * BLOCK_MS / 1000)
        assert (await chain.look(it.signature)).height == first.last_valid_height + 1
        await chain.send(it)
        await clock.advance(60)
        assert (await chain.look(it.signature)).landing is None, "beyond its height it never lands"
        assert await chain.executions() == {}


async def test_what_was_late_lands_within_its_last_block_or_the_one_before(tmp_path: Path) -> None:
    async with opened(tmp_path, late=1.0) as (chain, clock):
        it = await signed(chain)
        await chain.send(it)
        await clock.advance((VALIDITY - 1) * BLOCK_MS / 1000)
        assert (await chain.look(it.signature)).landing is None
        await clock.advance(2 * BLOCK_MS / 1000)
        assert (await chain.look(it.signature)).landing is not None


async def test_a_dropped_send_arrives_nowhere(tmp_path: Path) -> None:
    async with opened(tmp_path, drop=1.0) as (chain, clock):
        it = await signed(chain)
        await chain.send(it)
        await clock.advance(60)
        assert (await chain.look(it.signature)).landing is None


async def test_on_a_fork_that_dies_it_is_seen_and_gone_and_seen_again(tmp_path: Path) -> None:
    async with opened(tmp_path, fork=1.0, late=1.0) as (chain, clock):
        it = await signed(chain)
        await chain.send(it)
        seen = await depths(chain, clock, it, 40_000)
        assert seen[:4] == [None, "processed", None, "processed"]


async def test_a_lagging_node_knows_less_and_says_how_far_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path, execution_ms="0", lag=1.0) as (chain, _):
        it = await signed(chain)
        await chain.send(it)
        behind = []
        for _ in range(30):
            answer = await chain.look(it.signature)
            now = (await chain.finalized_height()) + FINALITY
            behind.append(now - answer.height)
            assert (answer.landing is None) == (answer.height < it.last_valid_height - VALIDITY)
        assert 0 <= min(behind) < max(behind) <= 20
        assert len(set(behind)) > 3, "contradictory"


async def test_a_call_that_fails_says_so_and_a_send_that_fails_may_have_arrived(tmp_path: Path) -> None:
    async with opened(tmp_path, execution_ms="0", error=0.5) as (chain, _):
        arrived, failed = set(), set()
        for number in range(60):
            try:
                it = await signed(chain, f"o{number}")
            except TransientError:
                continue
            try:
                await chain.send(it)
            except TransientError:
                failed.add(f"o{number}")
        arrived = set(await chain.executions())
        assert failed & arrived
        assert failed - arrived


@pytest.mark.parametrize(("min_out", "filled"), [(90, True), (106, False)])
async def test_the_chain_fills_nothing_below_the_limit(tmp_path: Path, min_out: int, filled: bool) -> None:
    async with opened(tmp_path, execution_ms="0", drift_bps=500) as (chain, _):
        it = await signed(chain, min_out=min_out)
        await chain.send(it)
        landing = (await chain.look(it.signature)).landing
        assert landing is not None
        assert (landing.err is None, landing.reason) == (filled, None if filled else "slippage_exceeded")
        assert landing.amount_out is None if not filled else 95 <= (landing.amount_out or 0) <= 105
        assert await chain.executions() == ({"o": 1} if filled else {})


async def test_the_same_seed_draws_the_same_fates(tmp_path: Path) -> None:
    async def fates(name: str, seed: int) -> list[Any]:
        (tmp_path / name).mkdir()
        async with opened(tmp_path / name, seed=seed, fork=0.5, late=0.5) as (chain, clock):
            its = [await signed(chain, f"o{n}") for n in range(10)]
            for it in its:
                await chain.send(it)
            seen = []
            for _ in range(20):
                seen.append([(await chain.look(it.signature)).landing for it in its])
                await clock.advance(BLOCK_MS / 1000)
            return seen

    assert await fates("a", 1) == await fates("b", 1) != await fates("c", 2)


async def test_processes_that_share_the_file_share_the_chain(tmp_path: Path) -> None:
    async with (
        opened(tmp_path, execution_ms="0") as (one, clock),
        opened(tmp_path, clock, execution_ms="0") as (two, _),
    ):
        it = await signed(one)
        await one.send(it)
        assert (await two.look(it.signature)).landing is not None
        assert await two.executions() == {"o": 1}


async def test_the_news_is_waited_for_no_longer_than_it_takes(tmp_path: Path) -> None:
    async with opened(tmp_path, execution_ms="2000") as (chain, clock):
        it = await signed(chain)
        await chain.send(it)
        await _waits(clock, lambda: chain.changed(it.signature, 60), 2.0)
        await _waits(clock, lambda: chain.changed("unknown", 0.5), 0.5)


async def _waits(clock: ManualClock, wait: Callable[[], Any], expected_s: float) -> None:
    task = asyncio.ensure_future(wait())
    while not clock.sleepers:  # noqa: ASYNC110  (the clock tells nobody)
        await asyncio.sleep(0)
    await clock.advance(expected_s - 0.001)
    assert not task.done()
    await clock.advance(0.002)
    assert task.done()


async def test_a_range_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        MockChain(MockChainSettings(file=str(tmp_path / "c.db"), execution_ms="3-2"), ManualClock())


UNREADABLE = Instruction(MOCK_SWAP_PROGRAM, (), b"{}")


@pytest.mark.parametrize("given", [[], [SWAP], [SWAP, SWAP, memo("o")], [UNREADABLE, memo("o")]])
async def test_instructions_other_than_a_swap_and_a_memo_are_not_signed(
    tmp_path: Path, given: list[Instruction]
) -> None:
    async with opened(tmp_path) as (chain, _):
        with pytest.raises(InvariantError, match="expected"):
            chain.sign(given, await chain.blockhash())


async def test_bytes_signed_by_version_0_1_0_are_still_executed(tmp_path: Path) -> None:
    """An order that was submitted before an update is stored with these bytes."""
    async with opened(tmp_path, execution_ms="0") as (chain, _):
        height = (await chain.blockhash()).last_valid_height
        old = (
            b'[{"memo":"old","venue":"raydium","mint_in":"a","mint_out":"b","amount_in":1,"quoted_out":100,"min_out":9}'
            b',{"hash":"bh1","last_valid_height":%d}]' % height
        )
        await chain.send(Signed("s", old, height))
        assert await chain.executions() == {"old": 1}
