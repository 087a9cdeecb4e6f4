"""The mints of pools: requested from a node, kept in a file."""

from headrace.sources.pools.lookup import PoolLookup, PoolSettings

__all__ = ["PoolLookup", "PoolSettings"]
