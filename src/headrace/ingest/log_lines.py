"""Name what the log lines of a program lack, so that its `logs:` subscription delivers less than expected. Pure."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from headrace.programs.register import PROGRAMS

LACKS: Final[Mapping[str, str]] = MappingProxyType(
    {name: facts.log_lines_lack for name, facts in PROGRAMS.items() if facts.log_lines_lack}
)
"""Program → what its log lines lack."""


class Lack(NamedTuple):
    """A subscription, what it can't deliver, and the subscription that delivers it."""

    subscription: str
    meaning: str
    instead: str


def lacks_of(subscribed: Iterable[tuple[str, str]]) -> list[Lack]:
    """Return what is lacking, given (kind of subscription, program's name) for each subscription.

    Nothing is lacking for a program whose whole transactions are subscribed to as well.
    """
    wanted = set(subscribed)
    return [
        Lack(f"logs:{name}", LACKS[name], f"transactions:{name}")
        for kind, name in sorted(wanted)
        if kind == "logs" and name in LACKS and ("transactions", name) not in wanted
    ]
