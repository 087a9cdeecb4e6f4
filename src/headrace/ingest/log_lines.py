"""What the log lines of a program can't say, so that its `logs:` subscription brings less than people expect. Pure."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

NO_EVENTS: Final = "its events are self-CPI instructions, which no log line holds: no trade comes"
NO_DIRECTION: Final = "its log lines name neither pool, mint nor direction: no trade comes"
NO_POOL: Final = "its log lines name neither pool nor mint: trades come without mint"

LACKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "jupiter_v6": NO_EVENTS,
        "meteora_cp_amm": NO_EVENTS,
        "meteora_damm_v1": NO_DIRECTION,
        "meteora_dbc": NO_EVENTS,
        "meteora_dlmm": NO_EVENTS,
        "raydium_amm_v4": NO_POOL,
    }
)
"""Program → what is lacking."""


class Lack(NamedTuple):
    """A subscription, what it can't bring, and the word that brings it."""

    subscription: str
    meaning: str
    instead: str


def lacks_of(subscribed: Iterable[tuple[str, str]]) -> list[Lack]:
    """Return what is lacking, given kinds of subscriptions and the names of the programs after the colon; nothing for a
    program of which whole transactions are subscribed to as well."""
    wanted = set(subscribed)
    return [
        Lack(f"logs:{name}", LACKS[name], f"transactions:{name}")
        for kind, name in sorted(wanted)
        if kind == "logs" and name in LACKS and ("transactions", name) not in wanted
    ]
