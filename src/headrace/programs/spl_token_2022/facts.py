"""Mints of the token program with extensions."""

from typing import Final

from headrace.programs.meanings import AccountFacts, ProgramFacts, mint_account

FACTS: Final = ProgramFacts(accounts={"Mint": AccountFacts(mints=mint_account)})
