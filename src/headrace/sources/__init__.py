"""Sources bring chain updates in. This is the port and its contract."""

from typing import Literal, NamedTuple, Protocol, TypeAlias

from headrace.model.updates import AnyUpdate
from headrace.runtime.channel import Channel

Outlet: TypeAlias = Channel[AnyUpdate]
"""Where a source puts its updates: bounded, `block` when full, so a slow pipeline slows the reading, not the memory."""


class Ending(NamedTuple):
    """How a source ended: a value, not an exception. `exhausted`: a recording is over. `stopped`: it was asked to.
    `failed`: it can't go on and says why; a failure that may pass is retried inside the source and never ends it.
    """

    how: Literal["exhausted", "stopped", "failed"]
    detail: str = ""


class Source(Protocol):
    """Delivers updates until it ends.

    Order: updates of one feed come in the order in which the upstream sent them. Delivery: what arrived is put on the
    outlet exactly once per arrival (an upstream repeat is repeated; dedupe is the pipeline's). What the source may have
    missed becomes a GapUpdate on the same outlet, first `open`, then how it ended, after the backfilled updates.
    Bad input is counted and skipped; it never ends a source. Cancellation ends it at once and cleanly.
    """

    name: str

    async def run(self, outlet: Outlet) -> Ending:
        """Deliver until the end; may be called once."""
