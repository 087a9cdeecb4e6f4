"""A bank file with one real pool, and a swap there, for adapters that work on a bank."""

import json
from functools import cache
from pathlib import Path
from typing import Final

from headrace.chains.local import WALLET
from headrace.model.amounts import BaseUnits
from headrace.model.keys import WSOL_MINT
from headrace.model.transactions import Instruction
from headrace.programs.quoting import TOKEN_PROGRAM
from headrace.programs.swapping import Order, token_account
from headrace.programs.swaps import SWAPS
from tests.mainnet import FOLDER
from tests.programs.banks import BYTES, manifest, token_data
from tests.programs.sets import pool

SET: Final = "raydium_amm_v4/sol_usdc_58oQCh_20261002"
AMOUNT: Final = BaseUnits(10**6)


def bank_file(folder: Path, *, needs_programs: bool = True) -> Path:
    """Write a bank of a SOL-USDC pool whose program is there, and a wallet with wrapped SOL; return its path.

    Skips the test where there are no program bytes; without `needs_programs` the bank then has none.
    """
    path = folder / "bank.json"
    if path.exists():
        return path
    document = json.loads((FOLDER / "accounts" / f"{SET}.json").read_text())
    programs = []
    if needs_programs or (BYTES / "MANIFEST.json").is_file():
        for name in ("raydium_amm_v4", "spl_token"):
            entry = manifest()[name]
            programs.append(
                {"pubkey": entry["program_id"], "file": str(BYTES / f"{name}.so.xz"), "size": entry["size"]}
            )
    given = pool(SET)
    for mint in given.mints:
        data = token_data(WALLET, mint, 10**12, TOKEN_PROGRAM)
        account = {"owner": TOKEN_PROGRAM, "data": [data, "base64"], "lamports": 2_039_280 + 10**12}
        document["accounts"].append({"pubkey": token_account(WALLET, mint, given.accounts), "account": account})
    kept = {"accounts": document["accounts"], "captured": document["captured"], "programs": programs}
    path.write_text(json.dumps(kept))
    return path


@cache
def local_swap(min_out: int) -> Instruction:
    """A swap of wrapped SOL that brings at least so much."""
    given = pool(SET)
    quote = given.quote(WSOL_MINT, AMOUNT)
    return SWAPS[given.venue].build(Order(quote=quote, user=WALLET, limit=min_out), given.accounts)
