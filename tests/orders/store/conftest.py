"""The servers of this room's tests."""

from tests.orders.store.servers import postgres_url

__all__ = ["postgres_url"]
