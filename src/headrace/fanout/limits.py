"""What bounds the work of the hub, asked for anew each time: these limits may change while the hub runs."""

from collections.abc import Callable
from typing import Protocol, TypeAlias


class HubLimits(Protocol):
    """Bounds of one hub: messages of one replay, nodes of all filters of a topic, and the rest between two writes."""

    @property
    def recover_max(self) -> int: ...

    @property
    def filter_nodes_max(self) -> int: ...

    @property
    def tick_ms(self) -> float: ...


Limits: TypeAlias = Callable[[], HubLimits]
