"""Compares the endpoints of a source by the blocks that each finishes: first, behind the first, or never. Pure."""

from typing import Final, NamedTuple

SLOTS_KEPT: Final = 64
"""Slots after which a block that an endpoint has not finished counts as missed."""


class Place(NamedTuple):
    """What a finished block shows: how far its endpoint is behind the first, and who missed older blocks."""

    behind_s: float
    missed: tuple[str, ...] = ()


class Race:
    """Endpoints by name, from `enter` to `leave`. A block counts for those present when it was first finished."""

    def __init__(self) -> None:
        self._present: set[str] = set()
        self._blocks: dict[int, tuple[float, set[str]]] = {}
        """Slot → when it was first finished, and the endpoints that have not finished it."""

    def enter(self, name: str) -> None:
        """Let an endpoint take part: it delivers everything from now on."""
        self._present.add(name)

    def leave(self, name: str) -> None:
        """Let an endpoint go; it misses nothing any more."""
        self._present.discard(name)
        for _, lacking in self._blocks.values():
            lacking.discard(name)

    def finished(self, name: str, slot: int, now: float) -> Place | None:
        """Take a block that an endpoint finished; None for one that it finished before, or that is long over."""
        known = self._blocks.get(slot)
        if known is None:
            if name not in self._present or slot <= max(self._blocks, default=slot) - SLOTS_KEPT:
                return None
            self._blocks[slot] = now, self._present - {name}
            return Place(0.0, self._over())
        began, lacking = known
        if name not in lacking:
            return None
        lacking.discard(name)
        return Place(now - began)

    def _over(self) -> tuple[str, ...]:
        """Forget the oldest blocks; return, for each that an endpoint missed, the endpoint's name."""
        missed: list[str] = []
        while len(self._blocks) > SLOTS_KEPT:
            _, lacking = self._blocks.pop(min(self._blocks))
            missed += sorted(lacking)
        return tuple(missed)
