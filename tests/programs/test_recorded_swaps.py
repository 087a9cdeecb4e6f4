"""Swaps that mainnet's nodes simulated: quoted from the reserves that the program logged, they come out the same.

Each case names the simulation in tests/data/mainnet/simulations whose event the numbers are from.
"""

from typing import Any, Final, NamedTuple

import pytest

from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.programs.quoting import Account
from tests.programs.sets import Pool, pool


class Recorded(NamedTuple):
    """A simulated swap. `reserves` replaces the amounts in token accounts, by the field that names the account."""

    simulation: str
    name: str
    mint: str
    amount: int
    out: int
    fees: dict[str, int]
    reserves: dict[str, int] = {}


COIN: Final = "mtCXje1XCpF8Z3BptaJ4AngDERanJtC9grXicrHpump"
STOCK: Final = "Xsc9qvGR1efVDFGLrVsmkzv3qi45LTBjeUKSPmx9qEh"
RECORDED: Final = [
    Recorded("109358e8", "pump/curve_8d4zoL_20261004", WSOL_MINT, 10_000, 96_646_344, {"protocol": 94, "creator": 30}),
    Recorded(
        "477ba60a", "pumpswap/sol_ExeEkq_20261004_sell", WSOL_MINT, 10_000, 162_551,
        {"lp": 20, "protocol": 5, "creator": 25},
        {"pool_base_token_account": 16_999_098_559_341, "pool_quote_token_account": 1_022_850_655_244},
    ),
    Recorded(
        "d3829201", "pumpswap/sol_ExeEkq_20261004_sell", COIN, 100_000_000, 6_096_773,
        {"lp": 12_255, "protocol": 3_064, "creator": 15_319},
        {"pool_base_token_account": 16_989_644_836_851, "pool_quote_token_account": 1_023_447_068_060},
    ),
    Recorded(
        "cceea98e", "meteora_damm_v2/sol_token2022_4kuAXo_20261004", WSOL_MINT, 10_000, 1_406_390_225_548,
        {"lp": 1_126_238_420, "protocol": 281_559_604},
    ),
    Recorded(
        "b2feac0e", "raydium_launchlab/stock_BmQj9p_20261002", STOCK, 50_201, 34_917_157_889 - 349_171_579,
        {"protocol": 126, "platform": 502, "transfer": 349_171_579},
    ),
    *(
        Recorded(
            simulation, "raydium_amm_v4/sol_usdc_58oQCh_20261002", mint, amount, out, {"lp": -(-amount * 25 // 10_000)},
            # The log has reserves; the vaults hold what others may take beside.
            {"token_coin": coin + 38_241_292, "token_pc": pc + 4_648_778},
        )
        for simulation, mint, amount, coin, pc, out in (
            ("0d220074", USDC_MINT, 10_000, 153_554_027_525_763, 18_439_298_159_525, 83_067),
            ("6429874f", USDC_MINT, 10_000, 152_516_953_838_766, 18_586_633_097_593, 81_852),
            ("b2feac0e", WSOL_MINT, 1_000_000, 152_517_901_385_379, 18_586_518_116_509, 121_559),
            ("caf34acc", USDC_MINT, 1_000, 125_644_023_161_292, 15_255_556_767_091, 8_211),
        )
    ),
]  # fmt: skip


def with_reserves(given: Pool, reserves: dict[str, int]) -> Pool:
    """The set with other amounts in the pool's token accounts."""
    accounts = dict(given.accounts)
    fields: Any = accounts[given.key].fields
    for field, amount in reserves.items():
        vault = accounts[fields[field]]
        changed = {**vault.fields, "amount": amount}
        accounts[fields[field]] = Account(vault.owner, vault.data, vault.program, vault.name, changed)
    return given._replace(accounts=accounts)


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case.name.partition('/')[0]}-{case.simulation}")
def test_a_simulated_swap_is_quoted_as_the_node_executed_it(case: Recorded) -> None:
    found = with_reserves(pool(case.name), case.reserves).quote(case.mint, case.amount)
    assert (found.amount_in, found.amount_out) == (case.amount, case.out)
    assert {fee.to: fee.amount for fee in found.fees} == case.fees
