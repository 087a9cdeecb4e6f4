"""Compares the endpoints of a source by the time at which each finishes a block, or misses the block. Pure."""

from typing import Final, NamedTuple

SLOTS_KEPT: Final = 64
"""Maximum number of blocks that are remembered. An endpoint that has not finished a block by then has missed it."""


class Place(NamedTuple):
    """Result of a finished block.

    `behind_s` is the endpoint's delay after the first endpoint; `missed` names the endpoints that missed older blocks.
    """

    behind_s: float
    missed: tuple[str, ...] = ()


class Race:
    """Comparison of endpoints by name. A block counts for the endpoints that were present when it was first finished.

    An endpoint is present from `enter` to `leave`.
    """

    def __init__(self) -> None:
        self._present: set[str] = set()
        self._blocks: dict[int, tuple[float, set[str]]] = {}
        """By slot: when its block was first finished, and the endpoints that have not finished it."""

    def enter(self, name: str) -> None:
        """Add an endpoint, which delivers everything from now on."""
        self._present.add(name)

    def leave(self, name: str) -> None:
        """Remove an endpoint; no block counts as missed by it any more."""
        self._present.discard(name)
        for _, lacking in self._blocks.values():
            lacking.discard(name)

    def finished(self, name: str, slot: int, now: float) -> Place | None:
        """Return the endpoint's place for a block that it finished.

        None: the block is old, was finished by the endpoint before, or does not count for the endpoint.
        """
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
        """Forget the oldest blocks; return the name of each endpoint that missed one, once per block."""
        missed: list[str] = []
        while len(self._blocks) > SLOTS_KEPT:
            _, lacking = self._blocks.pop(min(self._blocks))
            missed += sorted(lacking)
        return tuple(missed)
