"""Finds the facts of every program folder, and looks up what an event or account means."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from headrace.programs import SHIPPED
from headrace.programs.meanings import AccountFacts, EventFacts, ProgramFacts


def _find() -> dict[str, ProgramFacts]:
    """Import `facts.py` of each folder that has one."""
    names = sorted(path.parent.name for path in SHIPPED.glob("*/facts.py"))
    return {name: import_module(f"headrace.programs.{name}.facts").FACTS for name in names}


PROGRAMS: Final[Mapping[str, ProgramFacts]] = MappingProxyType(_find())
"""Program → its facts, if it has any. Jupiter's events repeat swaps of other programs, so they are no trades."""

EVENTS: Final[Mapping[tuple[str, str], EventFacts]] = MappingProxyType(
    {(program, name): event for program, facts in PROGRAMS.items() for name, event in facts.events.items()}
)
"""(program, event) → what the event means."""

ACCOUNTS: Final[Mapping[tuple[str, str], AccountFacts]] = MappingProxyType(
    {(program, name): account for program, facts in PROGRAMS.items() for name, account in facts.accounts.items()}
)
"""(program, account) → what the account means."""
