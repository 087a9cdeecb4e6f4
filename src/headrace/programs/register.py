"""Register of the programs' facts, which say what events and accounts mean."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from headrace.programs import SHIPPED
from headrace.programs.meanings import AccountFacts, EventFacts, ProgramFacts


def _find() -> dict[str, ProgramFacts]:
    """Import the `facts.py` of each program folder that has it."""
    names = sorted(path.parent.name for path in SHIPPED.glob("*/facts.py"))
    return {name: import_module(f"headrace.programs.{name}.facts").FACTS for name in names}


PROGRAMS: Final[Mapping[str, ProgramFacts]] = MappingProxyType(_find())
"""Facts by program name. Jupiter's facts have no trades, as its events only repeat swaps of other programs."""

EVENTS: Final[Mapping[tuple[str, str], EventFacts]] = MappingProxyType(
    {(program, name): event for program, facts in PROGRAMS.items() for name, event in facts.events.items()}
)
"""Meanings of events by (program, event)."""

ACCOUNTS: Final[Mapping[tuple[str, str], AccountFacts]] = MappingProxyType(
    {(program, name): account for program, facts in PROGRAMS.items() for name, account in facts.accounts.items()}
)
"""Meanings of accounts by (program, account)."""
