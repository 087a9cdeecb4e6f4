"""What the log lines of a program can't say, so that its `logs:` subscription brings less than people expect. Pure."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from headrace.programs.register import PROGRAMS

LACKS: Final[Mapping[str, str]] = MappingProxyType(
    {name: facts.log_lines_lack for name, facts in PROGRAMS.items() if facts.log_lines_lack}
)
"""Program → what is lacking."""


class Lack(NamedTuple):
    """A subscription, what it can't bring, and the word that brings it."""

    subscription: str
    meaning: str
    instead: str


def lacks_of(subscribed: Iterable[tuple[str, str]]) -> list[Lack]:
    """Return what is lacking, given kinds of subscriptions and the names of the programs after the colon.

    Nothing is lacking for a program of which whole transactions are subscribed to as well.
    """
    wanted = set(subscribed)
    return [
        Lack(f"logs:{name}", LACKS[name], f"transactions:{name}")
        for kind, name in sorted(wanted)
        if kind == "logs" and name in LACKS and ("transactions", name) not in wanted
    ]
