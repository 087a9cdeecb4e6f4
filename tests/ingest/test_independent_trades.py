"""Every trade of all the material in tests/data, confirmed by a computation that shares nothing with the readers."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from headrace.inspect.recognise import recognise
from headrace.model.updates import TransactionUpdate
from tests.ingest.independent import TOKEN_PROGRAMS, confirmations, swap_events
from tests.ingest.test_known_trades import messages, new_pipeline, trades

DATA = Path(__file__).parents[1] / "data"
FOLDERS = (
    "mainnet/transactions",
    "mainnet/simulations",
    "mainnet/local_bank",
    "mainnet/yellowstone_txupdates",
    "trades/more/transactions",
    "trades/more/bank",
    "trades/reported",
    "trades/launches",
)
WITHOUT_TRANSFERS = (
    "clmm_liquidity_20261008__000.json",
    "clmm_one_sided_20261008__000.json",
    "cpmm_liquidity_20261008__001.json",
    "damm_v2_liquidity_20261008__001.json",
    "whirlpool_liquidity_20261008__001.json",
)
"""Runs in a local bank of which only the log lines were kept: what moved is not known, so nothing can be confirmed."""


CONFIRMED = {
    "pump": 45,
    "raydium_cpmm": 20,
    "raydium_amm_v4": 20,
    "raydium_launchlab": 16,
    "meteora_dlmm": 16,
    "pump_amm": 15,
    "raydium_clmm": 11,
    "orca_whirlpool": 7,
    "meteora_cp_amm": 6,
    "moonshot": 1,
}
"""Trades by program, 157 in all."""


def _updates(path: Path) -> Iterator[TransactionUpdate]:
    for found in recognise(path.read_text()):
        assert isinstance(found, TransactionUpdate)
        yield found


FILES = [path for folder in FOLDERS for path in sorted((DATA / folder).glob("*.json")) if path.name != "expected.json"]


@cache
def published(path: Path) -> list[tuple[TransactionUpdate, list[dict[str, Any]]]]:
    """Each transaction of the file, and its trades."""
    return [(update, trades(messages(new_pipeline(), update))) for update in _updates(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem[:12]}")
def test_each_swap_event_is_one_trade_and_confirmed(path: Path) -> None:
    for update, found in published(path):
        wrote = Counter(event.program for event in swap_events(update)) if update.err is None else Counter()
        assert Counter(each["data"]["program"] for each in found) == wrote
        for each in found:
            confirmed = confirmations(update, each["data"], tuple(each["chain"]["ix"]))
            assert bool(confirmed) == (path.name not in WITHOUT_TRANSFERS), each["data"]


def test_how_many_are_confirmed() -> None:
    """The number says that the material is still there, and that each program has some."""
    confirmed = Counter[str]()
    for path in FILES:
        for update, found in published(path):
            for each in found:
                data = each["data"]
                confirmed[data["program"]] += bool(confirmations(update, data, tuple(each["chain"]["ix"])))
    assert +confirmed == CONFIRMED


@pytest.mark.parametrize("name", WITHOUT_TRANSFERS)
def test_exceptions_have_no_transfers(name: str) -> None:
    for update in _updates(DATA / "trades" / "more" / "bank" / name):
        inner = [instruction for instruction in update.instructions if len(instruction.path) > 1]
        assert not {instruction.program_id for instruction in inner} & {*TOKEN_PROGRAMS}
