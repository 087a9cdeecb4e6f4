"""The floor that the overhead is counted from is what the chain's own ledger says."""

import asyncio
from pathlib import Path

import msgspec

from headrace.bench.orders_overhead import QUOTE_MS, _overhead
from headrace.chains.mock import MockChain, MockChainSettings
from headrace.model.amounts import BaseUnits
from headrace.model.transactions import MOCK_SWAP_PROGRAM, Instruction, MockSwap, memo
from headrace.runtime.clock import ManualClock


async def test_the_time_of_quotes_and_chain_is_not_counted_as_overhead(tmp_path: Path) -> None:
    settings = MockChainSettings(file=str(tmp_path / "chain.db"), execution_ms="40")
    chain = MockChain(settings, ManualClock())
    one = BaseUnits(1)
    swap = MockSwap(venue="v", mint_in="a", mint_out="b", amount_in=one, quoted_out=one, min_out=one)
    instruction = Instruction(MOCK_SWAP_PROGRAM, (), msgspec.json.encode(swap))
    await chain.send(chain.sign([instruction, memo("o")], await chain.blockhash()))
    await chain.close()
    took_ms = {"o": QUOTE_MS + 40 + 7.0, "unknown": 1.0}
    told = await asyncio.to_thread(_overhead, took_ms, tmp_path / "chain.db")
    assert told == {"p50_ms": 7.0, "p90_ms": 7.0, "p99_ms": 7.0, "orders": 1}
