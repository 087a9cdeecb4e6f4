"""Servers that the contracts of several adapters need."""

from tests.orders.store.servers import kind_of_store, postgres_url, store_place
from tests.redis.servers import valkey

__all__ = ["kind_of_store", "postgres_url", "store_place", "valkey"]
