"""Jupiter has no facts of its own: whatever it swaps, another program swaps and records."""

from typing import Final

from headrace.programs.meanings import NO_EVENTS, ProgramFacts

FACTS: Final = ProgramFacts(log_lines_lack=NO_EVENTS)
