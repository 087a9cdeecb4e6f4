"""The mints of pools: asked of a node, kept in a file."""

from headrace.sources.pools.lookup import PoolLookup, PoolSettings

__all__ = ["PoolLookup", "PoolSettings"]
