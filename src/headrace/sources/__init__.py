"""Sources deliver updates from the chain: the port with its contract, and the register."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.adapters import Register
from headrace.config import Setting
from headrace.model.updates import AnyUpdate
from headrace.runtime.channel import Channel

Outlet: TypeAlias = Channel[AnyUpdate]
"""Queue into which a source puts its updates. If it is full, the source waits, so a slow pipeline slows the reading."""

NOTHING_COVERED: Final[Mapping[str, int]] = MappingProxyType({})


class Ending(NamedTuple):
    """Reason why a source ended; a value, not an exception.

    - `exhausted`: a recording is over.
    - `stopped`: the source was stopped.
    - `failed`: the source can't continue. `detail` is the reason.

    A failure that may pass never ends a source: the source tries again.
    """

    how: Literal["exhausted", "stopped", "failed"]
    detail: str = ""


class Source(Protocol):
    """Delivers updates until it ends.

    Order: the updates of a feed come in the order in which the upstream sent them.
    Delivery: each arrival is put on the outlet exactly once. If the upstream repeats an update, so does the source; the
    pipeline drops repeats. Slots in which the source may have missed something become a GapUpdate on the same outlet:
    first `open`, then, after the backfilled updates, its end. Bad input is counted and skipped, and never ends a
    source. Cancellation ends it at once and cleanly.
    """

    name: str

    @property
    def covered(self) -> Mapping[str, int]:
        """Feed → the slot up to which everything was delivered or declared as a gap.

        The value is complete once `run` has ended. It is empty for a source that does not follow the chain.
        """

    async def run(self, outlet: Outlet, covered: Mapping[str, int] = NOTHING_COVERED) -> Ending:
        """Deliver until the end; may be called once.

        `covered` comes from an earlier source of the same kind: whatever was missed since then is a gap.
        """

    def update_subscriptions(self, texts: Sequence[str]) -> None:
        """Change the subscriptions of a running source without interrupting the feeds that stay.

        Raises ConfigError, and changes nothing, for a text that can't be parsed. Does nothing if the source has no
        subscriptions.
        """


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[sources]`: which sources the service has."""

    kinds: Annotated[
        tuple[str, ...],
        Setting(
            "sources that run at the same time, by their names in the register; empty: those whose endpoints are set",
            env=("SOURCES",),
        ),
    ] = ()


SOURCES: Final = Register[Source](
    "sources",
    {
        "rpc_pubsub": "headrace.sources.rpc_pubsub:RpcPubSub",
        "yellowstone": "headrace.sources.yellowstone:Yellowstone",
        "recording": "headrace.sources.recording:Recording",
    },
)
"""All sources. `[sources] kinds` names those that are used."""
