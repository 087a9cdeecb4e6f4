"""Sources bring chain updates in: the port with its contract, and the register."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.adapters import Register
from headrace.config import Setting
from headrace.model.updates import AnyUpdate
from headrace.runtime.channel import Channel

Outlet: TypeAlias = Channel[AnyUpdate]
"""Where a source puts its updates: bounded, `block` when full, so a slow pipeline slows the reading, not the memory."""

NOTHING_COVERED: Final[Mapping[str, int]] = MappingProxyType({})


class Ending(NamedTuple):
    """End of a source, as a value and not an exception.

    `exhausted`: a recording is over. `stopped`: the source was stopped. `failed`: the source can't go on, and `detail`
    says why; a failure that may pass is retried inside the source and never ends it.
    """

    how: Literal["exhausted", "stopped", "failed"]
    detail: str = ""


class Source(Protocol):
    """Delivers updates until it ends.

    Order: updates of one feed come in the order in which the upstream sent them. Delivery: each arrival is put on the
    outlet exactly once (an upstream repeat is repeated; the pipeline drops repeats). What the source may have missed
    becomes a GapUpdate on the same outlet, first `open`, then how it ended, after the backfilled updates.
    Bad input is counted and skipped; it never ends a source. Cancellation ends it at once and cleanly.
    """

    name: str

    @property
    def covered(self) -> Mapping[str, int]:
        """Feed → the slot up to which everything was delivered or declared as a gap.

        Brought up to date when `run` ends. Empty for a source that does not follow the chain.
        """

    async def run(self, outlet: Outlet, covered: Mapping[str, int] = NOTHING_COVERED) -> Ending:
        """Deliver until the end; may be called once.

        `covered` is that of an earlier source of the same kind: what was missed since then is a gap.
        """

    def update_subscriptions(self, texts: Sequence[str]) -> None:
        """Change the subscriptions while running, without an interruption of the feeds that stay.

        Raises ConfigError, and changes nothing, for a text that can't be parsed. A source without subscriptions does
        nothing.
        """


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources]`: which sources the service has."""

    kinds: Annotated[
        tuple[str, ...],
        Setting(
            "sources that run at the same time, by their names in the register; none: those whose endpoints are set",
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
