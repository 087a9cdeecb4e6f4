"""Bounds on the work of the hub, read anew for each use, as they may change while the hub runs."""

from collections.abc import Callable
from typing import Protocol, TypeAlias


class HubLimits(Protocol):
    """Bounds of one hub, as the settings of the gateway name them."""

    @property
    def recover_max(self) -> int:
        """Return the most messages that are replayed to, or held for, one subscription."""

    @property
    def filter_nodes_max(self) -> int:
        """Return the most nodes of all distinct filters on one topic."""

    @property
    def tick_ms(self) -> float:
        """Return the rest between two writes, in milliseconds."""


Limits: TypeAlias = Callable[[], HubLimits]
