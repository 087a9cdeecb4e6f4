"""Jupiter has no facts of its own: each of its swaps is made and recorded by another program."""

from typing import Final

from headrace.programs.meanings import NO_EVENTS, ProgramFacts

FACTS: Final = ProgramFacts(log_lines_lack=NO_EVENTS)
