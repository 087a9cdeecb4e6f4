"""The stores of this room's tests."""

from tests.orders.store.servers import kind_of_store, postgres_url

__all__ = ["kind_of_store", "postgres_url"]
