"""The pools of each pair of mints, as far as settings, trades, accounts and derived addresses show them. Pure."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from headrace.programs.curves import CURVES

PAIRS_MAX: Final = 20_000
POOLS_PER_PAIR_MAX: Final = 8


class KnownPool(NamedTuple):
    """A pool's key, and its mints in no certain order."""

    key: str
    mints: tuple[str, str]


class KnownPools:
    """Pools by pair. Of each pair those seen last are kept, of all pairs too."""

    def __init__(self) -> None:
        self._pairs: OrderedDict[frozenset[str], OrderedDict[str, None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pairs)

    def learn(self, key: str, mints: Iterable[str]) -> None:
        """Remember a pool that trades these two mints."""
        pair = frozenset(mints)
        if len(pair) != 2:
            return
        pools = self._pairs.setdefault(pair, OrderedDict())
        self._pairs.move_to_end(pair)
        pools[key] = None
        pools.move_to_end(key)
        if len(pools) > POOLS_PER_PAIR_MAX:
            pools.popitem(last=False)
        if len(self._pairs) > PAIRS_MAX:
            self._pairs.popitem(last=False)

    def of(self, one: str, other: str) -> list[KnownPool]:
        """Return the pools of a pair, those seen last first."""
        return [KnownPool(key, (one, other)) for key in reversed(self._pairs.get(frozenset((one, other)), ()))]


def derived_pools(one: str, other: str) -> list[KnownPool]:
    """Return the pools whose addresses follow from their mints, whether they exist or not."""
    found = dict.fromkeys(
        key
        for curve in CURVES.values()
        if curve.derive is not None
        for base, quote in ((one, other), (other, one))
        for key in curve.derive(base, quote)
    )
    return [KnownPool(key, (one, other)) for key in found]
