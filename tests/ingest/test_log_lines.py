"""What log lines lack is what real transactions show, by their log lines alone and whole."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from headrace.decoders.events import events_of
from headrace.decoders.registry import Programs
from headrace.ingest.log_lines import LACKS, Lack, lacks_of
from headrace.inspect.recognise import recognise
from headrace.model.updates import LogsUpdate, TransactionUpdate
from headrace.programs.meanings import NO_DIRECTION, NO_EVENTS, NO_POOL
from headrace.programs.register import ACCOUNTS
from tests.ingest.mainnet import READERS

DATA = Path(__file__).parents[1] / "data"
PAGE = DATA.parents[1] / "docs" / "how-to" / "connect-a-node.md"
PROGRAMS = Programs.load()
WORDS = {NO_EVENTS: "nothing", NO_DIRECTION: "events, no trades", NO_POOL: "trades without mint"}
"""What the page says of each lack."""


def executed() -> Iterator[TransactionUpdate]:
    for folder in ("mainnet", "trades"):
        for path in sorted((DATA / folder).rglob("*.json")):
            if path.stem in ("INDEX", "expected", "quotes") or "accounts" in path.parts:
                continue
            for found in recognise(path.read_bytes()):
                if isinstance(found, TransactionUpdate) and found.logs is not None and found.err is None:
                    yield found


@cache
def seen() -> tuple[Counter[str], Counter[str]]:
    """Swap events per program, in whole transactions and in their log lines alone."""
    whole, logged = Counter[str](), Counter[str]()
    for update in executed():
        lines = LogsUpdate(
            source="", feed="", received_ns=0, slot=0, signature=update.signature, err=None, logs=update.logs or ()
        )
        for counts, events in ((whole, events_of(update, PROGRAMS)), (logged, events_of(lines, PROGRAMS))):
            counts.update(e.program for e in events if (e.program, e.name) in READERS or e.program == "jupiter_v6")
    return whole, logged


def test_programs_whose_swaps_no_log_line_holds_are_those_named() -> None:
    whole, logged = seen()
    assert sum(whole.values()) > 100
    silent = {program for program in whole if not logged[program]}
    named = {program for program, lack in LACKS.items() if lack == NO_EVENTS}
    assert silent <= named
    assert named - silent <= {"meteora_dbc"}, "of which no transaction is here"


def test_programs_that_are_not_named_have_pools_that_can_be_looked_up_or_name_their_mints() -> None:
    logged = seen()[1]
    asked = {program for (program, _), facts in ACCOUNTS.items() if facts.pool}
    naming_mints = {"pump", "raydium_cpmm"}
    assert {program for program in logged if program not in LACKS} <= asked | naming_mints
    assert LACKS["raydium_amm_v4"] == NO_POOL


@pytest.mark.parametrize(
    ("subscribed", "lacks"),
    [
        ([("logs", "pump"), ("logs", "pump_amm"), ("slots", "")], []),
        (
            [("logs", "meteora_dlmm"), ("logs", "pump")],
            [Lack("logs:meteora_dlmm", NO_EVENTS, "transactions:meteora_dlmm")],
        ),
        ([("logs", "meteora_dlmm"), ("transactions", "meteora_dlmm")], []),
        ([("transactions", "jupiter_v6")], []),
        ([("logs", "raydium_amm_v4")], [Lack("logs:raydium_amm_v4", NO_POOL, "transactions:raydium_amm_v4")]),
    ],
)
def test_subscriptions_that_lack_trades_are_named_with_the_word_that_brings_them(
    subscribed: list[tuple[str, str]], lacks: list[Lack]
) -> None:
    assert lacks_of(subscribed) == lacks


def test_the_how_to_has_a_row_for_every_program_with_trades() -> None:
    page = PAGE.read_text()
    table = page.partition("| program | ")[2].partition("\n\n")[0]
    rows = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert rows >= {program for program, _ in READERS} | LACKS.keys()
    for program, lack in LACKS.items():
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{program}`")]
        assert row.split("|")[2].strip() == WORDS[lack]
